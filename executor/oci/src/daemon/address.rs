//! Where a docker engine listens, as docker's own command finds out.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DaemonError;
use super::ssh::SshTarget;
use crate::digest::Sha256Digest;
use crate::registry::{ClientCertificate, HostTls};

/// The longest document of docker's settings.
const SETTINGS_LIMIT_BYTES: u64 = 1 << 20;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket.
    Unix(PathBuf),
    /// A host of the network.
    Tcp {
        /// Host and port.
        host: String,
        /// How TLS is spoken, if it is.
        tls: Option<HostTls>,
    },
    /// Behind ssh.
    Ssh(SshTarget),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, .. } => write!(f, "tcp://{host}"),
            Self::Ssh(target) => target.fmt(f),
        }
    }
}

/// What says where engines listen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// Docker's directory of settings.
    pub config: Option<PathBuf>,
    /// `DOCKER_TLS_VERIFY`: TLS is spoken, and the engine's certificate verified.
    pub tls_verify: bool,
    /// `DOCKER_TLS`: TLS is spoken.
    pub tls: bool,
    /// `DOCKER_CERT_PATH`: where certificates and keys are, if not among docker's settings.
    pub certificates: Option<PathBuf>,
    /// Sockets to try where nothing else is said.
    pub sockets: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    current_context: String,
}

#[derive(Deserialize)]
struct Context {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_verify: bool,
}

impl Places {
    /// What the environment says, as docker's command reads it; `root` tells whether the caller is root.
    pub fn from_env() -> Places {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Places::of(&named)
    }

    fn of(named: &dyn Fn(&str) -> Option<OsString>) -> Places {
        let text = |name: &str| named(name).and_then(|value| value.into_string().ok());
        let home = named("HOME").map(PathBuf::from);
        let config = named("DOCKER_CONFIG").map(PathBuf::from);
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let runtime = named("XDG_RUNTIME_DIR").map(|path| PathBuf::from(path).join("docker.sock"));
        let sockets = [
            Some(PathBuf::from("/var/run/docker.sock")),
            runtime,
            below_home(".docker/run/docker.sock"),
            below_home(".docker/desktop/docker.sock"),
        ];
        Places {
            host: text("DOCKER_HOST"),
            context: text("DOCKER_CONTEXT"),
            config: config.or_else(|| below_home(".docker")),
            tls_verify: named("DOCKER_TLS_VERIFY").is_some(),
            tls: named("DOCKER_TLS").is_some(),
            certificates: named("DOCKER_CERT_PATH").map(PathBuf::from),
            sockets: sockets.into_iter().flatten().collect(),
        }
    }

    /// The engine that docker's command would talk to; none where there is no socket.
    pub fn find(&self) -> Result<Option<Address>, DaemonError> {
        if let Some(host) = &self.host {
            return parse(host, self.tls()).map(Some);
        }
        let context = match &self.context {
            Some(context) => context.clone(),
            None => self.settings().current_context,
        };
        if !matches!(context.as_str(), "" | "default") {
            return self.of_context(&context).map(Some);
        }
        let there = self.sockets.iter().find(|path| path.exists());
        Ok(there.cloned().map(Address::Unix))
    }

    /// How TLS is to be spoken with an engine that is no context's.
    fn tls(&self) -> Option<HostTls> {
        if !self.tls && !self.tls_verify {
            return None;
        }
        let folder = self.certificates.as_ref().or(self.config.as_ref())?;
        Some(HostTls {
            // Without it nothing could be verified; if it is not there, that is told.
            ca: match self.tls_verify {
                true => vec![folder.join(AUTHORITY)],
                false => Vec::new(),
            },
            client: client(folder),
            skip_verify: !self.tls_verify,
            ..HostTls::default()
        })
    }

