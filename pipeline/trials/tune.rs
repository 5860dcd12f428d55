//! A search for better settings: trainings one after the other on sources that are opened once, each told by those before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_datasets::store::{Claim, Store};
use forebay_train::search::{
    self, Axis, Bracket, Method, Pruning, Tried, brackets, goes_on, grid_points, importance,
};

use super::search::{
    Ended, EndedBy, Event, Journal, JournalHeader, Outcome, Space, TrialResult, Tuned, best_of, by_key, csv,
    pages, tune_files,
};
use crate::flow::{Error, Run};
use crate::options::{Command, Config, Facts, Monitor, store_options};
use crate::plan::refuse_folder;
use crate::report::warn;
use crate::train::{KeptFeatures, TrainPlan, TrainSources, time_of, trial};

/// Trials of a search that says nothing of their number.
const TRIALS: u64 = 50;

/// What is said while a search goes on.
#[derive(Clone, Debug)]
pub enum Told<'a> {
    /// It begins, or goes on after trials that are done.
    Begin {
        /// What is searched.
        space: &'a Space,
        /// Trials that are done already.
        done: &'a [TrialResult],
        /// What trials are compared by.
        monitor: Monitor,
        /// The most trials.
        trials: u64,
    },
    /// An epoch of a trial ended.
    Epoch {
        /// Which trial.
        trial: u32,
        /// The epoch of the training at hand, counted from 1.
        epoch: u32,
        /// Of so many.
        epochs: u32,
        /// The best score up to it.
        score: Option<f64>,
    },
    /// A trial ended.
    Ended {
        /// It.
        result: &'a TrialResult,
        /// Whether it is the best so far.
        is_best: bool,
    },
}

/// What a search needs, open.
struct Tuning {
    base: Config,
    sources: TrainSources,
    features: KeptFeatures,
    space: Space,
    axes: Vec<Axis>,
    method: Method,
    brackets: Vec<Bracket>,
    prunes: bool,
    seed: Seed,
    folds: Option<u32>,
    monitor: Monitor,
    budget: Option<Duration>,
    journal: Journal,
    /// When this process began to train.
    began: Instant,
    /// Seconds of training before.
    spent: f64,
}

/// What a trial came to, unless the search ended in it.
enum Tracked {
    Ended(Ended),
    /// The time was over: it is left for another search.
    OutOfTime(f64),
}

