//! Reports for people: one self-contained HTML page for a run, an evaluation, a search over settings, an ensemble, or a source of
//! images.
//!
//! A page needs no network, is readable in light and dark, on a narrow and a wide screen and on paper, and without a script.
//! It takes plain values: what they are of is the business of whoever makes them.

mod answers;
mod chart;
mod data;
mod failures;
mod figures;
mod gallery;
mod parts;
mod quality;
mod search;
mod shell;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_datasets::sample::Split;
use forebay_train::metrics::{Evaluation, Figure};

pub use answers::ScoredAnswers;
pub use data::{DataBlock, DataPage, DataSection, DataTile, PagePicture, data};
pub(crate) use failures::confused;
pub(crate) use figures::{all as all_figures, level};
pub use gallery::{Gallery, THUMBNAIL_PX, thumbnail, thumbnail_of_planes};
pub use parts::{AugmentedExample, ClassPrior};
pub use search::{TrialRow, TuningPage};

use self::figures::Reads;
use self::gallery::Thumbnails;
use self::shell::{PageSection, head, page, table};
use super::run::{RunFacts, Trained};
use crate::options::bytes_in_words;

/// A page, and what did not fit into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPage {
    /// The file.
    pub html: String,
    /// In a line, what the page lacks for want of room; `None` where it lacks nothing.
    pub note: Option<String>,
}

/// What a model said of images of known class.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    /// Every figure.
    pub evaluation: &'a Evaluation,
    /// What was said of each image, with the labels that are probably wrong.
    pub answers: &'a ScoredAnswers<'a>,
    /// Thumbnails, as far as there are some.
    pub gallery: &'a Gallery,
    /// What the images are, such as `test images`.
    pub images: &'a str,
}

/// A training run.
#[derive(Clone, Debug)]
pub struct RunPage<'a> {
    /// What it is.
    pub facts: &'a RunFacts,
    /// What it came to.
    pub done: &'a Trained,
    /// Its learning curves as SVG.
    pub curves: &'a [String],
    /// What it said of held-out images; `None` where there are none.
    pub judged: Option<Judged<'a>>,
    /// What it trained on; empty where that is not known.
    pub priors: &'a [ClassPrior],
    /// Images as it saw them; empty where nothing was augmented.
    pub examples: &'a [AugmentedExample],
    /// The command that makes it again; empty where there is none.
    pub command: &'a str,
}

/// An evaluation of a model.
#[derive(Clone, Debug)]
pub struct EvaluationPage<'a> {
    /// The model, as it was named.
    pub model: &'a str,
    /// Where the images are.
    pub source: &'a str,
    /// What it said of them.
    pub judged: Judged<'a>,
    /// What else is to be known, a line each: images that were not scored, how often test images were opened.
    pub remarks: &'a [String],
    /// The command that makes it again.
    pub command: &'a str,
}

/// A member of an ensemble beside the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberRow {
    /// The run that it is from.
    pub name: String,
    /// The network.
    pub network: String,
    /// What its vote counts; `None` where it was left out.
    pub weight: Option<f64>,
    /// Its accuracy alone.
    pub accuracy: Option<Figure>,
    /// Its log loss alone.
    pub log_loss: Option<Figure>,
}

/// Several runs as one model.
#[derive(Clone, Debug)]
pub struct EnsemblePage<'a> {
    /// Where it is.
    pub title: &'a str,
    /// How its members come together, in a sentence.
    pub lead: &'a str,
    /// Its members.
    pub members: &'a [MemberRow],
    /// What all of them together said of the images that each was scored on.
    pub judged: Option<Judged<'a>>,
    /// The command that makes it again.
    pub command: &'a str,
}

/// How much of what is optional a page shows: it begins with all, and goes on with less where that leaves no room for
/// images.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Images of a cell of the confusion matrix.
    per_cell: usize,
    examples: bool,
}

