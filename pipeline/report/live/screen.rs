//! The terminal while the live view has it, and how it is given back.
//!
//! The view reads nothing: what is typed stays in the terminal's own buffer and is there for the shell when the run has
//! ended. So a run is ended by Ctrl-C as any other program is, which the terminal turns into a signal by itself; a key such
//! as `q` could only be seen by taking every other key from the shell. The typed text is not echoed meanwhile, since it
//! would stand in the picture.

use std::io::{Stderr, Write};
use std::mem::ManuallyDrop;
use std::sync::Mutex;

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::{cursor, execute, terminal};

use crate::flow::Error;
use crate::report::reporter::HeldScreen;

/// How the terminal was before the view took it; `None` while no view has it.
static BEFORE: Mutex<Option<Modes>> = Mutex::new(None);

/// The terminal while a view has it; what is said meanwhile is held until it is given back.
pub(super) struct TakenScreen {
    /// Never dropped: it would show the cursor once more, and panic where the terminal has gone.
    pub(super) terminal: ManuallyDrop<Terminal<CrosstermBackend<Stderr>>>,
    /// Ends after the terminal is given back.
    pub(super) held: HeldScreen,
}

impl TakenScreen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be taken; it is then as it was.
    pub(super) fn take() -> Result<TakenScreen, Error> {
        let failed = |error| {
            give_back();
            Error::failed("draw on the terminal; leave out --live", error)
        };
        *lock() = Some(Modes::quiet().map_err(failed)?);
        execute!(std::io::stderr(), terminal::EnterAlternateScreen, cursor::Hide).map_err(failed)?;
        let terminal = Terminal::new(CrosstermBackend::new(std::io::stderr())).map_err(failed)?;
        Ok(TakenScreen { terminal: ManuallyDrop::new(terminal), held: HeldScreen::begin() })
    }
}

impl Drop for TakenScreen {
    fn drop(&mut self) {
        give_back();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Modes>> {
    BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Leaves the terminal as it was found, if a view has it; what fails of it cannot be helped.
pub(in crate::report) fn give_back() {
    let Some(modes) = lock().take() else { return };
    let mut out = std::io::stderr();
    let _ = execute!(out, terminal::LeaveAlternateScreen, cursor::Show);
    let _ = out.flush();
    modes.set_back();
}

/// The modes of the terminal as they were.
struct Modes(Termios);

impl Modes {
    /// From now on nothing typed is echoed, and no key but Ctrl-C sends a signal: Ctrl-Z and Ctrl-\ would leave the picture
    /// on the screen of the shell.
    fn quiet() -> std::io::Result<Modes> {
        let before = tcgetattr(std::io::stderr())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        for key in [SpecialCharacterIndices::VSUSP, SpecialCharacterIndices::VQUIT] {
            quiet.control_chars[key as usize] = libc::_POSIX_VDISABLE;
        }
        tcsetattr(std::io::stderr(), SetArg::TCSANOW, &quiet)?;
        Ok(Modes(before))
    }

    /// What was typed and not read stays to be read: `TCSANOW` discards none of it.
    fn set_back(&self) {
        let _ = tcsetattr(std::io::stderr(), SetArg::TCSANOW, &self.0);
    }
}
