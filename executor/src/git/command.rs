//! Running git so that nothing but its arguments says what it does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use kiln_store::WorkDirectory;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::{GitError, Remote};
use crate::executor::Executor;

/// The ways to a repository; none runs a program that the address names.
const PROTOCOLS: &str = "http:https:git:ssh";
/// The way to a mirror of our own.
const LOCAL_PROTOCOL: &str = "file";

/// More of git's answers is not read.
const OUTPUT_LIMIT_BYTES: usize = 64 << 20;
/// So much of the end of its complaints is kept.
const COMPLAINT_BYTES: usize = 2 << 10;

/// Variables that say how this host reaches others.
const PASSED_ON: &[&str] = &[
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// What git may prove itself with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitAccess {
    /// The value of `Authorization` for the host of the repository.
    pub authorization: Option<String>,
    /// The socket of an ssh agent.
    pub ssh_agent: Option<PathBuf>,
}

/// Git with a configuration of its own, for one remote.
pub(super) struct Git {
    environment: Vec<(OsString, OsString)>,
    remote: Remote,
    home: WorkDirectory,
}

impl Git {
    pub(super) fn new(
        executor: &Executor,
        remote: &Remote,
        access: &GitAccess,
    ) -> Result<Git, GitError> {
        let home = executor.store().work_directory("git")?;
        let config = home.path().join("config");
        write(&config, &configuration(remote, access))?;
        let mut environment: Vec<(OsString, OsString)> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
            .collect();
        let mut set = |name: &str, value: OsString| environment.push((name.into(), value));
        set("HOME", home.path().into());
        set("LC_ALL", "C".into());
        set("GIT_CONFIG_NOSYSTEM", "1".into());
        set("GIT_CONFIG_GLOBAL", config.into());
        set("GIT_ATTR_NOSYSTEM", "1".into());
        set("GIT_TERMINAL_PROMPT", "0".into());
        set("GIT_SSH_COMMAND", ssh_command(&home).into());
        // As everywhere in kiln; git takes it in place of the system's bundle.
        if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
            set("GIT_SSL_CAINFO", file);
        }
        if let Some(agent) = &access.ssh_agent {
            set("SSH_AUTH_SOCK", agent.into());
        }
        Ok(Git {
            environment,
            remote: remote.clone(),
            home,
        })
    }

    /// Runs git where no repository is.
    pub(super) async fn outside(
        &self,
        attempt: &'static str,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        self.run(attempt, self.home.path(), PROTOCOLS, arguments)
            .await
    }

    /// Runs git in a repository.
    pub(super) async fn within(
        &self,
        attempt: &'static str,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        self.run(attempt, directory, PROTOCOLS, arguments).await
    }

    /// Runs git in a repository, where it may read others of this host: mirrors of our own.
    pub(super) async fn local(
        &self,
        attempt: &'static str,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        self.run(attempt, directory, LOCAL_PROTOCOL, arguments)
            .await
    }

    /// Asks git something in a repository; `false` where it says no.
    pub(super) async fn says(
        &self,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<bool, GitError> {
        let (status, ..) = self.spawn(directory, PROTOCOLS, arguments).await?;
        Ok(status.success())
    }

    async fn run(
        &self,
        attempt: &'static str,
        directory: &Path,
        protocols: &str,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        let (status, output, complaints) = self.spawn(directory, protocols, arguments).await?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&output).into_owned());
        }
        let said = String::from_utf8_lossy(&complaints);
        let said = self.remote.redact(said.trim());
        Err(GitError::Failed {
            attempt,
            remote: self.remote.shown.clone(),
            said: match said.is_empty() {
                true => status.to_string(),
                false => plain(&said),
            },
        })
    }

    async fn spawn(
        &self,
        directory: &Path,
        protocols: &str,
        arguments: &[&str],
    ) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), GitError> {
        let mut child = Command::new("git")
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("GIT_ALLOW_PROTOCOL", protocols)
            // No repository above is taken for the one that is meant.
            .env("GIT_CEILING_DIRECTORIES", parent(directory))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => GitError::NotInstalled { source },
                _ => self.io("start", Path::new("git"))(source),
            })?;
        // Git has children of its own, which an end of the build is to end too.
        let mut group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (output, complaints) = tokio::join!(head(stdout), tail(stderr));
        let status = child
            .wait()
            .await
            .map_err(self.io("wait for", Path::new("git")))?;
        group.0 = None;
        Ok((status, output, complaints))
    }

    fn io(
        &self,
        attempt: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> GitError + use<> {
        let path = path.to_owned();
        move |source| GitError::Io {
            attempt,
            path,
            source,
        }
    }
}

/// The processes of one run, ended when this is dropped before they are done.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // What ended by itself meanwhile needs no end.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

fn parent(directory: &Path) -> &Path {
    directory.parent().unwrap_or(directory)
}

/// Reads to the end and keeps the beginning.
async fn head(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    read(stream, |kept, piece| {
        let room = OUTPUT_LIMIT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..room.min(piece.len())]);
    })
    .await
}

/// Reads to the end and keeps the end.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    read(stream, |kept, piece| {
        kept.extend_from_slice(piece);
        let more = kept.len().saturating_sub(COMPLAINT_BYTES);
        kept.drain(..more);
    })
    .await
}

async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    mut keep: impl FnMut(&mut Vec<u8>, &[u8]),
) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        keep(&mut kept, &buffer[..count]);
    }
    kept
}

/// One line of printable text; what a server says is in it too.
fn plain(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join("; ");
    joined
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// All the configuration that git sees.
fn configuration(remote: &Remote, access: &GitAccess) -> String {
    let mut text = String::from(
        "\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tautocrlf = false
\tattributesFile = /dev/null
\texcludesFile = /dev/null
[credential]
\thelper =
[init]
\tdefaultBranch = master
\ttemplateDir =
[gc]
\tauto = 0
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
[safe]
\tdirectory = *
[http]
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[fetch]
\trecurseSubmodules = false
",
    );
    if let (Some(value), Some(origin)) = (&access.authorization, origin(&remote.url)) {
        let value = quoted(&format!("Authorization: {value}"));
        text.push_str(&format!(
            "[http {}]\n\textraHeader = {value}\n",
            quoted(&origin)
        ));
    }
    text
}

/// Scheme and host of an http address: where its proof goes.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    matches!(scheme, "http" | "https").then(|| format!("{scheme}://{host}/"))
}

/// A value as git's configuration files quote it.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            // A header or an address of several lines is none.
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Ssh without the user's settings and keys: an agent proves, and only known hosts are talked to.
fn ssh_command(home: &WorkDirectory) -> String {
    let known = home.path().join("known_hosts");
    let users = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts"));
    let known: Vec<PathBuf> = std::iter::once(known).chain(users).collect();
    let known: Vec<String> = known
        .iter()
        .map(|path| format!("\\\"{}\\\"", path.display()))
        .collect();
    format!(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentityFile=/dev/null \
         -o \"UserKnownHostsFile={}\"",
        known.join(" ")
    )
}

fn write(path: &Path, text: &str) -> Result<(), GitError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let open = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| GitError::Io {
        attempt: "write",
        path: path.to_owned(),
        source,
    })
}

impl Git {
    /// Lets ssh know these hosts too, as lines of `known_hosts`.
    pub(super) fn know_hosts(&self, lines: &str) -> Result<(), GitError> {
        write(&self.home.path().join("known_hosts"), lines)
    }
}
