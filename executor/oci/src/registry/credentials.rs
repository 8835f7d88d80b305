//! Credentials as docker keeps them: `config.json` and the credential helpers that it names.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The key that docker has always kept the Hub's credentials under.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The most bytes that a config file or a helper's answer may have.
const LIMIT_BYTES: u64 = 1 << 20;

/// How somebody proves who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password or personal access token.
    Basic {
        /// The account.
        username: String,
        /// The secret.
        password: String,
    },
    /// An OAuth2 refresh token, which is exchanged for tokens of a scope.
    IdentityToken(String),
    /// A bearer token that the registry takes as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username}, ..)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}

/// Who knows the credentials of a host; asked only when a registry wants some.
pub trait Credentials: Send + Sync {
    /// Returns the credential for `host`, as references name it (`docker.io`, `localhost:5000`), or
    /// a mirror's `host[:port]`.
    fn credential<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>>;
}

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The config file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The config file is not what docker writes.
    #[error("`{}` is not a docker config file", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// An entry of the config file is not base64 of `name:password`.
    #[error("`{}` has a malformed entry for `{host}`; log in again", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        host: String,
    },
    /// A helper's name would not be a program beside the others.
    #[error("`{name}` is not the name of a credential helper")]
    HelperName {
        /// The name in the config file.
        name: String,
    },
    /// The helper program cannot be run.
    #[error(
        "cannot run the credential helper `{program}`; install it or remove it from docker's config.json"
    )]
    HelperStart {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper program did not end.
    #[error("the credential helper `{program}` gave no answer for {} s", timeout.as_secs())]
    HelperTimeout {
        /// The program.
        program: String,
        /// How long it was given.
        timeout: Duration,
    },
    /// The helper program failed.
    #[error("the credential helper `{program}` failed: {message}")]
    HelperFailed {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
}

/// Nobody's credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn credential<'a>(
        &'a self,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async { Ok(None) })
    }
}

/// Credentials by host, for callers that have them at hand.
#[derive(Debug, Clone, Default)]
pub struct Fixed(
    /// The credential of each host.
    pub BTreeMap<String, Credential>,
);

impl Credentials for Fixed {
    fn credential<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async move { Ok(self.0.get(host).cloned()) })
    }
}

/// Docker's `config.json`: helpers by host first, then the default helper, then the file itself.
///
/// A missing file means no credentials. It is read each time it is needed, so a login while kiln
/// runs is seen.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    path: PathBuf,
    helper_timeout: Duration,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// An entry's `auth` is not base64 of `name:password`.
