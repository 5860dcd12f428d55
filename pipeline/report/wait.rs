//! Waiting for somebody else: the one place that does it, with an end and a name.

use std::time::Duration;

use forebay_datasets::store::Patience;
use tokio::time::Instant;

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
    moved: impl FnMut() -> u64,
    look: impl FnMut() -> Result<Option<R>, Error>,
) -> Result<R, Error> {
    wait(Patience::usual(), what, moved, look).await
}

async fn wait<R>(
    patience: Patience,
    what: &str,
    mut moved: impl FnMut() -> u64,
    mut look: impl FnMut() -> Result<Option<R>, Error>,
) -> Result<R, Error> {
    let patience = patience.total;
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
    use std::cell::Cell;

    use super::*;

    fn patient(seconds: f64) -> Patience {
        Patience { total: Duration::from_secs_f64(seconds), ..Patience::usual() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_what_it_waits_for_comes() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            Ok((looks.get() == 3).then_some("it"))
        };
        assert_eq!(wait(patient(60.0), "a test", || 0, look).await.expect("it comes"), "it");
        let look = || Err::<Option<()>, _>(Error::Usage("no".to_string()));
        assert!(matches!(wait(patient(60.0), "a test", || 0, look).await, Err(Error::Usage(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_an_end_and_says_what_for_it_was() {
        let error = wait(patient(60.0), "a test", || 0, || Ok(None::<()>)).await.expect_err("nothing comes");
        let line = crate::flow::in_one_line(&error);
        assert!(line.contains("wait for a test: nothing moved for 60 s"), "{line}");
        // As long as something moves, it goes on, here for ten times as long.
        let began = Instant::now();
        let moved = || began.elapsed().as_secs();
        let look = || Ok((began.elapsed() >= Duration::from_secs(600)).then_some(()));
        wait(patient(60.0), "a test", moved, look).await.expect("it comes");
    }
}
