//! Why a run ended before its time: each variant is named after the reaction it calls for.

use std::fmt;
use std::sync::Arc;

use forebay_datasets::catalog::CatalogError;
use forebay_datasets::escape::printable;
use forebay_datasets::shard::ReadError;
use forebay_datasets::store::StoreError;

use super::max_rejects::MaxRejects;

/// Why a run ended. Cheap to clone: the first error of a run comes out of every flow of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Call the program in another way: an option, a path or a file of the user is wrong.
    #[error("{0}")]
    Usage(String),

    /// Mend the plan: all of its problems, one a line.
    #[error("{}", .0.join("\n"))]
    Plan(Vec<String>),

    /// Look at the rejected samples, or allow more of them.
    #[error(
        "{rejected} of {of} samples were rejected, which is more than {max}; the first: {}; \
         mend them or allow more with --max-rejects",
        .reasons.join("; ")
    )]
    TooManyRejects {
        /// How many samples the run reads, each counted once.
        of: u64,
        /// How many of them were refused when that could no longer be within bounds.
        rejected: u64,
        /// How many may be.
        max: MaxRejects,
        /// The first few, as `id: stage: reason`.
        reasons: Vec<String>,
    },

    /// Look at the source: no sample of it could be used.
    #[error("{0}")]
    NothingLeft(String),

    /// Look at the images that are named: they were left out, and the others were not.
    #[error("{0}")]
    LeftOut(String),

    /// Look at what an inspection found: it was asked to fail on this.
    #[error("{0}")]
    Found(String),

    /// Do not trust what is stored: it differs from what was written.
    #[error("{0}")]
    Integrity(String),

    /// Start again when it suits: the user or the system asked the run to stop.
    #[error("interrupted by {0}")]
    Interrupted(Interrupt),

    /// Read what a store said: it stands in the way of the whole run.
    #[error("{0}")]
    Store(String),

    /// Read the cause: something outside the plan went wrong.
    #[error("cannot {attempt}")]
    Failed {
        /// What was attempted on what, as it reads after "cannot": `read a/b.jpg`.
        attempt: String,
        /// What stood in the way.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// `attempt` reads after "cannot" (`write s3://b/shard-00042.parquet`); `source` is what stood in the way.
    pub fn failed(
        attempt: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Failed { attempt: attempt.into(), source: Arc::from(source.into()) }
    }

    /// A panic of user code, with what it was doing.
    pub(super) fn panicked(attempt: String, panic: &(dyn std::any::Any + Send)) -> Error {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Error::failed(attempt, format!("it panicked: {message}"))
    }

    /// What the process exits with: 1 run failed, 2 usage or plan, 3 too many rejects, nothing left, or a
    /// fault that was asked for,
    /// 4 integrity, 129, 130 or 143 interrupted.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Store(_) | Error::Failed { .. } => 1,
            Error::Usage(_) | Error::Plan(_) => 2,
            Error::TooManyRejects { .. } | Error::NothingLeft(_) | Error::LeftOut(_) | Error::Found(_) => 3,
            Error::Integrity(_) => 4,
            Error::Interrupted(interrupt) => interrupt.exit_code(),
        }
    }

    /// What there is to mend before a run begins, one problem a line.
    ///
    /// # Errors
    /// Any other error, as it is.
    pub fn into_problems(self) -> Result<Vec<String>, Error> {
        match self {
            Error::Usage(line) => Ok(vec![line]),
            Error::Plan(lines) => Ok(lines),
            other => Err(other),
        }
    }

    /// The error and its causes in one line, from what was attempted down to what stood in the way.
    pub fn chain(&self) -> String {
        in_one_line(self)
    }
}

/// An error and its causes, from the outermost to the innermost.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Names and bytes of others are in it: a line break there begins no line of ours.
        line = format!("{line}: {}", printable(&error.to_string()));
        cause = error.source();
    }
    line
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Error {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Damaged(line) => Error::Integrity(line),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Correct(line) => Error::Usage(line),
            StoreError::LeaveOut(line) | StoreError::Stop(line) => Error::Store(line),
            StoreError::Damaged(line) => Error::Integrity(line),
        }
    }
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Error {
        match error {
            CatalogError::Correct(line) => Error::Usage(line),
            CatalogError::Store(error) => error.into(),
        }
    }
}

/// Who asked a run to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The user, with Ctrl-C (SIGINT).
    CtrlC,
    /// The system or a supervisor (SIGTERM).
    Terminate,
    /// The terminal or the connection that the run was started from has gone (SIGHUP).
    HangUp,
}

impl Interrupt {
    /// 128 and the number of the signal, as shells report it: 130, 143 or 129.
    pub fn exit_code(self) -> i32 {
        match self {
            Interrupt::CtrlC => 130,
            Interrupt::Terminate => 143,
            Interrupt::HangUp => 129,
        }
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interrupt::CtrlC => "Ctrl-C",
            Interrupt::Terminate => "SIGTERM",
            Interrupt::HangUp => "SIGHUP",
        })
    }
}
