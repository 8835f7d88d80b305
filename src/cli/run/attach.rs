//! Between a running program and the caller: keys, output, signals and the size of the terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use kiln::Program;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Signal;

use super::host_terminal::{self, RawMode};
use super::signals::Signals;

/// A second Ctrl-C within this time kills a program that does not heed the first.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// What a pipe takes at once if it takes anything, so that writing after `poll` never blocks.
const PIECE_BYTES: usize = 4096;

/// The caller's side of a program with a terminal.
pub(super) struct Console {
    /// What is typed; none without `-i`.
    pub(super) keyboard: Option<OwnedFd>,
    /// Where output goes.
    pub(super) screen: OwnedFd,
    /// Held while the program has the terminal.
    pub(super) raw: Option<RawMode>,
}

/// Passes everything on until the program is gone; returns its exit code.
pub(super) fn attach(
    program: &mut Program,
    signals: &Signals,
    console: Option<&Console>,
) -> Result<i32, kiln::Error> {
    if let Some(terminal) = program.terminal() {
        set_nonblocking(terminal).map_err(failed("set up", "the program's terminal"))?;
    }
    let mut keys = Flow::new(console.is_some_and(|console| console.keyboard.is_some()));
    let mut output = Flow::new(console.is_some());
    let mut last_interrupt: Option<Instant> = None;
    loop {
        if let Some(code) = program.try_wait()? {
            if let (Some(console), Some(terminal)) = (console, program.terminal()) {
                drain(&mut output, terminal, console.screen.as_fd());
            }
            return Ok(code);
        }
        wait(program, signals, console, &keys, &output)
            .map_err(failed("wait for", "the program"))?;
        while let Some(signal) = signals.take() {
            match signal {
                Signal::WINCH | Signal::CONT => {
                    if let Some(console) = console {
                        if let (Signal::CONT, Some(raw)) = (signal, &console.raw) {
                            // A terminal that hangs up continues its processes too, and has no mode.
                            let _ = raw.apply();
                        }
                        program.resize(host_terminal::size())?;
                    }
                }
                Signal::INT if last_interrupt.is_some_and(|last| last.elapsed() < IMPATIENCE) => {
                    program.kill()?;
                }
                other => {
                    if other == Signal::INT {
                        last_interrupt = Some(Instant::now());
                    }
                    program.signal(other.as_raw())?;
                }
            }
        }
        let hung_up = match (console, program.terminal()) {
            (Some(console), Some(terminal)) => {
                let screen = output.step(terminal, console.screen.as_fd());
                let keyboard = console.keyboard.as_ref();
                let keyboard =
                    keyboard.map_or(Ends::BOTH, |keyboard| keys.step(keyboard.as_fd(), terminal));
                !screen.writer || !keyboard.reader
            }
            _ => false,
        };
        if hung_up {
            // As the kernel does when the terminal of a session goes away.
            program.signal(Signal::HUP.as_raw())?;
        }
    }
}

