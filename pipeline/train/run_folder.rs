//! The folder that a run leaves: what its files are called, and how they are written whole.

use std::io::Write;

use bytes::Bytes;
use forebay_datasets::store::Store;

use super::Start;
use crate::flow::Error;
use crate::options::{Config, cache_home};
use crate::plan::{folder_and_file, open, refuse_folder};

/// The files of a run folder.
pub mod files {
    /// The resolved run file.
    pub const CONFIG: &str = "config.toml";
    /// The chain from image bytes to tensor.
    pub const CHAIN: &str = "chain.json";
    /// The checkpoint to resume from.
    pub const LAST: &str = "last.safetensors";
    /// The weights of the best epoch, under the names that timm has for them.
    pub const MODEL: &str = "model.safetensors";
    /// What timm and transformers need to know of the model.
    pub const TIMM: &str = "config.json";
    /// How transformers turns an image into the tensor that the model takes.
    pub const PREPROCESSOR: &str = "preprocessor_config.json";
    /// The class of each logit, one a line.
    pub const LABELS: &str = "labels.txt";
    /// One JSON object per epoch.
    pub const METRICS: &str = "metrics.jsonl";
    /// One JSON object per point of the training curves, every few steps.
    pub const STEPS: &str = "steps.jsonl";
    /// What the names of TensorBoard's event files begin with; every start of the run adds one.
    pub const EVENTS: &str = "events.out.tfevents.";
    /// The curves of loss, accuracy and learning rate.
    pub const CURVES: [&str; 3] = ["loss.svg", "accuracy.svg", "learning_rate.svg"];
    /// The images that could not be read, and why: one JSON object a line.
    pub const REJECTS: &str = "rejects.jsonl";
    /// What the run came to, for programs.
    pub const SUMMARY: &str = "summary.json";
    /// What the run came to, for people.
    pub const SUMMARY_TEXT: &str = "summary.md";
    /// The report for people, with every curve and table.
    pub const REPORT: &str = "report.html";
    /// The plots of what the best epoch said of held-out images.
    pub const PLOTS: [&str; 5] =
        ["confusion.svg", "roc.svg", "precision_recall.svg", "reliability.svg", "coverage.svg"];
    /// Labels of held-out images that look wrong, for `prepare --fixes`.
    pub const FIXES: &str = "fixes.csv";
    /// What the best epoch said of the validation and the test images.
    pub const PREDICTIONS: &str = "predictions.parquet";
    /// Every figure of the best epoch on the validation and the test images.
    pub const EVALUATION: &str = "evaluation.json";
    /// How often a model of the run was scored on its test images.
    pub const TESTS: &str = "test.json";
    const SNAPSHOT: [&str; 2] = ["snapshot-", ".safetensors"];

    /// The weights at the end of a cycle of `--snapshots`, counted from 1.
    pub fn snapshot(number: u32) -> String {
        format!("{}{number}{}", SNAPSHOT[0], SNAPSHOT[1])
    }

    /// Which cycle a file holds the weights of; `None` for one that is no snapshot.
    pub fn snapshot_number(name: &str) -> Option<u32> {
        let number = name.strip_prefix(SNAPSHOT[0])?.strip_suffix(SNAPSHOT[1])?.parse().ok()?;
        (snapshot(number) == name).then_some(number)
    }

    /// True for a file of weights that a run leaves for others.
    pub fn is_model(name: &str) -> bool {
        name == MODEL || snapshot_number(name).is_some()
    }

    /// True for a name under which a run writes a file.
    pub fn is_of_a_run(name: &str) -> bool {
        ALL.contains(&name) || name.starts_with(EVENTS) || snapshot_number(name).is_some()
    }

    /// True for a file that a run wrote, and may replace.
    pub fn is_written_by_a_run(name: &str) -> bool {
        ALL.contains(&name) || is_event_file(name) || snapshot_number(name).is_some()
    }

    /// True for an event file of TensorBoard that Forebay wrote; others write theirs beside it.
    pub fn is_event_file(name: &str) -> bool {
        name.starts_with(EVENTS) && name.contains(".forebay.")
    }

