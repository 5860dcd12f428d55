//! How even the classes are, and which are missing where.

use forebay_datasets::sample::Split;
use serde::Serialize;

use crate::report::SplitCounts;

/// Beta of the effective number, as `--effective-beta` has it by default.
const BETA: f64 = 0.9999;

/// How even the classes of the training images are; of all images where the source declares no split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassShares {
    /// Images of the largest class over those of the smallest that has any; `None` without images.
    pub imbalance: Option<f64>,
    /// The most common class.
    pub majority: Option<String>,
    /// Its share: the accuracy of always naming it.
    pub majority_accuracy: f64,
    /// Beta of the effective numbers.
    pub beta: f64,
    /// Each class.
    pub effective: Vec<EffectiveNumber>,
    /// Classes without a training image that have one in another split: `(class, split, images)`.
    pub not_in_train: Vec<(String, Split, u64)>,
    /// Classes without any image.
    pub empty: Vec<String>,
}

/// How much the images of a class count for, if each next one repeats some of those before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EffectiveNumber {
    /// Its name.
    pub class: String,
    /// Its images.
    pub images: u64,
    /// (1 - betaⁿ) / (1 - beta) of n images (Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples").
    pub effective_number: f64,
}

impl ClassShares {
    /// Those of classes with these images in each split.
    pub(super) fn of(classes: &[String], splits: &[SplitCounts]) -> ClassShares {
        let none = vec![0; classes.len()];
        let train = splits.iter().find(|(split, _)| *split == Split::Train);
        // Without a training split, as with a test folder alone, all images are looked at.
        let counts: Vec<u64> = match train {
            Some((_, counts)) => counts.clone(),
            None => splits
                .iter()
                .fold(none.clone(), |sum, (_, counts)| sum.iter().zip(counts).map(|(a, b)| a + b).collect()),
        };
        let filled = || counts.iter().copied().filter(|n| *n > 0);
        let (least, most) = (filled().min(), filled().max());
        let total: u64 = counts.iter().sum();
        let majority = counts.iter().position(|n| Some(*n) == most).map(|class| classes[class].clone());
        let elsewhere = |class: usize| splits.iter().filter(move |(_, counts)| counts[class] > 0);
        let mut not_in_train = Vec::new();
        let mut empty = Vec::new();
        for (class, name) in classes.iter().enumerate().filter(|(class, _)| counts[*class] == 0) {
            for (split, counts) in elsewhere(class) {
                not_in_train.push((name.clone(), *split, counts[class]));
            }
            if elsewhere(class).next().is_none() {
                empty.push(name.clone());
            }
        }
        let effective = |(class, n): (&String, &u64)| EffectiveNumber {
            class: class.clone(),
            images: *n,
            effective_number: (1.0 - BETA.powf(*n as f64)) / (1.0 - BETA),
        };
        ClassShares {
            imbalance: least.zip(most).map(|(least, most)| most as f64 / least as f64),
            majority,
            majority_accuracy: most.unwrap_or(0) as f64 / total.max(1) as f64,
            beta: BETA,
            effective: classes.iter().zip(&counts).map(effective).collect(),
            not_in_train,
            empty,
        }
    }

    /// A line for what a training cannot learn.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (class, split, n) in &self.not_in_train {
            lines.push(format!(
                "class {class} has no image in train and {n} in {split}, which will all be wrong"
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_training_and_classes_that_it_lacks_are_named() {
        let classes = ["a", "b", "c", "d"].map(String::from);
        let splits = [(Split::Train, vec![90, 10, 0, 0]), (Split::Validation, vec![5, 5, 3, 0])];
        let shares = ClassShares::of(&classes, &splits);
        assert_eq!((shares.imbalance, shares.majority.as_deref()), (Some(9.0), Some("a")));
        assert_eq!(shares.majority_accuracy, 0.9);
        assert_eq!(shares.not_in_train, [("c".to_string(), Split::Validation, 3)]);
        assert_eq!(shares.empty, ["d"]);
        assert!((shares.effective[0].effective_number - 89.6).abs() < 0.01, "{:?}", shares.effective[0]);
        assert!(shares.warnings()[0].contains("class c has no image in train and 3 in validation"));
        let test = ClassShares::of(&classes[..2], &[(Split::Test, vec![4, 2])]);
        // A test folder alone: all images count, and training lacks nothing of its own.
        assert_eq!((test.imbalance, test.not_in_train.len()), (Some(2.0), 0));
        assert_eq!(ClassShares::of(&[], &[]).imbalance, None);
    }
}
