//! The one place that everything goes to that a run wants to say: results to stdout, notes and warnings to stderr, above a
//! progress bar, or held while the live view has the screen.
//!
//! Three levels: [`Level::Quiet`] keeps results, warnings and errors; the usual one adds notes, tables and progress;
//! [`Level::Verbose`] adds the plan of a run and its log. Whatever the level, notes and warnings are in the object that
//! `--json` asks for, since a program reads no stderr.
//!
//! A long run never ends because nobody listens any more. A reader that has gone is told nothing more; a result that could
//! not be written for another reason, such as a full disk, is an error of the run once it is done, see [`finish`].

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use forebay_datasets::escape;
use serde_json::{Value, json};

use crate::flow::Error;
use crate::options::Level;

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

/// How the process speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Voice {
    /// How much it says.
    pub level: Level,
    /// Whether its last result is one JSON object.
    pub json: bool,
    /// Whether stderr shows colors.
    pub colors: bool,
}

impl Voice {
    /// Colors where stderr is a terminal that shows some, unless `NO_COLOR` is set (<https://no-color.org>).
    pub fn new(level: Level, json: bool) -> Voice {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Voice { level, json, colors: io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }
}

/// What a line says of itself with its first word.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Note,
    Warning,
    Error,
}

impl Mark {
    /// The word, and its color as a number of ANSI's.
    fn word(self) -> (&'static str, u8) {
        match self {
            Mark::Note => ("note", 36),
            Mark::Warning => ("warning", 33),
            Mark::Error => ("forebay", 31),
        }
    }
}

struct Reporter(Mutex<ReporterState>);

struct ReporterState {
    results: Box<dyn Write + Send>,
    messages: Box<dyn Write + Send>,
    voice: Voice,
    /// What was noted and warned of so far, for the JSON object.
    notes: Vec<String>,
    warnings: Vec<String>,
    /// Whether results can still be written.
    is_read: bool,
    /// Why a result could not be written, unless its reader has gone.
    failure: Option<io::Error>,
    /// The lines on the screen with the number of each, the latest last: only that one is seen.
    bars: Vec<(u64, String)>,
    /// What waits until the live view gives the screen back.
    held: Option<Vec<(To, String)>>,
}

impl Reporter {
    fn new(results: Box<dyn Write + Send>, messages: Box<dyn Write + Send>) -> Reporter {
        Reporter(Mutex::new(ReporterState {
            results,
            messages,
            voice: Voice::default(),
            notes: Vec::new(),
            warnings: Vec::new(),
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
        state.clear_line();
        state.write(to, text);
        state.draw_line();
    }

    /// One line with its first word; how it is shown decides nothing of what `--json` says of it.
    fn tell_marked(&self, mark: Mark, line: &str) {
        let line = escape::terminal(line);
        let voice = {
            let mut state = self.state();
            match mark {
                Mark::Note => state.notes.push(line.clone()),
                Mark::Warning => state.warnings.push(line.clone()),
                Mark::Error => {}
            }
            state.voice
        };
        if matches!(mark, Mark::Note) && voice.level == Level::Quiet {
            return;
        }
        let (word, color) = mark.word();
        self.tell(
            To::Message,
            &match voice.colors {
                true => format!("\u{1b}[{color}m{word}\u{1b}[0m: {line}\n"),
                false => format!("{word}: {line}\n"),
            },
        );
    }

    /// `object`, and what was noted and warned of before it, beside what it says itself.
    fn tell_json(&self, mut object: Value) {
        {
            let state = self.state();
            let fields = object.as_object_mut().expect("a result is an object");
            for (key, said) in [("notes", &state.notes), ("warnings", &state.warnings)] {
                let lines = fields.entry(key).or_insert_with(|| json!([]));
                let lines = lines.as_array_mut().expect("notes and warnings are lists");
                for line in said.iter().map(|line| json!(line)) {
                    if !lines.contains(&line) {
                        lines.push(line);
                    }
                }
            }
        }
        self.tell(To::Result, &(escape::json(&object.to_string()) + "\n"));
    }

    fn hold(&self) {
        let mut state = self.state();
        state.clear_line();
        state.held.get_or_insert_default();
    }

    fn give_back(&self) {
        let mut state = self.state();
        for (to, text) in state.held.take().unwrap_or_default() {
            state.write(to, &text);
        }
        state.draw_line();
    }

    fn finish(&self) -> Result<(), Error> {
        match self.state().failure.take() {
            Some(error) => Err(Error::failed("write the result to stdout", error)),
            None => Ok(()),
        }
    }
}

/// To the start of the line, and all of it erased: whatever the terminal has echoed behind it too, such as `^C`.
const CLEAR: &str = "\r\u{1b}[K";

impl ReporterState {
    fn clear_line(&mut self) {
        if self.held.is_none() && !self.bars.is_empty() {
            self.write(To::Message, CLEAR);
        }
    }

    fn draw_line(&mut self) {
        let line = self.bars.last().filter(|_| self.held.is_none()).map(|(_, line)| line.clone());
        if let Some(line) = line.filter(|line| !line.is_empty()) {
            self.write(To::Message, &line);
        }
    }

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
                    self.failure = Some(error).filter(|error| !is_gone(error));
                }
            }
        }
    }
}

