//! The terminal that kiln itself was started in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kiln::Terminal;
use rustix::termios::{OptionalActions, Termios};

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

/// A terminal in raw mode, so that every key reaches the program; dropping it restores the mode.
pub(super) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Switches to raw mode.
    pub(super) fn enter(terminal: impl AsFd) -> io::Result<RawMode> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = rustix::termios::tcgetattr(&terminal)?;
        let raw = RawMode { terminal, before };
        raw.apply()?;
        Ok(raw)
    }

    /// Switches to raw mode again, after a shell had the terminal in between.
    pub(super) fn apply(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &raw)?;
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
            let _raw = RawMode::enter(&slave).unwrap();
            assert_ne!(mode(), before);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(mode(), before);
    }
}
