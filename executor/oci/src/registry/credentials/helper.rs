//! Programs that keep credentials: the protocol of docker-credential-helpers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::caller::{Caller, CommandLine, Pipes};

use super::{Credential, CredentialsError, LIMIT_BYTES};

/// The name under which helpers keep an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper's words are cut to this many characters.
const MESSAGE_LENGTH: usize = 300;

/// `docker-credential-NAME`, and how long it may take.
#[derive(Debug, Clone)]
pub(super) struct Helper {
    program: String,
    timeout: Duration,
    caller: Arc<dyn Caller>,
}

/// What `get` prints and `store` reads.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// How a helper ended, and what it said.
struct Answer {
    success: bool,
    output: Vec<u8>,
    /// What it said when it failed, in one line.
    message: String,
}

impl Helper {
    /// Takes the name as a config file has it; one that would lead elsewhere is refused.
    pub(super) fn named(
        name: &str,
        timeout: Duration,
        caller: &Arc<dyn Caller>,
    ) -> Result<Helper, CredentialsError> {
        if Path::new(name).components().count() != 1 || name.contains(['/', '\\', '\0']) {
            return Err(CredentialsError::HelperName {
                name: name.to_owned(),
            });
        }
        Ok(Helper {
            program: format!("docker-credential-{name}"),
            timeout,
            caller: Arc::clone(caller),
        })
    }

    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// Asks for the first of `keys` that it knows.
    pub(super) async fn get(
        &self,
        keys: &[String],
    ) -> Result<Option<Credential>, CredentialsError> {
        for key in keys {
            let answer = self.call("get", key.as_bytes()).await?;
            if !answer.success {
                if answer.is_miss() {
                    continue;
                }
                return Err(self.failed(answer.message));
            }
            let entry: Entry = serde_json::from_slice(&answer.output).map_err(|_| {
                self.failed("its answer is not JSON of a user name and a secret".into())
            })?;
            match entry {
                Entry { secret, .. } if secret.is_empty() => {}
                Entry {
                    username, secret, ..
                } if username == TOKEN_USER => {
                    return Ok(Some(Credential::IdentityToken(secret)));
                }
                Entry {
                    username, secret, ..
                } => {
                    return Ok(Some(Credential::Basic {
                        username,
                        password: secret,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Gives it a credential to keep.
    pub(super) async fn store(
        &self,
        key: &str,
        credential: &Credential,
    ) -> Result<(), CredentialsError> {
        let (username, secret) = match credential {
            Credential::Basic { username, password } => (username.as_str(), password),
            Credential::IdentityToken(token) | Credential::RegistryToken(token) => {
                (TOKEN_USER, token)
            }
        };
        let entry = Entry {
            server_url: key.to_owned(),
            username: username.to_owned(),
            secret: secret.clone(),
        };
        let entry = serde_json::to_vec(&entry).expect("BUG: three strings are no JSON");
        let answer = self.call("store", &entry).await?;
        match answer.success {
            true => Ok(()),
            false => Err(self.failed(answer.message)),
        }
    }

    /// Lets it forget what it keeps under a key; tells whether it knew the key.
    pub(super) async fn erase(&self, key: &str) -> Result<bool, CredentialsError> {
        let answer = self.call("erase", key.as_bytes()).await?;
        match answer.success {
            true => Ok(true),
            false if answer.is_miss() => Ok(false),
            false => Err(self.failed(answer.message)),
        }
    }

    /// The keys that it knows, with their user names; none if it does not tell.
    pub(super) async fn list(&self) -> Result<BTreeMap<String, String>, CredentialsError> {
        let answer = self.call("list", b"").await?;
        Ok(match answer.success {
            true => serde_json::from_slice(&answer.output).unwrap_or_default(),
            false => BTreeMap::new(),
        })
    }

    async fn call(&self, verb: &str, input: &[u8]) -> Result<Answer, CredentialsError> {
        let ended = tokio::time::timeout(self.timeout, self.run(verb, input)).await;
        ended.map_err(|_| CredentialsError::HelperTimeout {
            program: self.program.clone(),
            timeout: self.timeout,
        })?
    }

    /// Dropping the future kills the program, with all that it has started.
    async fn run(&self, verb: &str, input: &[u8]) -> Result<Answer, CredentialsError> {
        let start = |source| CredentialsError::HelperStart {
            program: self.program.clone(),
            source,
        };
        let line = CommandLine {
            own_group: true,
            ..CommandLine::new(&self.program, [verb])
        };
        let pipes = Pipes::new().map_err(start)?;
        let mut process = self.caller.start(&line, pipes.theirs).map_err(start)?;
        let mut stdin = pipes.stdin;
        let write = async move {
            // A helper that ends without reading has its reasons, and its answer tells them.
            let _ = stdin.write_all(input).await;
        };
        let ((), output, complaint) = tokio::join!(write, drain(pipes.stdout), drain(pipes.stderr));
        let (output, complaint) = (output.map_err(start)?, complaint.unwrap_or_default());
        let status = process.ended().await.map_err(start)?;
        // The protocol has errors on standard output; some helpers have not heard of it.
        let said = match output.trim_ascii().is_empty() {
            true => &complaint,
            false => &output,
        };
        let mut message: String = String::from_utf8_lossy(said)
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MESSAGE_LENGTH)
            .collect();
        if message.is_empty() {
            message = status.to_string();
        }
        Ok(Answer {
            success: status.success(),
            output,
            message,
        })
    }

    fn failed(&self, message: String) -> CredentialsError {
        CredentialsError::HelperFailed {
            program: self.program.clone(),
            message,
        }
    }
}

impl Answer {
    /// The protocol has no other sign for a miss than these words.
    fn is_miss(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        !self.success && message.contains("credentials not found")
    }
}

/// Reads to the end, keeping no more than is looked at.
async fn drain(stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    stream.take(LIMIT_BYTES).read_to_end(&mut kept).await?;
    Ok(kept)
}