/// Whether whoever read has gone: a pipe without a reader, or a terminal that was closed.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(libc::EIO)
}

/// From now on the process speaks so.
pub fn speak(voice: Voice) {
    REPORTER.state().voice = voice;
}

/// How the process speaks.
pub(super) fn voice() -> Voice {
    REPORTER.state().voice
}

/// Whether results are still read, or could be: false once stdout has been closed.
pub fn is_read() -> bool {
    REPORTER.state().is_read
}

/// Writes a result to stdout.
pub fn say(text: &str) {
    REPORTER.tell(To::Result, &escape::terminal(text));
}

/// As [`say`], for a text that is ours to the last character, such as a script.
pub fn say_as_it_is(text: &str) {
    REPORTER.tell(To::Result, text);
}

/// Writes the one JSON object that `--json` asks for, with the `notes` and `warnings` so far in it.
///
/// # Panics
/// When the value is no object.
pub fn say_json(value: &impl serde::Serialize) {
    REPORTER.tell_json(serde_json::to_value(value).expect("results are plain data"));
}

/// Writes lines to stderr that are neither notes nor warnings, such as a heading or a table.
pub fn tell(text: &str) {
    if voice().level > Level::Quiet {
        REPORTER.tell(To::Message, &escape::terminal(text));
    }
}

/// As [`tell`], where it was asked to say more.
pub fn detail(text: &str) {
    if voice().level == Level::Verbose {
        REPORTER.tell(To::Message, &escape::terminal(text));
    }
}

/// Writes a note to stderr: what a user may want to know.
pub fn note(line: &str) {
    REPORTER.tell_marked(Mark::Note, line);
}

/// Writes warnings to stderr, one a line: what a user would want to know before going on.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| REPORTER.tell_marked(Mark::Warning, warning));
}

/// Writes to stderr why the program ends before its time, and says it in the object of `--json`.
pub fn complain(error: &Error) {
    let chain = error.chain();
    chain.lines().for_each(|line| REPORTER.tell_marked(Mark::Error, line));
    if voice().json {
        let lines: Vec<String> = chain.lines().map(escape::terminal).collect();
        REPORTER.tell_json(json!({"error": lines, "exit_code": error.exit_code()}));
    }
}

/// From now on a panic is told as everything else is: above a progress bar, and after a live view that has the screen.
pub fn tell_of_panics() {
    let outer = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A panic within the reporter itself cannot wait for it.
        let is_free = REPORTER.0.try_lock().is_ok_and(|state| state.held.is_some() || !state.bars.is_empty());
        if !is_free {
            return outer(panic);
        }
        let thread = std::thread::current();
        let mut text = format!("thread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>"));
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            text += &format!("{backtrace}\n");
        }
        REPORTER.tell(To::Message, &escape::terminal(&text));
    }));
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

