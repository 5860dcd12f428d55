//! What a classifier said of samples whose class is known: one row of logits per sample, found by the sample's id.

use std::collections::HashMap;

use forebay_datasets::escape::printable;
use forebay_datasets::sample::{Label, SampleId};
use thiserror::Error;

use super::{Confusion, prediction};

/// Logits of samples of known class, in the order in which they were pushed.
///
/// Every row has a largest logit, no NaN and no id twice. A logit of -∞ is a probability of 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    classes: Vec<String>,
    ids: Vec<SampleId>,
    labels: Vec<Label>,
    /// Row by row: `logits[sample * classes + class]`.
    logits: Vec<f32>,
    positions: HashMap<SampleId, usize>,
}

/// Why a row of logits, or all of them, cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScoreError {
    /// A logit is NaN or +∞, or all of them are -∞.
    #[error(
        "the logits of {} are not finite: look at the weights and running statistics of the network",
        printable(id)
    )]
    NotFinite {
        /// Whose.
        id: SampleId,
    },
    /// A row does not have one logit per class.
    #[error("{} has {found} logits, expected {expected}", printable(id))]
    Length {
        /// Whose.
        id: SampleId,
        /// Logits of the row.
        found: usize,
        /// Classes.
        expected: usize,
    },
    /// A label is not the index of a class.
    #[error("{} has label {label}, but there are {classes} classes", printable(id))]
    Label {
        /// Whose.
        id: SampleId,
        /// The label.
        label: Label,
        /// How many there are.
        classes: usize,
    },
    /// An id was pushed before.
    #[error("{} is scored twice", printable(id))]
    Twice {
        /// The id.
        id: SampleId,
    },
    /// There is no sample.
    #[error("there is no sample to score")]
    Empty,
}

impl Scored {
    /// No samples yet, of these classes.
    pub fn new(classes: Vec<String>) -> Scored {
        Scored { classes, ids: Vec::new(), labels: Vec::new(), logits: Vec::new(), positions: HashMap::new() }
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// [`ScoreError`] when the row has another length than the classes, holds NaN, +∞ or nothing but -∞, when the label is
    /// no class, or when the id was pushed before. The samples before it stay.
    pub fn push(&mut self, id: SampleId, label: Label, logits: &[f32]) -> Result<(), ScoreError> {
        let classes = self.classes.len();
        if logits.len() != classes {
            return Err(ScoreError::Length { id, found: logits.len(), expected: classes });
        }
        if label as usize >= classes {
            return Err(ScoreError::Label { id, label, classes });
        }
        let is_refused = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        if logits.iter().any(is_refused) || !logits.iter().any(|logit| logit.is_finite()) {
            return Err(ScoreError::NotFinite { id });
        }
        if self.positions.contains_key(&id) {
            return Err(ScoreError::Twice { id });
        }
        self.positions.insert(id.clone(), self.ids.len());
        self.ids.push(id);
        self.labels.push(label);
        self.logits.extend_from_slice(logits);
        Ok(())
    }

    /// Adds a sample, unless one with its id is there: copies of an image, which balanced shards hold, say what it says.
    ///
    /// # Errors
    /// As [`Scored::push`], but for the id.
    pub fn push_once(&mut self, id: SampleId, label: Label, logits: &[f32]) -> Result<(), ScoreError> {
        match self.push(id, label, logits) {
            Err(ScoreError::Twice { .. }) => Ok(()),
            pushed => pushed,
        }
    }

    /// Adds the samples of another, of the same classes.
    ///
    /// # Errors
    /// [`ScoreError::Twice`] when one is there already.
    ///
    /// # Panics
    /// When its classes are others.
    pub fn append(&mut self, other: &Scored) -> Result<(), ScoreError> {
        assert_eq!(self.classes, other.classes, "samples of one list of classes");
        for (index, (id, label)) in other.ids.iter().zip(&other.labels).enumerate() {
            self.push(id.clone(), *label, other.logits(index))?;
        }
        Ok(())
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The names of the classes, in the order of the logits.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The id of each sample.
    pub fn ids(&self) -> &[SampleId] {
        &self.ids
    }

    /// The class of each sample.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The logits of a sample, one per class.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn logits(&self, index: usize) -> &[f32] {
        let classes = self.classes.len();
        &self.logits[index * classes..][..classes]
    }

    /// The position of the sample with this id.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.positions.get(id).copied()
    }

