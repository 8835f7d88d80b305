//! A program that is talked to over its standard streams: of this host, or in an image.
//!
//! One of this host is the caller's own and has what the caller has. One in an image may do next to
//! nothing: no network, no file that it can change but a `/tmp` in memory, and limits.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kiln_ir::NetworkMode;
use kiln_oci::caller::Pipes;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::container::{ContainerRequest, Program, ProgramStdio};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::{ResolvedImage, blocking};

/// A program that runs. Dropping it kills it with all that it started.
pub struct Piped {
    process: Process,
    /// Readable once it is gone.
    gone: AsyncFd<OwnedFd>,
    ended: Option<Ended>,
}

/// This side of its standard streams.
pub struct Streams {
    /// What it reads.
    pub stdin: Sender,
    /// What it writes.
    pub stdout: Receiver,
    /// What it tells people.
    pub stderr: Receiver,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

enum Process {
    /// The leader of a process group of its own.
    Host(Child),
    Image(Box<Program>),
}

fn pipes() -> Result<([OwnedFd; 3], Streams), Error> {
    let Pipes {
        theirs,
        stdin,
        stdout,
        stderr,
    } = Pipes::new().map_err(Error::io("make", "a pipe"))?;
    let streams = Streams {
        stdin,
        stdout,
        stderr,
    };
    Ok((theirs, streams))
}

/// Registers a handle on a process with the runtime.
#[expect(
    deprecated,
    reason = "an OwnedFd is open for as long as it is registered, which is all that it takes"
)]
pub(crate) fn watched(handle: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(handle)
}

impl Piped {
    /// Starts a program of this host with an environment; one without `/` is looked for in its `PATH`.
    ///
    /// Must be called within a runtime, as must [`Piped::in_image`].
    pub fn on_host(
        program: &Path,
        environment: &[(OsString, OsString)],
    ) -> Result<(Piped, Streams), Error> {
        let (theirs, streams) = pipes()?;
        let [stdin, stdout, stderr] = theirs.map(Stdio::from);
        let child = Command::new(program)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(Error::io("start", program))?;
        // Without a handle on its end the child must not be left alone.
        let mut process = Process::Host(child);
        let gone = match &process {
            Process::Host(child) => {
                rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())
                    .map_err(std::io::Error::from)
                    .and_then(watched)
            }
            Process::Image(_) => unreachable!("BUG: it was started on the host"),
        };
        match gone {
            Ok(gone) => Ok((
                Piped {
                    process,
                    gone,
                    ended: None,
                },
                streams,
            )),
            Err(error) => {
                process.kill();
                process.reap();
                Err(Error::io("watch", program)(error))
            }
        }
    }

    /// Starts what an image runs, by its entry point, in a sandbox that reaches nothing else.
    pub async fn in_image(
        executor: &Executor,
        name: &str,
        image: ResolvedImage,
    ) -> Result<(Piped, Streams), Error> {
        let ([stdin, stdout, stderr], streams) = pipes()?;
        let request = ContainerRequest {
            image: name.to_owned(),
            network: NetworkMode::None,
            stdio: ProgramStdio::Streams {
                stdin: Some(stdin),
                stdout: Some(stdout),
                stderr: Some(stderr),
            },
            confined: true,
            ..ContainerRequest::default()
        };
        let program = executor.start_image(image, request).await?;
        let gone = program
            .as_fd()
            .try_clone_to_owned()
            .and_then(watched)
            .map_err(Error::io("watch", name))?;
        let process = Process::Image(Box::new(program));
        Ok((
            Piped {
                process,
                gone,
                ended: None,
            },
            streams,
        ))
    }

    /// Returns once it is gone, with everything that it left running.
    pub async fn ended(&mut self) -> Result<Ended, Error> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let watched = self.gone.readable().await;
        drop(watched.map_err(Error::io("wait for", "a program"))?);
        self.process.kill();
        let ended = match &mut self.process {
            Process::Host(child) => {
                let status = child.wait().map_err(Error::io("wait for", "a program"))?;
                match (status.code(), status.signal()) {
                    (Some(code), _) => Ended::Code(code),
                    (None, signal) => Ended::Signal(signal.unwrap_or_default()),
                }
            }
            Process::Image(program) => program.ended()?,
        };
        self.ended = Some(ended);
        Ok(ended)
    }
}

impl Process {
    /// Kills it with its group, or with its sandbox. Its number is its own until it is waited for.
    fn kill(&mut self) {
        match self {
            Process::Host(child) => {
                let group = Pid::from_child(child);
                // Nobody is left where this fails.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            Process::Image(program) => {
                let _ = program.kill();
            }
        }
    }

    fn reap(&mut self) {
        if let Process::Host(child) = self {
            let _ = child.wait();
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.process.kill();
            self.process.reap();
        }
    }
}

impl Executor {
    /// Starts a program in an image that was found before.
    async fn start_image(
        &self,
        image: ResolvedImage,
        request: ContainerRequest,
    ) -> Result<Program, Error> {
        let (executor, found) = (self.clone(), self.bring(&image).await?);
        blocking(move || executor.start_in(found, request)).await
    }
}
