//! All that is wrong with a run, gathered before the run is refused: who mends one problem should not meet the next.

use crate::flow::Error;

/// What was found, or `None` where its problems are now among those of the run.
///
/// # Errors
/// What nobody mends by calling the program in another way, such as a store that fails.
pub(crate) fn gather<T>(found: Result<T, Error>, problems: &mut Vec<String>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            problems.extend(error.into_problems()?);
            Ok(None)
        }
    }
}

/// Refuses a run that has problems.
///
/// # Errors
/// [`Error::Plan`] with all of them.
pub(crate) fn refuse(problems: Vec<String>) -> Result<(), Error> {
    if problems.is_empty() { Ok(()) } else { Err(Error::Plan(problems)) }
}