/// Blocks until something can be done.
fn wait(
    program: &Program,
    signals: &Signals,
    console: Option<&Console>,
    keys: &Flow,
    output: &Flow,
) -> io::Result<()> {
    let mut watched = vec![
        PollFd::from_borrowed_fd(program.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
    ];
    if let (Some(console), Some(terminal)) = (console, program.terminal()) {
        watched.extend(output.watch(terminal, console.screen.as_fd()));
        if let Some(keyboard) = &console.keyboard {
            watched.extend(keys.watch(keyboard.as_fd(), terminal));
        }
    }
    match rustix::event::poll(&mut watched, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes out what the program left in its terminal.
fn drain(output: &mut Flow, terminal: BorrowedFd<'_>, screen: BorrowedFd<'_>) {
    while output.open {
        output.step(terminal, screen);
        if output.pending.is_empty() {
            // All writers are gone, so an empty terminal stays empty.
            if output.open && !is_ready(terminal, PollFlags::IN) {
                return;
            }
        } else {
            let mut watched = [PollFd::from_borrowed_fd(screen, PollFlags::OUT)];
            let _ = rustix::event::poll(&mut watched, None);
        }
    }
}

/// Bytes on their way from one descriptor to another, a piece at a time.
struct Flow {
    /// Read and not written yet.
    pending: Vec<u8>,
    /// Whether there may be more.
    open: bool,
}

/// Which end of a flow is still there.
#[derive(Clone, Copy)]
struct Ends {
    reader: bool,
    writer: bool,
}

impl Ends {
    const BOTH: Ends = Ends {
        reader: true,
        writer: true,
    };
}

impl Flow {
    fn new(open: bool) -> Flow {
        Flow {
            pending: Vec::new(),
            open,
        }
    }

    /// What the next step has to wait for.
    fn watch<'a>(&self, from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Option<PollFd<'a>> {
        match (self.open, self.pending.is_empty()) {
            (false, _) => None,
            (true, true) => Some(PollFd::from_borrowed_fd(from, PollFlags::IN)),
            (true, false) => Some(PollFd::from_borrowed_fd(to, PollFlags::OUT)),
        }
    }

    /// Does what can be done without blocking; tells which end has gone just now.
    fn step(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Ends {
        if !self.open {
            return Ends::BOTH;
        }
        if self.pending.is_empty() && is_ready(from, PollFlags::IN) {
            let mut piece = vec![0; PIECE_BYTES];
            match rustix::io::read(from, &mut piece) {
                Ok(count) if count > 0 => {
                    piece.truncate(count);
                    self.pending = piece;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // A terminal whose other side is closed says EIO.
                Ok(_) | Err(_) => {
                    self.open = false;
                    return Ends {
                        reader: false,
                        writer: true,
                    };
                }
            }
        }
        if !self.pending.is_empty() && is_ready(to, PollFlags::OUT) {
            match rustix::io::write(to, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => {
                    self.open = false;
                    return Ends {
                        reader: true,
                        writer: false,
                    };
                }
            }
        }
        Ends::BOTH
    }
}

/// Whether it can be read (or written), or never will be.
fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut watched = [PollFd::from_borrowed_fd(fd, flags)];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut watched, Some(&now)), Ok(count) if count > 0)
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    Ok(())
}

/// Makes an error of the host's terminal or of waiting.
pub(super) fn failed(
    attempt: &'static str,
    what: &'static str,
) -> impl FnOnce(io::Error) -> kiln::Error {
    move |source| kiln::Error::File {
        attempt,
        path: what.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_flow_moves_bytes_and_ends_with_its_source() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        let mut flow = Flow::new(true);
        rustix::io::write(&source, b"abc").unwrap();
        let ends = flow.step(from.as_fd(), to.as_fd());
        assert!(ends.reader && ends.writer && flow.open);
        let mut read = [0; 8];
        assert_eq!(rustix::io::read(&sink, &mut read).unwrap(), 3);
        drop(source);
        let ends = flow.step(from.as_fd(), to.as_fd());
        assert!(!ends.reader && ends.writer && !flow.open);
        assert!(flow.watch(from.as_fd(), to.as_fd()).is_none());
    }

    #[test]
    fn a_flow_waits_for_whoever_is_slow() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        set_nonblocking(to.as_fd()).unwrap();
        while rustix::io::write(&to, &[0; PIECE_BYTES]).is_ok() {}
        let mut flow = Flow::new(true);
        rustix::io::write(&source, b"abc").unwrap();
        flow.step(from.as_fd(), to.as_fd());
        assert_eq!(flow.pending, b"abc");
        drop(sink);
        let ends = flow.step(from.as_fd(), to.as_fd());
        assert!(!ends.writer && !flow.open);
    }

    #[test]
    fn what_is_left_is_drained() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        rustix::io::write(&source, &[b'x'; 3 * PIECE_BYTES]).unwrap();
        drop(source);
        let mut flow = Flow::new(true);
        drain(&mut flow, from.as_fd(), to.as_fd());
        drop(to);
        let mut read = vec![0; 4 * PIECE_BYTES];
        assert_eq!(rustix::io::read(&sink, &mut read).unwrap(), 3 * PIECE_BYTES);
    }
}