    /// Every file that a run writes under a fixed name, the checkpoint first; beside them it writes event files and snapshots.
    pub const ALL: [&str; 25] = [
        LAST,
        MODEL,
        TIMM,
        PREPROCESSOR,
        LABELS,
        CONFIG,
        CHAIN,
        METRICS,
        STEPS,
        REJECTS,
        CURVES[0],
        CURVES[1],
        CURVES[2],
        SUMMARY,
        SUMMARY_TEXT,
        REPORT,
        PLOTS[0],
        PLOTS[1],
        PLOTS[2],
        PLOTS[3],
        PLOTS[4],
        FIXES,
        PREDICTIONS,
        EVALUATION,
        TESTS,
    ];
}

/// The run folder belongs to this process until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Owned {
    /// The folder itself, opened, with an advisory lock on it: a file for the purpose could be left behind.
    _folder: std::fs::File,
}

/// A run folder: kept locally, and where RUN is remote each file is also put there whole.
#[derive(Clone, Debug)]
pub struct RunFolder {
    local: Store,
    remote: Option<Store>,
}

impl RunFolder {
    /// Opens RUN. A remote one is kept below the user's cache folder as well.
    ///
    /// # Errors
    /// [`Error::Usage`] when it cannot be a place.
    pub fn open(config: &Config) -> Result<RunFolder, Error> {
        let out = open(config, "out", "--out RUN")?;
        if out.local_root().is_some() {
            return Ok(RunFolder { local: out, remote: None });
        }
        // The same bucket of another server is another place.
        let place = format!("{} {}", out.server().unwrap_or_default(), out.location());
        let name = blake3::hash(place.as_bytes()).to_hex();
        // Files that a run adds to need a local folder, in which nothing is that RUN has not.
        let kept = cache_home().unwrap_or_else(|| std::env::temp_dir().join("forebay"));
        let local = kept.join("runs").join(&name.as_str()[..16]);
        let local = Store::open(&local.to_string_lossy(), &Default::default())?;
        Ok(RunFolder { local, remote: Some(out) })
    }

    /// Refuses a run folder that is part of a dataset, or lies in a folder of `images`.
    ///
    /// # Errors
    /// As [`refuse_folder`].
    pub(crate) async fn refuse_place(&self, images: Option<&Store>) -> Result<(), Error> {
        refuse_folder("--out", self.authority(), images).await
    }

    /// Refuses to replace a run whose file `input` is what the new one would begin with.
    ///
    /// # Errors
    /// [`Error::Usage`] that says so.
    pub(super) async fn refuse_losing(&self, input: &str) -> Result<(), Error> {
        let (folder, file) = folder_and_file(input);
        let Ok(folder) = Store::open(folder, &Default::default()) else { return Ok(()) };
        let names = self.names().await?;
        let is_input =
            |name: &&String| files::is_of_a_run(name) && self.authority().is_same_object(name, &folder, file);
        match names.iter().find(is_input) {
            Some(name) => Err(Error::Usage(format!(
                "--weights {input} is {name} of {}, which --overwrite deletes: copy it to another place, or give \
                 another --out",
                self.location()
            ))),
            None => Ok(()),
        }
    }

    /// Refuses a folder that a run could not begin in so.
    ///
    /// # Errors
    /// [`Error::Usage`] when it holds what a new run would write, or no checkpoint to resume from.
    pub(super) async fn refuse_start(&self, begin: Start) -> Result<(), Error> {
        let names = self.names().await?;
        let is_of_a_run = |name: &&String| files::is_of_a_run(name);
        let has_checkpoint = names.iter().any(|name| name == files::LAST);
        let (place, last) = (self.location(), files::LAST);
        match (begin, names.iter().find(is_of_a_run)) {
            (Start::Resume, _) if !has_checkpoint => Err(self.nothing_to_resume()),
            (Start::New, Some(_)) if has_checkpoint => Err(Error::Usage(format!(
                "{place} holds a run already: --resume goes on with it, --overwrite starts again"
            ))),
            (Start::New, Some(name)) => Err(Error::Usage(format!(
                "{place} holds {name}, which a run would replace, and no {last} to resume from: give another --out, or \
                 --overwrite to lose it"
            ))),
            _ => Ok(()),
        }
    }

    /// Where a user finds the run.
    pub fn location(&self) -> &str {
        self.remote.as_ref().unwrap_or(&self.local).location()
    }

