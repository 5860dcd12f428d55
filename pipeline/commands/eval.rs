//! `forebay eval`: how good a model is on images of known class, and how sure that is.

use std::collections::BTreeMap;

use forebay_datasets::escape::shell;
use forebay_datasets::manifest::to_json;
use forebay_datasets::sample::Split;
use forebay_datasets::store::Store;
use forebay_datasets::words::Words;
use forebay_train::metrics::{Evaluation, EvaluationOptions, Scored};
use serde::Serialize;

use crate::feed::{Feed, Pass, TestAccess};
use crate::flow::{Error, Run};
use crate::model::{Alignment, Model, OfRun, feed_for, score, viewing};
use crate::options::{Command, Config, EvalSplit, Invocation, option, store_options};
use crate::plan::refuse_folder;
use crate::predictions::Predictions;
use crate::report::html::{self, EvaluationPage, Judged, ScoredAnswers};
use crate::report::{note, say, say_json, terminal, warn};
use crate::train::{RunTests, files, show};

/// What an evaluation came to.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluated {
    /// The model, as it was named.
    pub model: String,
    /// Where the images are.
    pub source: String,
    /// Which of them: `train`, `validation`, `test` or `all`.
    pub split: &'static str,
    /// The shares of the classes that probabilities were adjusted to, in the order of the classes.
    pub prior: Option<Vec<f64>>,
    /// Images that could not be read.
    pub rejected: u64,
    /// Images of classes that the model does not know, which are not scored.
    pub unknown: u64,
    /// How often the test images of the run were scored, with this time; `None` where these are others.
    pub test_openings: Option<u64>,
    /// Whether training has seen some of the images.
    pub seen: bool,
    /// Every figure.
    pub evaluation: Evaluation,
    /// What was said of each image, split by split.
    #[serde(skip)]
    pub predictions: Predictions,
}

/// Which images are scored, and by what right.
struct Chosen {
    split: EvalSplit,
    passes: Vec<Pass>,
    openings: Option<u64>,
    /// Whether training has seen some of them.
    seen: bool,
}

/// Chooses the images of a feed.
async fn choose(
    feed: &Feed,
    config: &Config,
    has_splits: bool,
    (model, of_run): (&Model, Option<&OfRun>),
) -> Result<Chosen, Error> {
    let is_there = |split: Split| feed.rows(split) > 0;
    let is_sealed = of_run.is_some_and(|of_run| of_run.tests.sealed);
    let is_final = config.is_on("eval.final");
    let asked = config.chosen::<EvalSplit>("eval.split");
    let split = match (asked, is_final) {
        (Some(EvalSplit::Train | EvalSplit::Validation), true) => {
            return Err(Error::Usage("--final scores the test images: leave out --split".to_string()));
        }
        (Some(split), _) => split,
        (None, true) => EvalSplit::Test,
        (None, false) if !has_splits => EvalSplit::All,
        (None, false) if is_there(Split::Test) && !is_sealed => EvalSplit::Test,
        (None, false) if is_there(Split::Validation) && (model.is_validated || of_run.is_none()) => {
            EvalSplit::Validation
        }
        (None, false) if is_sealed && is_there(Split::Test) => EvalSplit::Test,
        (None, false) => EvalSplit::All,
    };
    let splits: Vec<Split> = match split {
        EvalSplit::Train => vec![Split::Train],
        EvalSplit::Validation => vec![Split::Validation],
        EvalSplit::Test => vec![Split::Test],
        EvalSplit::All => Split::ALL.into_iter().filter(|split| is_there(*split)).collect(),
    };
    if let Some(empty) = splits.iter().find(|split| !is_there(**split)) {
        let there: Vec<&str> =
            Split::ALL.iter().filter(|split| is_there(**split)).map(|split| split.name()).collect();
        return Err(Error::Usage(format!(
            "eval.split: {} has no {empty} images; it has {}",
            feed.store.location(),
            there.join(", ")
        )));
    }
    let tests = splits.contains(&Split::Test);
    let access = match of_run.filter(|_| tests) {
        Some(_) if is_sealed && !is_final => {
            return Err(Error::Usage(
                "the test images of this run are sealed, so that the choice among runs does not use them: --final opens \
                 them once the choice is made, and counts it"
                    .to_string(),
            ));
        }
        Some(of_run) => RunTests::open(&of_run.folder).await?,
        None => TestAccess::of_no_run(),
    };
    Ok(Chosen {
        split,
        passes: splits.into_iter().map(|split| Pass::evaluate(split, access)).collect(),
        openings: (tests && of_run.is_some()).then_some(access.openings()),
        seen: of_run.is_some()
            && match split {
                EvalSplit::Train | EvalSplit::All => true,
                EvalSplit::Validation => !model.is_validated,
                EvalSplit::Test => false,
            },
    })
}

