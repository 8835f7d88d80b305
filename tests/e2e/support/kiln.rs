//! One run of the command, in an environment that says nothing about the host.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::text;
use super::world::World;

/// A run that hangs for so long is killed and fails its case.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command line that was not started yet.
pub(crate) struct Kiln<'w> {
    world: &'w World,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    stdin: Vec<u8>,
}

impl<'w> Kiln<'w> {
    pub(super) fn new(world: &'w World, program: PathBuf, arguments: Vec<OsString>) -> Kiln<'w> {
        Kiln {
            world,
            program,
            arguments,
            environment: world.environment(),
            directory: world.path("."),
            stdin: Vec::new(),
        }
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    /// Gives it something to read; otherwise its standard input is empty.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Starts it in another directory of the world.
    pub(crate) fn in_directory(mut self, path: &str) -> Self {
        self.directory = self.world.path(path);
        self
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Running {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", self.program.display()));
        let mut stdin = child.stdin.take().unwrap();
        let bytes = self.stdin;
        // A program that does not read all of it is no failure of the case.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        let pid = Pid::from_raw(child.id().cast_signed());
        let (ended, patience) = channel::<()>();
        std::thread::spawn(move || {
            if patience.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let words: Vec<String> = self
            .arguments
            .iter()
            .map(|word| text::quoted(&word.to_string_lossy()))
            .collect();
        Running {
            line: words.join(" "),
            masks: self.world.masks(),
            child,
            stdout,
            stderr,
            started: Instant::now(),
            ended,
        }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        self.spawn().wait()
    }

    /// Runs it; anything but success fails the case.
    pub(crate) fn ok(self) -> Ran {
        self.exits(0)
    }

    /// Runs it; any other exit code fails the case.
    pub(crate) fn exits(self, code: i32) -> Ran {
        let ran = self.run();
        assert_eq!(
            ran.status.code(),
            Some(code),
            "kiln {}\n--- stderr\n{}\n--- stdout\n{}",
            ran.line,
            ran.stderr,
            ran.stdout
        );
        ran
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// A run that was started.
pub(crate) struct Running {
    line: String,
    masks: Vec<(String, String)>,
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    started: Instant,
    ended: Sender<()>,
}

impl Running {
    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ran {
        let status = self.child.wait().unwrap();
        let took = self.started.elapsed();
        let _ = self.ended.send(());
        let stdout_bytes = self.stdout.join().unwrap();
        let stderr = self.stderr.join().unwrap();
        assert!(
            !(status.signal() == Some(9) && took >= PATIENCE),
            "kiln {} did not end in {PATIENCE:?}",
            self.line
        );
        Ran {
            line: self.line,
            masks: self.masks,
            status,
            stdout: String::from_utf8_lossy(&stdout_bytes).into_owned(),
            stdout_bytes,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            took,
        }
    }
}

/// A run that ended.
pub(crate) struct Ran {
    line: String,
    masks: Vec<(String, String)>,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it printed.
    pub(crate) stdout: String,
    /// The same, whatever it is.
    pub(crate) stdout_bytes: Vec<u8>,
    /// What it told.
    pub(crate) stderr: String,
    /// From its start to its end.
    pub(crate) took: Duration,
}

impl Ran {
    /// The last line of standard output: the id, of a build.
    pub(crate) fn id(&self) -> &str {
        self.stdout.trim_end().lines().last().unwrap_or_default()
    }

    /// The table of steps that ends a build.
    pub(crate) fn table(&self) -> String {
        text::table(&self.masked(&self.stderr))
    }

    /// The command line, everything that it wrote and how it ended, as one text.
    pub(crate) fn whole(&self) -> String {
        let mut text = format!("$ kiln {}\n", self.line);
        text.push_str(&self.stderr);
        if !self.stdout.is_empty() {
            if !self.stderr.is_empty() {
                text.push_str("--- stdout\n");
            }
            text.push_str(&self.stdout);
        }
        match self.status.code() {
            Some(0) => {}
            Some(code) => text.push_str(&format!("--- exit code {code}\n")),
            None => text.push_str(&format!("--- {}\n", self.status)),
        }
        self.masked(&text)
    }

    fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.masks {
            text = text.replace(from, to);
        }
        text
    }
}
