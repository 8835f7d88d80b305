//! Where a docker engine listens, as docker's own command finds out.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DaemonError;
use crate::digest::Sha256Digest;

/// The longest document of docker's settings.
const SETTINGS_LIMIT_BYTES: u64 = 1 << 20;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket.
    Unix(PathBuf),
    /// Host and port, without TLS.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
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
            sockets: sockets.into_iter().flatten().collect(),
        }
    }

    /// The engine that docker's command would talk to; none where there is no socket.
    pub fn find(&self) -> Result<Option<Address>, DaemonError> {
        if let Some(host) = &self.host {
            return parse(host).map(Some);
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
        let path = directory
            .join("contexts/meta")
            .join(Sha256Digest::of(name.as_bytes()).hex())
            .join("meta.json");
        let shown = path.display();
        let bytes = read(&path).map_err(|error| refused(format!("`{shown}`: {error}")))?;
        let context: Context = serde_json::from_slice(&bytes)
            .map_err(|error| refused(format!("`{shown}`: {error}")))?;
        parse(&context.endpoints.docker.host)
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SETTINGS_LIMIT_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads what docker calls a host.
fn parse(host: &str) -> Result<Address, DaemonError> {
    let refused = || DaemonError::Address {
        host: host.chars().take(200).collect(),
    };
    if let Some(path) = host.strip_prefix("unix://") {
        return match path.is_empty() {
            true => Err(refused()),
            false => Ok(Address::Unix(PathBuf::from(path))),
        };
    }
    let tls = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let address = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"))
        .map(|address| address.trim_end_matches('/'))
        .filter(|address| !address.is_empty() && !address.contains(['/', '?', '#', '@', ' ']));
    match address {
        Some(address) if !tls("DOCKER_TLS_VERIFY") && !tls("DOCKER_TLS") => {
            Ok(Address::Tcp(address.to_owned()))
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str) -> Address {
        Address::Unix(PathBuf::from(path))
    }

    #[test]
    fn hosts() {
        assert_eq!(parse("unix:///a/b.sock").unwrap(), unix("/a/b.sock"));
        assert_eq!(
            parse("tcp://127.0.0.1:2375/").unwrap(),
            Address::Tcp("127.0.0.1:2375".to_owned())
        );
        for refused in [
            "",
            "unix://",
            "ssh://me@host",
            "tcp://",
            "tcp://a/b",
            "npipe://x",
        ] {
            let error = parse(refused).unwrap_err();
            assert!(matches!(error, DaemonError::Address { .. }), "{refused}");
        }
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
        places.context = Some("default".to_owned());
        assert!(matches!(places.find().unwrap(), Some(Address::Unix(_))));
        places.host = Some("unix:///h.sock".to_owned());
        assert_eq!(places.find().unwrap(), Some(unix("/h.sock")));
        assert_eq!(Places::default().find().unwrap(), None);
    }
}