/// Refuses a folder that holds a run, or results that would be lost.
async fn refuse_results(out: &Store, config: &Config) -> Result<(), Error> {
    let is_there = async |name: &str| -> Result<bool, Error> {
        let is_folder = out.local_root().is_none_or(|root| root.is_dir());
        Ok(is_folder && out.size(name).await?.is_some())
    };
    let place = out.location();
    if is_there(files::MODEL).await? || is_there(files::LAST).await? {
        return Err(Error::Usage(format!("--out {place} is a run folder: give a place of its own")));
    }
    let tables = [files::EVALUATION, files::PREDICTIONS, files::REPORT, files::FIXES];
    for name in tables.into_iter().chain(files::PLOTS) {
        if !config.is_on("overwrite") && is_there(name).await? {
            return Err(Error::Usage(format!(
                "{place} holds {name} already: give another --out, or --overwrite to replace it"
            )));
        }
    }
    Ok(())
}

/// Scores a model on the images of a source.
///
/// # Errors
/// [`Error::Usage`] when model and source do not belong together; the first error of the run.
pub async fn evaluate(run: &Run, config: &Config) -> Result<Evaluated, Error> {
    let place = config.text("model");
    let place = place
        .ok_or_else(|| Error::Usage("eval needs a MODEL: a run folder, or a weights file".to_string()))?;
    let (settings, pool) = (config.clone(), run.clone());
    let opened_by = run.clone();
    let opening = run.until_stopped(move || async move {
        let run = &opened_by;
        let model = Model::open(&pool, &place, settings.text("model.arch"), &settings).await?;
        let of_run = OfRun::of_model(&place, model.kind, &settings).await?;
        let own = of_run.as_ref().and_then(OfRun::source);
        let source = settings.text("source").or(own).ok_or_else(|| {
            Error::Usage(format!("{place} does not say where its images are: give a SOURCE"))
        })?;
        let chain = model.classifier.chain();
        let named = of_run.as_ref().filter(|of_run| of_run.is_of(&source, &settings));
        let (mut feed, mut warnings) = feed_for(run, &settings, (&source, &place), chain, named).await?;
        let known = of_run.as_ref().and_then(|of_run| of_run.tests.images.clone());
        let is_same = known.as_ref().is_some_and(|known| feed.source.samples_fingerprint() == *known);
        let of_run = match (of_run, is_same) {
            (Some(of_run), true) if !of_run.is_of(&source, &settings) => {
                note(&format!("{source} holds the images of the run in another place, and they are split as there"));
                (feed, warnings) = feed_for(run, &settings, (&source, &place), chain, Some(&of_run)).await?;
                Some(of_run)
            }
            (Some(of_run), false) if of_run.is_of(&source, &settings) => {
                warnings.extend(known.map(|_| {
                    format!(
                        "the images in {source} are others than when the run was trained: what it was trained on may be among \
                         those that are scored"
                    )
                }));
                Some(of_run)
            }
            (Some(_), false) => {
                note(&format!(
                    "{source} does not hold the images of the run, as far as is known: where some of them are among these, \
                     figures say little of others"
                ));
                None
            }
            (of_run, _) => of_run,
        };
        let out =
            settings.text("eval.out").map(|out| Store::open(&out, &store_options(&settings))).transpose()?;
        if let Some(out) = &out {
            refuse_folder("--out", out, feed.image_folder()).await?;
            refuse_results(out, &settings).await?;
        }
        let has_splits =
            of_run.is_some() || feed.source.declares_splits() || feed.source.manifest().is_some();
        let alignment =
            Alignment::of(feed.classes(), model.classifier.classes(), model.names_classes);
        let alignment = alignment.map_err(Error::Usage)?;
        // Whatever refuses an evaluation has refused it by now: a look at test images is counted.
        let chosen = choose(&feed, &settings, has_splits, (&model, of_run.as_ref())).await?;
        let viewing = viewing(&model, &settings).await?;
        Ok((model, feed, warnings, chosen, out, viewing, alignment))
    });
    let (model, feed, warnings, chosen, out, viewing, alignment) = opening.await?;
    warn(&model.warnings);
    warn(&warnings);
    if alignment.by_order {
        warn(&[format!(
            "{} does not name its classes: they are taken for those of {}, in this order",
            model.place,
            feed.store.location()
        )]);
    }
    if !alignment.absent.is_empty() {
        note(&format!("classes of the model without images here: {}", alignment.absent.join(", ")));
    }
    if chosen.seen {
        warn(&[SEEN.to_string()]);
    }
    let splits: Vec<Split> = chosen.passes.iter().map(|pass| pass.split()).collect();
    feed.begin(run, &splits)?;
    let (classifier, prior) = model.adjusted(config).await?;
    let classifier =
        if alignment.by_order { classifier.with_classes(feed.classes().to_vec()) } else { classifier };
    let mut scored = Scored::new(classifier.classes().to_vec());
    let (mut predictions, mut unknown) = (Predictions::new(classifier.classes().to_vec()), 0);
    predictions = predictions.asked_with(asked(config));
    for pass in &chosen.passes {
        let of_split = score(run, &feed, &classifier, &alignment, *pass, &viewing).await?;
        unknown += of_split.unknown;
        predictions.push_scored(&of_split.scored, pass.split(), classifier.temperature());
        scored.append(&of_split.scored).map_err(|error| Error::failed("score the images", error))?;
    }
    if unknown > 0 {
        warn(&[format!(
            "{unknown} images are of classes that the model does not know, and are not scored: {}",
            alignment.unknown.join(", ")
        )]);
    }
    let options = EvaluationOptions {
        temperature: classifier.temperature(),
        level: config.real("eval.level"),
        draws: config.whole("eval.draws") as u32,
        seed: config.whole("seed"),
    };
    let evaluation = run.install(|| Evaluation::of(&scored, &options));
    let evaluation = evaluation.map_err(|error| Error::failed("evaluate", error))?;
    let done = Evaluated {
        model: model.place,
        source: feed.store.location().to_string(),
        split: chosen.split.name(),
        prior,
        rejected: run.rejects().rejected(),
        unknown,
        test_openings: chosen.openings,
        seen: chosen.seen,
        evaluation,
        predictions,
    };
    if let Some(out) = &out {
        out.put(files::PREDICTIONS, done.predictions.to_parquet()).await?;
        out.put(files::EVALUATION, to_json(&BTreeMap::from([(done.split, &done.evaluation)])).into()).await?;
        report(run, config, &feed, &chosen.passes, (&done, &scored), out).await?;
    }
    Ok(done)
}

