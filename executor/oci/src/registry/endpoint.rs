//! The places where a registry's content can be had.

use std::net::IpAddr;

use url::Url;

use super::config::{Config, Mirror};
use crate::reference::{Reference, registry_host};

/// A host that serves the protocol, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]`, as it stands in URLs.
    pub(super) authority: String,
    /// What stands before the names of repositories; empty or ending with a slash.
    prefix: String,
    /// The name under which credentials are kept.
    credentials_host: String,
    pub(super) security: Security,
    pub(super) is_mirror: bool,
}

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Always.
    Tls,
    /// If the server can; of hosts whose traffic does not leave this machine.
    Probe,
    /// Never, since the user said so.
    Plain,
}

impl Endpoint {
    /// Returns the registry of this name itself.
    pub(super) fn origin(config: &Config, domain: &str) -> Self {
        let authority = registry_host(domain).to_owned();
        let security = if config.insecure.contains(domain) || config.insecure.contains(&authority) {
            Security::Plain
        } else if is_loopback(&authority)
            && !config.hosts.get(domain).is_some_and(|tls| tls.required)
        {
            Security::Probe
        } else {
            Security::Tls
        };
        Self {
            authority,
            prefix: String::new(),
            credentials_host: domain.to_owned(),
            security,
            is_mirror: false,
        }
    }

    /// Returns the mirrors of a registry in their order, and then itself.
    pub(super) fn for_pull(config: &Config, domain: &str) -> Vec<Self> {
        let mirrors = config
            .mirrors
            .iter()
            .filter(|mirror| mirror.registry == domain);
        mirrors
            .map(Self::mirror)
            .chain([Self::origin(config, domain)])
            .collect()
    }

    fn mirror(mirror: &Mirror) -> Self {
        let host = mirror.url.host_str().unwrap_or_default();
        let authority = match mirror.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let prefix = match mirror.url.path().trim_matches('/') {
            "" => String::new(),
            above => format!("{above}/"),
        };
        Self {
            credentials_host: authority.clone(),
            authority,
            prefix,
            security: if mirror.url.scheme() == "http" {
                Security::Plain
            } else {
                Security::Tls
            },
            is_mirror: true,
        }
    }

    /// Returns what tells this place from others.
    pub(super) fn key(&self) -> String {
        let place = format!("{}/{}", self.authority, self.prefix);
        place.trim_end_matches('/').to_owned()
    }

    /// Returns the name that a reference's repository has here.
    pub(super) fn repository(&self, reference: &Reference) -> String {
        format!("{}{}", self.prefix, reference.repository())
    }

    pub(super) fn credentials_host(&self) -> &str {
        &self.credentials_host
    }

    /// Returns the URL of `path`, which comes after `/v2/`.
    pub(super) fn url(&self, scheme: &str, path: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{scheme}://{}/v2/{path}", self.authority))
    }
}

/// Tells whether what is sent to `authority` stays on this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    if let Some(address) = authority.strip_prefix('[') {
        let address = address.split(']').next().unwrap_or_default();
        return address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    }
    let host = authority.split(':').next().unwrap_or_default();
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "128.0.0.1",
            "[::2]:5000",
            "example:5000",
            "127.example",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn mirrors_come_before_the_origin() {
        let mirrors = [
            "docker.io=https://a.example/p/q/",
            "ghcr.io=https://b",
            "docker.io=http://c:5000",
        ];
        let config = Config {
            mirrors: mirrors
                .iter()
                .map(|entry| Mirror::parse(entry).unwrap())
                .collect(),
            ..Config::default()
        };
        let shown = |domain: &str| {
            let endpoints = Endpoint::for_pull(&config, domain);
            let reference = Reference::parse(&format!("{domain}/library/x")).unwrap();
            let url = |endpoint: &Endpoint| {
                let scheme = if endpoint.security == Security::Plain {
                    "http"
                } else {
                    "https"
                };
                endpoint
                    .url(scheme, &endpoint.repository(&reference))
                    .unwrap()
                    .to_string()
            };
            endpoints.iter().map(url).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown("docker.io"),
            "https://a.example/v2/p/q/library/x http://c:5000/v2/library/x \
             https://registry-1.docker.io/v2/library/x"
        );
        assert_eq!(shown("quay.io"), "https://quay.io/v2/library/x");
    }
}