    /// How often each class was taken for each.
    pub fn confusion(&self) -> Confusion {
        let mut confusion = Confusion::new(self.classes.len());
        for (index, label) in self.labels.iter().enumerate() {
            confusion.add(*label as usize, self.prediction(index) as usize);
        }
        confusion
    }

    /// The probabilities of a sample, one per class: softmax of logits / `temperature`.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn probabilities(&self, index: usize, temperature: f64) -> Vec<f64> {
        let mut probabilities: Vec<f64> = self.logits(index).iter().map(|logit| f64::from(*logit)).collect();
        let largest = probabilities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for value in &mut probabilities {
            *value = ((*value - largest) / temperature).exp();
        }
        let sum: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|value| *value /= sum);
        probabilities
    }

    /// The same samples with their classes in another order; `None` unless `classes` are the same names.
    pub fn with_classes(&self, classes: &[String]) -> Option<Scored> {
        let from = |name: &String| self.classes.iter().position(|class| class == name);
        let from: Vec<usize> = classes.iter().filter_map(from).collect();
        let mut to = vec![None; self.classes.len()];
        from.iter().enumerate().for_each(|(new, old)| to[*old] = Some(new as Label));
        let to: Vec<Label> = to.into_iter().collect::<Option<_>>()?;
        (to.len() == classes.len() && from.len() == classes.len()).then(|| Scored {
            classes: classes.to_vec(),
            ids: self.ids.clone(),
            labels: self.labels.iter().map(|label| to[*label as usize]).collect(),
            logits: (0..self.len())
                .flat_map(|index| from.iter().map(move |old| self.logits(index)[*old]))
                .collect(),
            positions: self.positions.clone(),
        })
    }

    /// The class that is predicted for a sample: that of the largest logit, the first of equal ones.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn prediction(&self, index: usize) -> Label {
        prediction(self.logits(index)).expect("no row holds NaN") as Label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored() -> Scored {
        Scored::new(vec!["cat".into(), "dog".into()])
    }

    #[test]
    fn a_row_that_says_nothing_is_refused_with_its_id_and_the_rows_before_it_stay() {
        let mut scored = scored();
        scored.push("a".into(), 1, &[f32::NEG_INFINITY, 0.0]).unwrap();
        for row in [[f32::NAN, 0.0], [0.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
            let error = scored.push("b\n.png".into(), 0, &row).unwrap_err();
            assert!(error.to_string().starts_with(r"the logits of b\n.png are not finite"), "{error}");
        }
        let error = scored.push("b".into(), 0, &[0.0]).unwrap_err();
        assert_eq!(error.to_string(), "b has 1 logits, expected 2");
        let error = scored.push("b".into(), 2, &[0.0, 1.0]).unwrap_err();
        assert_eq!(error.to_string(), "b has label 2, but there are 2 classes");
        assert_eq!(
            scored.push("a".into(), 0, &[0.0, 1.0]).unwrap_err(),
            ScoreError::Twice { id: "a".into() }
        );
        assert_eq!((scored.len(), scored.position("a"), scored.position("b")), (1, Some(0), None));
        assert_eq!((scored.probabilities(0, 1.0), scored.prediction(0)), (vec![0.0, 1.0], 1));
    }

    #[test]
    fn a_higher_temperature_spreads_the_probabilities_and_keeps_the_prediction() {
        let mut scored = scored();
        scored.push("a".into(), 0, &[2.0, 0.0]).unwrap();
        for temperature in [0.5, 1.0, 2.0_f64] {
            let first = 1.0 / (1.0 + (-2.0 / temperature).exp());
            let probabilities = scored.probabilities(0, temperature);
            assert!(
                (probabilities[0] - first).abs() < 1e-15
                    && (probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-15
            );
        }
        assert_eq!(scored.prediction(0), 0);
    }
}