struct MalformedAuth;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl DockerConfig {
    /// Uses this file and gives each helper 30 seconds.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            helper_timeout: Duration::from_secs(30),
        }
    }

    /// Gives each helper another time.
    #[must_use]
    pub fn with_helper_timeout(mut self, timeout: Duration) -> Self {
        self.helper_timeout = timeout;
        self
    }

    async fn find(&self, host: &str) -> Result<Option<Credential>, CredentialsError> {
        let Some(file) = self.read().await? else {
            return Ok(None);
        };
        let keys = keys(host);
        let helpers = file.cred_helpers.unwrap_or_default();
        if let Some(helper) = keys
            .iter()
            .find_map(|key| helpers.get(key))
            .filter(|name| !name.is_empty())
        {
            return self.ask(helper, &keys).await;
        }
        if let Some(helper) = file.creds_store.filter(|name| !name.is_empty())
            && let Some(credential) = self.ask(&helper, &keys).await?
        {
            return Ok(Some(credential));
        }
        let auths = file.auths.unwrap_or_default();
        let entry = keys
            .iter()
            .find_map(|key| auths.get_key_value(key))
            .or_else(|| {
                auths.iter().find(|(key, _)| {
                    keys.iter()
                        .any(|wanted| bare_host(key) == bare_host(wanted))
                })
            });
        match entry {
            Some((key, entry)) => {
                entry
                    .credential()
                    .map_err(|MalformedAuth| CredentialsError::Entry {
                        path: self.path.clone(),
                        host: key.clone(),
                    })
            }
            None => Ok(None),
        }
    }

    async fn read(&self) -> Result<Option<File>, CredentialsError> {
        let failed = |source| CredentialsError::Read {
            path: self.path.clone(),
            source,
        };
        let file = match tokio::fs::File::open(&self.path).await {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(LIMIT_BYTES + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(failed)?;
        if bytes.len() as u64 > LIMIT_BYTES {
            return Err(failed(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "more than 1 MiB",
            )));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        let parse = |source| CredentialsError::Parse {
            path: self.path.clone(),
            source,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(parse)
    }

    /// Asks a helper for the first of `keys` that it knows (docker-credential-helpers' protocol).
    async fn ask(
        &self,
        name: &str,
        keys: &[String],
    ) -> Result<Option<Credential>, CredentialsError> {
        if Path::new(name).components().count() != 1 || name.contains(['/', '\\']) {
            return Err(CredentialsError::HelperName {
                name: name.to_owned(),
            });
        }
        let program = format!("docker-credential-{name}");
        for key in keys {
            let asked = tokio::time::timeout(self.helper_timeout, run_helper(&program, key)).await;
            let timeout = self.helper_timeout;
            let answer = asked.map_err(|_| CredentialsError::HelperTimeout {
                program: program.clone(),
                timeout,
            })??;
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }
}

/// Dropping the future kills the program.
async fn run_helper(program: &str, key: &str) -> Result<Option<Credential>, CredentialsError> {
    let failed = |message: String| CredentialsError::HelperFailed {
        program: program.to_owned(),
        message,
    };
    let start = |source| CredentialsError::HelperStart {
        program: program.to_owned(),
        source,
    };
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends without reading has its reasons, and its answer tells them.
        let _ = stdin.write_all(key.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(LIMIT_BYTES)
            .read_to_end(&mut output)
            .await
            .map_err(start)?;
    }
    let status = child.wait().await.map_err(start)?;
    if !status.success() {
        // The helpers' protocol has no other sign for a miss than these words.
        let message = String::from_utf8_lossy(&output)
            .trim()
            .chars()
            .take(300)
            .collect::<String>();
        let miss = message
            .to_ascii_lowercase()
            .contains("credentials not found");
        return if miss { Ok(None) } else { Err(failed(message)) };
    }
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| failed("its answer is not JSON of a user name and a secret".into()))?;
    Ok(match answer {
        HelperAnswer { secret, .. } if secret.is_empty() => None,
        HelperAnswer { username, secret } if username == "<token>" => {
            Some(Credential::IdentityToken(secret))
        }
        HelperAnswer { username, secret } => Some(Credential::Basic {
            username,
            password: secret,
        }),
    })
}

impl Entry {
    /// Errors only if `auth` is malformed; an entry without a secret, as docker leaves beside a
    /// credential store, is none.
    fn credential(&self) -> Result<Option<Credential>, MalformedAuth> {
        let filled = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(token) = filled(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            let decoded = STANDARD.decode(auth.trim()).map_err(|_| MalformedAuth)?;
            let decoded = String::from_utf8(decoded).map_err(|_| MalformedAuth)?;
            let (username, password) = decoded.split_once(':').ok_or(MalformedAuth)?;
            // Docker once padded passwords with NUL.
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credential::Basic {
                username: username.to_owned(),
                password,
            }));
        }
        Ok(match (filled(&self.username), filled(&self.password)) {
            (Some(username), Some(password)) => Some(Credential::Basic { username, password }),
            _ => None,
        })
    }
}

impl Credentials for DockerConfig {
    fn credential<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(self.find(host))
    }
}

/// Returns the keys under which docker keeps the credentials of a host, best first.
fn keys(host: &str) -> Vec<String> {
    if matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    ) {
        [
            HUB_KEY,
            "index.docker.io",
            "docker.io",
            "registry-1.docker.io",
        ]
        .map(str::to_owned)
        .to_vec()
    } else {
        vec![host.to_owned()]
    }
}

/// Strips what old versions of docker wrote around a host: a scheme and a path.
fn bare_host(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}
