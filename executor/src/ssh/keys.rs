//! An agent for keys that are given as files: OpenSSH's own, for one build.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::AgentError;

const PROGRAM: &str = "ssh-agent";

/// Holds an agent until its input ends, which it does too if kiln is killed. It says what the agent
/// says, and is silent if the agent is gone.
const HOLD: &str = "command -v ssh-agent > /dev/null || exit 127
ssh-agent -D & agent=$!
exec > /dev/null
cat
kill $agent
wait $agent";

/// An `ssh-agent` with some keys, until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyAgent {
    socket: PathBuf,
    holder: Child,
    /// Kept, so that whatever else is said finds an open pipe.
    said: Option<BufReader<ChildStdout>>,
}

impl KeyAgent {
    /// Starts an agent and gives it the keys in `files`; nobody is asked for passphrases.
    pub(super) fn start(files: &[PathBuf]) -> Result<KeyAgent, AgentError> {
        let failed = |source| AgentError::Program {
            program: PROGRAM,
            source,
        };
        let mut holder = Command::new("sh")
            .args(["-c", HOLD])
            // Ctrl-C is for kiln, which ends the agent when no step needs it any more.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut agent = KeyAgent {
            socket: PathBuf::new(),
            said: holder.stdout.take().map(BufReader::new),
            holder,
        };
        agent.socket = agent.told().map_err(failed)?;
        for file in files {
            agent.add(file)?;
        }
        Ok(agent)
    }

    /// Reads where the agent's socket is, from `SSH_AUTH_SOCK=PATH; export SSH_AUTH_SOCK;`.
    fn told(&mut self) -> io::Result<PathBuf> {
        let mut line = String::new();
        if let Some(said) = &mut self.said {
            said.read_line(&mut line)?;
        }
        let path = line
            .strip_prefix("SSH_AUTH_SOCK=")
            .and_then(|rest| rest.split_once(';'));
        match path {
            Some((path, _)) => Ok(PathBuf::from(path)),
            None => Err(match self.end()?.code() {
                Some(127) => io::ErrorKind::NotFound.into(),
                _ => io::Error::other("it ended without saying where its socket is"),
            }),
        }
    }

    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        drop(self.holder.stdin.take());
        self.holder.wait()
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Gives it a key, through a pipe: `ssh-add` looks at the modes of files, and BuildKit does not.
    fn add(&self, file: &Path) -> Result<(), AgentError> {
        const PROGRAM: &str = "ssh-add";
        let key = std::fs::read(file).map_err(|source| AgentError::Open {
            path: file.to_owned(),
            source,
        })?;
        let failed = |source| AgentError::Program {
            program: PROGRAM,
            source,
        };
        let mut adding = Command::new(PROGRAM)
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", &self.socket)
            // Whoever is asked for a passphrase says no.
            .env("SSH_ASKPASS", "false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = adding.stdin.take() {
            // One that does not read its key says why.
            let _ = stdin.write_all(&key);
        }
        let output = adding.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.lines().map(str::trim).find(|line| !line.is_empty());
        let path = file.to_owned();
        // Whoever refuses to tell a passphrase is told no more.
        Err(match words.filter(|words| !words.contains("passphrase")) {
            Some(words) => AgentError::Key {
                path,
                reason: words.to_owned(),
            },
            None => AgentError::Passphrase { path },
        })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        // What fails here would have failed before.
        let _ = self.end();
    }
}
