//! Ssh agents in steps: a socket of the step's own, behind which an agent of the caller answers.

mod forward;
mod keys;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::Error;
use crate::secrets::AgentSource;
use keys::KeyAgent;

pub(crate) use forward::Forwarding;

/// Why an ssh agent cannot be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A path that was given leads nowhere.
    #[error("could not open `{}`", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A path that was given is no socket.
    #[error("`{}` is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A path that was given is no file.
    #[error("`{}` is not a file with a private key", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Nobody answers at the socket.
    #[error("no agent answers at `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program of OpenSSH cannot be used.
    #[error("could not run `{program}`, which holds keys that are given as files")]
    Program {
        /// The program.
        program: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A key can be used only by whoever knows its passphrase.
    #[error("the key `{}` has a passphrase, and nobody is asked for it", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// A file is no key.
    #[error("`ssh-add` refuses the key `{}`: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// The step's side of the socket cannot be made.
    #[error("could not make a socket for the step")]
    Socket(#[source] io::Error),
}

impl AgentError {
    /// A way out, where there is one to name.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            AgentError::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "install OpenSSH's client (Debian: openssh-client), or give the socket of an agent"
                    .to_owned()
            }
            AgentError::Passphrase { path } => format!(
                "give it to an agent, and that to the build: ssh-add {}, then --ssh default",
                path.display()
            ),
            AgentError::Connect { .. } => {
                "start one with eval \"$(ssh-agent)\" and give it keys with ssh-add".to_owned()
            }
            _ => return None,
        })
    }
}

/// Errors if what was given is neither a socket nor files.
pub(crate) fn check(id: &str, source: &AgentSource) -> Result<(), Error> {
    let kind = |path: &Path| {
        let found = std::fs::metadata(path);
        found
            .map(|found| found.file_type())
            .map_err(|source| AgentError::Open {
                path: path.to_owned(),
                source,
            })
    };
    let checked = match source {
        AgentSource::Socket(path) => kind(path).and_then(|kind| match kind.is_socket() {
            true => Ok(()),
            false => Err(AgentError::NotASocket { path: path.clone() }),
        }),
        AgentSource::Keys(paths) => paths.iter().try_for_each(|path| {
            let kind = kind(path)?;
            // A key may come through a pipe of the shell, as in `<(pass show key)`.
            match kind.is_file() || kind.is_fifo() {
                true => Ok(()),
                false => Err(AgentError::NotAFile { path: path.clone() }),
            }
        }),
    };
    checked.map_err(|source| failed(id, source))
}

fn failed(id: &str, source: AgentError) -> Error {
    Error::Agent {
        id: id.to_owned(),
        source,
    }
}

/// The ssh agents of one build. One that holds files of keys is started when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    sources: BTreeMap<String, AgentSource>,
    started: Mutex<BTreeMap<String, Arc<KeyAgent>>>,
}

/// An agent of the caller, alive as long as this is.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    socket: PathBuf,
    _started: Option<Arc<KeyAgent>>,
}

impl Agent {
    /// Where it listens.
    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }
}

impl Agents {
    pub(crate) fn new(sources: BTreeMap<String, AgentSource>) -> Agents {
        Agents {
            sources,
            started: Mutex::default(),
        }
    }

    /// Whether an agent of that id was given.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.sources.contains_key(id)
    }

    /// Returns the agent of that id, if one was given. Errors if it does not answer.
    pub(crate) fn agent(&self, id: &str) -> Result<Option<Agent>, Error> {
        let agent = match self.sources.get(id) {
            None => return Ok(None),
            Some(AgentSource::Socket(socket)) => Agent {
                socket: socket.clone(),
                _started: None,
            },
            Some(AgentSource::Keys(files)) => {
                let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
                let agent = match started.get(id) {
                    Some(agent) => Arc::clone(agent),
                    None => {
                        let agent = KeyAgent::start(files).map_err(|source| failed(id, source))?;
                        let agent = Arc::new(agent);
                        started.insert(id.to_owned(), Arc::clone(&agent));
                        agent
                    }
                };
                Agent {
                    socket: agent.socket().to_owned(),
                    _started: Some(agent),
                }
            }
        };
        match agent.connect() {
            Ok(_) => Ok(Some(agent)),
            Err(source) => {
                let path = agent.socket;
                Err(failed(id, AgentError::Connect { path, source }))
            }
        }
    }
}

impl Agent {
    /// Errors rather than to wait for an agent that takes no more connections.
    fn connect(&self) -> io::Result<UnixStream> {
        let address = SocketAddrUnix::new(&self.socket)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}
