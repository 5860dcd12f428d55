//! `--temperature` and `--prior`: how the probabilities of a model are calibrated, and how often classes come among the
//! images that it is asked about.

use std::collections::BTreeMap;

use forebay_datasets::escape::one_line;
use forebay_datasets::store::Store;
use forebay_train::{Classifier, Vote};

use super::Model;
use crate::flow::Error;
use crate::options::{Config, store_options};
use crate::plan::{file_key, folder_and_file};
use crate::report::note;

/// Shares that are nearer to 1 together than this were meant to be 1, such as 0.333 three times.
const ROUNDING: f64 = 0.005;

impl Model {
    /// The classifier with what the options say of its probabilities, and the shares of the classes that they are adjusted to.
    ///
    /// # Errors
    /// [`Error::Usage`] when the options give no such shares, or the model does not say what it was trained on; others when a
    /// store fails.
    pub async fn adjusted(&self, config: &Config) -> Result<(Classifier, Option<Vec<f64>>), Error> {
        let own = self.classifier.temperature();
        let classifier = match config.number("model.temperature") {
            Some(temperature) => {
                note(&format!(
                    "probabilities are calibrated by the temperature {temperature}, as the options say"
                ));
                self.classifier.clone().with_temperature(temperature)
            }
            None => {
                note(&match own == 1.0 {
                    true => format!(
                        "probabilities are as {} gives them: it holds no temperature that was fitted on validation images",
                        self.place
                    ),
                    false => {
                        format!("probabilities are calibrated by the temperature of the model, {own:.3}")
                    }
                });
                self.classifier.clone()
            }
        };
        let Some(text) = config.text("model.prior") else { return Ok((classifier, None)) };
        let refused = |why: String| Error::Usage(format!("model.prior: {why}"));
        let shares = shares_of(&text, classifier.classes(), config).await?.map_err(refused)?;
        if classifier.vote() == Vote::Hard && classifier.members().len() > 1 {
            return Err(refused(format!(
                "{} votes hard, which leaves no probabilities that a prior could adjust; leave it out, or make the ensemble with \
                 --vote soft",
                self.place
            )));
        }
        let before = self.logit_prior.clone().ok_or_else(|| {
            refused(format!(
                "{} does not say how many images of each class it was trained on, which the prior is compared with; leave it \
                 out",
                self.place
            ))
        })?;
        Ok((classifier.adjusted_to(&before, &shares).map_err(refused)?, Some(shares)))
    }
}

/// The shares that `--prior` gives, in words or as a file.
async fn shares_of(
    text: &str,
    classes: &[String],
    config: &Config,
) -> Result<Result<Vec<f64>, String>, Error> {
    if text == "uniform" || text.contains('=') {
        return Ok(of_words(text, classes));
    }
    let (folder, file) = folder_and_file(text);
    Ok(match Store::open(folder, &store_options(config))?.find(&file_key(text, file)).await? {
        Some(json) => of_file(&json, classes).map_err(|why| format!("{text} {why}")),
        None => of_words(text, classes).map_err(|why| format!("{text} is no file, and {why}")),
    })
}

/// Shares of the classes by the words of an option, `[classes]`, which are 1 together: `uniform`, or `CLASS=SHARE,..`.
///
/// # Errors
/// In a line: a class that there is not, or twice; a share that is none; shares that are not 1 together.
fn of_words(text: &str, classes: &[String]) -> Result<Vec<f64>, String> {
    if text == "uniform" {
        return Ok(vec![1.0 / classes.len() as f64; classes.len()]);
    }
    let mut shares = BTreeMap::new();
    // A comma may stand in the name of a class: what has no share is the beginning of what comes next.
    let mut begun = String::new();
    for piece in text.split(',') {
        begun.push_str(piece);
        let Some((class, share)) = begun.rsplit_once('=') else {
            begun.push(',');
            continue;
        };
        let number = share.trim().parse::<f64>().map_err(|_| format!("{share} is no share of {class}"))?;
        if shares.insert(class.trim().to_string(), number).is_some() {
            return Err(format!("{} has two shares", class.trim()));
        }
        begun.clear();
    }
    if !begun.is_empty() {
        return Err(format!(
            "{} has no share: give uniform, shares such as {}=0.1, or a file",
            begun.trim_end_matches(','),
            classes[0]
        ));
    }
    of_shares(&shares, classes)
}

