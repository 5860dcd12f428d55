//! The one place that everything goes to that a run wants to say: results to stdout, notes and warnings to stderr, above a
//! progress bar, or held while the live view has the screen.
//!
//! A long run never ends because nobody listens any more. A reader that has gone is told nothing more; a result that could
//! not be written for another reason, such as a full disk, is an error of the run once it is done, see [`finish`].

use std::io::{self, Write};
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, MutexGuard};

use indicatif::ProgressBar;

use crate::flow::Error;

/// The reporter of the process: there is one stdout, one stderr and one terminal.
static REPORTER: LazyLock<Reporter> =
    LazyLock::new(|| Reporter::new(Box::new(io::stdout()), Box::new(io::stderr())));

/// Where a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// What was asked for: stdout.
    Result,
    /// Everything else: stderr.
    Message,
}

struct Reporter(Mutex<ReporterState>);

struct ReporterState {
    results: Box<dyn Write + Send>,
    messages: Box<dyn Write + Send>,
    /// Whether results can still be written.
    is_read: bool,
    /// Why a result could not be written, unless its reader has gone.
    failure: Option<io::Error>,
    /// The bars on the screen, the latest last.
    bars: Vec<ProgressBar>,
    /// What waits until the live view gives the screen back.
    held: Option<Vec<(To, String)>>,
}

impl Reporter {
    fn new(results: Box<dyn Write + Send>, messages: Box<dyn Write + Send>) -> Reporter {
        Reporter(Mutex::new(ReporterState {
            results,
            messages,
            is_read: true,
            failure: None,
            bars: Vec::new(),
            held: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, ReporterState> {
        // What a panic left half said is still to be followed by what others say.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn tell(&self, to: To, text: &str) {
        let mut state = self.state();
        if let Some(held) = &mut state.held {
            held.push((to, text.to_string()));
            return;
        }
        match state.bars.last().cloned() {
            Some(bar) => bar.suspend(|| state.write(to, text)),
            None => state.write(to, text),
        }
    }

    fn hold(&self) {
        self.state().held.get_or_insert_default();
    }

    fn give_back(&self) {
        let mut state = self.state();
        for (to, text) in state.held.take().unwrap_or_default() {
            state.write(to, &text);
        }
    }

    fn finish(&self) -> Result<(), Error> {
        match self.state().failure.take() {
            Some(error) => Err(Error::failed("write the result to stdout", error)),
            None => Ok(()),
        }
    }
}

impl ReporterState {
    fn write(&mut self, to: To, text: &str) {
        match to {
            // Nothing can be said about a stderr that cannot be written.
            To::Message => {
                let _ = self.messages.write_all(text.as_bytes()).and_then(|()| self.messages.flush());
            }
            To::Result if !self.is_read => {}
            To::Result => {
                let written = self.results.write_all(text.as_bytes()).and_then(|()| self.results.flush());
                if let Err(error) = written {
                    self.is_read = false;
                    self.failure = Some(error).filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
                }
            }
        }
    }
}

/// Text in which no character but the end of a line commands a terminal: names of files and classes are from outside.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Writes a result to stdout.
pub fn say(text: &str) {
    REPORTER.tell(To::Result, &visible(text));
}

/// Writes the one JSON object that `--json` asks for.
pub fn say_json(value: &impl serde::Serialize) {
    let line = serde_json::to_string(value).expect("results are plain data") + "\n";
    REPORTER.tell(To::Result, &line);
}

/// Writes lines to stderr that are neither notes nor warnings, such as a heading or a table.
pub fn tell(text: &str) {
    REPORTER.tell(To::Message, &visible(text));
}

/// Writes a note to stderr: what a user may want to know.
pub fn note(line: &str) {
    tell(&format!("note: {line}\n"));
}

/// Writes warnings to stderr, one a line: what a user would want to know before going on.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        tell(&format!("warning: {warning}\n"));
    }
}

/// Writes to stderr why the program ends before its time.
pub fn complain(error: &Error) {
    for line in error.chain().lines() {
        tell(&format!("forebay: {line}\n"));
    }
}

/// Whether every result was written, or had no reader; to be asked once, at the end.
///
/// # Errors
/// [`Error::Failed`] with the reason.
pub fn finish() -> Result<(), Error> {
    REPORTER.finish()
}

/// Where the log goes that `FOREBAY_LOG` asks for: with everything else to stderr.
pub fn log() -> impl Write {
    struct Log;
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // As it is: colors are its own.
            REPORTER.tell(To::Message, &String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Log
}

/// A progress bar on the screen, above which everything else is written; it goes when this is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    pub(super) fn show(bar: ProgressBar) -> Bar {
        REPORTER.state().bars.push(bar.clone());
        Bar(bar)
    }
}

impl Deref for Bar {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        // Bars end in the reverse of the order in which they begin.
        REPORTER.state().bars.pop();
    }
}

/// Nothing is written while this is there; what was to be is written when it is dropped.
#[derive(Debug)]
pub(super) struct HeldScreen(());

impl HeldScreen {
    pub(super) fn begin() -> HeldScreen {
        REPORTER.hold();
        HeldScreen(())
    }
}

impl Drop for HeldScreen {
    fn drop(&mut self) {
        REPORTER.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Keeps what is written, until `fails` says otherwise.
    #[derive(Clone, Default)]
    struct Screen {
        text: Arc<Mutex<String>>,
        fails: Arc<Mutex<Option<io::ErrorKind>>>,
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = *self.fails.lock().unwrap() {
                return Err(kind.into());
            }
            self.text.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reporter() -> (Reporter, Screen, Screen) {
        let (results, messages) = (Screen::default(), Screen::default());
        (Reporter::new(Box::new(results.clone()), Box::new(messages.clone())), results, messages)
    }

    #[test]
    fn results_and_messages_that_are_held_come_in_order_when_the_screen_is_given_back() {
        let (reporter, results, messages) = reporter();
        reporter.tell(To::Message, "one\n");
        reporter.hold();
        for (to, text) in [(To::Message, "two\n"), (To::Result, "a\n"), (To::Message, "three\n")] {
            reporter.tell(to, text);
        }
        assert_eq!((&**messages.text.lock().unwrap(), &**results.text.lock().unwrap()), ("one\n", ""));
        reporter.give_back();
        reporter.tell(To::Message, "four\n");
        assert_eq!(&**messages.text.lock().unwrap(), "one\ntwo\nthree\nfour\n");
        assert_eq!(&**results.text.lock().unwrap(), "a\n");
    }

    #[test]
    fn only_a_result_that_somebody_waits_for_is_missed() {
        for (kind, is_missed) in [(io::ErrorKind::BrokenPipe, false), (io::ErrorKind::StorageFull, true)] {
            let (reporter, results, messages) = reporter();
            *results.fails.lock().unwrap() = Some(kind);
            *messages.fails.lock().unwrap() = Some(kind);
            reporter.tell(To::Message, "note\n");
            reporter.tell(To::Result, "first\n");
            // Half a result is worse than none.
            *results.fails.lock().unwrap() = None;
            reporter.tell(To::Result, "second\n");
            assert_eq!(&**results.text.lock().unwrap(), "");
            assert_eq!(reporter.finish().is_err(), is_missed, "{kind}");
        }
    }

    #[test]
    fn no_name_commands_the_terminal() {
        assert_eq!(visible("a\u{1b}[2J\u{9b}\rb\té\n"), "a\\u{1b}[2J\\u{9b}\\rb\\té\n");
    }
}
