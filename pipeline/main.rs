//! `forebay`: the command line, the process, and the way to the commands.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use forebay::commands;
use forebay::flow::{Error, Run, before_exit, limit_candle};
use forebay::hub;
use forebay::options::{self, Invocation, Level};
use forebay::plan::Rooms;
use forebay::report::{self, Voice};
use forebay_datasets::store::local_path;

fn main() -> ExitCode {
    ignore_file_size_signal();
    report::tell_of_panics();
    before_exit(report::leave_terminal);
    let matches = match commands::manual::whole_command_line()
        .try_get_matches_from(options::switches_last(std::env::args_os()))
    {
        Ok(matches) => matches,
        Err(error) => return answer(&error),
    };
    if let Some(said) = commands::manual::run(&matches) {
        return match said.and_then(|()| report::finish()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    let read = |path: &str| read_run_file(&local_path(path).map_err(std::io::Error::other)?);
    let asked = match options::resolve(&matches, read) {
        Ok(asked) => asked,
        Err(problems) => {
            report::speak(Voice::new(Level::Normal, wants_json()));
            return fail(&Error::Plan(problems.0));
        }
    };
    let voice = Voice::new(asked.level, asked.json);
    report::speak(voice);
    log(voice);
    match run(&asked).and_then(|()| report::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// A run file, which may be a pipe of the shell, and is never as large as a device that does not end.
fn read_run_file(path: &Path) -> std::io::Result<String> {
    const BYTES_MAX: u64 = 4 << 20;
    let mut text = String::new();
    let n = File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    match n as u64 > BYTES_MAX {
        true => Err(std::io::Error::other("it is larger than 4 MiB, which no run file is")),
        false => Ok(text),
    }
}

/// What is to be said instead of a run: help, the version, or what is wrong with the arguments.
fn answer(said: &clap::Error) -> ExitCode {
    if said.use_stderr() && said.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        report::speak(Voice::new(Level::Normal, wants_json()));
        let arguments: Vec<String> =
            std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        return fail(&Error::Usage(options::explain(said, &arguments)));
    }
    match said.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(&Error::failed("write the help to stdout", error))
        }
        _ => ExitCode::from(said.exit_code() as u8),
    }
}

/// Whether arguments that could not be understood ask for JSON.
fn wants_json() -> bool {
    std::env::args_os().any(|argument| argument == "--json")
}

/// Where logs go: to stderr, as far as `FOREBAY_LOG` or `-v` asks for them.
fn log(voice: Voice) {
    let asked = std::env::var("FOREBAY_LOG").ok().filter(|text| !text.is_empty());
    let filter = asked.unwrap_or_else(|| match voice.level {
        Level::Verbose => "forebay=debug".to_string(),
        _ => "error".to_string(),
    });
    tracing_subscriber::fmt()
        .with_writer(report::log)
        .log_internal_errors(false)
        .with_ansi(voice.colors)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .init();
}

/// Over the limit of `ulimit -f`, a write then fails and is reported, instead of ending the process.
#[allow(unsafe_code)]
fn ignore_file_size_signal() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal installs no handler, and no thread exists yet.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// A training step frees and takes the same large blocks again and again. By default the C library gives each back to
/// the system, which then clears every page anew: a tenth of the time of a step.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets three numbers of the allocator before any other thread exists; both are documented for `mallopt`.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Large images go back to the system when they are freed. By default the C library comes to keep blocks of up to 32 MiB,
/// between which those of other sizes leave gaps: then a run holds more than its plan says, by a quarter where images
/// take 24 MB. Blocks of this size or less are most images, for which clearing pages anew would cost more than they do.
#[allow(unsafe_code)]
fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets two numbers of the allocator before any other thread exists; both are documented for `mallopt`.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        // Of what smaller blocks leave at the end of a heap, so much waits for the next ones.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}

fn fail(error: &Error) -> ExitCode {
    report::complain(error);
    ExitCode::from(error.exit_code() as u8)
}

fn run(asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let rooms = Rooms::of(config);
    limit_candle(rooms.threads)?;
    match asked.command.row().runs_networks || config.is_given("bench.replay") {
        true => keep_freed_memory(),
        false => give_back_large_blocks(),
    }
    hub::serve_datasets();
    let run = Run::new(rooms.run_options())?;
    run.stop_on_signals()?;
    run.block_on(commands::run(&run, asked))
}
