//! Waiting for somebody else: the one place that does it, with an end and a name.

use std::time::{Duration, Instant};

use forebay_datasets::store::Patience;

use super::tell;
use crate::flow::Error;

/// How often is looked.
const PACE: Duration = Duration::from_millis(100);

/// So much of the patience passes before the user is told what is waited for.
const UNTOLD: f64 = 0.02;

/// Waits until `look` finds what it looks for. `moved` is a figure that changes while whoever is waited for goes on, such
/// as the bytes that it wrote: as long as it does, the wait goes on. Signals end it where the caller listens to them, as
/// [`crate::flow::Run::until_stopped`] does.
///
/// # Errors
/// Those of `look`; [`Error::Failed`] with `what` when nothing moved for as long as a server is waited for.
pub async fn wait_for<R>(
    what: &str,
    mut moved: impl FnMut() -> u64,
    mut look: impl FnMut() -> Result<Option<R>, Error>,
) -> Result<R, Error> {
    let patience = Patience::usual().total;
    let (mut since, mut last, mut told) = (Instant::now(), moved(), false);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        let now = moved();
        if now != last {
            (since, last) = (Instant::now(), now);
        }
        if !told && since.elapsed() >= patience.mul_f64(UNTOLD) {
            tell(&format!("waiting for {what}\n"));
            told = true;
        }
        if since.elapsed() >= patience {
            return Err(Error::failed(
                format!("wait for {what}"),
                format!("nothing moved for {} s; if nobody is at work there, run again", patience.as_secs()),
            ));
        }
        tokio::time::sleep(PACE.min(patience)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_when_it_is_over_and_not_before() {
        let mut looks = 0;
        let found = wait_for(
            "a test",
            || 0,
            || {
                looks += 1;
                Ok((looks == 3).then_some("it"))
            },
        );
        assert_eq!(found.await.expect("it comes"), "it");
        let failed = wait_for("a test", || 0, || Err::<Option<()>, _>(Error::Usage("no".to_string())));
        assert!(matches!(failed.await, Err(Error::Usage(_))));
    }
}
