//! Docker's `config.json`, which all engines read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::caller::{Caller, Directly};

use super::edit::{edit, read};
use super::helper::Helper;
use super::{Credential, Credentials, CredentialsError, above, host_of};

/// The key that docker has always kept the Hub's credentials under.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How long a helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// Docker's `config.json`: helpers by host first, then the default helper, then the file itself; podman's
/// `auth.json` has the same form.
///
/// An entry for a part of a host (`quay.io/team`), as podman writes them, goes before those for all of it, the
/// longest first, unless a helper is named for the host.
///
/// A missing file means no credentials. It is read each time it is needed, so a login while kiln
/// runs is seen.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    path: PathBuf,
    helper_timeout: Duration,
    caller: Arc<dyn Caller>,
}

/// Where a credential is kept, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, as text.
    File(PathBuf),
    /// With this program.
    Helper(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default, Clone)]
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

impl DockerConfig {
    /// Uses this file and gives each helper 30 seconds.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            helper_timeout: HELPER_TIMEOUT,
            caller: Arc::new(Directly),
        }
    }

    /// Starts helpers as somebody else than this process.
    #[must_use]
    pub fn of(mut self, caller: Arc<dyn Caller>) -> Self {
        self.caller = caller;
        self
    }

    /// Gives each helper another time.
    #[must_use]
    pub fn with_helper_timeout(mut self, timeout: Duration) -> Self {
        self.helper_timeout = timeout;
        self
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a credential for a host: with the helper for it if there is one, else in the file. For a part of a
    /// host, such as `quay.io/team`, that is the file.
    pub async fn store(
        &self,
        place: &str,
        credential: &Credential,
    ) -> Result<Kept, CredentialsError> {
        let key = keys(place).swap_remove(0);
        let (kept, entry) = match self.keeper(place).await? {
            Some(helper) => {
                helper.store(&key, credential).await?;
                // As docker does: the file says that there is one.
                (Kept::Helper(helper.program().to_owned()), Map::new())
            }
            None => (Kept::File(self.path.clone()), entry(credential)),
        };
        self.edit(move |path, root| {
            let auths = root
                .entry("auths")
                .and_modify(|auths| {
                    if auths.is_null() {
                        *auths = Value::Object(Map::new());
                    }
                })
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(auths) = auths else {
                return Err(no_object(path));
            };
            auths.insert(key, Value::Object(entry));
            Ok((true, ()))
        })
        .await?;
        Ok(kept)
    }

    /// Errors if a credential for a place could not be kept, as far as that is known without one.
    pub async fn accepts(&self, place: &str) -> Result<(), CredentialsError> {
        self.keeper(place).await.map(drop)
    }

    /// The helper that keeps credentials of a place; one has none of a part of a host.
    async fn keeper(&self, place: &str) -> Result<Option<Helper>, CredentialsError> {
        let file = self.read().await?.unwrap_or_default();
        let host = host_of(place);
        match self.helper(&file, &keys(host))? {
            Some(helper) if host != place => Err(CredentialsError::HelperPlace {
                program: helper.program().to_owned(),
                place: place.to_owned(),
            }),
            keeper => Ok(keeper),
        }
    }

    /// Forgets what is kept for a host, or for a part of one and no other; returns where it was, or nothing if
    /// nobody knew any.
    pub async fn erase(&self, place: &str) -> Result<Option<Kept>, CredentialsError> {
        let Some(file) = self.read().await? else {
            return Ok(None);
        };
        let keys = keys(place);
        let mut kept = None;
        if host_of(place) == place
            && let Some(helper) = self.helper(&file, &keys)?
        {
            let known = helper.list().await?;
            let same = known.into_keys().filter(|key| is_of(key, &keys));
            let mut erased = false;
            // One that lists nothing may know the usual keys all the same.
            let asked: Vec<String> = same.chain([keys[0].clone()]).collect();
            for key in asked {
                erased |= helper.erase(&key).await?;
            }
            kept = erased.then(|| Kept::Helper(helper.program().to_owned()));
        }
        let removed = self
            .edit(move |path, root| {
                let auths = match root.get_mut("auths") {
                    None | Some(Value::Null) => return Ok((false, false)),
                    Some(Value::Object(auths)) => auths,
                    Some(_) => return Err(no_object(path)),
                };
                let before = auths.len();
                auths.retain(|key, _| !is_of(key, &keys));
                Ok((auths.len() < before, auths.len() < before))
            })
            .await?;
        Ok(match removed {
            // What a helper keeps has an entry in the file too.
            true => kept.or_else(|| Some(Kept::File(self.path.clone()))),
            false => kept,
        })
    }

    async fn edit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Path, &mut Map<String, Value>) -> Result<(bool, T), CredentialsError>
        + Send
        + 'static,
    ) -> Result<T, CredentialsError> {
        let path = self.path.clone();
        let edited =
            tokio::task::spawn_blocking(move || edit(&path, |root| change(&path, root))).await;
        edited.unwrap_or_else(|error| {
            Err(CredentialsError::Write {
                path: self.path.clone(),
                source: io::Error::other(error),
            })
        })
    }

    /// The helper that keeps credentials of a host with these keys.
    fn helper(&self, file: &File, keys: &[String]) -> Result<Option<Helper>, CredentialsError> {
        let by_host = file.cred_helpers.as_ref();
        let by_host = by_host.and_then(|helpers| keys.iter().find_map(|key| helpers.get(key)));
        let filled = |name: &&String| !name.is_empty();
        let name = by_host
            .filter(filled)
            .or(file.creds_store.as_ref().filter(filled));
        name.map(|name| Helper::named(name, self.helper_timeout, &self.caller))
            .transpose()
    }

    /// Whether there is a credential for this host or part of one, and not only for what is above it.
    pub(super) async fn keeps(&self, place: &str) -> Result<bool, CredentialsError> {
        if host_of(place) == place {
            return Ok(self.find(place).await?.is_some());
        }
        let file = self.read().await?.unwrap_or_default();
        let auths = file.auths.unwrap_or_default();
        Ok(match auths.get(place) {
            Some(entry) => self.credential_of(place, entry)?.is_some(),
            None => false,
        })
    }

    async fn find(&self, place: &str) -> Result<Option<Credential>, CredentialsError> {
        let Some(file) = self.read().await? else {
            return Ok(None);
        };
        let host = host_of(place);
        let keys = keys(host);
        let auths = file.auths.clone().unwrap_or_default();
        // A helper that is named for a host knows all of it (containers-auth.json(5)).
        let own_helper = file.cred_helpers.as_ref();
        let own_helper = own_helper.is_some_and(|own| keys.iter().any(|key| own.contains_key(key)));
        let parts = above(place).filter(|part| *part != host && !own_helper);
        for part in parts {
            if let Some(entry) = auths.get(part)
                && let Some(credential) = self.credential_of(part, entry)?
            {
                return Ok(Some(credential));
            }
        }
        if let Some(helper) = self.helper(&file, &keys)?
            && let Some(credential) = helper.get(&keys).await?
        {
            return Ok(Some(credential));
        }
        let entry = keys
            .iter()
            .find_map(|key| auths.get_key_value(key))
            .or_else(|| auths.iter().find(|(key, _)| is_of(key, &keys)));
        match entry {
            Some((key, entry)) => self.credential_of(key, entry),
            None => Ok(None),
        }
    }

    fn credential_of(
        &self,
        key: &str,
        entry: &Entry,
    ) -> Result<Option<Credential>, CredentialsError> {
        entry
            .credential()
            .map_err(|MalformedAuth| CredentialsError::Entry {
                path: self.path.clone(),
                host: key.to_owned(),
            })
    }

    async fn read(&self) -> Result<Option<File>, CredentialsError> {
        let failed = |source| CredentialsError::Read {
            path: self.path.clone(),
            source,
        };
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        let Some(bytes) = read.map_err(failed)? else {
            return Ok(None);
        };
        let parse = |source| CredentialsError::Parse {
            path: self.path.clone(),
            source,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(parse)
    }
}

