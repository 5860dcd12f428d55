//! `forebay`: the command line, the process, and the way to the commands.

use std::io::IsTerminal;
use std::process::ExitCode;

use forebay::commands;
use forebay::flow::{Error, Run, limit_candle};
use forebay::options::{self, Invocation};
use forebay::plan::Rooms;
use forebay::report;
use forebay_datasets::store::local_path;

fn main() -> ExitCode {
    ignore_file_size_signal();
    tracing_subscriber::fmt()
        .with_writer(report::log)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("FOREBAY_LOG"))
        .init();
    let matches = options::command_line().get_matches();
    let read = |path: &str| std::fs::read_to_string(local_path(path).map_err(std::io::Error::other)?);
    let asked = match options::resolve(&matches, read) {
        Ok(asked) => asked,
        Err(problems) => return fail(&Error::Plan(problems.0)),
    };
    match run(&asked).and_then(|()| report::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
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
    match asked.command.row().runs_networks {
        true => keep_freed_memory(),
        false => give_back_large_blocks(),
    }
    let run = Run::new(rooms.run_options())?;
    run.stop_on_signals()?;
    run.block_on(commands::run(&run, asked))
}
