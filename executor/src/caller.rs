//! Whoever called kiln: programs and connections of theirs, whatever user namespace kiln is in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kiln_oci::caller::{Caller, CallersProcess, CommandLine, Directly};
use kiln_oci::registry::{Overrides, Settings};
use kiln_sandbox::porter::{self, Program, Started};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use crate::error::Error;
use crate::piped::watched;

/// The caller: this process itself, or beyond the user namespace that it has entered.
pub(crate) fn caller() -> Arc<dyn Caller> {
    match porter::is_there() {
        true => Arc::new(Outside),
        false => Arc::new(Directly),
    }
}

/// Reads the settings of registries, with the caller's credential helpers.
pub(crate) fn registry_settings(overrides: &Overrides) -> Result<Settings, Error> {
    let mut settings = Settings::load(overrides)?;
    settings.accounts = settings.accounts.of(&caller());
    Ok(settings)
}

/// The caller outside of the user namespace, reached through the porter.
#[derive(Debug)]
struct Outside;

impl Caller for Outside {
    fn start(
        &self,
        line: &CommandLine,
        streams: [OwnedFd; 3],
    ) -> io::Result<Box<dyn CallersProcess>> {
        let program = Program {
            name: line.program.clone(),
            arguments: line.arguments.clone(),
            own_group: line.own_group,
            ..Program::default()
        };
        let started = program.start(&streams)?;
        let watch = watched(started.as_fd().try_clone_to_owned()?)?;
        Ok(Box::new(Process { started, watch }))
    }

    fn connect<'a>(&'a self, socket: &'a Path) -> BoxFuture<'a, io::Result<UnixStream>> {
        Box::pin(async move {
            let stream = porter::connect(socket)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        })
    }
}

/// A program that the porter started.
struct Process {
    started: Started,
    /// Readable once it has ended.
    watch: AsyncFd<OwnedFd>,
}

impl CallersProcess for Process {
    fn ended(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>> {
        Box::pin(async {
            // Once it has ended, waiting takes no time.
            drop(self.watch.readable().await?);
            self.started.wait()
        })
    }
}
