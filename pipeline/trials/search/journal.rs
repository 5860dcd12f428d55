//! The journal of a search: a line for everything that happened, on the disk before the search goes on.
//!
//! It is all that a search that goes on knows of what was before. A line that a killed process left unfinished is the last one,
//! and is cut off.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use forebay_datasets::escape::printable;
use forebay_datasets::store::Store;
use serde::{Deserialize, Serialize};

use crate::flow::{Error, kill_point};

/// The form of the journal.
const FORMAT: u32 = 1;
/// A trial that the process did not outlive so often is one that fails: what kills it would do so again.
const BEGINNINGS_MAX: u32 = 3;

/// What a search is: the journal of another one is none of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// The form of the journal.
    pub format: u32,
    /// How the next settings are chosen.
    pub search: String,
    /// Which trials are ended early.
    pub prune: String,
    /// The seed of the search and of every trial.
    pub seed: u64,
    /// Trainings of a trial; 0 where it is not folded.
    pub folds: u64,
    /// Epochs of a trial, unless they are searched.
    pub epochs: u32,
    /// What trials are compared by.
    pub monitor: String,
    /// What is searched, by key.
    pub space: serde_json::Map<String, serde_json::Value>,
    /// Fingerprint of the images and of the settings that all trials have in common.
    pub training: String,
}

impl JournalHeader {
    /// That of the form that this program writes; all else is up to the caller.
    pub const fn format() -> u32 {
        FORMAT
    }

    /// Whether a point lies in the space: a coordinate for each option that is searched.
    fn has(&self, point: &[f64]) -> bool {
        point.len() == self.space.len() && point.iter().all(|at| (0.0..=1.0).contains(at))
    }

    /// What another search has otherwise, in a few words; `None` where it is the same.
    fn difference(&self, other: &JournalHeader) -> Option<String> {
        let JournalHeader { format, search, prune, seed, folds, epochs, monitor, space, training } = self;
        let differs = |name: &str, ours: &dyn std::fmt::Display, theirs: &dyn std::fmt::Display| {
            let (ours, theirs) = (ours.to_string(), theirs.to_string());
            (ours != theirs).then(|| format!("{name} {} and not {ours}", printable(&theirs)))
        };
        let of_space = || {
            let keys = space.keys().chain(other.space.keys());
            let key = keys.into_iter().find(|key| space.get(*key) != other.space.get(*key))?;
            Some(format!("another space ({})", printable(key)))
        };
        differs("format", format, &other.format)
            .or_else(|| differs("search", search, &other.search))
            .or_else(|| differs("prune", prune, &other.prune))
            .or_else(|| differs("seed", seed, &other.seed))
            .or_else(|| differs("folds", folds, &other.folds))
            .or_else(|| differs("epochs", epochs, &other.epochs))
            .or_else(|| differs("monitor", monitor, &other.monitor))
            .or_else(of_space)
            .or_else(|| {
                (*training != other.training).then(|| "other images or other options of the training".into())
            })
    }
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It trained to its end.
    Done,
    /// It was ended early, because others were better.
    Pruned,
    /// It could not be trained, or came to no score.
    Failed,
}

/// The end of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Its best score, the higher the better; `None` where it failed.
    pub score: Option<f64>,
    /// The epoch with that score, counted from 1; 0 where it failed, and of folds.
    pub best_epoch: u32,
    /// Epochs that it trained.
    pub epochs: u32,
    /// Seconds that it took.
    pub seconds: f64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The trial with the same settings, whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u32>,
}

impl Ended {
    /// That of a trial that came to no score.
    pub fn failed(reason: String, epochs: u32, seconds: f64) -> Ended {
        let (score, best_epoch, same_as) = (None, 0, None);
        Ended { outcome: Outcome::Failed, score, best_epoch, epochs, seconds, reason: Some(reason), same_as }
    }
}