/// Searches, and writes what was found: also when it is interrupted.
///
/// # Errors
/// [`Error::Plan`] or [`Error::Usage`] for options that cannot be met, [`Error::NothingLeft`] where every trial failed, the first
/// error of the data or of a store, and [`Error::Interrupted`] when the search goes on with `--resume`.
pub async fn tune(
    run: &Run,
    config: &Config,
    told: &mut (dyn FnMut(Told<'_>) + Send),
) -> Result<Tuned, Error> {
    let (settings, opening) = (config.clone(), run.clone());
    let (store, mut tuning, base_plan, _claim) =
        run.until_stopped(move || async move { open(&opening, &settings).await }).await?;
    let trials = match (config.integer("tune.trials"), tuning.method) {
        (Some(trials), _) => trials,
        (None, Method::Grid) => grid_points(&tuning.axes),
        (None, _) => TRIALS,
    };
    let done: Vec<TrialResult> = tuning.journal.trials().iter().filter_map(TrialResult::of).collect();
    let left: f64 = tuning.journal.trials().iter().map(|record| record.seconds_left).sum();
    tuning.spent = left + done.iter().map(|done| done.ended.seconds).sum::<f64>();
    warn(&base_plan.warnings);
    told(Told::Begin { space: &tuning.space, done: &done, monitor: tuning.monitor, trials });
    let ended_by = tuning.run(run, trials, told).await;
    let (ended_by, interrupt) = match ended_by {
        Err(Error::Interrupted(interrupt)) => (EndedBy::Interrupt, Some(interrupt)),
        ended_by => (ended_by?, None),
    };
    let tuned = tuning.summary(&store, &base_plan, ended_by);
    tuning.write(&store, &tuned).await?;
    match (interrupt, tuned.best) {
        (Some(interrupt), _) => Err(Error::Interrupted(interrupt)),
        (None, None) if !tuned.trials.is_empty() => {
            let reason = tuned.trials.iter().find_map(|trial| trial.ended.reason.clone());
            Err(Error::NothingLeft(format!(
                "none of {} trials came to its end with a score; the first: {}",
                tuned.trials.len(),
                reason.unwrap_or_else(|| "it was ended early".to_string())
            )))
        }
        (None, _) => Ok(tuned),
    }
}

/// Checks the options and opens all that trials have in common.
async fn open(run: &Run, config: &Config) -> Result<(Store, Tuning, TrainPlan, Option<Claim>), Error> {
    let out = config.text("tune.out").ok_or_else(|| Error::Usage("tune needs --out DIR".to_string()))?;
    if config.text("source").is_none() {
        return Err(Error::Usage("tune needs a SOURCE of images".to_string()));
    }
    let store = Store::open(&out, &store_options(config))?;
    let Some(folder) = store.local_root().map(std::path::Path::to_path_buf) else {
        return Err(Error::Usage(format!(
            "--out {out}: a journal that is written line by line needs a local folder"
        )));
    };
    let budget = match config.text("tune.budget") {
        None => None,
        Some(text) => Some(time_of(&text).ok_or_else(|| {
            Error::Usage(format!("tune.budget: \"{text}\" is not a time such as 90s, 10m or 1h"))
        })?),
    };
    let (method, prune) = (config.choice::<Method>("tune.search"), config.choice::<Pruning>("tune.prune"));
    let folds = config.integer("split.folds").map(|folds| folds as u32);
    if folds.is_some() && prune != Pruning::None {
        return Err(Error::Usage(
            "tune.prune: with --folds a trial is several trainings, of which none is ended early; leave out one of them"
                .to_string(),
        ));
    }
    // The test is for what is chosen in the end.
    let base = config.clone().with("train.seal_test", true);
    let sources = TrainSources::open(run, &base).await?;
    let of_fold = |config: &Config| match folds {
        Some(_) => config.clone().with("split.fold", 1),
        None => config.clone(),
    };
    let plan = TrainPlan::on(&of_fold(&base), &sources).await?;
    refuse_folder("--out", &store, plan.feed.image_folder()).await?;
    if plan.feed.rows(Split::Validation) == 0 {
        return Err(Error::Usage(format!(
            "{} has no validation images, by which trials are compared; see --split",
            plan.feed.store.location()
        )));
    }
    let space = Space::of(&base, &plan.feed.class_counts().await?).map_err(Error::Plan)?;
    if space.dimensions.is_empty() {
        return Err(Error::Usage(
            "tune.space: every option of the usual space is given; name what to search with --space"
                .to_string(),
        ));
    }
    if prune != Pruning::None && space.dimensions.iter().any(|dimension| dimension.row.key == "train.epochs")
    {
        return Err(Error::Usage(
            "tune.space: train.epochs: with --prune all trials have as many epochs; leave out one of them"
                .to_string(),
        ));
    }
    let header = JournalHeader {
        format: JournalHeader::format(),
        search: method.to_string(),
        prune: prune.to_string(),
        seed: config.whole("seed"),
        folds: folds.map_or(0, u64::from),
        epochs: plan.epochs,
        monitor: plan.keeping.monitor.to_string(),
        space: space.to_json(),
        training: plan.identity.clone(),
    };
    let resumes = config.is_on("tune.resume");
    if !resumes {
        Journal::refuse_full(&store).await?;
    }
    // Nobody reads a journal while another process writes it. A folder that is not there has none.
    let claim = match folder.is_dir() || !resumes {
        true => Some(store.claim_alone()?.ok_or_else(|| {
            Error::Usage(format!(
                "another process writes {}: wait until it has ended, or give another --out",
                store.location()
            ))
        })?),
        false => None,
    };
    let journal = match resumes {
        true => Journal::resume(&folder, &header)?,
        false => Journal::begin(&folder, &header)?,
    };
    let tuning = Tuning {
        base,
        sources,
        features: KeptFeatures::default(),
        axes: space.axes(),
        space,
        method,
        brackets: brackets(prune, plan.epochs),
        prunes: prune != Pruning::None,
        seed: Seed(config.whole("seed")),
        folds,
        monitor: plan.keeping.monitor,
        budget,
        journal,
        began: Instant::now(),
        spent: 0.0,
    };
    Ok((store, tuning, plan, claim))
}

impl Tuning {
    /// Trials until there is a reason to end.
    async fn run(
        &mut self,
        run: &Run,
        trials: u64,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<EndedBy, Error> {
        self.began = Instant::now();
        loop {
            let under_way = self.journal.trials().last().filter(|last| last.ended.is_none()).cloned();
            let n = self.journal.trials().len() - usize::from(under_way.is_some());
            if n as u64 >= trials {
                return Ok(EndedBy::Trials);
            }
            if self.is_out_of_time() {
                return Ok(EndedBy::Budget);
            }
            if let Some(interrupt) = run.interrupted() {
                return Err(Error::Interrupted(interrupt));
            }
            let tried: Vec<Tried> = self.journal.trials()[..n]
                .iter()
                .map(|record| Tried {
                    point: record.point.clone(),
                    score: record.ended.as_ref().and_then(|ended| ended.score),
                })
                .collect();
            let point = match &under_way {
                Some(record) => record.point.clone(),
                None => {
                    if self.is_exhausted(&tried) {
                        return Ok(EndedBy::Exhausted);
                    }
                    match search::next(self.method, &self.axes, self.seed, &tried) {
                        Some(point) => point,
                        None => return Ok(EndedBy::Exhausted),
                    }
                }
            };
            let number = n as u32 + 1;
            let deadly = under_way.as_ref().filter(|record| record.is_deadly()).is_some();
            let (config, chosen) = self.space.settings(&self.base, &point);
            let settings = by_key(chosen);
            let known = self.known(&settings);
            let ended = if deadly {
                // Without another beginning: what ended the process would end it again.
                Tracked::Ended(Ended::failed("the process ended in it three times".to_string(), 0, 0.0))
            } else {
                self.journal.add(Event::Begun { trial: number, point, settings })?;
                match known {
                    Some(known) => Tracked::Ended(known),
                    None => self.one(run, number, &config, told).await?,
                }
            };
            let ended = match ended {
                Tracked::Ended(ended) => ended,
                Tracked::OutOfTime(seconds) => {
                    self.journal.add(Event::Left { trial: number, seconds })?;
                    return Ok(EndedBy::Budget);
                }
            };
            self.journal.add(Event::Ended { trial: number, ended })?;
            let results: Vec<TrialResult> =
                self.journal.trials().iter().filter_map(TrialResult::of).collect();
            let last = results.last().expect("one has just ended");
            let is_best = best_of(results.iter()).is_some_and(|best| best.trial == number);
            told(Told::Ended { result: last, is_best });
        }
    }

    fn is_out_of_time(&self) -> bool {
        let spent = self.spent + self.began.elapsed().as_secs_f64();
        self.budget.is_some_and(|budget| spent >= budget.as_secs_f64())
    }

    /// Whether every combination of values was tried.
    fn is_exhausted(&self, tried: &[Tried]) -> bool {
        let combinations =
            self.axes.iter().try_fold(1u64, |n, axis| Some(n.saturating_mul(axis.values()?.into())));
        let mut points: Vec<Vec<u64>> =
            tried.iter().map(|tried| tried.point.iter().map(|at| at.to_bits()).collect()).collect();
        points.sort();
        points.dedup();
        combinations.is_some_and(|n| points.len() as u64 >= n)
    }

    /// The end of an earlier trial with the same settings, which this one would come to again.
    fn known(&self, settings: &BTreeMap<String, serde_json::Value>) -> Option<Ended> {
        let before = self.journal.trials().iter().find_map(|record| {
            let ended = record.ended.as_ref().filter(|ended| ended.outcome != Outcome::Pruned)?;
            (record.settings == *settings).then(|| (record.trial, ended.clone()))
        });
        before.map(|(trial, ended)| Ended {
            same_as: Some(ended.same_as.unwrap_or(trial)),
            epochs: 0,
            seconds: 0.0,
            ..ended
        })
    }

    /// The bracket of a trial, by the number of it, and its rungs.
    fn bracket(&self, trial: u32) -> (usize, &Bracket) {
        let all: u32 = self.brackets.iter().map(|bracket| bracket.trials).sum();
        let mut place = (trial - 1) % all;
        for (index, bracket) in self.brackets.iter().enumerate() {
            if place < bracket.trials {
                return (index, bracket);
            }
            place -= bracket.trials;
        }
        unreachable!("a place is below the sum")
    }

    /// What trials of the same bracket before this one scored after so many epochs.
    fn rivals(&self, trial: u32, epoch: u32) -> Vec<f64> {
        let bracket = self.bracket(trial).0;
        let before = self.journal.trials().iter().filter(|record| record.trial < trial);
        before
            .filter(|record| self.bracket(record.trial).0 == bracket)
            .filter_map(|record| record.scores.get(epoch as usize - 1).copied().flatten())
            .collect()
    }

    /// A trial: one training, or one for each fold.
    async fn one(
        &mut self,
        run: &Run,
        number: u32,
        config: &Config,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<Tracked, Error> {
        let began = Instant::now();
        let trained = match self.folds {
            None => self.training(run, number, config, told).await,
            Some(folds) => self.folded(run, number, config, folds, told).await,
        };
        let seconds = began.elapsed().as_secs_f64();
        let epochs = self.journal.trials().last().map_or(0, |record| record.scores.len() as u32);
        match trained {
            Ok(Some(Ended { score, .. })) if score.is_none_or(|score| !score.is_finite()) => {
                Ok(Tracked::Ended(Ended::failed(
                    "it diverged: no epoch has a score".to_string(),
                    epochs,
                    seconds,
                )))
            }
            Ok(Some(ended)) => Ok(Tracked::Ended(Ended { seconds, ..ended })),
            Ok(None) => Ok(Tracked::OutOfTime(seconds)),
            Err(error @ Error::Interrupted(_)) => {
                self.journal.add(Event::Left { trial: number, seconds })?;
                Err(error)
            }
            // What is wrong with the data or the disk is wrong with every trial.
            Err(
                error @ (Error::Integrity(_)
                | Error::TooManyRejects { .. }
                | Error::NothingLeft(_)
                | Error::Store(_)),
            ) => Err(error),
            Err(error) => {
                Ok(Tracked::Ended(Ended::failed(error.chain().replace('\n', "; "), epochs, seconds)))
            }
        }
    }

    /// A training; `None` where the time was over before its end.
    async fn training(
        &mut self,
        run: &Run,
        number: u32,
        config: &Config,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<Option<Ended>, Error> {
        let plan = Arc::new(TrainPlan::on(config, &self.sources).await?);
        let features = self.features.clone();
        let (mut best, mut pruned, mut late, mut broken) = (None::<f64>, false, false, None);
        let mut on_epoch = |metrics: &crate::report::EpochMetrics| {
            let (epoch, epochs) = (metrics.epoch, plan.epochs);
            let score = self.monitor.score(metrics).filter(|score| score.is_finite());
            best = if score > best { score } else { best };
            let rivals = self.rivals(number, epoch);
            if let Err(error) = self.journal.add(Event::Epoch { trial: number, epoch, score: best }) {
                broken = Some(error);
                return ControlFlow::Break(());
            }
            told(Told::Epoch { trial: number, epoch, epochs, score: best });
            let rungs = &self.bracket(number).1.rungs;
            if self.prunes && epoch < epochs && rungs.contains(&epoch) {
                pruned = !best.is_some_and(|best| goes_on(&rivals, best));
            }
            late = epoch < epochs && self.is_out_of_time();
            if pruned || late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let done = trial(run, &plan, &features, false, &mut on_epoch).await?;
        if let Some(error) = broken {
            return Err(error);
        }
        Ok((!late || pruned).then_some(Ended {
            outcome: if pruned { Outcome::Pruned } else { Outcome::Done },
            score: Some(done.score),
            best_epoch: done.best_epoch,
            epochs: done.epochs.len() as u32,
            seconds: 0.0,
            reason: None,
            same_as: None,
        }))
    }

    /// A training for each fold, and the mean of their scores.
    async fn folded(
        &mut self,
        run: &Run,
        number: u32,
        config: &Config,
        folds: u32,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<Option<Ended>, Error> {
        let (mut sum, mut trained) = (0.0, 0);
        for fold in 1..=folds {
            let config = config.clone().with("split.fold", i64::from(fold));
            let plan = Arc::new(TrainPlan::on(&config, &self.sources).await?);
            let (monitor, epochs, mut late) = (self.monitor, plan.epochs, false);
            let mut on_epoch = |metrics: &crate::report::EpochMetrics| {
                let score = monitor.score(metrics);
                told(Told::Epoch { trial: number, epoch: metrics.epoch, epochs, score });
                late = (fold, metrics.epoch) < (folds, epochs) && self.is_out_of_time();
                if late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let done = trial(run, &plan, &self.features, false, &mut on_epoch).await?;
            if late {
                return Ok(None);
            }
            sum += done.score;
            trained += done.epochs.len() as u32;
        }
        Ok(Some(Ended {
            outcome: Outcome::Done,
            score: Some(sum / f64::from(folds)),
            best_epoch: 0,
            epochs: trained,
            seconds: 0.0,
            reason: None,
            same_as: None,
        }))
    }

    /// All that was found.
    fn summary(&self, store: &Store, plan: &TrainPlan, ended_by: EndedBy) -> Tuned {
        let trials: Vec<TrialResult> = self.journal.trials().iter().filter_map(TrialResult::of).collect();
        let tried: Vec<Tried> = trials
            .iter()
            .map(|trial| Tried { point: trial.point.clone(), score: trial.ended.score })
            .collect();
        let keys = self.space.dimensions.iter().map(|dimension| dimension.row.key.to_string());
        let shares = importance(&self.axes, &tried).unwrap_or_default();
        let best_so_far = (1..=trials.len())
            .map(|n| best_of(trials[..n].iter()).and_then(|best| best.ended.score))
            .collect();
        Tuned {
            output: store.location().to_string(),
            source: plan.feed.store.location().to_string(),
            search: self.method.to_string(),
            prune: self.base.text("tune.prune").unwrap_or_default(),
            monitor: self.monitor,
            space: self.space.to_json(),
            best: best_of(trials.iter()).map(|best| best.trial),
            best_so_far,
            importance: keys.zip(shares).collect(),
            ended_by,
            seconds: trials.iter().map(|trial| trial.ended.seconds).sum(),
            trials,
        }
    }

    /// Writes what was found.
    async fn write(&self, store: &Store, tuned: &Tuned) -> Result<(), Error> {
        let run_file = self.base.to_toml(Command::Tune, &Facts::default());
        store.put(tune_files::CONFIG, run_file.clone().into()).await?;
        store.put(tune_files::TRIALS, csv(&self.space, tuned).into()).await?;
        let (pages, note) = pages(&self.space, tuned, &run_file, self.base.whole("report.bytes"));
        warn(&Vec::from_iter(note));
        for (name, page) in pages {
            store.put(name, page.into()).await?;
        }
        store.put(tune_files::SUMMARY, forebay_datasets::manifest::to_json(tuned).into()).await?;
        let best = tuned.best.and_then(|best| tuned.trials.iter().find(|trial| trial.trial == best));
        if let Some(best) = best {
            let (config, _) = self.space.settings(&self.base, &best.point);
            let planned = match self.folds {
                Some(_) => TrainPlan::on(&config.clone().with("split.fold", 1), &self.sources).await?,
                None => TrainPlan::on(&config, &self.sources).await?,
            };
            let mut file: toml::Table = planned.run_file.parse().expect("its own text");
            if let (Some(_), Some(toml::Value::Table(split))) = (self.folds, file.get_mut("split")) {
                // It trains the one model that is wanted in the end.
                split.remove("fold");
                split.remove("folds");
            }
            let text = format!(
                "# Trial {} of the search in {}, with a score of {} on the validation images ({}).\n\
                 # To train it again: forebay train --config {} --out RUN{}\n\n{}",
                best.trial,
                forebay_datasets::escape::printable(&tuned.output),
                best.ended.score.unwrap_or(f64::NAN),
                tuned.monitor,
                forebay_datasets::escape::shell(&format!("{}/{}", tuned.output, tune_files::BEST)),
                self.folds.map_or(String::new(), |folds| format!(
                    "; its score is the mean over folds, which --folds {folds} trains again"
                )),
                toml::to_string_pretty(&file).expect("a table of plain values")
            );
            store.put(tune_files::BEST, text.into()).await?;
        }
        Ok(())
    }
}
