//! What the registry client may be told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::challenges::{Challenges, Forgetful};
use super::credentials::{Anonymous, Credentials};
use super::settings::host_name;
use crate::reference::Reference;

/// Settings of a [`Client`](super::Client).
#[derive(Clone)]
pub struct Config {
    /// Certificate authorities to trust beside the system's: PEM files.
    pub extra_roots: Vec<PathBuf>,
    /// Whether the system's certificate authorities are trusted.
    pub system_roots: bool,
    /// Where pulls go before they go to the registry itself, in order.
    pub mirrors: Vec<Mirror>,
    /// Registries (`host` or `host:port`) that are spoken to without TLS.
    pub insecure: BTreeSet<String>,
    /// How TLS is spoken with hosts (`host` or `host:port`), where it is not as with all others.
    pub hosts: BTreeMap<String, HostTls>,
    /// Directories with a directory of certificates for each host, as docker's `certs.d`; of those
    /// for one host the first one counts.
    pub certificate_folders: Vec<PathBuf>,
    /// Whether token servers are asked for refresh tokens too, as for a login.
    pub offline_access: bool,
    /// Who knows the passwords.
    pub credentials: Arc<dyn Credentials>,
    /// Who knows how registries asked for them before.
    pub challenges: Arc<dyn Challenges>,
    /// How kiln names itself.
    pub user_agent: String,
    /// How often and how long it tries.
    pub retry: RetryPolicy,
}

/// How TLS is spoken with one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTls {
    /// Nothing else is spoken, even if it is on this machine.
    pub required: bool,
    /// Certificate authorities to trust for it beside all others: PEM files.
    pub ca: Vec<PathBuf>,
    /// What is shown to it, if it asks.
    pub client: Option<ClientCertificate>,
    /// Its certificate may be anybody's.
    pub skip_verify: bool,
}

/// A client's certificate with what goes above it, and its key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Another place that serves a registry's content; never pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry as references name it: `docker.io`.
    pub registry: String,
    /// The place; its path stands before the names of repositories. A plain `http` one is spoken to without TLS.
    pub url: Url,
}

/// How often a request is tried, and how long anything may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most tries of one request; the pieces of a resumed transfer share them, but a piece that
    /// brought at least 1 MiB starts the count again.
    pub attempts: u32,
    /// The wait after the first failure; it doubles each time, with up to a quarter taken off at random.
    pub first_delay: Duration,
    /// The longest wait that is chosen here.
    pub max_delay: Duration,
    /// The longest wait that a registry may ask for; beyond it the request fails at once.
    pub max_retry_after: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long nothing may come before a request or transfer counts as lost.
    pub idle_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            extra_roots: Vec::new(),
            system_roots: true,
            mirrors: Vec::new(),
            insecure: BTreeSet::new(),
            hosts: BTreeMap::new(),
            certificate_folders: Vec::new(),
            offline_access: false,
            credentials: Arc::new(Anonymous),
            challenges: Arc::new(Forgetful),
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: RetryPolicy::default(),
        }
    }
}

impl Mirror {
    /// Parses `registry=URL`, or says what is wrong with it.
    pub fn parse(entry: &str) -> Result<Self, String> {
        let (registry, url) = entry.split_once('=').ok_or("there is no `=`")?;
        let registry = host_name(registry)
            .ok()
            .filter(|registry| !registry.is_empty())
            .ok_or("the registry is not a host name")?;
        Ok(Self {
            registry,
            url: Self::url(url)?,
        })
    }

    /// Parses the place of a mirror, or says what is wrong with it.
    pub(super) fn url(text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|cause| cause.to_string())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("the URL must begin with https:// or http://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "the URL must not hold a password; log in to the mirror instead".to_owned(),
            );
        }
        let above = url.path().trim_matches('/');
        if above == "v2" || above.starts_with("v2/") {
            return Err(
                "leave out `/v2`: the path is what stands before the names of repositories"
                    .to_owned(),
            );
        }
        let is_repository = |name: &str| {
            let reference = Reference::parse(&format!("registry.example/{name}"));
            reference.is_ok_and(|reference| reference.repository() == name)
        };
        let is_plain = url.query().is_none() && url.fragment().is_none();
        if !is_plain || !above.is_empty() && !is_repository(above) {
            return Err(
                "its path must be a repository's name, which is put before all others".to_owned(),
            );
        }
        Ok(url)
    }
}
