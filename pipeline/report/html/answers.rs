//! What a classifier said of images of known class, as a page shows it: the cells of the confusion matrix with the images
//! behind them, the mistakes of most confidence, the right answers of least, and labels that are probably wrong.

use std::collections::BTreeMap;

use forebay_train::metrics::{Scored, Suspect};

/// Images of a cell of the confusion matrix that are shown.
pub(super) const PER_CELL: usize = 12;

/// Cells off the diagonal whose images are shown, the largest ones.
const CELLS_MAX: usize = 400;

/// Classes from which on images of right answers are not shown class by class.
const DIAGONAL_MAX: usize = 50;

/// Images of a list.
const LIST_MAX: usize = 24;

/// Suspected labels that are shown; all of them stand in `fixes.csv`.
const SUSPECTS_MAX: usize = 96;

/// A cell of the confusion matrix, (truth, prediction), and its images, those of most confidence first.
pub(super) type Cell = ((u32, u32), Vec<usize>);

/// What a classifier said of each image.
#[derive(Clone, Debug)]
pub struct ScoredAnswers<'a> {
    pub(super) scored: &'a Scored,
    pub(super) suspects: &'a [Suspect],
    /// The probability of the prediction, per image.
    confidence: Vec<f64>,
    /// The probability of the label, per image.
    of_label: Vec<f64>,
    prediction: Vec<u32>,
}

impl<'a> ScoredAnswers<'a> {
    /// The answers of these logits at a temperature. `suspects` are labels that are probably wrong, the most suspicious first,
    /// found among images that the classifier was not trained on.
    pub fn of(scored: &'a Scored, suspects: &'a [Suspect], temperature: f64) -> ScoredAnswers<'a> {
        let mut answers = ScoredAnswers {
            scored,
            suspects,
            confidence: Vec::with_capacity(scored.len()),
            of_label: Vec::with_capacity(scored.len()),
            prediction: Vec::with_capacity(scored.len()),
        };
        for (index, label) in scored.labels().iter().enumerate() {
            let probabilities = scored.probabilities(index, temperature);
            let prediction = scored.prediction(index);
            answers.confidence.push(probabilities[prediction as usize]);
            answers.of_label.push(probabilities[*label as usize]);
            answers.prediction.push(prediction);
        }
        answers
    }

    /// The class that an image was taken for.
    pub(super) fn prediction(&self, index: usize) -> u32 {
        self.prediction[index]
    }

    /// The class of an image.
    pub(super) fn label(&self, index: usize) -> u32 {
        self.scored.labels()[index]
    }

    /// The probability of the class that an image was taken for.
    pub(super) fn confidence(&self, index: usize) -> f64 {
        self.confidence[index]
    }

    /// The probability of the class that an image is of.
    pub(super) fn of_label(&self, index: usize) -> f64 {
        self.of_label[index]
    }

    /// The name of a class.
    pub(super) fn class(&self, class: u32) -> &str {
        &self.scored.classes()[class as usize]
    }

    fn is_right(&self, index: usize) -> bool {
        self.label(index) == self.prediction(index)
    }

    /// Images in an order of keys, ties by id, so that the page is the same whatever the order of the images.
    fn sorted(&self, mut images: Vec<usize>, key: impl Fn(usize) -> f64) -> Vec<usize> {
        let ids = self.scored.ids();
        images.sort_by(|a, b| key(*a).total_cmp(&key(*b)).then_with(|| ids[*a].cmp(&ids[*b])));
        images
    }

    /// The cells whose images are shown: mistakes, the most frequent first, and of few classes right answers.
    pub(super) fn shown_cells(&self) -> Vec<Cell> {
        let mut cells: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
        for index in 0..self.scored.len() {
            cells.entry((self.label(index), self.prediction(index))).or_default().push(index);
        }
        let (right, mut wrong): (Vec<Cell>, Vec<Cell>) =
            cells.into_iter().partition(|((truth, prediction), _)| truth == prediction);
        wrong.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
        wrong.truncate(CELLS_MAX);
        if self.scored.classes().len() <= DIAGONAL_MAX {
            wrong.extend(right);
        }
        wrong
            .into_iter()
            .map(|(cell, members)| (cell, self.sorted(members, |index| -self.confidence[index])))
            .collect()
    }

    /// Wrong answers, those of most confidence first.
    pub(super) fn confident_mistakes(&self) -> Vec<usize> {
        let wrong = (0..self.scored.len()).filter(|index| !self.is_right(*index)).collect();
        let mut wrong = self.sorted(wrong, |index| -self.confidence[index]);
        wrong.truncate(LIST_MAX);
        wrong
    }

    /// Right answers, those of least confidence first.
    pub(super) fn unsure_hits(&self) -> Vec<usize> {
        let right = (0..self.scored.len()).filter(|index| self.is_right(*index)).collect();
        let mut right = self.sorted(right, |index| self.confidence[index]);
        right.truncate(LIST_MAX);
        right
    }

    /// The suspected labels that a page shows.
    pub(super) fn shown_suspects(&self) -> &'a [Suspect] {
        &self.suspects[..self.suspects.len().min(SUSPECTS_MAX)]
    }
}
