//! Signals as bytes of a pipe, so that one `poll` waits for them and for everything else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// What is caught: all that end a process by default and come from outside, and those of terminals.
const CAUGHT: [Signal; 8] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::CONT,
];

/// The signals that came since the last look; none has its default effect any more.
pub(super) struct Signals {
    pipe: OwnedFd,
    write: Arc<OwnedFd>,
    written: Arc<Notify>,
}

impl Signals {
    /// Begins to catch; it never ends, since the process has nothing else to do afterwards.
    pub(super) fn catch(runtime: &Runtime) -> io::Result<Signals> {
        let (pipe, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let write = Arc::new(write);
        let written = Arc::new(Notify::new());
        let _inside = runtime.enter();
        for caught in CAUGHT {
            let number = caught.as_raw();
            let mut stream = signal(SignalKind::from_raw(number))?;
            let (write, written) = (Arc::clone(&write), Arc::clone(&written));
            runtime.spawn(async move {
                while stream.recv().await.is_some() {
                    put(&write, caught);
                    written.notify_one();
                }
            });
        }
        Ok(Signals {
            pipe,
            write,
            written,
        })
    }

    /// Gives back a signal that was taken.
    pub(super) fn give_back(&self, signal: Signal) {
        put(&self.write, signal);
    }

    /// Returns the oldest signal, if there is one.
    pub(super) fn take(&self) -> Option<Signal> {
        let mut number = [0];
        match rustix::io::read(&self.pipe, &mut number) {
            Ok(1) => CAUGHT
                .into_iter()
                .find(|caught| caught.as_raw() == i32::from(number[0])),
            _ => None,
        }
    }

    /// Waits for a signal that asks to end.
    pub(super) async fn interrupted(&self) -> Signal {
        loop {
            while let Some(signal) = self.take() {
                if !matches!(signal, Signal::WINCH | Signal::CONT) {
                    return signal;
                }
            }
            self.written.notified().await;
        }
    }
}

fn put(pipe: &OwnedFd, signal: Signal) {
    // A full pipe holds thousands of signals that nobody looked at: enough.
    let _ = rustix::io::write(pipe, &[signal.as_raw().unsigned_abs().to_le_bytes()[0]]);
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