/// Shares of the classes by a file: a JSON object of shares, or of counts, by class.
///
/// # Errors
/// As [`of_words`], and when it is no such file.
fn of_file(json: &[u8], classes: &[String]) -> Result<Vec<f64>, String> {
    let mut numbers: BTreeMap<String, f64> = serde_json::from_slice(json).map_err(|error| {
        format!("is no JSON object of a number for each class: {}", one_line(&error.to_string()))
    })?;
    let total: f64 = numbers.values().sum();
    let are_counts = numbers.values().all(|number| number.fract() == 0.0) && total > 1.0;
    if are_counts {
        if let Some(class) = classes.iter().find(|class| !numbers.contains_key(*class)) {
            return Err(format!("holds counts, and none of {class}"));
        }
        numbers.values_mut().for_each(|count| *count /= total);
    }
    of_shares(&numbers, classes)
}

/// The shares of all classes, of which those that are not named have what is left in equal parts.
fn of_shares(named: &BTreeMap<String, f64>, classes: &[String]) -> Result<Vec<f64>, String> {
    if let Some(class) = named.keys().find(|class| !classes.contains(class)) {
        let some: Vec<&str> = classes.iter().take(5).map(String::as_str).collect();
        let more = if classes.len() > some.len() { ", .." } else { "" };
        return Err(format!("the model has no class {class}: it has {}{more}", some.join(", ")));
    }
    if let Some((class, share)) =
        named.iter().find(|(_, share)| !(share.is_finite() && **share > 0.0 && **share <= 1.0))
    {
        return Err(format!("{class} has a share of {share}: shares are above 0, and 1 together"));
    }
    let (sum, n_others) = (named.values().sum::<f64>(), classes.len() - named.len());
    let left = 1.0 - sum;
    let others = match n_others {
        0 if left.abs() > ROUNDING => return Err(format!("its shares are {sum} together, and must be 1")),
        0 => 0.0,
        _ if left <= 0.0 => {
            return Err(format!(
                "its shares are {sum} together, and leave nothing to {n_others} other classes"
            ));
        }
        _ => left / n_others as f64,
    };
    let total = if n_others == 0 { sum } else { 1.0 };
    Ok(classes.iter().map(|class| named.get(class).copied().unwrap_or(others) / total).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<String> {
        ["cat", "dog, large", "owl"].map(String::from).to_vec()
    }

    #[test]
    fn shares_are_one_together_and_classes_without_one_have_the_rest() {
        let check = |text: &str, expected: [f64; 3]| {
            let found = of_words(text, &classes()).expect(text);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{text}: {found} is not {expected}");
            }
        };
        check("uniform", [1.0 / 3.0; 3]);
        check("cat=0.2", [0.2, 0.4, 0.4]);
        check("owl=0.1,dog, large=0.6", [0.3, 0.6, 0.1]);
        check("cat=0.5, dog, large=0.3,owl=0.2", [0.5, 0.3, 0.2]);
        check("cat=0.333,dog, large=0.333,owl=0.333", [1.0 / 3.0; 3]);
    }

    #[test]
    fn a_file_holds_shares_or_counts() {
        let found = of_file(br#"{"cat": 30, "dog, large": 60, "owl": 10}"#, &classes()).expect("counts");
        assert!(
            found.iter().zip([0.3, 0.6, 0.1]).all(|(found, share)| (found - share).abs() < 1e-9),
            "{found:?}"
        );
        let found = of_file(br#"{"owl": 0.5}"#, &classes()).expect("shares");
        assert_eq!(found, [0.25, 0.25, 0.5]);
        let refused = |json: &[u8]| of_file(json, &classes()).expect_err("no prior");
        assert!(refused(b"[1, 2]").contains("no JSON object"));
        assert!(refused(br#"{"cat": 3}"#).contains("none of dog, large"));
    }

    #[test]
    fn what_is_no_prior_is_one_line() {
        for (text, expected) in [
            ("cat", "cat has no share"),
            ("cow=0.1", "the model has no class cow: it has cat"),
            ("cat=x", "x is no share of cat"),
            ("cat=0.1,cat=0.2", "cat has two shares"),
            ("cat=0", "cat has a share of 0"),
            ("cat=-0.5", "shares are above 0"),
            ("cat=NaN", "shares are above 0"),
            ("cat=0.9,owl=0.2", "leave nothing to 1 other classes"),
            ("cat=0.5,dog, large=0.3,owl=0.1", "are 0.9"),
            ("", "has no share"),
        ] {
            let refused = of_words(text, &classes()).expect_err(text);
            assert!(refused.contains(expected) && !refused.contains('\n'), "{text}: {refused}");
        }
    }
}
