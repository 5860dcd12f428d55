//! Temperature scaling (Guo et al. 2017, arXiv 1706.04599): one number that makes probabilities as sure as they are right.

use serde::{Deserialize, Serialize};

use super::measured::log_loss;
use super::{ScoreError, Scored};

/// The bounds of a fitted temperature. Networks that were trained to the end have about 1.5 to 3.
const BOUNDS: (f64, f64) = (0.05, 20.0);

/// The temperature with the smallest log loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemperatureFit {
    /// What logits are divided by, in [0.05, 20].
    pub temperature: f64,
    /// How the search ended; only a minimum is worth using.
    pub end: TemperatureEnd,
    /// The samples that it was fitted on.
    pub samples: u64,
    /// Their log loss at temperature 1.
    pub log_loss_before: f64,
    /// Their log loss at `temperature`.
    pub log_loss_after: f64,
}

/// How the search for a temperature ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureEnd {
    /// At the minimum.
    Minimum,
    /// At the lower bound: the surer, the better, as where every prediction is right.
    LowerBound,
    /// At the upper bound: the less sure, the better, as where predictions are no better than chance.
    UpperBound,
    /// At 1, as no temperature is better than another: the logits of each sample are equal, or exclude its class.
    Undetermined,
}

impl TemperatureFit {
    /// The temperature to predict with: the fitted one, or 1 where the samples do not determine one.
    pub fn usable(&self) -> f64 {
        if self.end == TemperatureEnd::Minimum { self.temperature } else { 1.0 }
    }

    /// What came of it, in a line.
    pub fn in_words(&self) -> String {
        let TemperatureFit { temperature, samples, log_loss_before, log_loss_after, end } = self;
        match end {
            TemperatureEnd::Minimum => format!(
                "temperature {temperature:.3}, fitted on {samples} samples: log loss {log_loss_before:.4} -> \
                 {log_loss_after:.4}"
            ),
            TemperatureEnd::LowerBound => format!(
                "no temperature: on these {samples} samples the surest is the best, as every prediction is right or \
                 nearly so"
            ),
            TemperatureEnd::UpperBound => format!(
                "no temperature: on these {samples} samples the least sure is the best, as predictions are no better \
                 than chance"
            ),
            TemperatureEnd::Undetermined => {
                format!("no temperature: on these {samples} samples none is better than another")
            }
        }
    }
}

/// The mean slope and curvature of the loss in β = 1 / temperature, in which it is convex: the mean of z under the
/// probabilities less that of the true class, and the variance of z.
fn derivatives(scored: &Scored, samples: &[usize], beta: f64) -> (f64, f64) {
    let (mut slope, mut curvature) = (0.0, 0.0);
    for &sample in samples {
        let (mut mean, mut square) = (0.0, 0.0);
        // Measured from the logit of the true class, which is finite.
        let own = f64::from(scored.logits(sample)[scored.labels()[sample] as usize]);
        for (p, logit) in scored.probabilities(sample, 1.0 / beta).into_iter().zip(scored.logits(sample)) {
            if p > 0.0 {
                let z = f64::from(*logit) - own;
                mean += p * z;
                square += p * z * z;
            }
        }
        slope += mean;
        curvature += (square - mean * mean).max(0.0);
    }
    let n = samples.len() as f64;
    (slope / n, curvature / n)
}

/// Fits the temperature on samples that the network was not trained on, by Newton's method in its logarithm, kept within a
/// bracket.
///
/// Samples whose class has a probability of 0 have no finite loss at any temperature, and are left out of the fit.
///
/// # Errors
/// [`ScoreError::Empty`] without samples.
pub fn fit_temperature(scored: &Scored) -> Result<TemperatureFit, ScoreError> {
    if scored.is_empty() {
        return Err(ScoreError::Empty);
    }
    let is_finite = |sample: &usize| scored.logits(*sample)[scored.labels()[*sample] as usize].is_finite();
    let samples: Vec<usize> = (0..scored.len()).filter(is_finite).collect();
    let is_flat = samples.is_empty()
        || derivatives(scored, &samples, 1.0) == (0.0, 0.0) && {
            // Where the right class is sure beyond f64, slope and curvature are 0 too, and the surest is still the best.
            samples.iter().all(|sample| {
                let logits = scored.logits(*sample);
                let finite = || logits.iter().filter(|logit| logit.is_finite());
                finite().all(|logit| logit == finite().next().expect("that of the true class is"))
            })
        };
    let (temperature, end) = match is_flat {
        true => (1.0, TemperatureEnd::Undetermined),
        false => minimum(scored, &samples),
    };
    let loss = |temperature: f64| {
        let losses = (0..scored.len()).map(|sample| {
            log_loss(scored.probabilities(sample, temperature)[scored.labels()[sample] as usize])
        });
        losses.sum::<f64>() / scored.len() as f64
    };
    Ok(TemperatureFit {
        temperature,
        end,
        samples: scored.len() as u64,
        log_loss_before: loss(1.0),
        log_loss_after: loss(temperature),
    })
}

