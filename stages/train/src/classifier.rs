//! One network or several as one model: classes, chain, vote, calibration, and the priors that it was trained on.

use forebay_datasets::words;
use forebay_stages::chain::Chain;
use forebay_stages::collate::Batch;

use crate::error::TrainError;
use crate::predictor::Predictor;

/// How the members of an ensemble decide together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vote {
    /// The weighted mean of their probabilities.
    #[default]
    Soft,
    /// The weighted share of the members that predict a class.
    Hard,
}

words!(Vote { Soft => "soft", Hard => "hard" });

/// A network of a [`Classifier`].
#[derive(Clone, Debug)]
pub struct Member {
    /// The network.
    pub predictor: Predictor,
    /// How much it counts, above 0; only the proportions matter.
    pub weight: f64,
    /// What its logits are divided by before they become probabilities, above 0.
    pub temperature: f64,
}

/// One network or several that answer together: images in, a probability for each class out.
///
/// Of one member, [`Classifier::logits`] are its own. Of several, they are the natural logarithms of the probabilities that
/// they agree on, which `softmax` turns back into these.
#[derive(Clone, Debug)]
pub struct Classifier {
    members: Vec<Member>,
    vote: Vote,
    classes: Vec<String>,
    temperature: f64,
    /// What is added to the logarithms of the probabilities, `[classes]`.
    shift: Option<Vec<f64>>,
}

/// The least share of a class that no member votes for: its logarithm stays a number.
pub(crate) const NO_VOTE: f64 = 1e-6;

impl Classifier {
    /// A classifier of these members, of which each gives a logit for each of `classes` and takes images of one chain.
    ///
    /// # Errors
    /// In a line: no member, a weight or temperature that is no number above 0, or members whose chains differ.
    pub fn new(members: Vec<Member>, vote: Vote, classes: Vec<String>) -> Result<Classifier, String> {
        let Some(first) = members.first() else { return Err("an ensemble needs a member".to_string()) };
        let is_sound = |number: f64| number.is_finite() && number > 0.0;
        if members.iter().any(|member| !is_sound(member.weight) || !is_sound(member.temperature)) {
            return Err("the weight and the temperature of a member are numbers above 0".to_string());
        }
        let differs = members.iter().position(|member| member.predictor.chain() != first.predictor.chain());
        match differs {
            Some(other) => Err(format!(
                "members 1 and {} prepare images differently, so that no batch suits both",
                other + 1
            )),
            None => Ok(Classifier { members, vote, classes, temperature: 1.0, shift: None }),
        }
    }

    /// The class of each probability.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// From the original file of an image to the tensor that its members take.
    pub fn chain(&self) -> &Chain {
        self.members[0].predictor.chain()
    }

    /// Its members; at least one.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How they decide together.
    pub fn vote(&self) -> Vote {
        self.vote
    }

    /// What the logits are divided by so that probabilities say how often a prediction is right; 1 where nothing was fitted.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The same with another temperature, above 0.
    pub fn with_temperature(self, temperature: f64) -> Classifier {
        Classifier { temperature, ..self }
    }

    /// The same with other names of its classes, as many as before.
    ///
    /// # Panics
    /// When there are more or fewer.
    pub fn with_classes(self, classes: Vec<String>) -> Classifier {
        assert_eq!(classes.len(), self.classes.len(), "a name for each class");
        Classifier { classes, ..self }
    }

    /// The same for images of which a share of `after` is of each class, where it learned from shares of `before`: the
    /// logarithms of the probabilities are shifted by those of `after / before` (Saerens, Latinne and Decaestecker 2002,
    /// equation 2.4; the same as Menon et al., arXiv 2007.07314, after training).
    ///
    /// # Errors
    /// In a line, unless there is a share above 0 of each class on both sides.
    pub fn adjusted_to(self, before: &[f64], after: &[f64]) -> Result<Classifier, String> {
        let classes = self.classes.len();
        for (what, shares) in [("was trained on", before), ("is adjusted to", after)] {
            if shares.len() != classes {
                return Err(format!(
                    "{} shares of the {classes} classes that the model {what}",
                    shares.len()
                ));
            }
            if let Some(class) = shares.iter().position(|share| !(share.is_finite() && *share > 0.0)) {
                return Err(format!(
                    "no share of {}, which the model {what}: nothing can be said of its probability",
                    self.classes[class]
                ));
            }
        }
        let shift = before.iter().zip(after).map(|(before, after)| (after / before).ln()).collect();
        Ok(Classifier { shift: Some(shift), ..self })
    }