    /// Makes this process the only one that writes the run, until what is returned is dropped. A remote run is owned on
    /// this machine only: no lock of a bucket ends with the process that has it.
    ///
    /// # Errors
    /// [`Error::Usage`] when another process has it, or when there is no folder that could be resumed from;
    /// [`Error::Failed`] when the folder cannot be made.
    pub fn own(&self, begin: Start) -> Result<Owned, Error> {
        let root = self.local.local_root().expect("a run is kept locally");
        if begin == Start::Resume && self.remote.is_none() && !root.exists() {
            return Err(self.nothing_to_resume());
        }
        let opened = std::fs::create_dir_all(root).and_then(|()| std::fs::File::open(root));
        let opened = opened.map_err(|error| Error::failed(format!("make {}", root.display()), error))?;
        self.lock(opened)
    }

    /// Refuses a folder that another process writes at this moment, or this one.
    ///
    /// # Errors
    /// [`Error::Usage`] that says so.
    pub(super) fn refuse_owned(&self) -> Result<(), Error> {
        let opened = std::fs::File::open(self.local.local_root().expect("a run is kept locally"));
        opened.map_or(Ok(()), |opened| self.lock(opened).map(drop))
    }

    fn lock(&self, opened: std::fs::File) -> Result<Owned, Error> {
        match opened.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Usage(format!(
                "another process writes {}: wait until it has ended, or give another --out",
                self.location()
            ))),
            // Some network file systems have no locks; what is written there is still written whole.
            Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(Owned { _folder: opened }),
        }
    }

    /// Removes what a killed run left of files that it had begun to write. Only the owner may.
    ///
    /// # Errors
    /// When the folder cannot be listed or a file cannot be removed.
    pub(super) async fn delete_leftovers(&self) -> Result<(), Error> {
        self.local.delete_leftovers("", files::is_written_by_a_run).await.map(drop).map_err(Error::from)
    }

    /// That there is no checkpoint to resume from.
    pub(super) fn nothing_to_resume(&self) -> Error {
        let (place, last) = (self.location(), files::LAST);
        Error::Usage(format!("{place} holds no {last} to resume from; leave out --resume"))
    }

    /// The store that counts: the remote one where there is one.
    fn authority(&self) -> &Store {
        self.remote.as_ref().unwrap_or(&self.local)
    }

    /// Reads a file of the run, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.authority().find(name).await?)
    }

    /// Writes a file of the run, whole or not at all.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), Error> {
        let bytes = bytes.into();
        self.local.put(name, bytes.clone()).await?;
        match &self.remote {
            Some(remote) => remote.put(name, bytes).await.map_err(Error::from),
            None => Ok(()),
        }
    }

    /// The names of the files of the run; none where there is no folder yet.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let store = self.authority();
        if store.local_root().is_some_and(|root| !root.is_dir()) {
            return Ok(Vec::new());
        }
        let found = store.list("").await?;
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    /// Deletes files of the run; one that is not there is no error.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn delete(&self, names: &[&str]) -> Result<(), Error> {
        let is_ours = files::is_written_by_a_run;
        self.local.delete(names, is_ours).await?;
        match &self.remote {
            Some(remote) => remote.delete(names, is_ours).await.map_err(Error::from),
            None => Ok(()),
        }
    }

    /// Adds to the end of a file that grows while the run goes on, in the local folder only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let root = self.local.local_root().expect("a run is kept locally");
        let path = root.join(name);
        let written = std::fs::create_dir_all(root).and_then(|()| {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(bytes)
        });
        written.map_err(|error| Error::failed(format!("write {}", path.display()), error))
    }

    /// Puts what [`append`](RunFolder::append) wrote where the run is remote.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn publish(&self, name: &str) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        match self.local.find(name).await? {
            Some(bytes) => remote.put(name, bytes).await.map_err(Error::from),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bucket_of_another_server_is_another_run() {
        let place = |endpoint: &str| {
            let flags = [("out", "s3://bucket/run"), ("store.endpoint", endpoint), ("store.anonymous", "")];
            let flags = flags.map(|(key, value)| (key, value.to_string()));
            let folder = RunFolder::open(&Config::resolve(None, &[], &flags).unwrap()).unwrap();
            assert!(folder.remote.is_some());
            folder.local.location().to_string()
        };
        assert_eq!(place("http://127.0.0.1:1"), place("http://127.0.0.1:1"));
        assert_ne!(place("http://127.0.0.1:1"), place("http://127.0.0.1:2"));
    }
}
