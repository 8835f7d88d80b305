//! Credentials: who somebody is, and who knows it.

mod accounts;
mod docker;
mod edit;
mod helper;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use accounts::Accounts;
pub use docker::{DockerConfig, Kept};

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
    /// Returns the credential for `place`: a host as references name it (`docker.io`, `localhost:5000`), or a
    /// mirror's `host[:port]`; with a slash and a repository after it, if one is meant (`quay.io/team/app`).
    ///
    /// One that is kept for the repository or for what is above it goes before the host's.
    fn credential<'a>(
        &'a self,
        place: &'a str,
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
    /// The config file cannot be written.
    #[error("cannot write `{}`; it is as it was", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no place for docker's config file.
    #[error("there is no place for credentials: neither DOCKER_CONFIG nor HOME is set")]
    Nowhere,
    /// The config file has something else where credentials belong.
    #[error("`{}` is not a docker config file: {what}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is where.
        what: &'static str,
    },
    /// An entry of the config file is not base64 of `name:password`.
    #[error("`{}` has a malformed entry for `{host}`; log in again", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        host: String,
    },
    /// A helper keeps accounts of hosts only.
    #[error(
        "the credential helper `{program}` keeps accounts of whole registries, and `{place}` is a part of one"
    )]
    HelperPlace {
        /// The program.
        program: String,
        /// The part.
        place: String,
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
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        let mut above = above(place);
        Box::pin(async move { Ok(above.find_map(|place| self.0.get(place)).cloned()) })
    }
}

/// A place and what is above it, up to its host: `quay.io/team/app`, `quay.io/team`, `quay.io`.
fn above(place: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(place), |place| Some(place.rsplit_once('/')?.0))
}

/// The host of a place.
pub(super) fn host_of(place: &str) -> &str {
    place.split('/').next().unwrap_or(place)
}
