//! `forebay advise`: which way to train on uneven classes serves this data.

use std::fmt::Write as _;

use crate::flow::{Error, Run};
use crate::options::{Command, Config, Invocation};
use crate::report::{note, say, say_json, warn};
use crate::trials::advise::{Advised, MeanRange, VariantScores, advise};

fn percent(range: MeanRange) -> String {
    let [value, low, high] = [range.value, range.low, range.high].map(|share| share * 100.0);
    format!("{value:5.1} ({low:.1} to {high:.1})")
}

fn text(advised: &Advised, config: &Config) -> String {
    let counts: Vec<u64> = advised.training_images.iter().map(|(_, count)| *count).collect();
    let mut text = format!(
        "{} training images of {} classes, {} to {} of a class; {} validation images; {} seeds\n\n",
        counts.iter().sum::<u64>(),
        counts.len(),
        counts.iter().min().unwrap_or(&0),
        counts.iter().max().unwrap_or(&0),
        advised.validation_images,
        advised.seeds,
    );
    let _ = writeln!(
        text,
        "{:<26} {:<21} {:<21} {:<21} {:<21}",
        "in %, 95 % intervals", "balanced accuracy", "macro F1", "accuracy as it comes", "worst recall"
    );
    for scores in &advised.variants {
        let VariantScores { name, balanced_accuracy, macro_f1, accuracy, worst_recall, .. } = scores;
        let [balanced, f1, accuracy, worst] =
            [balanced_accuracy, macro_f1, accuracy, worst_recall].map(|range| percent(*range));
        let line = format!("{name:<26} {balanced:<21} {f1:<21} {accuracy:<21} {worst:<21}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(text, "\nadvice: {}", advised.recommended);
    let _ = writeln!(text, "  {}", advised.why);
    let chosen = advised.variants.iter().find(|scores| scores.name == advised.recommended);
    let options = chosen.iter().flat_map(|scores| &scores.options).map(option);
    // What was compared are heads on a frozen network.
    let freeze = (!config.is_given("train.freeze")).then(|| "--freeze backbone".to_string());
    let words: Vec<String> =
        config.to_arguments(Command::Train).into_iter().chain(freeze).chain(options).collect();
    let _ = writeln!(text, "  forebay train {} --out RUN", words.join(" "));
    if advised.recommended.starts_with("post-hoc") {
        text += "  forebay predict RUN IMAGES --prior uniform\n";
    }
    text
}

/// An option as it is written.
fn option((key, value): (&&str, &&str)) -> String {
    let flag = crate::options::option(key).map_or(*key, |row| row.flag);
    format!("--{flag} {value}")
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let mut said = None;
    let mut tell = |number: usize, of: usize, what: &str| {
        if said.as_deref() != Some(what) {
            note(&format!("training {number} of {of}: {what}"));
            said = Some(what.to_string());
        }
    };
    let advised = advise(run, &asked.config, &mut tell).await?;
    warn(&advised.warnings);
    match asked.json {
        true => say_json(&advised),
        false => say(&text(&advised, &asked.config)),
    }
    Ok(())
}
