//! `forebay compare`: predictions of several runs on the same samples.

use forebay::predictions::Predictions;
use forebay_datasets::sample::Split;

use crate::fixture::Place;

/// Predictions of `n` test samples of two classes, those of `wrong` wrong, and of one validation sample.
fn predictions(n: usize, wrong: std::ops::Range<usize>) -> Predictions {
    let mut predictions = Predictions::new(vec!["ants".into(), "bees".into()]);
    for index in 0..n {
        let label = (index % 2) as u32;
        let said = if wrong.contains(&index) { 1 - label } else { label };
        let p = 0.6 + (index % 30) as f32 / 100.0;
        let probabilities = if said == 0 { [p, 1.0 - p] } else { [1.0 - p, p] };
        let id = format!("{index:03}.jpg");
        predictions.push(id.into(), Some(Split::Test), Some(label), &probabilities);
    }
    predictions.push("v.jpg".into(), Some(Split::Validation), Some(0), &[0.9, 0.1]);
    predictions
}

fn place() -> Place {
    let place = Place::new();
    // As 153 test images of hymenoptera, 0.9346 and 0.9608 of them right.
    place.write("a/predictions.parquet", &predictions(153, 0..10).to_parquet());
    place.write("b/predictions.parquet", &predictions(153, 4..10).to_parquet());
    place.write("c.parquet", &predictions(153, 20..80).to_parquet());
    place
}

#[test]
fn a_difference_that_could_be_chance_is_said_to_be_not_significant() {
    let place = place();
    let said = place.run("compare a b").done();
    assert!(
        said.stdout.starts_with("153 test samples of 2 classes; always ants: 50.33 % accuracy\n"),
        "{}",
        said.stdout
    );
    for line in [
        "accuracy, %                    50.33  93.46 (88.39 to 96.41)      96.08 (91.71 to 98.19)",
        "b scored 2.61 points of accuracy above a (95 %: +0.00 to +5.25): the difference is not significant \
         (McNemar's exact test, p = 0.1250, n = 153); on 153 samples, a difference below 5.1 points is found with less \
         than 80 % probability.",
    ] {
        assert!(said.stdout.contains(line), "{line}\n{}", said.stdout);
    }
    let json = place.run("compare a b --json").done().json();
    assert_eq!(json["comparisons"][0]["is_significant"], false);
    assert_eq!(json["comparisons"][0]["only_second_right"], 4);
    assert_eq!(json["runs"][1]["evaluation"]["samples"], 153);
    assert!(json["runs"][0]["classification_report"].as_str().unwrap().contains("weighted avg"));
}

#[test]
fn every_run_is_compared_with_the_first_and_p_is_adjusted_for_how_many_there_are() {
    let place = place();
    let said = place.run("compare a b c.parquet").done();
    for line in
        ["c.parquet is worse than a by ", ": significant (McNemar's chi-squared test, p < 0.0001, n = 153)."]
    {
        assert!(said.stdout.contains(line), "{line}\n{}", said.stdout);
    }
    assert!(said.stdout.contains("Each p is adjusted for 2 comparisons (Holm)."), "{}", said.stdout);
    let json = place.run("compare a b c.parquet --json").done().json();
    assert_eq!(json["comparisons"][0]["mcnemar"]["p"], 0.125);
    assert_eq!(json["comparisons"][1]["is_significant"], true);
    // The probabilities that the draws need are those of one run, whatever stands beside it.
    let alone = place.run("compare a b --json").done().json();
    assert_eq!(alone["runs"], serde_json::json!([json["runs"][0], json["runs"][1]]));
}

#[test]
fn runs_whose_samples_differ_are_refused_with_how_many() {
    let place = place();
    place.write("more.parquet", &predictions(155, 0..10).to_parquet());
    place.run("compare a more.parquet").refused(
        2,
        "cannot compare a, the first, with more.parquet, the second: their samples differ: 0 ids only the first has, 2 only \
         the second, 153.jpg is one of them",
    );
    let mut other = Predictions::new(vec!["ants".into(), "bees".into()]);
    (0..153).for_each(|index| {
        other.push(format!("{index:03}.jpg").into(), Some(Split::Test), Some(0), &[0.5, 0.5]);
    });
    place.write("other.parquet", &other.to_parquet());
    place
        .run("compare a other.parquet")
        .refused(2, "the labels of 76 samples differ: 001.jpg is bees for the first and ants for the second");
    place
        .run("compare a b --split train")
        .refused(2, "a has no predictions of train samples: it has validation, test");
    let json = place.run("compare a b --split validation --json").done().json();
    assert_eq!(json["runs"][0]["evaluation"]["samples"], 1);
    let json = place.run("compare a b --split all --json").done().json();
    assert_eq!(json["runs"][0]["evaluation"]["samples"], 154);
}

#[test]
fn what_holds_no_predictions_is_named() {
    let place = place();
    place.write("empty/labels.txt", b"ants\nbees\n");
    place.write("text.parquet", b"ants,bees\n");
    let whole = predictions(153, 0..10).to_parquet();
    place.write("cut.parquet", &whole[..whole.len() / 2]);
    place.run("compare a").refused(2, "compare needs two or more RUNs");
    place.run("compare a empty").refused(2, "empty holds no predictions.parquet");
    place.run("compare a none").refused(2, "none: there is no such run folder or file of predictions");
    place.run("compare a text.parquet").refused(2, "text.parquet is no file of predictions");
    place.run("compare a cut.parquet").refused(4, "cut.parquet is damaged");
    place.run("compare a b --level 2").refused(2, "level");
}