/// A line on the screen, above which everything else is written; it goes when this is dropped.
///
/// It is no wider than the terminal less what that echoes for Ctrl-C. Libraries that draw bars fill the line to its end, so
/// that the echo wraps and half a bar stays.
#[derive(Debug)]
pub(super) struct OnScreen {
    number: u64,
    /// When it may be drawn again.
    next: Mutex<Instant>,
}

/// The least time between two pictures of a line.
const FRAME: Duration = Duration::from_millis(50);

impl OnScreen {
    pub(super) fn show() -> OnScreen {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        REPORTER.state().bars.push((number, String::new()));
        OnScreen { number, next: Mutex::new(Instant::now()) }
    }

    pub(super) fn draw(&self, line: String) {
        let now = Instant::now();
        {
            let mut next = self.next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if now < *next {
                return;
            }
            *next = now + FRAME;
        }
        let mut state = REPORTER.state();
        state.clear_line();
        if let Some((_, shown)) = state.bars.iter_mut().find(|(number, _)| *number == self.number) {
            *shown = line;
        }
        state.draw_line();
    }
}

impl Drop for OnScreen {
    fn drop(&mut self) {
        let mut state = REPORTER.state();
        state.clear_line();
        state.bars.retain(|(number, _)| *number != self.number);
        state.draw_line();
    }
}

/// Takes the line from the screen where the process ends without dropping it; not where the reporter is at work.
pub(super) fn clear() {
    if let Ok(mut state) = REPORTER.0.try_lock() {
        state.clear_line();
    }
}

/// Nothing is written while this is there; what was to be is written when it is dropped.
#[derive(Debug)]
pub(super) struct HeldScreen {
    /// Warnings that were written before.
    warned: usize,
}

impl HeldScreen {
    pub(super) fn begin() -> HeldScreen {
        REPORTER.hold();
        HeldScreen { warned: REPORTER.state().warnings.len() }
    }

    /// What was warned of meanwhile, to be shown in the view already.
    pub(super) fn warnings(&self) -> Vec<String> {
        REPORTER.state().warnings.get(self.warned..).unwrap_or_default().to_vec()
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
    fn what_is_said_beside_a_bar_stands_above_it_and_nothing_of_the_bar_stays() {
        let (reporter, _, messages) = reporter();
        reporter.state().bars.push((0, "half".to_string()));
        reporter.tell(To::Message, "a note\n");
        assert_eq!(&**messages.text.lock().unwrap(), "\r\u{1b}[Ka note\nhalf");
        let mut state = reporter.state();
        state.clear_line();
        state.bars.clear();
        state.draw_line();
        assert_eq!(&**messages.text.lock().unwrap(), "\r\u{1b}[Ka note\nhalf\r\u{1b}[K");
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
    fn what_is_not_shown_is_in_the_object_all_the_same() {
        for (level, shown) in [(Level::Quiet, "warning: b\n"), (Level::Normal, "note: a\nwarning: b\n")] {
            let (reporter, results, messages) = reporter();
            reporter.state().voice = Voice { level, json: true, colors: false };
            reporter.tell_marked(Mark::Note, "a");
            reporter.tell_marked(Mark::Warning, "b");
            reporter.tell_json(json!({"n": 1}));
            assert_eq!(&**messages.text.lock().unwrap(), shown);
            let said: Value = serde_json::from_str(&results.text.lock().unwrap()).unwrap();
            assert_eq!(said, json!({"n": 1, "notes": ["a"], "warnings": ["b"]}));
        }
    }

    #[test]
    fn colors_are_of_the_first_word_only_and_no_text_has_its_own() {
        let (reporter, _, messages) = reporter();
        reporter.state().voice.colors = true;
        reporter.tell_marked(Mark::Warning, "\u{1b}[31mx");
        assert_eq!(&**messages.text.lock().unwrap(), "\u{1b}[33mwarning\u{1b}[0m: \\u{1b}[31mx\n");
    }
}
