//! The report of an ensemble: its members beside the whole.

use super::{Ensembled, MemberScores, OpenRuns};
use crate::feed::Pass;
use crate::flow::{Error, Run};
use crate::options::{Command, Config};
use crate::report::html::{self, EnsemblePage, Judged, MemberRow, ScoredAnswers};
use crate::report::warn;
use crate::train::{files, show};

/// Writes the report of an ensemble with its plots, and labels of validation images that look wrong.
///
/// # Errors
/// The first error of the run; when a file cannot be written.
pub(super) async fn write(
    run: &Run,
    config: &Config,
    opened: &OpenRuns,
    done: &Ensembled,
) -> Result<(), Error> {
    let row = |member: &MemberScores| MemberRow {
        name: member.from.clone(),
        network: member.arch.clone(),
        weight: member.weight,
        accuracy: member.accuracy,
        log_loss: member.log_loss,
    };
    let members: Vec<MemberRow> = done.members.iter().map(row).collect();
    let taken = members.iter().filter(|member| member.weight.is_some()).count();
    let lead = match done.vote {
        Some(vote) => format!("A {vote} vote of {taken} of {} models.", members.len()),
        None => format!("One network with the mean of the weights of {taken} of {} models.", members.len()),
    };
    let command = format!("forebay ensemble {}", config.to_arguments(Command::Ensemble).join(" "));
    let budget = config.whole("report.bytes");
    let mut page =
        EnsemblePage { title: &done.output, lead: &lead, members: &members, judged: None, command: &command };
    let (Some(evaluation), Some(scored), Some((feed, _))) =
        (&done.validation, &done.scored, &opened.validation)
    else {
        let page = html::ensemble(&page, budget);
        warn(&Vec::from_iter(page.note));
        return Ok(opened.target.put(files::REPORT, page.html.into()).await?);
    };
    let pass = Pass::validation();
    let shown = show(run, (feed, &[pass]), (scored, evaluation), budget).await?;
    let answers = ScoredAnswers::of(scored, &shown.errors.suspects, evaluation.temperature);
    for (name, bytes) in shown.files {
        opened.target.put(name, bytes.into()).await?;
    }
    page.judged =
        Some(Judged { evaluation, answers: &answers, gallery: &shown.gallery, images: "validation images" });
    let page = html::ensemble(&page, budget);
    warn(&Vec::from_iter(page.note));
    Ok(opened.target.put(files::REPORT, page.html.into()).await?)
}
