//! `forebay ensemble`: several runs as one model.

use std::fmt::Write as _;

use forebay_train::metrics::Figure;

use crate::flow::{Error, Run};
use crate::options::Invocation;
use crate::report::{say, say_json};
use crate::trials::ensemble::{Ensembled, ensemble};

fn percent(figure: Option<Figure>) -> String {
    figure.map_or("-".to_string(), |figure| {
        let [value, low, high] = [figure.value, figure.low, figure.high].map(|share| share * 100.0);
        format!("{value:.2} % ({low:.2} to {high:.2})")
    })
}

fn text(done: &Ensembled) -> String {
    let mut text = format!("{:>6}  {:<26} {:>8}  member\n", "weight", "validation accuracy", "log loss");
    let loss =
        |figure: Option<Figure>| figure.map_or("-".to_string(), |figure| format!("{:.4}", figure.value));
    for member in &done.members {
        let weight = member.weight.map_or("out".to_string(), |weight| format!("{weight:.3}"));
        let _ = writeln!(
            text,
            "{weight:>6}  {:<26} {:>8}  {} ({})",
            percent(member.accuracy),
            loss(member.log_loss),
            member.from,
            member.arch
        );
    }
    if let Some(whole) = &done.validation {
        let _ = writeln!(
            text,
            "{:>6}  {:<26} {:>8}  together",
            "",
            percent(Some(whole.accuracy)),
            loss(Some(whole.log_loss))
        );
    }
    let _ = writeln!(text, "written to {}", done.output);
    text
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let done = ensemble(run, &asked.config).await?;
    match asked.json {
        true => say_json(&done),
        false => say(&text(&done)),
    }
    Ok(())
}