fn minimum(scored: &Scored, samples: &[usize]) -> (f64, TemperatureEnd) {
    // In u = ln β, between which the slope changes its sign.
    let (mut low, mut high) = (-BOUNDS.1.ln(), -BOUNDS.0.ln());
    if derivatives(scored, samples, high.exp()).0 <= 0.0 {
        return (BOUNDS.0, TemperatureEnd::LowerBound);
    }
    if derivatives(scored, samples, low.exp()).0 >= 0.0 {
        return (BOUNDS.1, TemperatureEnd::UpperBound);
    }
    let mut u = 0.0;
    for _ in 0..100 {
        let beta = f64::exp(u);
        let (slope, curvature) = derivatives(scored, samples, beta);
        if slope < 0.0 {
            low = u
        } else {
            high = u
        }
        let newton = u - slope / (slope + beta * curvature);
        let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
        let step = (next - u).abs();
        u = next;
        if step < 1e-12 {
            break;
        }
    }
    ((-u).exp(), TemperatureEnd::Minimum)
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    type Row = (u32, &'static [f32]);

    fn scored(rows: &[Row]) -> Scored {
        let mut scored = Scored::new((0..rows[0].1.len()).map(|class| format!("c{class}")).collect());
        for (index, (label, logits)) in rows.iter().enumerate() {
            scored.push(format!("{index}").into(), *label, logits).unwrap();
        }
        scored
    }

    #[test]
    fn the_temperature_that_labels_were_drawn_with_is_found() {
        let mut stream = Seed(5).stream("temperature");
        for truth in [0.5, 1.0, 2.5] {
            let mut scored = Scored::new((0..4).map(|class| format!("c{class}")).collect());
            for index in 0..20_000 {
                let logits: Vec<f32> = (0..4).map(|_| (3.0 * stream.normal()) as f32).collect();
                let mut one = Scored::new(scored.classes().to_vec());
                one.push("one".into(), 0, &logits).unwrap();
                let (mut left, mut label) = (stream.unit(), 0);
                for (class, p) in one.probabilities(0, truth).into_iter().enumerate() {
                    left -= p;
                    label = class as u32;
                    if left < 0.0 {
                        break;
                    }
                }
                scored.push(format!("{index}").into(), label, &logits).unwrap();
            }
            let fit = fit_temperature(&scored).unwrap();
            assert!((fit.temperature / truth - 1.0).abs() < 0.05, "{truth}: {fit:?}");
            assert!(fit.end == TemperatureEnd::Minimum && fit.log_loss_after <= fit.log_loss_before);
            assert_eq!(fit.usable(), fit.temperature);
        }
    }

    #[test]
    fn a_minimum_of_a_closed_form_is_met() {
        // Three of four are right with a margin of 1: p = 3/4 where 1 / T = ln 3.
        let rows: Vec<Row> = vec![(0, &[1.0, 0.0]), (0, &[1.0, 0.0]), (1, &[0.0, 1.0]), (1, &[1.0, 0.0])];
        let fit = fit_temperature(&scored(&rows)).unwrap();
        assert!((fit.temperature - 1.0 / 3f64.ln()).abs() < 1e-11, "{fit:?}");
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((fit.log_loss_after - entropy).abs() < 1e-12);
    }

    #[test]
    fn samples_that_determine_none_give_a_bounded_one_and_say_so() {
        const INFINITE: f32 = f32::NEG_INFINITY;
        let cases: [(&[Row], TemperatureEnd, f64); 8] = [
            (&[(0, &[1.0, 0.0])], TemperatureEnd::LowerBound, 0.05),
            (&[(1, &[1.0, 0.0])], TemperatureEnd::UpperBound, 20.0),
            (&[(0, &[3e4, 0.0]), (1, &[0.0, 3e4])], TemperatureEnd::LowerBound, 0.05),
            (&[(0, &[1.0, 0.0]), (1, &[1.0, 0.0])], TemperatureEnd::UpperBound, 20.0),
            (&[(0, &[2.0, 2.0]), (1, &[2.0, 2.0])], TemperatureEnd::Undetermined, 1.0),
            (&[(0, &[5.0])], TemperatureEnd::Undetermined, 1.0),
            (&[(0, &[INFINITE, 0.0])], TemperatureEnd::Undetermined, 1.0),
            (&[(0, &[0.0, INFINITE])], TemperatureEnd::Undetermined, 1.0),
        ];
        for (rows, end, temperature) in cases {
            let fit = fit_temperature(&scored(rows)).unwrap();
            assert_eq!((fit.end, fit.temperature, fit.usable()), (end, temperature, 1.0), "{rows:?}");
            assert!(fit.log_loss_before.is_finite() && fit.log_loss_after.is_finite());
            assert!(fit.in_words().starts_with("no temperature"), "{}", fit.in_words());
        }
        assert_eq!(fit_temperature(&Scored::new(vec!["a".into()])), Err(ScoreError::Empty));
    }
}
