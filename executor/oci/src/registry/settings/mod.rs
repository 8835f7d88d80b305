//! What the registry client is told, by whom: the configuration file, the environment and flags.
//!
//! docs/configuration.md is its page.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::config::{ClientCertificate, Config, HostTls, Mirror};
use super::credentials::Accounts;
use crate::reference::Reference;

/// The file of everybody on this host.
const SYSTEM_FILE: &str = "/etc/kiln/config.toml";

/// Where other engines keep certificates of hosts, the user's own after `HOME`.
const CERTIFICATE_FOLDERS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// What is said on the command line; it goes over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The only configuration file that is read.
    pub config: Option<PathBuf>,
    /// `registry=URL`: mirrors in their order, instead of all others of that registry.
    pub mirrors: Vec<String>,
    /// Registries that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// Certificate authorities to trust beside the system's.
    pub authorities: Vec<PathBuf>,
}

/// Who said something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A setting and who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<T> {
    /// The setting.
    pub value: T,
    /// Who said it.
    pub origin: Origin,
}

/// What is said of one host; nothing stands for what is usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// Where pulls go first.
    pub mirrors: Option<Given<Vec<Url>>>,
    /// Whether it is spoken to without TLS.
    pub plain_http: Option<Given<bool>>,
    /// Certificate authorities to trust for it beside all others.
    pub ca: Option<Given<Vec<PathBuf>>>,
    /// What kiln shows to it.
    pub client: Option<Given<ClientCertificate>>,
    /// Whether its certificate may be anybody's.
    pub skip_verify: Option<Given<bool>>,
}

/// All that is in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration files that were read; later ones go over earlier ones.
    pub files: Vec<PathBuf>,
    /// What is said of hosts, by their names in references.
    pub hosts: BTreeMap<String, HostSettings>,
    /// Certificate authorities to trust for all hosts beside the system's.
    pub authorities: Vec<Given<PathBuf>>,
    /// Who knows the passwords.
    pub accounts: Accounts,
    /// Directories with a directory of certificates for each host, as docker and podman have them.
    pub certificate_folders: Vec<PathBuf>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file that must be there cannot be read.
    #[error("could not read the configuration file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A configuration file says something that means nothing.
    #[error("could not use the configuration file `{}`, line {line}, column {column}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// What is wrong, and what is known instead.
        what: String,
    },
    /// A mirror is malformed.
    #[error(
        "{origin} has the entry `{entry}`, which is not of the form `docker.io=https://mirror.example`: {why}"
    )]
    Mirror {
        /// Who said it.
        origin: Origin,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A host is malformed.
    #[error("{origin} has the entry `{entry}`, which is not a `host` or `host:port`")]
    Host {
        /// Who said it.
        origin: Origin,
        /// The entry.
        entry: String,
    },
}

impl ConfigError {
    /// Whether the command line is wrong, as against the host that it is given on.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Mirror {
                origin: Origin::Flag(_),
                ..
            } | Self::Host {
                origin: Origin::Flag(_),
                ..
            }
        )
    }
}

impl Settings {
    /// Reads the configuration files, this process's environment, and what goes over them.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::from_lookup(overrides, |name| {
            std::env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    /// The same with any source of variables.
    pub fn from_lookup(
        overrides: &Overrides,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let path = |name: &str| lookup(name).map(PathBuf::from);
        let home = path("HOME");
        let config_home =
            path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let mut settings = Self {
            files: Vec::new(),
            hosts: BTreeMap::new(),
            authorities: Vec::new(),
            accounts: Accounts::from_lookup(&lookup),
            certificate_folders: home
                .iter()
                .map(|home| home.join(".config/containers/certs.d"))
                .chain(CERTIFICATE_FOLDERS.map(PathBuf::from))
                .collect(),
        };
        match overrides.config.clone().or_else(|| path("KILN_CONFIG")) {
            Some(file) => settings.read(&file, home.as_deref())?,
            None => {
                let own = config_home.map(|folder| folder.join("kiln/config.toml"));
                for file in [Some(PathBuf::from(SYSTEM_FILE)), own]
                    .into_iter()
                    .flatten()
                {
                    match settings.read(&file, home.as_deref()) {
                        Err(ConfigError::Read { source, .. }) if is_absent(&source) => {}
                        read => read?,
                    }
                }
            }
        }
        let list = |name: &str| {
            let text = lookup(name).unwrap_or_default();
            let text = text.to_string_lossy().into_owned();
            let entries = text.split(',').map(str::trim);
            let entries = entries.filter(|entry| !entry.is_empty());
            entries.map(str::to_owned).collect::<Vec<_>>()
        };
        let variable = "KILN_REGISTRY_MIRROR";
        settings.mirror(&list(variable), &Origin::Variable(variable))?;
        settings.mirror(&overrides.mirrors, &Origin::Flag("--mirror"))?;
        let variable = "KILN_INSECURE_REGISTRIES";
        settings.plain(&list(variable), &Origin::Variable(variable))?;
        settings.plain(&overrides.plain_http, &Origin::Flag("--plain-http"))?;
        let variable = "SSL_CERT_FILE";
        let given = path(variable).map(|file| (file, Origin::Variable(variable)));
        let said = overrides.authorities.iter().cloned();
        let said = said.map(|file| (file, Origin::Flag("--tls-ca")));
        settings.authorities = given
            .into_iter()
            .chain(said)
            .map(|(value, origin)| Given { value, origin })
            .collect();
        Ok(settings)
    }

