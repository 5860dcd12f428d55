//! Images of known class through a classifier, and what it said of them.

use forebay_datasets::sample::{Label, Sample};
use forebay_train::Classifier;
use forebay_train::metrics::Scored;

use crate::feed::{Feed, Pass, ViewedBatch, Viewing};
use crate::flow::{Error, Items, Run};
use crate::train::train_error;

/// Which class of a model each class of a dataset is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// For each class of the dataset, that of the model; `None` where the model has none of this name.
    classes: Vec<Option<u32>>,
    /// Classes of the dataset that the model does not know.
    pub unknown: Vec<String>,
    /// Classes of the model that the dataset does not have.
    pub absent: Vec<String>,
    /// Whether there were no names to go by, so that the n-th class is taken for the n-th.
    pub by_order: bool,
}

impl Alignment {
    /// Finds the classes of a dataset among those of a model. A model whose classes have no names is taken to have the
    /// dataset's, in their order, where there are as many.
    ///
    /// # Errors
    /// In a line, when there is no class that both have.
    pub fn of(dataset: &[String], model: &[String], model_has_names: bool) -> Result<Alignment, String> {
        if !model_has_names {
            return match dataset.len() == model.len() {
                true => Ok(Alignment {
                    classes: (0..model.len() as u32).map(Some).collect(),
                    unknown: vec![],
                    absent: vec![],
                    by_order: true,
                }),
                false => Err(format!(
                    "the model has {} classes without names, and the dataset {}: nothing tells which is which",
                    model.len(),
                    dataset.len()
                )),
            };
        }
        let place = |name: &String| model.iter().position(|class| class == name).map(|index| index as u32);
        let classes: Vec<Option<u32>> = dataset.iter().map(place).collect();
        let lacks = |these: &[String], others: &[String]| -> Vec<String> {
            these.iter().filter(|class| !others.contains(class)).cloned().collect()
        };
        if classes.iter().all(Option::is_none) {
            return Err(format!(
                "the dataset and the model have no class in common: {} there, {} here",
                in_short(dataset),
                in_short(model)
            ));
        }
        Ok(Alignment {
            classes,
            unknown: lacks(dataset, model),
            absent: lacks(model, dataset),
            by_order: false,
        })
    }

    /// The class of the model that a label of the dataset is.
    pub fn class(&self, label: u32) -> Option<u32> {
        self.classes[label as usize]
    }
}

/// The first few of many names.
fn in_short(names: &[String]) -> String {
    const MOST: usize = 5;
    let first: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    match names.len() {
        n if n > MOST => format!("{} and {} more", first.join(", "), n - MOST),
        _ => first.join(", "),
    }
}

/// What a classifier said of images.
#[derive(Clone, Debug)]
pub struct SplitScores {
    /// Of those whose class it knows.
    pub scored: Scored,
    /// Images of classes that it does not know.
    pub unknown: u64,
}

/// Scores the images of a pass over a feed, in their order, each by the views of `viewing`, with the priors that the classifier is
/// adjusted to.
///
/// # Errors
/// [`Error::NothingLeft`] when no image could be read; [`Error::Usage`] when all are of classes that the model does not know;
/// [`Error::Failed`] when the classifier gives no numbers; the first error of the run.
pub async fn score(
    run: &Run,
    feed: &Feed,
    classifier: &Classifier,
    alignment: &Alignment,
    pass: Pass,
    viewing: &Viewing,
) -> Result<SplitScores, Error> {
    let mut scores = SplitScores { scored: Scored::new(classifier.classes().to_vec()), unknown: 0 };
    let (pool, classifier, alignment) = (run.clone(), classifier.clone(), alignment.clone());
    let per_image = viewing.tta.views();
    let consume = move |batches: Items<ViewedBatch<Label>>| {
        for viewed in batches {
            if viewed.batch.is_empty() {
                continue;
            }
            let logits = pool.install(|| classifier.logits_of_views(&viewed.batch, per_image));
            let logits = logits.map_err(|error| train_error("evaluate", error))?;
            for (Sample { id, label, copy, .. }, row) in viewed.readable().zip(logits) {
                // What balanced shards hold again was scored.
                if *copy > 0 {
                    continue;
                }
                let Some(label) = alignment.class(*label) else {
                    scores.unknown += 1;
                    continue;
                };
                let pushed = scores.scored.push_once(id.clone(), label, &classifier.shifted(row));
                pushed.map_err(|error| Error::failed("score the images", error))?;
            }
        }
        Ok(scores)
    };
    let scores = feed.viewed(run, pass, viewing)?.drain("evaluate", consume).await?;
    match (scores.scored.is_empty(), scores.unknown) {
        (true, 0) => Err(Error::NothingLeft(format!(
            "no {} image could be read: there is nothing to score",
            pass.split()
        ))),
        (true, n) => Err(Error::Usage(format!(
            "all {n} {} images are of classes that the model does not know",
            pass.split()
        ))),
        (false, _) => Ok(scores),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn classes_are_found_by_name_and_what_one_side_lacks_is_named() {
        let found =
            Alignment::of(&names(&["owl", "cat", "fox"]), &names(&["cat", "dog", "owl"]), true).unwrap();
        assert_eq!((found.class(0), found.class(1), found.class(2)), (Some(2), Some(0), None));
        assert_eq!((&*found.unknown, &*found.absent), (&names(&["fox"])[..], &names(&["dog"])[..]));
        assert!(
            Alignment::of(&names(&["x"]), &names(&["cat"]), true).unwrap_err().contains("no class in common")
        );
        assert!(Alignment::of(&names(&["b", "a"]), &names(&["0", "1"]), false).unwrap().by_order);
        assert!(Alignment::of(&names(&["b"]), &names(&["0", "1"]), false).is_err());
    }
}