/// What happened; trials count from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The search began.
    Search(JournalHeader),
    /// A trial began.
    Begun {
        /// Which.
        trial: u32,
        /// Its coordinates in the space, each from 0 to 1.
        point: Vec<f64>,
        /// Its settings, by key.
        settings: BTreeMap<String, serde_json::Value>,
    },
    /// A trial was left for another time.
    Left {
        /// Which.
        trial: u32,
        /// How long it was trained until then.
        #[serde(default)]
        seconds: f64,
    },
    /// An epoch of a trial ended.
    Epoch {
        /// Which trial.
        trial: u32,
        /// The epoch, counted from 1.
        epoch: u32,
        /// The best score up to it, the higher the better; `None` while there is none.
        score: Option<f64>,
    },
    /// A trial ended.
    Ended {
        /// Which.
        trial: u32,
        /// How.
        #[serde(flatten)]
        ended: Ended,
    },
}

/// A trial as the journal has it.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRecord {
    /// Its number, counted from 1.
    pub trial: u32,
    /// Its coordinates in the space.
    pub point: Vec<f64>,
    /// Its settings, by key; null leaves an option out.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The best score up to each of its epochs.
    pub scores: Vec<Option<f64>>,
    /// Seconds of training that were left for another time, and so done again.
    pub seconds_left: f64,
    /// Its end; `None` while it is under way.
    pub ended: Option<Ended>,
    beginnings: u32,
}

impl TrialRecord {
    /// Whether the process has died in it so often that it counts as failed.
    pub fn is_deadly(&self) -> bool {
        self.ended.is_none() && self.beginnings >= BEGINNINGS_MAX
    }
}

/// The journal, open at its end.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    trials: Vec<TrialRecord>,
}

impl Journal {
    /// Refuses a folder that holds something.
    ///
    /// # Errors
    /// [`Error::Usage`] that says what; others when the store fails.
    pub async fn refuse_full(store: &Store) -> Result<(), Error> {
        if store.local_root().is_some_and(|root| !root.is_dir()) {
            return Ok(());
        }
        let place = store.location();
        let there = store.list("").await?;
        match there.first() {
            None => Ok(()),
            Some(_) if there.iter().any(|(name, _)| name == Journal::NAME) => Err(Error::Usage(format!(
                "{place} holds a search already: --resume goes on with it, or give another --out"
            ))),
            Some((name, _)) => Err(Error::Usage(format!(
                "{place} holds {name}, which is of no search: give another --out, which is new or empty"
            ))),
        }
    }

    /// The name of the file.
    pub const NAME: &'static str = "journal.jsonl";

    /// Begins one.
    ///
    /// # Errors
    /// [`Error::Failed`] when it cannot be written.
    pub fn begin(folder: &Path, header: &JournalHeader) -> Result<Journal, Error> {
        let path = folder.join(Journal::NAME);
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.map_err(|error| Error::failed(format!("make {}", path.display()), error))?;
        let mut journal = Journal { file, path, trials: Vec::new() };
        journal.write(&Event::Search(header.clone()))?;
        Ok(journal)
    }