    fn settings(&self) -> Settings {
        // What cannot be read says nothing; whoever asks a registry with it is told what is wrong.
        let path = self
            .config
            .as_ref()
            .map(|config| config.join("config.json"));
        let bytes = path.and_then(|path| read(&path).ok());
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn of_context(&self, name: &str) -> Result<Address, DaemonError> {
        let refused = |reason: String| DaemonError::Context {
            context: name.chars().take(100).collect(),
            reason,
        };
        let directory = self
            .config
            .as_ref()
            .ok_or_else(|| refused("neither HOME nor DOCKER_CONFIG is set".to_owned()))?;
        let contexts = directory.join("contexts");
        let id = Sha256Digest::of(name.as_bytes()).hex();
        let path = contexts.join("meta").join(&id).join("meta.json");
        let shown = path.display();
        let bytes = read(&path).map_err(|error| refused(format!("`{shown}`: {error}")))?;
        let context: Context = serde_json::from_slice(&bytes)
            .map_err(|error| refused(format!("`{shown}`: {error}")))?;
        let Endpoint { host, skip_verify } = context.endpoints.docker;
        let folder = contexts.join("tls").join(&id).join("docker");
        let authority = folder.join(AUTHORITY);
        let tls = HostTls {
            ca: match authority.exists() && !skip_verify {
                true => vec![authority],
                false => Vec::new(),
            },
            client: client(&folder),
            skip_verify,
            ..HostTls::default()
        };
        parse(&host, (tls != HostTls::default()).then_some(tls))
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SETTINGS_LIMIT_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

const AUTHORITY: &str = "ca.pem";

/// What is shown to the engine: half of it is as good as none only if the other half is missing too.
fn client(folder: &Path) -> Option<ClientCertificate> {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    (cert.exists() || key.exists()).then_some(ClientCertificate { cert, key })
}

/// Reads what docker calls a host; one of the network is spoken to with `tls`.
fn parse(host: &str, tls: Option<HostTls>) -> Result<Address, DaemonError> {
    let refused = |reason: String| DaemonError::Address {
        host: without_secrets(host).chars().take(200).collect(),
        reason,
    };
    let Some((scheme, rest)) = host.split_once("://") else {
        return Err(refused(SPOKEN.to_owned()));
    };
    match scheme {
        "unix" if rest.is_empty() => Err(refused("it names no socket".to_owned())),
        "unix" => Ok(Address::Unix(PathBuf::from(rest))),
        "ssh" => SshTarget::parse(host).map(Address::Ssh).map_err(refused),
        "tcp" | "http" => {
            let port = if tls.is_some() { 2376 } else { 2375 };
            let host = rest.trim_end_matches('/');
            if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
                return Err(refused("it is no host with a port".to_owned()));
            }
            let has_port = host
                .rsplit_once(':')
                .is_some_and(|(_, port)| !port.contains(']'));
            let host = match has_port {
                true => host.to_owned(),
                false => format!("{host}:{port}"),
            };
            Ok(Address::Tcp { host, tls })
        }
        _ => Err(refused(SPOKEN.to_owned())),
    }
}

/// An address without what stands before its host, if there is a password in it.
fn without_secrets(host: &str) -> String {
    match host.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, rest)) if user.contains(':') => format!("{scheme}://..@{rest}"),
            _ => host.to_owned(),
        },
        None => host.to_owned(),
    }
}