fn no_object(path: &Path) -> CredentialsError {
    CredentialsError::Shape {
        path: path.to_owned(),
        what: "its `auths` is no object",
    }
}

/// A credential as docker writes it.
fn entry(credential: &Credential) -> Map<String, Value> {
    let auth = |text: String| ("auth".to_owned(), Value::from(STANDARD.encode(text)));
    match credential {
        Credential::Basic { username, password } => [auth(format!("{username}:{password}"))]
            .into_iter()
            .collect(),
        Credential::IdentityToken(token) => [
            auth("<token>:".to_owned()),
            ("identitytoken".to_owned(), Value::from(token.as_str())),
        ]
        .into_iter()
        .collect(),
        Credential::RegistryToken(token) => {
            [("registrytoken".to_owned(), Value::from(token.as_str()))]
                .into_iter()
                .collect()
        }
    }
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
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(self.find(place))
    }
}

/// Returns the keys under which docker keeps the credentials of a host, best first; never none.
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

/// Tells whether a key of a file or helper means the host with these keys.
fn is_of(key: &str, keys: &[String]) -> bool {
    let host = bare_host(key);
    keys.iter()
        .any(|wanted| key == wanted || host.is_some_and(|host| Some(host) == bare_host(wanted)))
}

/// Strips what old versions of docker wrote around a host: a scheme and a path.
///
/// A path of another kind is a namespace, as podman has them, whose credentials are not the host's.
fn bare_host(key: &str) -> Option<&str> {
    let without = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    match without.split_once('/') {
        None => Some(without),
        Some((host, path)) => {
            matches!(path.trim_end_matches('/'), "" | "v1" | "v2").then_some(host)
        }
    }
}
