//! Into an engine by its own command, which reads an archive from its standard input.

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_oci::caller::{CallersProcess, CommandLine};
use kiln_oci::digest::Sha256Digest;
use kiln_tree::Stop;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Form;
use crate::caller::caller;
use crate::engines::Engine;
use crate::error::{Error, LOAD};
use crate::export::{GLANCE, Parcel, stopped};

/// What a command says about its failure.
const WORDS_LIMIT_BYTES: usize = 64 << 10;
/// What a command is given to clean up, once nobody wants what it does.
const GRACE: Duration = Duration::from_secs(2);

fn failed(engine: Engine, reason: impl Into<String>) -> Error {
    Error::Engine {
        engine,
        attempt: LOAD.to_owned(),
        reason: reason.into(),
    }
}

/// An engine's command that runs, as whoever called.
struct Running {
    process: Box<dyn CallersProcess>,
    words: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Running {
    /// Starts it; what a terminal tells kiln is kiln's to pass on.
    fn start(line: CommandLine, stdin: OwnedFd, runtime: &Handle) -> io::Result<Running> {
        let _within = runtime.enter();
        let line = CommandLine {
            own_group: true,
            ..line
        };
        let (stderr, to_stderr) = io::pipe()?;
        let stderr = Receiver::from_owned_fd(stderr.into())?;
        let null = File::options().write(true).open("/dev/null")?;
        let process = caller().start(&line, [stdin, null.into(), to_stderr.into()])?;
        let words = Arc::default();
        let reading = runtime.spawn(read_words(stderr, Arc::clone(&words)));
        Ok(Running {
            process,
            words,
            reading,
        })
    }

    /// Waits for its end, or soon kills it where nobody wants it any more; returns how it ended and what it said.
    fn end(mut self, stop: &Stop, runtime: &Handle) -> Result<(ExitStatus, Vec<u8>), Error> {
        let status = runtime.block_on(async {
            let given_up = async {
                stopped(stop).await;
                tokio::time::sleep(GRACE).await;
            };
            let status = tokio::select! {
                ended = self.process.ended() => ended.map_err(Error::io("wait for", "a command"))?,
                () = given_up => return Err(Error::Cancelled),
            };
            // What it leaves running may hold the other end for ever.
            let _ = tokio::time::timeout(GRACE, &mut self.reading).await;
            Ok(status)
        })?;
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((status, std::mem::take(&mut *words)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Reads to the end, and keeps the beginning.
async fn read_words(mut stderr: Receiver, words: Arc<Mutex<Vec<u8>>>) {
    let mut piece = vec![0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut piece).await {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WORDS_LIMIT_BYTES.saturating_sub(words.len());
        words.extend_from_slice(&piece[..count.min(room)]);
    }
}

/// Sends an image.
pub(super) fn send(
    line: CommandLine,
    (engine, form): (Engine, Form),
    parcel: &Parcel<'_>,
    runtime: &Handle,
    stop: &Stop,
    told: &dyn Fn(&Sha256Digest, u64),
) -> Result<(), Error> {
    let broken = |error: io::Error| failed(engine, error.to_string());
    let (stdin, to_stdin) = io::pipe().map_err(broken)?;
    let mut input = Input::new(to_stdin, stop).map_err(broken)?;
    let running = Running::start(line, stdin.into(), runtime).map_err(broken)?;
    let written = parcel.write(form, &mut input, stop, told);
    // It sees an archive that ends too soon, if it was cut, and leaves nothing of it.
    drop(input);
    let (status, words) = running.end(stop, runtime)?;
    match (status.success(), written) {
        _ if stop.is_set() => Err(Error::Cancelled),
        (true, Ok(())) => Ok(()),
        (true, Err(error)) => Err(error),
        // A broken pipe is its doing, and it says why.
        (false, Ok(()) | Err(Error::Io { .. })) => Err(failed(engine, reason(&words))),
        (false, Err(error)) => Err(error),
    }
}

/// The standard input of a command; whoever writes to it is not kept waiting once that is to stop.
struct Input<'s> {
    pipe: PipeWriter,
    stop: &'s Stop,
}

impl Input<'_> {
    fn new(pipe: PipeWriter, stop: &Stop) -> io::Result<Input<'_>> {
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Input { pipe, stop })
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let glance = Timespec {
            tv_sec: 0,
            tv_nsec: GLANCE.subsec_nanos().into(),
        };
        loop {
            self.stop.check_io()?;
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let mut ready = [PollFd::new(&self.pipe, PollFlags::OUT)];
            rustix::event::poll(&mut ready, Some(&glance))?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that says most: podman tries every format, and the archive has one.
fn reason(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let mut lines = words.lines().rev().filter(|line| !line.trim().is_empty());
    let of_format = words.lines().find(|line| line.contains("oci-archive: "));
    let line = of_format.or_else(|| lines.next());
    let line = line.unwrap_or("it failed without a word").trim();
    line.trim_start_matches("* ").chars().take(500).collect()
}

/// Gives an image that podman has its names but for the first, which came with it.
pub(super) fn name_with_podman(
    program: &Path,
    parcel: &Parcel<'_>,
    runtime: &Handle,
    stop: &Stop,
) -> Result<(), Error> {
    let [_, more @ ..] = parcel.names() else {
        return Ok(());
    };
    if more.is_empty() {
        return Ok(());
    }
    let id = parcel.id();
    let id = id.strip_prefix("sha256:").unwrap_or(&id);
    let names = more.iter().map(ToString::to_string);
    let words = ["tag", id].map(str::to_owned);
    let broken = |error: io::Error| failed(Engine::Podman, error.to_string());
    let nothing = File::open("/dev/null").map_err(broken)?;
    let line = CommandLine::new(program, words.into_iter().chain(names));
    let running = Running::start(line, nothing.into(), runtime).map_err(broken)?;
    let (status, words) = running.end(stop, runtime)?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(Engine::Podman, reason(&words))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_most() {
        let check = |words: &str, expected: &str| assert_eq!(reason(words.as_bytes()), expected);
        check("", "it failed without a word");
        check("doing\nctr: no such thing\n\n", "ctr: no such thing");
        let podman = "Error: payload does not match\n * oci-archive: unexpected EOF\n * dir: no\n";
        check(podman, "oci-archive: unexpected EOF");
    }
}
