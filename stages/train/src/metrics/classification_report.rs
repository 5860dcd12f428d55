//! The table of precision, recall and F1 that scikit-learn's `classification_report` prints, digit for digit.

use std::fmt::Write;

use super::{ClassScores, Confusion};

/// The classes that a sample is of or was taken for, a row each, then the accuracy and both averages, as
/// `classification_report(truths, predictions, zero_division=0)` prints them for the names of the classes.
///
/// # Panics
/// When a class has no name.
pub fn classification_report(confusion: &Confusion, names: &[String]) -> String {
    let marginals = confusion.marginals();
    let classes: Vec<usize> = (0..names.len()).filter(|class| marginals.is_there(*class)).collect();
    let width = classes.iter().map(|class| names[*class].chars().count()).max().unwrap_or(0);
    let width = width.max("weighted avg".len());
    let mut text = String::new();
    let mut line = |name: &str, [precision, recall, f1, support]: [&str; 4]| {
        writeln!(text, "{name:>width$}  {precision:>9} {recall:>9} {f1:>9} {support:>9}")
            .expect("a string takes all");
    };
    let digits = |score: f64| format!("{score:.2}");
    let row = |scores: ClassScores| {
        let ClassScores { precision, recall, f1, support } = scores;
        [digits(precision), digits(recall), digits(f1), support.to_string()]
    };
    line("", ["precision", "recall", "f1-score", "support"]);
    line("", [""; 4]);
    for class in classes {
        line(&names[class], row(marginals.class(class)).each_ref().map(String::as_str));
    }
    line("", [""; 4]);
    let total = marginals.total().to_string();
    line("accuracy", ["", "", &digits(confusion.accuracy()), &total]);
    for (name, scores) in
        [("macro avg", marginals.macro_average()), ("weighted avg", marginals.weighted_average())]
    {
        line(name, row(scores).each_ref().map(String::as_str));
    }
    // The empty lines have no blanks.
    text.lines().map(|line| if line.trim().is_empty() { "\n".into() } else { format!("{line}\n") }).collect()
}
