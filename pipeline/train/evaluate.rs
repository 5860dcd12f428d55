//! How good the network is on a split, and what a run came to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_datasets::sample::Split;
use forebay_datasets::shard::Reject;
use forebay_train::metrics::{
    Confusion, Evaluation, EvaluationOptions, Scored, TemperatureFit, cross_entropy, fit_temperature,
    prediction,
};
use forebay_train::{Predictor, Strictness, TEMPERATURE};

use super::error::train_error;
use super::frozen::Features;
use super::input::TrainInput;
use super::known_counts;
use super::plan::TrainPlan;
use super::run_folder::{RunFolder, files};
use super::run_page::{self, HeldOutAnswers};
use super::run_tests::RunTests;
use super::session::{Progress, Session, lock};
use crate::feed::{Pass, PassBatch};
use crate::flow::{Error, Items, Run, kill_point};
use crate::predictions::Predictions;
use crate::report::{ClassRow, EpochMetrics, Live, Trained};
use crate::weights::seal;

/// What evaluating a split came to: of at least one image, with numbers for each.
pub(super) struct Scores {
    /// The mean cross-entropy.
    pub(super) loss: f64,
    pub(super) confusion: Confusion,
}

/// Counts what a network got right, and keeps no image's logits.
struct Counts {
    loss: f64,
    confusion: Confusion,
    /// Images of whose logits none is the largest.
    without: u64,
}

impl LogitSink for Counts {
    fn take(&mut self, batch: &impl TrainInput, logits: &[Vec<f32>]) {
        self.loss += cross_entropy(logits, batch.labels()) * batch.labels().len() as f64;
        for (row, label) in logits.iter().zip(batch.labels()) {
            match prediction(row) {
                Some(class) => self.confusion.add(*label as usize, class),
                None => self.without += 1,
            }
        }
    }
}

/// Evaluates the network on one split.
///
/// # Errors
/// [`Error::NothingLeft`] when no image of the split could be read: nothing is no score. [`Error::Failed`] when the network
/// gives something else than numbers, of which no class is the largest.
pub(super) async fn evaluate(
    run: &Run,
    plan: &TrainPlan,
    session: &Mutex<Session>,
    features: Option<&Arc<Features>>,
    pass: Pass,
) -> Result<Scores, Error> {
    let classes = plan.options.classes.len();
    let counts = || Counts { loss: 0.0, confusion: Confusion::new(classes), without: 0 };
    let Counts { loss, confusion, without } = tally(run, plan, session, features, pass, counts).await?;
    let (total, split) = (confusion.total(), pass.split());
    if without > 0 {
        return Err(not_finite(split, without, total + without));
    }
    if total == 0 {
        return Err(nothing_to_score(split));
    }
    Ok(Scores { loss: loss / total as f64, confusion })
}

/// Keeps the logits of every image.
struct Kept {
    scored: Scored,
    without: u64,
}

impl LogitSink for Kept {
    fn take(&mut self, batch: &impl TrainInput, logits: &[Vec<f32>]) {
        for ((id, label), row) in batch.ids().iter().zip(batch.labels()).zip(logits) {
            self.without += u64::from(self.scored.push_once(id.clone(), *label, row).is_err());
        }
    }
}

/// The logits of every image of a split.
///
/// # Errors
/// As [`evaluate`].
pub(super) async fn score(
    run: &Run,
    plan: &TrainPlan,
    session: &Mutex<Session>,
    features: Option<&Arc<Features>>,
    pass: Pass,
) -> Result<Scored, Error> {
    let begin = || Kept { scored: Scored::new(plan.options.classes.clone()), without: 0 };
    let Kept { scored, without } = tally(run, plan, session, features, pass, begin).await?;
    let (total, split) = (scored.len() as u64, pass.split());
    match (without, total) {
        (0, 0) => Err(nothing_to_score(split)),
        (0, _) => Ok(scored),
        _ => Err(not_finite(split, without, total + without)),
    }
}

/// That no image of a split could be read.
fn nothing_to_score(split: Split) -> Error {
    Error::NothingLeft(format!("no {split} image could be read: there is nothing to score"))
}

/// That a network gives no numbers for some images.
fn not_finite(split: Split, without: u64, images: u64) -> Error {
    Error::failed(
        format!("score the {split} images"),
        format!(
            "the network gives no numbers for {without} of {images}: its weights or running statistics are not finite; look \
             at --weights, or give a lower learning rate"
        ),
    )
}

