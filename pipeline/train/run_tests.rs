//! How often models of a run were scored on its test images: what is looked at often is chosen by, and tests no more.

use serde::{Deserialize, Serialize};

use super::run_folder::{RunFolder, files};
use crate::feed::TestAccess;
use crate::flow::Error;

/// `test.json` of a run folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTests {
    /// How often a model of the run was scored on the test images.
    pub openings: u64,
    /// Whether they are kept for one look at the end, as those of runs among which a search chose.
    pub sealed: bool,
    /// By what the images of the run are known, wherever they are; `None` in a file of before this was kept.
    #[serde(default)]
    pub images: Option<String>,
}

impl RunTests {
    /// Reads it; that of a folder without one says that nothing was looked at.
    ///
    /// # Errors
    /// [`Error::Integrity`] when it cannot be understood; others when the store fails.
    pub async fn read(folder: &RunFolder) -> Result<RunTests, Error> {
        let Some(bytes) = folder.get(files::TESTS).await? else { return Ok(RunTests::default()) };
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::Integrity(format!("{}/{} cannot be understood: {error}", folder.location(), files::TESTS))
        })
    }

    /// Says of a run that begins which its images are, and whether those for the test are sealed.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn begin(folder: &RunFolder, sealed: bool, images: String) -> Result<(), Error> {
        RunTests { openings: 0, sealed, images: Some(images) }.put(folder).await
    }

    /// Counts one more look at the test images, before it is taken.
    ///
    /// # Errors
    /// As [`RunTests::read`].
    pub async fn open(folder: &RunFolder) -> Result<TestAccess, Error> {
        let mut tests = RunTests::read(folder).await?;
        tests.openings = tests.openings.saturating_add(1);
        tests.put(folder).await?;
        Ok(TestAccess::counted(tests.openings))
    }

    /// A look at what was looked at already, by the same model on the same images; the first one counts.
    ///
    /// # Errors
    /// As [`RunTests::read`].
    pub(super) async fn again(folder: &RunFolder) -> Result<TestAccess, Error> {
        match RunTests::read(folder).await?.openings {
            0 => RunTests::open(folder).await,
            openings => Ok(TestAccess::counted(openings)),
        }
    }

    /// Of several runs on the same test images: what any of them knows.
    pub fn together(self, other: RunTests) -> RunTests {
        RunTests {
            openings: self.openings.max(other.openings),
            sealed: self.sealed || other.sealed,
            images: self.images.filter(|images| other.images.as_ref() == Some(images)),
        }
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        forebay_datasets::manifest::to_json(self)
    }

    async fn put(&self, folder: &RunFolder) -> Result<(), Error> {
        folder.put(files::TESTS, self.to_json()).await
    }
}
