//! The learning rate as a pure function of the step, so that a resumed run cannot drift from it.

use std::f64::consts::PI;

/// A linear warm-up followed by half a cosine down to zero (Loshchilov and Hutter, arXiv 1608.03983).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// The largest learning rate, reached at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up; step 0 already moves, with `peak / warmup_steps`.
    pub warmup_steps: u64,
    /// All steps, warm-up included.
    pub steps_total: u64,
}

impl Cosine {
    /// The learning rate of step `step`, counted from 0. Beyond the last step it is 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        if step >= self.steps_total {
            return 0.0;
        }
        let progress = (step - self.warmup_steps) as f64 / (self.steps_total - self.warmup_steps) as f64;
        self.peak * 0.5 * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_climbs_to_its_peak_and_falls_to_zero() {
        let schedule = Cosine { peak: 0.4, warmup_steps: 4, steps_total: 12 };
        let rates: Vec<f64> = (0..13).map(|step| schedule.at(step)).collect();
        for (rate, expected) in rates.iter().zip([0.1, 0.2, 0.3, 0.4, 0.4]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        assert!((rates[8] - 0.2).abs() < 1e-12, "half-way down at half the steps: {rates:?}");
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]), "{rates:?}");
        assert!(rates[11] > 0.0 && rates[12] == 0.0, "{rates:?}");
    }

    #[test]
    fn no_warm_up_starts_at_the_peak_and_a_warm_up_longer_than_the_run_still_climbs() {
        assert_eq!(Cosine { peak: 1.0, warmup_steps: 0, steps_total: 2 }.at(0), 1.0);
        let schedule = Cosine { peak: 1.0, warmup_steps: 10, steps_total: 5 };
        assert_eq!(schedule.at(4), 0.5);
        assert_eq!(Cosine { peak: 1.0, warmup_steps: 0, steps_total: 0 }.at(0), 0.0);
    }
}