/// What is said of all other addresses.
const SPOKEN: &str = "only unix://, tcp:// and ssh:// are spoken";

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str) -> Address {
        Address::Unix(PathBuf::from(path))
    }

    fn tcp(host: &str, tls: Option<HostTls>) -> Address {
        let host = host.to_owned();
        Address::Tcp { host, tls }
    }

    #[test]
    fn hosts() {
        let plain = |host: &str| parse(host, None);
        assert_eq!(plain("unix:///a/b.sock").unwrap(), unix("/a/b.sock"));
        for (host, expected) in [
            ("tcp://127.0.0.1:2375/", "127.0.0.1:2375"),
            ("tcp://docker", "docker:2375"),
            ("tcp://[::1]", "[::1]:2375"),
            ("tcp://[::1]:7", "[::1]:7"),
            ("http://a:1", "a:1"),
        ] {
            assert_eq!(plain(host).unwrap(), tcp(expected, None), "{host}");
        }
        assert!(matches!(plain("ssh://me@host").unwrap(), Address::Ssh(_)));
        for refused in [
            "",
            "unix://",
            "ssh://",
            "tcp://",
            "tcp://a/b",
            "npipe://x",
            "fd://",
        ] {
            let error = plain(refused).unwrap_err();
            assert!(matches!(error, DaemonError::Address { .. }), "{refused}");
        }
        let error = plain("ssh://me:secret@host").unwrap_err().to_string();
        assert!(error.contains("`ssh://..@host`"), "{error}");
    }

    #[test]
    fn tls_is_as_the_environment_says() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let mut places = Places {
            host: Some("tcp://docker".to_owned()),
            config: Some(folder.path().to_owned()),
            tls: true,
            ..Places::default()
        };
        let anybody = HostTls {
            skip_verify: true,
            ..HostTls::default()
        };
        let found = |places: &Places| places.find().unwrap().unwrap();
        assert_eq!(found(&places), tcp("docker:2376", Some(anybody)));
        places.tls_verify = true;
        places.certificates = Some(own.clone());
        let verified = HostTls {
            ca: vec![own.join("ca.pem")],
            ..HostTls::default()
        };
        assert_eq!(found(&places), tcp("docker:2376", Some(verified.clone())));
        std::fs::write(own.join("key.pem"), "").unwrap();
        let known = HostTls {
            client: Some(ClientCertificate {
                cert: own.join("cert.pem"),
                key: own.join("key.pem"),
            }),
            ..verified
        };
        assert_eq!(found(&places), tcp("docker:2376", Some(known)));
    }

    #[test]
    fn the_environment_says_where_to_look() {
        let places = Places::of(&|name| match name {
            "HOME" => Some("/home/me".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            "DOCKER_CONTEXT" => Some("other".into()),
            _ => None,
        });
        assert_eq!(places.host, None);
        assert_eq!(places.context.as_deref(), Some("other"));
        assert_eq!(places.config, Some("/home/me/.docker".into()));
        let rootless = PathBuf::from("/run/user/7/docker.sock");
        assert!(places.sockets.contains(&rootless), "{places:?}");
    }

    #[test]
    fn the_host_goes_before_the_context_and_that_before_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        std::fs::write(&socket, "").unwrap();
        let mut places = Places {
            config: Some(folder.path().to_owned()),
            sockets: vec![folder.path().join("none"), socket.clone()],
            ..Places::default()
        };
        assert_eq!(places.find().unwrap(), Some(Address::Unix(socket)));
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"auths":{},"currentContext":"desktop"}"#,
        )
        .unwrap();
        let error = places.find().unwrap_err();
        assert!(matches!(error, DaemonError::Context { .. }), "{error}");
        let meta = folder
            .path()
            .join("contexts/meta")
            .join(Sha256Digest::of(b"desktop").hex());
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"desktop","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///d.sock","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        assert_eq!(places.find().unwrap(), Some(unix("/d.sock")));
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Endpoints":{"docker":{"Host":"tcp://far:1","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        assert_eq!(places.find().unwrap(), Some(tcp("far:1", None)));
        let id = Sha256Digest::of(b"desktop").hex();
        let material = folder.path().join("contexts/tls").join(id).join("docker");
        std::fs::create_dir_all(&material).unwrap();
        std::fs::write(material.join("ca.pem"), "").unwrap();
        let tls = HostTls {
            ca: vec![material.join("ca.pem")],
            ..HostTls::default()
        };
        assert_eq!(places.find().unwrap(), Some(tcp("far:1", Some(tls))));
        places.context = Some("default".to_owned());
        assert!(matches!(places.find().unwrap(), Some(Address::Unix(_))));
        places.host = Some("unix:///h.sock".to_owned());
        assert_eq!(places.find().unwrap(), Some(unix("/h.sock")));
        assert_eq!(Places::default().find().unwrap(), None);
    }
}