    /// Goes on with one.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is none or it is of another search, [`Error::Integrity`] where it cannot be understood.
    pub fn resume(folder: &Path, header: &JournalHeader) -> Result<Journal, Error> {
        let path = folder.join(Journal::NAME);
        let place = path.display().to_string();
        let opened = OpenOptions::new().read(true).append(true).open(&path);
        let mut file = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::Usage(format!("--resume: there is no {place}; leave --resume out to begin a search"))
            }
            _ => Error::failed(format!("open {place}"), error),
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Error::failed(format!("read {place}"), error))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            let cut = file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0)).map(drop));
            cut.map_err(|error| Error::failed(format!("mend {place}"), error))?;
        }
        let mut journal = Journal { file, path, trials: Vec::new() };
        let mut lines =
            bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        let read = |number: usize, line: &[u8]| {
            serde_json::from_slice::<Event>(line).map_err(|error| {
                Error::Integrity(format!(
                    "line {} of {place} cannot be understood: {error}; search anew with another --out",
                    number + 1
                ))
            })
        };
        match lines.next() {
            None => journal.write(&Event::Search(header.clone()))?,
            Some((number, line)) => match read(number, line)? {
                Event::Search(theirs) => {
                    if let Some(differs) = header.difference(&theirs) {
                        return Err(Error::Usage(format!(
                            "--resume: {place} is of another search: it has {differs}; give the same options, or another --out"
                        )));
                    }
                }
                _ => {
                    return Err(Error::Integrity(format!(
                        "{place} does not begin with what was searched; search anew with another --out"
                    )));
                }
            },
        }
        for (number, line) in lines {
            let event = read(number, line)?;
            let problem = match &event {
                Event::Begun { point, .. } if !header.has(point) => Some("lies outside the space"),
                _ => (!journal.take(event)).then_some("is not under way there"),
            };
            if let Some(problem) = problem {
                return Err(Error::Integrity(format!(
                    "line {} of {place} is of a trial that {problem}; search anew with another --out",
                    number + 1
                )));
            }
        }
        Ok(journal)
    }

    /// Every trial so far, in order.
    pub fn trials(&self) -> &[TrialRecord] {
        &self.trials
    }

    /// Adds what happened; when it returns, it is on the disk.
    ///
    /// # Errors
    /// [`Error::Failed`] when it cannot be written.
    pub fn add(&mut self, event: Event) -> Result<(), Error> {
        let moment = match &event {
            Event::Begun { trial, .. } => format!("trial {trial} begun"),
            Event::Epoch { trial, epoch, .. } => format!("trial {trial} epoch {epoch}"),
            Event::Ended { trial, .. } => format!("trial {trial} ended"),
            Event::Search(_) | Event::Left { .. } => String::new(),
        };
        kill_point(&format!("tune: before {moment}"));
        self.write(&event)?;
        kill_point(&format!("tune: after {moment}"));
        assert!(self.take(event), "events come in order");
        Ok(())
    }

    fn write(&mut self, event: &Event) -> Result<(), Error> {
        let line = serde_json::to_string(event).expect("events are plain data") + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::failed(format!("write {}", self.path.display()), error))
    }

    /// Takes an event into the trials; `false` where it does not follow from those before.
    fn take(&mut self, event: Event) -> bool {
        let n = self.trials.len() as u32;
        match event {
            Event::Search(_) => false,
            Event::Begun { trial, point, settings } => {
                let last = self.trials.last_mut();
                match last.filter(|last| last.trial == trial && last.ended.is_none()) {
                    // It is trained from its start.
                    Some(last) if last.point == point => {
                        last.scores.clear();
                        last.beginnings += 1;
                        true
                    }
                    Some(_) => false,
                    None => {
                        let is_next =
                            trial == n + 1 && self.trials.last().is_none_or(|last| last.ended.is_some());
                        let (scores, ended) = (Vec::new(), None);
                        self.trials.push(TrialRecord {
                            trial,
                            point,
                            settings,
                            scores,
                            ended,
                            beginnings: 1,
                            seconds_left: 0.0,
                        });
                        is_next
                    }
                }
            }
            Event::Left { trial, seconds } => self.under_way(trial).is_some_and(|record| {
                record.beginnings = 0;
                record.seconds_left += seconds;
                true
            }),
            Event::Epoch { trial, epoch, score } => self.under_way(trial).is_some_and(|record| {
                record.scores.push(score);
                record.scores.len() == epoch as usize
            }),
            Event::Ended { trial, ended } => self.under_way(trial).is_some_and(|record| {
                record.ended = Some(ended);
                true
            }),
        }
    }

    fn under_way(&mut self, trial: u32) -> Option<&mut TrialRecord> {
        self.trials.last_mut().filter(|last| last.trial == trial && last.ended.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> JournalHeader {
        JournalHeader {
            format: FORMAT,
            search: "tpe".into(),
            prune: "none".into(),
            seed: 3,
            folds: 0,
            epochs: 2,
            monitor: "accuracy".into(),
            space: [("train.dropout".to_string(), serde_json::json!([0.1, 0.2]))].into_iter().collect(),
            training: "abc".into(),
        }
    }

    fn begun(trial: u32) -> Event {
        let settings = [("train.dropout".to_string(), 0.1.into())].into();
        Event::Begun { trial, point: vec![0.1 + 0.2], settings }
    }

    fn ended(trial: u32, score: f64) -> Event {
        let ended = Ended {
            outcome: Outcome::Done,
            score: Some(score),
            best_epoch: 1,
            epochs: 1,
            seconds: 0.5,
            reason: None,
            same_as: None,
        };
        Event::Ended { trial, ended }
    }

    fn epoch(trial: u32, epoch: u32) -> Event {
        Event::Epoch { trial, epoch, score: Some(1.0 / 3.0) }
    }

    #[test]
    fn what_was_written_is_there_again_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), &header()).unwrap();
        for event in [begun(1), epoch(1, 1), ended(1, 0.1 + 0.7), begun(2), epoch(2, 1)] {
            journal.add(event).unwrap();
        }
        let trials = journal.trials().to_vec();
        drop(journal);
        let path = folder.path().join(Journal::NAME);
        let whole = std::fs::read(&path).unwrap();
        for torn in ["{\"event\":\"epo", "{", "\u{fffd}"] {
            std::fs::write(&path, [&whole[..], torn.as_bytes()].concat()).unwrap();
            let mut journal = Journal::resume(folder.path(), &header()).unwrap();
            assert_eq!(journal.trials(), trials);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            // A trial that was under way begins anew.
            journal.add(begun(2)).unwrap();
            assert_eq!((journal.trials().len(), journal.trials()[1].scores.len()), (2, 0));
        }
        assert!(Journal::begin(folder.path(), &header()).is_err(), "a journal is not written over");
    }

    #[test]
    fn a_trial_that_the_process_never_outlives_is_deadly_and_one_that_was_left_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), &header()).unwrap();
        for times in 1..=3 {
            journal.add(begun(1)).unwrap();
            assert_eq!(journal.trials()[0].is_deadly(), times == 3);
        }
        journal.add(Event::Left { trial: 1, seconds: 0.5 }).unwrap();
        assert!(!journal.trials()[0].is_deadly());
    }

    #[test]
    fn a_journal_of_another_search_is_refused_with_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        drop(Journal::begin(folder.path(), &header()).unwrap());
        let mut space = header();
        space.space.insert("train.warmup".into(), serde_json::json!([1.0]));
        let cases = [
            (JournalHeader { search: "gp".into(), ..header() }, "it has search tpe and not gp"),
            (JournalHeader { seed: 4, ..header() }, "seed 3 and not 4"),
            (space, "another space (train.warmup)"),
            (JournalHeader { training: "other".into(), ..header() }, "other images or other options"),
        ];
        for (other, why) in cases {
            let error = Journal::resume(folder.path(), &other).unwrap_err();
            assert!(error.to_string().contains(why) && error.exit_code() == 2, "{error}");
        }
        assert!(Journal::resume(folder.path(), &header()).is_ok());
        let nowhere = folder.path().join("nowhere");
        assert_eq!(Journal::resume(&nowhere, &header()).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_journal_that_contradicts_itself_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Journal::NAME);
        for event in [
            r#"{"event":"epoch","trial":2,"epoch":1,"score":0.5}"#,
            r#"{"event":"begun","trial":1,"point":[],"settings":{}}"#,
            r#"{"event":"begun","trial":1,"point":[0.5,0.5],"settings":{}}"#,
            r#"{"event":"begun","trial":1,"point":[7.5],"settings":{}}"#,
            "nonsense",
        ] {
            let _ = std::fs::remove_file(&path);
            drop(Journal::begin(folder.path(), &header()).unwrap());
            let text = std::fs::read_to_string(&path).unwrap() + event + "\n";
            std::fs::write(&path, text).unwrap();
            let error = Journal::resume(folder.path(), &header()).unwrap_err();
            assert!(error.to_string().contains("line 2 of ") && error.exit_code() == 4, "{error}");
        }
    }
}