    /// A row of `classes` logits for each image: see [`Classifier`]. Neither temperature nor priors are applied.
    ///
    /// # Errors
    /// As [`Predictor::predict`]; [`TrainError::Weights`] when a member has not one logit for each class.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, TrainError> {
        let all = self.members.iter().map(|member| {
            let rows = member.predictor.predict(batch)?;
            match rows.iter().find(|row| row.len() != self.classes.len()) {
                Some(row) => Err(TrainError::Weights(format!(
                    "a network has {} outputs, and the model {} classes",
                    row.len(),
                    self.classes.len()
                ))),
                None => Ok(rows),
            }
        });
        let all = all.collect::<Result<Vec<_>, _>>()?;
        Ok(self.decide(&all))
    }

    /// [`Classifier::logits`] of images that each come in `views` views, one after the other in the batch: a row for each
    /// image, that of the mean of the probabilities of its views. These are calibrated before the mean is taken, so that the
    /// row divided by [`Classifier::temperature`] stands for their mean.
    ///
    /// # Errors
    /// As [`Classifier::logits`].
    ///
    /// # Panics
    /// When the batch does not hold as many views of each image.
    pub fn logits_of_views(&self, batch: &Batch, views: usize) -> Result<Vec<Vec<f32>>, TrainError> {
        assert!(views > 0 && batch.len().is_multiple_of(views), "{} images in {views} views", batch.len());
        let rows = self.logits(batch)?;
        Ok(match views {
            1 => rows,
            _ => rows.chunks(views).map(|rows| self.mean_of(rows)).collect(),
        })
    }

    /// The logits of the mean of the calibrated probabilities of these logits.
    fn mean_of(&self, rows: &[Vec<f32>]) -> Vec<f32> {
        let mut mean = vec![0.0; self.classes.len()];
        for row in rows {
            let probabilities = softmax(row, self.temperature);
            mean.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += p / rows.len() as f64);
        }
        mean.into_iter().map(|p| (self.temperature * p.ln()) as f32).collect()
    }

    /// What the members' logits, `[members][images][classes]`, come to together.
    pub fn decide(&self, all: &[Vec<Vec<f32>>]) -> Vec<Vec<f32>> {
        if let [rows] = all {
            return rows.clone();
        }
        let total: f64 = self.members.iter().map(|member| member.weight).sum();
        let of_image = |image: usize| {
            let mut mean = vec![0.0; self.classes.len()];
            for (member, rows) in self.members.iter().zip(all) {
                let probabilities = softmax(&rows[image], member.temperature);
                let share = member.weight / total;
                match (self.vote, largest(&probabilities)) {
                    (Vote::Soft, _) => {
                        mean.iter_mut().zip(&probabilities).for_each(|(sum, p)| *sum += share * p);
                    }
                    (Vote::Hard, Some(class)) => mean[class] += share,
                    // Logits that are no numbers stay none.
                    (Vote::Hard, None) => mean.fill(f64::NAN),
                }
            }
            if self.vote == Vote::Hard {
                // Not a number stays none.
                mean.iter_mut().filter(|share| **share < NO_VOTE).for_each(|share| *share = NO_VOTE);
            }
            mean.into_iter().map(|p| p.ln() as f32).collect()
        };
        (0..all.first().map_or(0, Vec::len)).map(of_image).collect()
    }

    /// Logits of [`Classifier::logits`], `[classes]`, with the priors in them that were asked for: divided by
    /// [`Classifier::temperature`] they stand for the adjusted probabilities.
    pub fn shifted(&self, mut logits: Vec<f32>) -> Vec<f32> {
        for (logit, shift) in logits.iter_mut().zip(self.shift.iter().flatten()) {
            *logit = (f64::from(*logit) + self.temperature * shift) as f32;
        }
        logits
    }

    /// The natural logarithms of the probabilities, `[classes]`, that logits of [`Classifier::logits`] stand for: calibrated, and
    /// adjusted to other priors where that was asked for.
    pub fn log_probabilities_of(&self, logits: &[f32]) -> Vec<f32> {
        let mut logs: Vec<f64> = logits.iter().map(|logit| f64::from(*logit) / self.temperature).collect();
        for (log, shift) in logs.iter_mut().zip(self.shift.iter().flatten()) {
            *log += shift;
        }
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln() + largest;
        logs.into_iter().map(|log| (log - sum) as f32).collect()
    }
}