const EXTENTS: [Extent; 4] = [
    Extent { per_cell: answers::PER_CELL, examples: true },
    Extent { per_cell: 4, examples: true },
    Extent { per_cell: 1, examples: false },
    Extent { per_cell: 0, examples: false },
];

/// The share of a page's budget that may go to what is no thumbnail.
const TEXT_SHARE: f64 = 0.6;

/// Bytes of what a page says of thumbnails that did not fit.
const LEFT_OUT_BYTES: usize = 256;

/// Makes a page in the largest extent whose text leaves room for images, with as many thumbnails as then fit.
fn within(
    budget_bytes: u64,
    gallery: Option<&Gallery>,
    make: impl Fn(Extent, &Thumbnails<'_>) -> String,
) -> ReportPage {
    let budget = usize::try_from(budget_bytes).unwrap_or(usize::MAX);
    let bare = |extent: Extent| make(extent, &Thumbnails::default()).len();
    let fits = |extent: &&Extent| (bare(**extent) as f64) <= TEXT_SHARE * budget as f64;
    let extent = *EXTENTS.iter().find(fits).unwrap_or(&EXTENTS[EXTENTS.len() - 1]);
    let text = bare(extent);
    let thumbnails =
        gallery.map(|gallery| gallery.fit(budget.saturating_sub(text + LEFT_OUT_BYTES))).unwrap_or_default();
    let html = make(extent, &thumbnails);
    let asked = bytes_in_words(budget_bytes);
    let note = match (text > budget, thumbnails.left_out) {
        (true, _) => Some(format!(
            "report.html takes {} without any image, more than the {asked} of --report-bytes",
            bytes_in_words(text as u64)
        )),
        (false, 0) => None,
        (false, out) => Some(format!(
            "report.html shows {} of {} thumbnails: the others do not fit into the {asked} of --report-bytes",
            thumbnails.len(),
            thumbnails.len() + out
        )),
    };
    ReportPage { html, note }
}

/// The sections that say where a model fails, and how well it does in detail.
fn judged_sections(
    judged: &Judged<'_>,
    extent: Extent,
    thumbnails: &Thumbnails<'_>,
) -> [Vec<PageSection>; 2] {
    let Judged { evaluation, answers, .. } = judged;
    let cells = if extent.per_cell == 0 { Vec::new() } else { answers.shown_cells() };
    let out = match thumbnails.left_out {
        0 => String::new(),
        out => format!(
            "<p class=\"muted\">{out} thumbnails did not fit into the page; <code>--report-bytes</code> makes room.</p>\n"
        ),
    };
    let confusion = failures::in_short(evaluation)
        + &failures::matrix(evaluation, &cells)
        + &failures::cells(answers, &cells, extent.per_cell, thumbnails)
        + &out;
    let failures = vec![
        PageSection { id: "confusion", title: "Where it fails", body: confusion },
        PageSection {
            id: "mistakes",
            title: "Most confident mistakes",
            body: failures::confident_mistakes(answers, thumbnails),
        },
        PageSection {
            id: "unsure",
            title: "Least confident hits",
            body: failures::unsure_hits(answers, thumbnails),
        },
        PageSection {
            id: "labels",
            title: "Suspected label errors",
            body: failures::suspects(answers, thumbnails),
        },
    ];
    let curves = format!(
        "<div class=\"plots\">\n{}{}</div>\n",
        quality::roc(evaluation),
        quality::precision_recall(evaluation)
    );
    let confidence = format!(
        "{}<div class=\"plots\">\n{}{}</div>\n",
        quality::coverage_in_words(evaluation),
        quality::reliability(evaluation),
        quality::coverage(evaluation)
    );
    let details = vec![
        PageSection { id: "figures", title: "Every figure", body: figures::figures(evaluation) },
        PageSection { id: "classes", title: "Classes", body: parts::classes(evaluation) },
        PageSection { id: "curves", title: "Over all thresholds", body: curves },
        PageSection { id: "confidence", title: "How far its confidence can be trusted", body: confidence },
    ];
    [failures, details]
}

/// The report of a training run.
pub fn run(run: &RunPage<'_>, budget_bytes: u64) -> ReportPage {
    let RunPage { facts, done, curves, judged, priors, examples, command } = run;
    within(budget_bytes, judged.as_ref().map(|judged| judged.gallery), |extent, thumbnails| {
        let mut lead = match judged {
            Some(judged) => {
                figures::sentence(judged.evaluation, judged.images) + &figures::tiles(judged.evaluation)
            }
            None => format!(
                "<p class=\"lead\">{:.2} % accuracy and macro F1 {:.4} on the {} split{}.</p>\n",
                done.accuracy * 100.0,
                done.macro_f1,
                done.split,
                if done.split == Split::Train { ", which training has seen" } else { "" }
            ),
        };
        let _ = writeln!(
            lead,
            "<p class=\"muted\">Best checkpoint: epoch {} of {}{}, by validation {}. The train thread waited for batches {:.0} % of \
             its time.{}{}</p>",
            done.best_epoch,
            done.epochs.len(),
            if done.stopped_early { ", where the run was stopped early" } else { "" },
            done.monitor,
            done.starved * 100.0,
            match done.rejected {
                0 => String::new(),
                rejected => format!(" {rejected} of {} images could not be read.", done.found),
            },
            match done.test_openings {
                Some(1) => " The test images were scored once.".to_string(),
                Some(openings) => format!(
                    " The test images of this run were scored {openings} times, which makes their figures optimistic if it was chosen by them."
                ),
                None => String::new(),
            }
        );
        let learning = format!("<div class=\"plots\">\n{}</div>\n", curves.concat());
        let learning = PageSection { id: "learning", title: "Learning curves", body: learning };
        let [mut sections, detailed] = match judged {
            Some(judged) => judged_sections(judged, extent, thumbnails),
            None => [
                Vec::new(),
                vec![PageSection { id: "classes", title: "Classes", body: parts::class_rows(done) }],
            ],
        };
        sections.push(learning);
        sections.extend(detailed);
        if !priors.is_empty() {
            sections.push(PageSection {
                id: "priors",
                title: "What training sees of each class",
                body: parts::priors(priors),
            });
        }
        if extent.examples && !examples.is_empty() {
            sections.push(PageSection {
                id: "examples",
                title: "Images as the network sees them",
                body: parts::examples(examples),
            });
        }
        sections.push(PageSection {
            id: "made",
            title: "How it was made",
            body: parts::made(command, &facts.run_file),
        });
        page(&format!("{} on {}", facts.model, facts.source), &lead, &sections, &thumbnails.rules)
    })
}

/// The report of an evaluation.
pub fn evaluation(asked: &EvaluationPage<'_>, budget_bytes: u64) -> ReportPage {
    let EvaluationPage { model, source, judged, remarks, command } = asked;
    within(budget_bytes, Some(judged.gallery), |extent, thumbnails| {
        let mut lead =
            figures::sentence(judged.evaluation, judged.images) + &figures::tiles(judged.evaluation);
        for remark in *remarks {
            let _ = writeln!(lead, "<p class=\"muted\">{}</p>", escape::html(remark));
        }
        let [mut sections, detailed] = judged_sections(judged, extent, thumbnails);
        sections.extend(detailed);
        sections.push(PageSection { id: "made", title: "How it was made", body: parts::made(command, "") });
        page(&format!("{model} on {source}"), &lead, &sections, &thumbnails.rules)
    })
}

/// The report of a search over settings.
pub fn tuning(tuned: &TuningPage<'_>, budget_bytes: u64) -> ReportPage {
    within(budget_bytes, None, |_, thumbnails| {
        let lead = format!("<p class=\"lead\">{}</p>\n", escape::html(tuned.lead));
        let best = match tuned.best_command {
            "" => "<p>No trial has a score.</p>\n".to_string(),
            command => format!("<p>This trains the best one:</p>\n{}", shell::lines(command)),
        };
        let section = |id, title, body| PageSection { id, title, body };
        let plots = format!(
            "<div class=\"plots\">\n{}</div>\n<div class=\"wide\" tabindex=\"0\">\n{}</div>\n",
            tuned.best_so_far(),
            tuned.parallel()
        );
        let sections = [
            section("best", "The best", best),
            section("importance", "What matters", tuned.importance()),
            section("search", "The search", plots),
            section("trials", "Trials", tuned.table()),
            section("made", "How it was made", parts::made(tuned.command, tuned.run_file)),
        ];
        page(tuned.title, &lead, &sections, &thumbnails.rules)
    })
}

/// The report of an ensemble.
pub fn ensemble(made: &EnsemblePage<'_>, budget_bytes: u64) -> ReportPage {
    let EnsemblePage { title, lead, members, judged, command } = made;
    within(budget_bytes, judged.as_ref().map(|judged| judged.gallery), |extent, thumbnails| {
        let mut lead = format!("<p class=\"lead\">{}</p>\n", escape::html(lead));
        let mut sections = vec![PageSection {
            id: "members",
            title: "Members beside the whole",
            body: member_table(members, judged.as_ref().map(|judged| judged.evaluation)),
        }];
        if let Some(judged) = judged {
            lead += &figures::sentence(judged.evaluation, judged.images);
            lead += &figures::tiles(judged.evaluation);
            sections.extend(judged_sections(judged, extent, thumbnails).concat());
        }
        sections.push(PageSection { id: "made", title: "How it was made", body: parts::made(command, "") });
        page(title, &lead, &sections, &thumbnails.rules)
    })
}

fn member_table(members: &[MemberRow], whole: Option<&Evaluation>) -> String {
    let cells = |figure: Option<&Figure>, reads: Reads| match figure {
        Some(figure) => format!(
            "<td data-v=\"{:.6}\">{} <small>{}</small></td>",
            figure.value,
            reads.value(figure.value),
            reads.interval(figure)
        ),
        None => "<td>–</td>".to_string(),
    };
    let mut rows = String::new();
    let mut row =
        |name: &str, network: &str, weight: String, accuracy: Option<&Figure>, log_loss: Option<&Figure>| {
            let bar = accuracy.map(figures::range).unwrap_or_default();
            let _ = writeln!(
                rows,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{weight}</td>{}{}<td>{bar}</td></tr>",
                escape::html(name),
                escape::html(network),
                cells(accuracy, Reads::Percent),
                cells(log_loss, Reads::Plain)
            );
        };
    for member in members {
        let MemberRow { name, network, weight, accuracy, log_loss } = member;
        let weight = weight.map_or("left out".to_string(), |weight| format!("{weight:.3}"));
        row(name, network, weight, accuracy.as_ref(), log_loss.as_ref());
    }
    if let Some(whole) = whole {
        row("all together", "", String::new(), Some(&whole.accuracy), Some(&whole.log_loss));
    }
    let names = ["member", "network", "weight", "accuracy", "log loss", "accuracy, 0 to 1"];
    table("Each member alone and all together, on the same images", "sort", &head(&names), &rows)
}

/// The plots of an evaluation as files: name and SVG.
pub fn evaluation_plots(evaluation: &Evaluation) -> [(&'static str, String); 5] {
    [
        ("confusion.svg", quality::confusion(evaluation)),
        ("roc.svg", quality::roc(evaluation)),
        ("precision_recall.svg", quality::precision_recall(evaluation)),
        ("reliability.svg", quality::reliability(evaluation)),
        ("coverage.svg", quality::coverage(evaluation)),
    ]
}

/// The plots of a search as files: name and SVG.
pub fn tuning_plots(tuned: &TuningPage<'_>) -> [(&'static str, String); 2] {
    [("best_so_far.svg", tuned.best_so_far()), ("parallel.svg", tuned.parallel())]
}