/// Gives the logits of every image of a split that can be read to a tally, in order.
async fn tally<S: LogitSink>(
    run: &Run,
    plan: &TrainPlan,
    session: &Mutex<Session>,
    features: Option<&Arc<Features>>,
    pass: Pass,
    begin: impl Fn() -> S,
) -> Result<S, Error> {
    let predictor = lock(session).trainer.predictor();
    // Where training images come in views, their accuracy is that of the images as they are.
    let as_they_are = pass.split() != Split::Train || plan.feed.augment.is_none();
    if let Some(features) = features.filter(|features| features.has(pass.split()) && as_they_are) {
        let batches = features.batches(run, plan, pass, 0);
        let found = batches.drain("evaluate", consume(run, predictor.clone(), begin())).await?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let batches = plan.feed.batches(run, pass);
    let found = batches.drain("evaluate", consume(run, predictor, begin())).await?;
    Ok(found.expect("an image is never lost"))
}

/// What is made of the logits of images.
trait LogitSink: Send + 'static {
    /// Takes in the logits of a batch, a row for each image.
    fn take(&mut self, batch: &impl TrainInput, logits: &[Vec<f32>]);
}

/// The consumer of an evaluation; `None` when a batch was lost.
fn consume<T: TrainInput, S: LogitSink>(
    run: &Run,
    predictor: Predictor,
    mut tally: S,
) -> impl FnOnce(Items<PassBatch<T>>) -> Result<Option<S>, Error> + Send + 'static {
    let pool = run.clone();
    move |batches: Items<PassBatch<T>>| {
        for PassBatch { batch, .. } in batches {
            if batch.is_lost() {
                return Ok(None);
            }
            if batch.labels().is_empty() {
                continue;
            }
            let logits = pool.install(|| batch.logits(&predictor));
            tally.take(&batch, &logits.map_err(|error| train_error("evaluate", error))?);
        }
        Ok(Some(tally))
    }
}

/// Sets the trainer to the weights of the best epoch; returns the file.
async fn load_best(run: &Run, folder: &RunFolder, session: &Mutex<Session>) -> Result<Bytes, Error> {
    let place = format!("{}/{}", folder.location(), files::MODEL);
    let best =
        folder.get(files::MODEL).await?.ok_or_else(|| Error::Integrity(format!("{place} is missing")))?;
    seal::check(&best).map_err(|damage| Error::Integrity(format!("{place} is damaged: {damage}")))?;
    let trainer = &mut lock(session).trainer;
    let loaded = run.install(|| trainer.load_weights(&best, Strictness::Strict));
    let loaded = loaded.map_err(|error| train_error(&place, error))?;
    match loaded.missing.is_empty() && loaded.mismatched.is_empty() {
        true => Ok(best),
        false => Err(Error::Integrity(format!("{place} holds the tensors of another network"))),
    }
}

/// What the best epoch of a run said of its held-out images, and what follows from it.
struct Verdict {
    /// Of validation and test images, as far as they are there and not sealed.
    scored: BTreeMap<Split, Scored>,
    /// Fitted on the validation images.
    temperature: Option<TemperatureFit>,
    /// Every figure of each.
    evaluations: BTreeMap<Split, Evaluation>,
    /// How often the test images were scored, with this time.
    test_openings: Option<u64>,
}

impl Verdict {
    /// Scores the network as it is now. Test images are opened, and that is counted, unless the run seals them.
    async fn of(
        run: &Run,
        plan: &TrainPlan,
        folder: &RunFolder,
        session: &Mutex<Session>,
        features: Option<&Arc<Features>>,
    ) -> Result<Verdict, Error> {
        let mut scored = BTreeMap::new();
        let mut test_openings = None;
        if plan.feed.rows(Split::Validation) > 0 {
            let found = score(run, plan, session, features, Pass::validation()).await?;
            scored.insert(Split::Validation, found);
        }
        let is_sealed = plan.seals_test || RunTests::read(folder).await?.sealed;
        if plan.feed.rows(Split::Test) > 0 && !is_sealed {
            // A run that was done and is resumed says the same again.
            let access = match folder.get(files::SUMMARY).await? {
                Some(_) => RunTests::again(folder).await?,
                None => RunTests::open(folder).await?,
            };
            test_openings = Some(access.openings());
            let pass = Pass::evaluate(Split::Test, access);
            scored.insert(Split::Test, score(run, plan, session, features, pass).await?);
        }
        let temperature = match scored.get(&Split::Validation) {
            Some(validation) => {
                let fit = run.install(|| fit_temperature(validation));
                Some(fit.map_err(|error| Error::failed("fit the temperature", error))?)
            }
            None => None,
        };
        let options = EvaluationOptions {
            temperature: temperature.as_ref().map_or(1.0, TemperatureFit::usable),
            seed: plan.feed.seed.0,
            ..EvaluationOptions::default()
        };
        let mut evaluations = BTreeMap::new();
        for (split, scored) in &scored {
            let evaluation = run.install(|| Evaluation::of(scored, &options));
            evaluations.insert(*split, evaluation.map_err(|error| Error::failed("evaluate", error))?);
        }
        Ok(Verdict { scored, temperature, evaluations, test_openings })
    }
}