/// The probabilities of logits that are divided by `temperature`.
pub(crate) fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> =
        logits.iter().map(|logit| (f64::from(logit - largest) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The first of the largest; `None` where one is no number.
fn largest(values: &[f64]) -> Option<usize> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let largest = values.iter().copied().reduce(f64::max)?;
    values.iter().position(|value| *value == largest)
}

#[cfg(test)]
mod tests {
    use forebay_stages::normalize::Normalize;

    use super::*;
    use crate::{TrainOptions, Trainer};

    fn classes() -> Vec<String> {
        ["a", "b", "c"].map(String::from).to_vec()
    }

    fn member(seed: u64, weight: f64) -> Member {
        let options = TrainOptions {
            seed: forebay_datasets::seed::Seed(seed),
            chain: Chain::of_pixels(Normalize::IMAGENET),
            ..TrainOptions::new("small", classes())
        };
        Member { predictor: Trainer::new(&options).expect("a network").predictor(), weight, temperature: 1.0 }
    }

    fn batch(n: usize) -> Batch {
        let images = (0..n * 3 * 16 * 16).map(|i| (i * 37 % 251) as u8).collect();
        Batch { images, labels: vec![0; n], ids: vec![], side: 16 }
    }

    fn probabilities(classifier: &Classifier, batch: &Batch) -> Vec<Vec<f64>> {
        let logits = classifier.logits(batch).expect("logits");
        let logs = logits.iter().map(|row| classifier.log_probabilities_of(row));
        logs.map(|row| row.iter().map(|log| f64::from(*log).exp()).collect()).collect()
    }

    #[test]
    fn one_member_answers_as_it_does_alone() {
        let one = member(1, 3.0);
        let expected = one.predictor.predict(&batch(4)).expect("logits");
        let classifier = Classifier::new(vec![one], Vote::Soft, classes()).expect("one");
        assert_eq!(classifier.logits(&batch(4)).expect("logits"), expected);
    }

    #[test]
    fn views_of_an_image_are_the_mean_of_their_calibrated_probabilities() {
        let classifier = Classifier::new(vec![member(1, 1.0)], Vote::Soft, classes()).expect("one");
        let alone = classifier.logits(&batch(6)).expect("logits");
        assert_eq!(classifier.logits_of_views(&batch(6), 1).expect("logits"), alone);
        let classifier = classifier.with_temperature(1.7);
        let rows = classifier.logits_of_views(&batch(6), 3).expect("logits");
        assert_eq!(rows.len(), 2);
        for (row, views) in rows.iter().zip(alone.chunks(3)) {
            let logs = classifier.log_probabilities_of(row);
            for (class, log) in logs.iter().enumerate() {
                let mean: f64 = views.iter().map(|view| softmax(view, 1.7)[class] / 3.0).sum();
                assert!((f64::from(log.exp()) - mean).abs() < 1e-6, "{log} {mean}");
            }
        }
    }

    #[test]
    fn a_soft_vote_is_the_weighted_mean_of_probabilities() {
        let (a, b) = (member(1, 1.0), member(2, 3.0));
        let of = |member: &Member| {
            let rows = member.predictor.predict(&batch(5)).expect("logits");
            rows.iter().map(|row| softmax(row, 1.0)).collect::<Vec<_>>()
        };
        let (of_a, of_b) = (of(&a), of(&b));
        let both = Classifier::new(vec![a, b], Vote::Soft, classes()).expect("two");
        for (row, (a, b)) in probabilities(&both, &batch(5)).iter().zip(of_a.iter().zip(&of_b)) {
            for (p, (a, b)) in row.iter().zip(a.iter().zip(b)) {
                assert!((p - (0.25 * a + 0.75 * b)).abs() < 1e-6, "{p}");
            }
        }
    }

    #[test]
    fn a_hard_vote_is_the_share_of_members() {
        let members = vec![member(1, 1.0), member(2, 1.0), member(3, 1.0)];
        let rows = |row: [f32; 3]| vec![row.to_vec()];
        let all = [rows([0.0, 1.0, 0.0]), rows([0.0, 9.0, 0.0]), rows([2.0, 0.0, 0.0])];
        let hard = Classifier::new(members, Vote::Hard, classes()).expect("three");
        let shares: Vec<f32> = hard.decide(&all)[0].iter().map(|log| log.exp()).collect();
        assert!((shares[0] - 1.0 / 3.0).abs() < 1e-6 && (shares[1] - 2.0 / 3.0).abs() < 1e-6, "{shares:?}");
        let nan = [rows([0.0, f32::NAN, 0.0]), rows([0.0, 9.0, 0.0]), rows([2.0, 0.0, 0.0])];
        assert!(hard.decide(&nan)[0].iter().all(|log| log.is_nan()));
    }

    #[test]
    fn priors_that_are_adjusted_back_change_nothing() {
        let classifier = Classifier::new(vec![member(1, 1.0)], Vote::Soft, classes()).expect("one");
        let before = probabilities(&classifier, &batch(3));
        let (rare, even) = ([0.9, 0.09, 0.01], [1.0 / 3.0; 3]);
        let adjusted = classifier.clone().adjusted_to(&rare, &even).expect("sound shares");
        for (row, before) in probabilities(&adjusted, &batch(3)).iter().zip(&before) {
            let sum: f64 = before.iter().zip(&rare).map(|(p, share)| p / share).sum();
            for (p, (before, share)) in row.iter().zip(before.iter().zip(&rare)) {
                assert!((p - before / share / sum).abs() < 1e-6);
            }
        }
        let refused = classifier.adjusted_to(&rare, &[0.5, 0.5, 0.0]).expect_err("nothing of c");
        assert!(refused.contains("no share of c"), "{refused}");
    }

    #[test]
    fn members_that_prepare_images_differently_are_refused() {
        let mut other = member(2, 1.0);
        other.predictor.chain = Chain::of_pixels(Normalize { mean: [0.5; 3], std: [0.5; 3] });
        let refused =
            Classifier::new(vec![member(1, 1.0), other], Vote::Soft, classes()).expect_err("two chains");
        assert!(refused.contains("members 1 and 2"), "{refused}");
        assert!(Classifier::new(vec![], Vote::Soft, classes()).is_err());
        assert!(Classifier::new(vec![member(1, 0.0)], Vote::Soft, classes()).is_err());
    }
}
