//! Confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068): which labels are probably wrong.

use serde::{Deserialize, Serialize};

use super::{ScoreError, Scored};

/// How far below the mean a probability may be, as cleanlab has it: where all are equal, rounding puts the mean above them.
const SLACK: f64 = 1e-6;

/// What the probabilities of samples say of their labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelErrors {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Per class, the mean probability of it among the samples that are labelled so; `None` without any.
    pub thresholds: Vec<Option<f64>>,
    /// `joint[label][truth]`: an estimate of how many samples have this label and are of that class. Each row sums to the
    /// samples with the label.
    pub joint: Vec<Vec<u64>>,
    /// The share of samples whose label is estimated to be wrong.
    pub noise_rate: f64,
    /// The samples to look at, the most suspicious first.
    pub suspects: Vec<Suspect>,
}

/// A sample whose label is probably wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its id.
    pub id: String,
    /// Its label.
    pub label: u32,
    /// The class that is most probable.
    pub suggestion: u32,
    /// The probability of that class.
    pub probability: f64,
    /// The probability of the suggestion less that of the label (the normalised margin), in (0, 1].
    pub margin: f64,
}

impl LabelErrors {
    /// Finds suspects among samples that the classifier was *not* trained on: with probabilities of its own training
    /// samples it agrees with any label.
    ///
    /// A sample is confidently of a class whose probability is at least the mean that samples labelled so have; of
    /// several, of the most probable one. Counted against labels and scaled to the samples of each label, this estimates
    /// how many of each pair (label, truth) there are. So many of each pair off the diagonal are suspects: those with the
    /// largest margin, where the label is not the prediction ("prune by noise rate").
    ///
    /// # Errors
    /// [`ScoreError::Empty`] without samples.
    ///
    /// # Panics
    /// When the temperature is not above 0.
    pub fn of(scored: &Scored, temperature: f64) -> Result<LabelErrors, ScoreError> {
        assert!(temperature > 0.0 && temperature.is_finite(), "temperature {temperature} is not above 0");
        if scored.is_empty() {
            return Err(ScoreError::Empty);
        }
        let classes = scored.classes().len();
        let labels = || scored.labels().iter().map(|label| *label as usize).enumerate();
        let mut labelled = vec![0u64; classes];
        let mut sums = vec![0.0; classes];
        for (sample, label) in labels() {
            labelled[label] += 1;
            sums[label] += scored.probabilities(sample, temperature)[label];
        }
        let thresholds: Vec<Option<f64>> =
            labelled.iter().zip(&sums).map(|(n, sum)| (*n > 0).then(|| sum / *n as f64)).collect();
        let mut confident = vec![vec![0u64; classes]; classes];
        for (sample, label) in labels() {
            let probabilities = scored.probabilities(sample, temperature);
            let is_confident =
                |class: &usize| thresholds[*class].is_some_and(|mean| probabilities[*class] >= mean - SLACK);
            // Of equal ones the last is taken, which is the first here: the search goes from the back.
            let truth = (0..classes).rev().filter(is_confident);
            if let Some(truth) = truth.max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b])) {
                confident[label][truth] += 1;
            }
        }
        // No class is without a right label.
        (0..classes).for_each(|class| confident[class][class] = confident[class][class].max(1));
        let joint: Vec<Vec<u64>> =
            (0..classes).map(|label| calibrated(&confident[label], labelled[label])).collect();
        let right: u64 = (0..classes).map(|class| joint[class][class]).sum();
        let n = scored.len() as u64;
        Ok(LabelErrors {
            classes: scored.classes().to_vec(),
            thresholds,
            noise_rate: (n - right) as f64 / n as f64,
            suspects: suspects(scored, temperature, &joint),
            joint,
        })
    }
}

