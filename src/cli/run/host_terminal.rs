//! The terminal that kiln itself was started in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln::Terminal;
use rustix::termios::{OptionalActions, OutputModes, Termios};

/// What a program is told where no size can be had.
const FALLBACK: Terminal = Terminal { rows: 24, cols: 80 };

/// The size of whichever standard stream is a terminal.
pub(super) fn size() -> Terminal {
    let sizes = [
        rustix::termios::tcgetwinsize(io::stdin()),
        rustix::termios::tcgetwinsize(io::stdout()),
        rustix::termios::tcgetwinsize(io::stderr()),
    ];
    sizes
        .into_iter()
        .flatten()
        .find(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or(FALLBACK, |size| Terminal {
            rows: size.ws_row,
            cols: size.ws_col,
        })
}

/// A terminal in a mode for a program that has a terminal of its own; dropping it restores the mode.
pub(super) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
    raw: Termios,
}

impl RawMode {
    /// Switches to raw mode, so that every key reaches the program and output stays as it is.
    pub(super) fn keys_and_output(terminal: impl AsFd) -> io::Result<RawMode> {
        RawMode::enter(terminal.as_fd(), Termios::make_raw)
    }

    /// Lets output stay as it is, while keys keep their meaning: Ctrl-C is a signal.
    pub(super) fn output(terminal: impl AsFd) -> io::Result<RawMode> {
        RawMode::enter(terminal.as_fd(), |mode| {
            mode.output_modes.remove(OutputModes::OPOST);
        })
    }

    fn enter(terminal: BorrowedFd<'_>, change: impl Fn(&mut Termios)) -> io::Result<RawMode> {
        let terminal = terminal.try_clone_to_owned()?;
        let before = rustix::termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        change(&mut raw);
        let mode = RawMode {
            terminal,
            before,
            raw,
        };
        mode.apply()?;
        Ok(mode)
    }

    /// Switches again, after a shell had the terminal in between.
    pub(super) fn apply(&self) -> io::Result<()> {
        rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.raw)?;
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away needs nothing restored.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use rustix::pty::OpenptFlags;

    use super::*;

    #[test]
    fn the_mode_is_restored_even_by_a_panic() {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
        let mode = || rustix::termios::tcgetattr(&slave).unwrap().local_modes;
        let before = mode();
        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawMode::keys_and_output(&slave).unwrap();
            assert_ne!(mode(), before);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(mode(), before);
    }
}