/// The options that change what a model says.
fn asked(config: &Config) -> String {
    let rows = ["model.temperature", "model.prior", "model.tta"].into_iter().filter_map(option);
    let given = rows.filter(|row| config.is_given(row.key));
    let given = given.filter_map(|row| Some(format!("--{} {}", row.flag, shell(&config.text(row.key)?))));
    given.collect::<Vec<_>>().join(" ")
}

/// What is said where images are scored that the model learned from.
const SEEN: &str = "training has seen some of these images: their figures say little of others";

/// Writes the report, its plots, and the labels that look wrong.
async fn report(
    run: &Run,
    config: &Config,
    feed: &Feed,
    passes: &[Pass],
    (done, scored): (&Evaluated, &Scored),
    out: &Store,
) -> Result<(), Error> {
    let Evaluated { model, source, split, evaluation, .. } = done;
    let budget = config.whole("report.bytes");
    let shown = show(run, (feed, passes), (scored, evaluation), budget).await?;
    let answers = ScoredAnswers::of(scored, &shown.errors.suspects, evaluation.temperature);
    for (name, bytes) in shown.files {
        out.put(name, bytes.into()).await?;
    }
    let mut remarks = Vec::new();
    if let Some(text) = config.text("model.prior") {
        remarks.push(format!("Probabilities are adjusted to other shares of the classes: {text}."));
    }
    if done.unknown > 0 {
        remarks.push(format!(
            "{} images of classes that the model does not know were not scored.",
            done.unknown
        ));
    }
    if done.rejected > 0 {
        remarks.push(format!("{} images could not be read.", done.rejected));
    }
    if let Some(openings) = done.test_openings {
        let times = if openings == 1 { "once".to_string() } else { format!("{openings} times") };
        remarks.push(format!("The test images of the run were scored {times}, with this."));
    }
    if done.seen {
        remarks.push(format!("Note that {SEEN}."));
    }
    let command = format!("forebay eval {}", config.to_arguments(Command::Eval).join(" "));
    let images = match *split {
        "all" => "images".to_string(),
        split => format!("{split} images"),
    };
    let judged = Judged { evaluation, answers: &answers, gallery: &shown.gallery, images: &images };
    let page = EvaluationPage { model, source, judged, remarks: &remarks, command: &command };
    let page = html::evaluation(&page, budget);
    warn(&Vec::from_iter(page.note));
    out.put(files::REPORT, page.html.into()).await?;
    Ok(())
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let done = evaluate(run, &asked.config).await?;
    match asked.json {
        true => say_json(&done),
        false => {
            say(&terminal::evaluation(&done.evaluation));
            if let Some(out) = asked.config.text("eval.out") {
                say(&format!(
                    "\nwritten to {out}: {}, {}, {}\n",
                    files::REPORT,
                    files::EVALUATION,
                    files::FIXES
                ));
            }
        }
    }
    Ok(())
}