/// A row of counts scaled to a sum of `total`, whole, as cleanlab rounds: each to the nearest, and then those that were
/// rounded furthest in the direction that is too many (the first of equal ones) or too few (the last) by one back.
fn calibrated(row: &[u64], total: u64) -> Vec<u64> {
    let sum: u64 = row.iter().sum();
    let exact: Vec<f64> = row.iter().map(|count| *count as f64 * total as f64 / sum as f64).collect();
    let mut whole: Vec<i64> = exact.iter().map(|value| value.round_ties_even() as i64).collect();
    loop {
        let left = total as i64 - whole.iter().sum::<i64>();
        if left == 0 {
            break;
        }
        let mut order: Vec<usize> = (0..row.len()).collect();
        let off = |class: usize| exact[class] - whole[class] as f64;
        order.sort_by(|a, b| off(*a).total_cmp(&off(*b)));
        if left > 0 {
            order.reverse();
        }
        order.truncate(left.unsigned_abs() as usize);
        for class in order {
            whole[class] += left.signum();
        }
    }
    whole.into_iter().map(|count| count.max(0) as u64).collect()
}

fn suspects(scored: &Scored, temperature: f64, joint: &[Vec<u64>]) -> Vec<Suspect> {
    let classes = joint.len();
    let mut by_label = vec![Vec::new(); classes];
    scored.labels().iter().enumerate().for_each(|(sample, label)| by_label[*label as usize].push(sample));
    let mut is_suspect = vec![false; scored.len()];
    for (label, samples) in by_label.iter().enumerate() {
        let probabilities: Vec<Vec<f64>> =
            samples.iter().map(|sample| scored.probabilities(*sample, temperature)).collect();
        for truth in (0..classes).filter(|truth| *truth != label && joint[label][*truth] > 0) {
            let margin = |at: usize| probabilities[at][truth] - probabilities[at][label];
            let mut order: Vec<usize> = (0..samples.len()).collect();
            order.sort_by(|a, b| {
                margin(*b).total_cmp(&margin(*a)).then_with(|| {
                    let id = |at: usize| &scored.ids()[samples[at]];
                    id(*a).cmp(id(*b))
                })
            });
            let n = joint[label][truth] as usize;
            // What is predicted as it is labelled is no suspect, as in cleanlab.
            let is_doubted = |at: &usize| scored.prediction(samples[*at]) as usize != label;
            for at in order.into_iter().take(n).filter(is_doubted) {
                is_suspect[samples[at]] = true;
            }
        }
    }
    let suspect = |sample: usize| {
        let probabilities = scored.probabilities(sample, temperature);
        let (label, suggestion) = (scored.labels()[sample], scored.prediction(sample));
        let probability = probabilities[suggestion as usize];
        let margin = probability - probabilities[label as usize];
        Suspect { id: scored.ids()[sample].to_string(), label, suggestion, probability, margin }
    };
    let mut suspects: Vec<Suspect> =
        (0..scored.len()).filter(|sample| is_suspect[*sample]).map(suspect).collect();
    suspects.sort_by(|a, b| b.margin.total_cmp(&a.margin).then_with(|| a.id.cmp(&b.id)));
    suspects
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use forebay_datasets::seed::Seed;
    use serde_json::Value;

    use super::*;

    /// Samples of four classes that a classifier mostly gets right, of which it is unsure in a tenth, with the labels of
    /// some flipped to the next class: those are returned.
    fn flipped(n: usize, share: f64) -> (Scored, BTreeSet<String>) {
        let mut stream = Seed(11).stream("label errors");
        let mut scored = Scored::new(["a", "b", "c", "d"].map(String::from).to_vec());
        let mut wrong = BTreeSet::new();
        for index in 0..n {
            let truth = stream.below(4) as usize;
            let is_sure = stream.chance(0.9);
            let logits: Vec<f32> = (0..4)
                .map(|class| {
                    let skill = if class == truth { if is_sure { 4.0 } else { 1.0 } } else { 0.0 };
                    (skill + 0.8 * stream.normal()) as f32
                })
                .collect();
            let mut label = truth;
            // Labels of class d are never wrong.
            if truth != 3 && stream.chance(share) {
                label = (truth + 1) % 3;
                wrong.insert(format!("{index:05}"));
            }
            scored.push(format!("{index:05}").into(), label as u32, &logits).unwrap();
        }
        (scored, wrong)
    }

    #[test]
    fn flipped_labels_are_found_and_few_others_are_suspected() {
        let (scored, wrong) = flipped(4000, 0.1);
        let errors = LabelErrors::of(&scored, 1.0).unwrap();
        let found = errors.suspects.iter().filter(|suspect| wrong.contains(&suspect.id)).count();
        let (recall, precision) =
            (found as f64 / wrong.len() as f64, found as f64 / errors.suspects.len() as f64);
        assert!(recall > 0.9 && precision > 0.85, "recall {recall:.3}, precision {precision:.3}");
        let truly = wrong.len() as f64 / 4000.0;
        assert!((errors.noise_rate - truly).abs() < 0.01, "{} {truly}", errors.noise_rate);
        // The surest of them are nearly all wrong, and each has the class it was flipped from as its suggestion.
        for suspect in &errors.suspects[..100] {
            assert!(wrong.contains(&suspect.id), "{suspect:?}");
            assert_eq!((suspect.suggestion + 1) % 3, suspect.label, "{suspect:?}");
        }
        assert!(errors.suspects.is_sorted_by(|a, b| a.margin >= b.margin));
    }

    #[test]
    fn thresholds_joint_and_suspects_equal_cleanlabs() {
        // Written by tests/interop/metrics.py --write: what cleanlab 2.9 says of labels of which a seventh was flipped.
        let cases: Vec<Value> = serde_json::from_str(include_str!("testdata/cleanlab.json")).unwrap();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
            let rows: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
            let mut scored = Scored::new((0..rows[0].len()).map(|class| format!("c{class}")).collect());
            for (index, (label, row)) in labels.iter().zip(&rows).enumerate() {
                scored.push(format!("{index:04}").into(), *label, row).unwrap();
            }
            let ours = LabelErrors::of(&scored, 1.0).unwrap();
            let thresholds: Vec<f64> = serde_json::from_value(case["thresholds"].clone()).unwrap();
            for (ours, theirs) in ours.thresholds.iter().zip(&thresholds) {
                assert!((ours.unwrap() - theirs).abs() < 1e-12);
            }
            assert_eq!(serde_json::json!(ours.joint), case["joint"]);
            let suspects: BTreeSet<usize> = ours.suspects.iter().map(|s| s.id.parse().unwrap()).collect();
            assert_eq!(serde_json::json!(suspects), case["suspects"]);
        }
    }

    #[test]
    fn right_labels_are_hardly_suspected() {
        let (scored, _) = flipped(2000, 0.0);
        let errors = LabelErrors::of(&scored, 1.0).unwrap();
        assert!(errors.suspects.len() < 60, "{} suspects", errors.suspects.len());
    }

    #[test]
    fn each_row_of_the_joint_sums_to_the_samples_of_the_label() {
        let (scored, _) = flipped(500, 0.2);
        let errors = LabelErrors::of(&scored, 2.0).unwrap();
        for (label, row) in errors.joint.iter().enumerate() {
            let labelled = scored.labels().iter().filter(|l| **l as usize == label).count() as u64;
            assert_eq!(row.iter().sum::<u64>(), labelled);
        }
        assert_eq!(calibrated(&[1, 1, 1], 4), [1, 1, 2]);
        assert_eq!(calibrated(&[0, 1, 11, 1], 21), [0, 1, 18, 2]);
        assert_eq!(calibrated(&[0, 3, 1], 0), [0, 0, 0]);
    }

    #[test]
    fn degenerate_samples_have_no_suspects() {
        let mut one = Scored::new(vec!["a".into(), "b".into()]);
        assert_eq!(LabelErrors::of(&one, 1.0), Err(ScoreError::Empty));
        one.push("x".into(), 0, &[0.0, 5.0]).unwrap();
        let errors = LabelErrors::of(&one, 1.0).unwrap();
        assert_eq!((errors.suspects.len(), &errors.thresholds[1], errors.noise_rate), (0, &None, 0.0));
        one.push("y".into(), 1, &[0.0, 0.0]).unwrap();
        assert!(LabelErrors::of(&one, 1.0).is_ok());
    }
}