/// Scores the best checkpoint on images that training never saw, and writes what came of the run.
pub(super) async fn test(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    session: Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    epochs: Vec<EpochMetrics>,
    live: &Live,
) -> Result<Trained, Error> {
    let Progress { epoch, best, .. } = lock(&session).progress;
    let model = load_best(run, folder, &session).await?;
    let verdict = Verdict::of(run, plan, folder, &session, features).await?;
    if let Some(counts) = known_counts(run, plan, features).await? {
        lock(&session).trainer.set_class_counts(counts);
    }
    let split = [Split::Test, Split::Validation].into_iter().find(|split| verdict.scored.contains_key(split));
    let confusion = match split.map(|split| &verdict.scored[&split]) {
        Some(scored) => scored.confusion(),
        None => evaluate(run, plan, &session, features, Pass::training_images()).await?.confusion,
    };
    let names = plan.options.classes.iter().enumerate();
    let classes = names
        .map(|(class, name)| {
            let scores = confusion.class(class);
            ClassRow {
                class: name.clone(),
                precision: scores.precision,
                recall: scores.recall,
                f1: scores.f1,
                support: scores.support,
            }
        })
        .collect();
    let nodes = run.meter().report();
    let evaluation = split.map(|split| &verdict.evaluations[&split]);
    let trained = Trained {
        accuracy: confusion.accuracy(),
        accuracy_interval: evaluation.map(|found| (found.accuracy.low, found.accuracy.high)),
        majority: evaluation.map(|found| found.majority.accuracy),
        split: split.unwrap_or(Split::Train),
        test_openings: verdict.test_openings,
        temperature: verdict.temperature.as_ref().map(TemperatureFit::usable),
        best_epoch: best.epoch,
        monitor: plan.keeping.monitor,
        stopped_early: epoch < plan.epochs && best.is_enough(&plan.keeping),
        macro_f1: confusion.macro_average().f1,
        classes,
        confusion: confusion.rows(),
        epochs,
        found: plan.feed.found(&Split::ALL),
        rejected: run.rejects().rejected(),
        validation: verdict.scored.get(&Split::Validation).cloned(),
        starved: nodes.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved),
    };
    let described = seal::describe(&model, |file| {
        // The images that could not be read are known only now.
        file.metadata.extend(lock(&session).trainer.priors_as_metadata(file.step));
        let temperature = verdict.temperature.as_ref().map(|fit| fit.usable().to_string());
        file.metadata.extend(temperature.map(|temperature| (TEMPERATURE.to_string(), temperature)));
    });
    let described = described.map_err(|error| train_error("describe the model", error))?;
    folder.put(files::MODEL, described).await?;
    kill_point("train: after the temperature");
    folder.put(files::REJECTS, Reject::to_lines(&run.rejects().list())).await?;
    let curves = crate::report::training_curves(&trained.epochs, &live.seen().points);
    for (name, curve) in files::CURVES.iter().zip(&curves) {
        folder.put(name, curve.clone()).await?;
    }
    if !verdict.scored.is_empty() {
        let temperature = trained.temperature.unwrap_or(1.0);
        let mut predictions = Predictions::new(plan.options.classes.clone());
        for (split, scored) in &verdict.scored {
            predictions.push_scored(scored, *split, temperature);
        }
        folder.put(files::PREDICTIONS, predictions.to_parquet()).await?;
        folder.put(files::EVALUATION, forebay_datasets::manifest::to_json(&verdict.evaluations)).await?;
    }
    folder.put(files::SUMMARY_TEXT, crate::report::terminal::summary(&plan.facts(), &trained)).await?;
    let judged = split.map(|split| HeldOutAnswers {
        split,
        scored: &verdict.scored[&split],
        evaluation: &verdict.evaluations[&split],
    });
    let counts = lock(&session).trainer.class_counts().to_vec();
    run_page::write(run, plan, folder, (&trained, &counts), &curves, judged).await?;
    folder.put(files::SUMMARY, forebay_datasets::manifest::to_json(&trained)).await?;
    Ok(trained)
}
