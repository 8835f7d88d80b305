//! What the registry client may be told, and where the environment says it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::credentials::{Anonymous, Credentials, DockerConfig};

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
    /// Who knows the passwords.
    pub credentials: Arc<dyn Credentials>,
    /// How kiln names itself.
    pub user_agent: String,
    /// How often and how long it tries.
    pub retry: RetryPolicy,
}

/// Another place that serves a registry's content; never pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry as references name it: `docker.io`.
    pub registry: String,
    /// The place; `/v2/` follows its path. A plain `http` one is spoken to without TLS.
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

/// Why the environment's settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An entry of `KILN_REGISTRY_MIRROR` is malformed.
    #[error(
        "KILN_REGISTRY_MIRROR has the entry `{entry}`, which is not of the form `docker.io=https://mirror.example`: {why}"
    )]
    Mirror {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// An entry of `KILN_INSECURE_REGISTRIES` is malformed.
    #[error("KILN_INSECURE_REGISTRIES has the entry `{0}`, which is not a `host` or `host:port`")]
    Insecure(String),
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
            credentials: Arc::new(Anonymous),
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: RetryPolicy::default(),
        }
    }
}

impl Config {
    /// Reads `SSL_CERT_FILE`, `KILN_REGISTRY_MIRROR`, `KILN_INSECURE_REGISTRIES`, and for the
    /// credentials `DOCKER_CONFIG` and `HOME`; no file is opened yet.
    ///
    /// Proxy variables are read by the HTTP library when the first request is made.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// Reads the same settings from any source of variables.
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, ConfigError> {
        let text = |name: &str| {
            lookup(name)
                .map(|value| value.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let docker = lookup("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(lookup("HOME")?).join(".docker")));
        let credentials: Arc<dyn Credentials> = match docker {
            Some(folder) => Arc::new(DockerConfig::new(folder.join("config.json"))),
            None => Arc::new(Anonymous),
        };
        Ok(Self {
            extra_roots: lookup("SSL_CERT_FILE")
                .map(PathBuf::from)
                .into_iter()
                .collect(),
            mirrors: entries(&text("KILN_REGISTRY_MIRROR"))
                .map(Mirror::parse)
                .collect::<Result<_, _>>()?,
            insecure: entries(&text("KILN_INSECURE_REGISTRIES"))
                .map(parse_insecure)
                .collect::<Result<_, _>>()?,
            credentials,
            ..Self::default()
        })
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

fn parse_insecure(entry: &str) -> Result<String, ConfigError> {
    let good = Url::parse(&format!("http://{entry}/"))
        .is_ok_and(|url| url.path() == "/" && url.username().is_empty() && url.query().is_none());
    if good && !entry.contains('/') {
        Ok(entry.to_owned())
    } else {
        Err(ConfigError::Insecure(entry.to_owned()))
    }
}

impl Mirror {
    /// Parses `registry=URL`.
    pub fn parse(entry: &str) -> Result<Self, ConfigError> {
        let error = |why: &str| ConfigError::Mirror {
            entry: entry.to_owned(),
            why: why.to_owned(),
        };
        let (registry, url) = entry
            .split_once('=')
            .ok_or_else(|| error("there is no `=`"))?;
        if registry.is_empty() || registry.contains('/') {
            return Err(error("the registry is not a host name"));
        }
        let url = Url::parse(url).map_err(|cause| error(&cause.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(error("the URL must begin with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error(
                "the URL must not hold a password; log in to the mirror instead",
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        };
        Config::from_lookup(lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_split_at_commas() {
        let config = read(&[
            (
                "KILN_REGISTRY_MIRROR",
                "docker.io=https://a.example, docker.io=http://b:5000/x,ghcr.io=https://c/",
            ),
            ("KILN_INSECURE_REGISTRIES", "reg:5000, other,"),
            ("SSL_CERT_FILE", "/ca.pem"),
        ])
        .unwrap();
        let urls: Vec<_> = config
            .mirrors
            .iter()
            .map(|mirror| mirror.url.as_str())
            .collect();
        assert_eq!(
            urls,
            ["https://a.example/", "http://b:5000/x", "https://c/"]
        );
        assert_eq!(config.mirrors[2].registry, "ghcr.io");
        assert_eq!(
            config.insecure.into_iter().collect::<Vec<_>>(),
            ["other", "reg:5000"]
        );
        assert_eq!(config.extra_roots, [PathBuf::from("/ca.pem")]);
    }

    #[test]
    fn an_empty_environment_is_good() {
        let config = read(&[]).unwrap();
        assert!(
            config.mirrors.is_empty()
                && config.insecure.is_empty()
                && config.extra_roots.is_empty()
        );
    }

    fn refuse(name: &str, value: &str, message: &str) {
        let error = read(&[(name, value)]).err().unwrap();
        assert!(error.contains(message) && error.contains(name), "{error}");
    }

    #[test]
    fn malformed_entries_are_named() {
        refuse("KILN_REGISTRY_MIRROR", "docker.io", "`docker.io`");
        refuse("KILN_REGISTRY_MIRROR", "docker.io=", "`docker.io=`");
        refuse(
            "KILN_REGISTRY_MIRROR",
            "docker.io=ftp://x",
            "must begin with https://",
        );
        refuse("KILN_REGISTRY_MIRROR", "=https://x", "not a host name");
        refuse(
            "KILN_REGISTRY_MIRROR",
            "a=https://u:p@x",
            "must not hold a password",
        );
        refuse("KILN_INSECURE_REGISTRIES", "http://x", "`http://x`");
        refuse("KILN_INSECURE_REGISTRIES", "a b", "`a b`");
    }
}