    /// Settings of the registry client.
    pub fn config(&self) -> Config {
        let mut config = Config {
            extra_roots: self
                .authorities
                .iter()
                .map(|file| file.value.clone())
                .collect(),
            certificate_folders: self.certificate_folders.clone(),
            credentials: Arc::new(self.accounts.clone()),
            ..Config::default()
        };
        for (host, settings) in &self.hosts {
            let mirrors = settings.mirrors.iter().flat_map(|given| &given.value);
            config.mirrors.extend(mirrors.map(|url| Mirror {
                registry: host.clone(),
                url: url.clone(),
            }));
            let plain = settings.plain_http.as_ref().map(|given| given.value);
            if plain == Some(true) {
                config.insecure.insert(host.clone());
            }
            let tls = HostTls {
                required: plain == Some(false),
                ca: settings
                    .ca
                    .as_ref()
                    .map(|given| given.value.clone())
                    .unwrap_or_default(),
                client: settings.client.as_ref().map(|given| given.value.clone()),
                skip_verify: settings
                    .skip_verify
                    .as_ref()
                    .is_some_and(|given| given.value),
            };
            if tls != HostTls::default() {
                config.hosts.insert(host.clone(), tls);
            }
        }
        config
    }

    /// Hosts whose certificates are not looked at, and who said so.
    pub fn unverified(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.hosts.iter().filter_map(|(host, settings)| {
            let given = settings.skip_verify.as_ref().filter(|given| given.value)?;
            Some((host.as_str(), &given.origin))
        })
    }

    /// What is in force and who said it: a name and a line each.
    pub fn lines(&self) -> Vec<(String, String)> {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let mut lines = vec![("configuration".to_owned(), words(files))];
        let credentials = match self.accounts.docker().map(|docker| docker.path()) {
            Some(path) if path.exists() => path.display().to_string(),
            Some(path) => format!("none: there is no {}", path.display()),
            None => "none: neither DOCKER_CONFIG nor HOME is set".to_owned(),
        };
        lines.push(("credentials".to_owned(), credentials));
        for file in &self.authorities {
            let line = format!("{} ({})", file.value.display(), file.origin);
            lines.push(("authority".to_owned(), line));
        }
        for (host, settings) in &self.hosts {
            let name = format!("registry {host}");
            for line in settings.lines() {
                lines.push((name.clone(), line));
            }
        }
        lines
    }

    fn read(&mut self, path: &Path, home: Option<&Path>) -> Result<(), ConfigError> {
        let said = file::read(path, home)?;
        self.files.push(path.to_owned());
        for (host, said) in said {
            self.hosts.entry(host).or_default().take(said);
        }
        Ok(())
    }

    /// Lists of mirrors replace those that were said before of the same registries.
    fn mirror(&mut self, entries: &[String], origin: &Origin) -> Result<(), ConfigError> {
        let mut said: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for entry in entries {
            let mirror = Mirror::parse(entry).map_err(|why| ConfigError::Mirror {
                origin: origin.clone(),
                entry: entry.clone(),
                why,
            })?;
            said.entry(mirror.registry).or_default().push(mirror.url);
        }
        for (host, value) in said {
            let origin = origin.clone();
            self.hosts.entry(host).or_default().mirrors = Some(Given { value, origin });
        }
        Ok(())
    }

    fn plain(&mut self, hosts: &[String], origin: &Origin) -> Result<(), ConfigError> {
        for entry in hosts {
            let host = host_name(entry).map_err(|_| ConfigError::Host {
                origin: origin.clone(),
                entry: entry.clone(),
            })?;
            let given = Given {
                value: true,
                origin: origin.clone(),
            };
            self.hosts.entry(host).or_default().plain_http = Some(given);
        }
        Ok(())
    }
}

impl HostSettings {
    /// Lets what another file says go over this, key by key.
    fn take(&mut self, over: HostSettings) {
        fn replace<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        replace(&mut self.mirrors, over.mirrors);
        replace(&mut self.plain_http, over.plain_http);
        replace(&mut self.ca, over.ca);
        replace(&mut self.client, over.client);
        replace(&mut self.skip_verify, over.skip_verify);
    }

    fn lines(&self) -> Vec<String> {
        fn line<T>(name: &str, given: &Option<Given<T>>, show: fn(&T) -> String) -> Option<String> {
            let given = given.as_ref()?;
            Some(format!("{name} {} ({})", show(&given.value), given.origin))
        }
        let paths = |paths: &Vec<PathBuf>| {
            words(
                paths
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect(),
            )
        };
        [
            line("mirrors", &self.mirrors, |urls| {
                words(urls.iter().map(Url::to_string).collect())
            }),
            line("plain-http", &self.plain_http, bool::to_string),
            line("ca", &self.ca, paths),
            line("cert", &self.client, |client| {
                client.cert.display().to_string()
            }),
            line("insecure-skip-verify", &self.skip_verify, bool::to_string),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn words(entries: Vec<String>) -> String {
    match entries.is_empty() {
        true => "none".to_owned(),
        false => entries.join(", "),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the name that references have for a `host` or `host:port`.
pub(super) fn host_name(entry: &str) -> Result<String, String> {
    let url = Url::parse(&format!("http://{entry}/"));
    let is_host = url
        .is_ok_and(|url| url.path() == "/" && url.username().is_empty() && url.query().is_none());
    if !is_host || entry.contains(['/', '#', '?', '@']) {
        return Err(format!("`{entry}` is not a `host` or `host:port`"));
    }
    // The Hub has several names; a host without a dot is none of a reference, and may be a mirror.
    Ok(match Reference::parse(&format!("{entry}/x")) {
        Ok(reference) if reference.repository() == "x" => reference.domain().to_owned(),
        Ok(reference)
            if reference.domain() == "docker.io" && reference.repository() == "library/x" =>
        {
            "docker.io".to_owned()
        }
        _ => entry.to_owned(),
    })
}
