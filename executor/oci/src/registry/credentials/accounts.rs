//! The accounts of whoever runs kiln: docker's file first, then podman's.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::caller::Caller;

use super::{Credential, Credentials, CredentialsError, DockerConfig};

/// The files that credentials are read from; only the first is ever written.
#[derive(Debug, Clone)]
pub struct Accounts {
    docker: Option<DockerConfig>,
    /// Of the same form, asked where docker's knows nothing.
    podman: Vec<DockerConfig>,
}

impl Accounts {
    /// Finds the files by `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`,
    /// `XDG_CONFIG_HOME` and `HOME`; none is opened yet.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| lookup(name).map(PathBuf::from);
        let home = |folder: &str| path("HOME").map(|home| home.join(folder));
        let docker = path("DOCKER_CONFIG").or_else(|| home(".docker"));
        let podman = match path("REGISTRY_AUTH_FILE") {
            Some(file) => vec![file],
            None => {
                let runtime = match path("XDG_RUNTIME_DIR") {
                    Some(folder) => Some(folder.join("containers/auth.json")),
                    None => user().map(|id| format!("/run/containers/{id}/auth.json").into()),
                };
                let config = path("XDG_CONFIG_HOME").or_else(|| home(".config"));
                let config = config.map(|folder| folder.join("containers/auth.json"));
                runtime.into_iter().chain(config).collect()
            }
        };
        Self {
            docker: docker.map(|folder| DockerConfig::new(folder.join("config.json"))),
            podman: podman.into_iter().map(DockerConfig::new).collect(),
        }
    }

    /// The same, with helpers that are started as `caller`.
    #[must_use]
    pub fn of(self, caller: &Arc<dyn Caller>) -> Self {
        let of = |file: DockerConfig| file.of(Arc::clone(caller));
        Self {
            docker: self.docker.map(of),
            podman: self.podman.into_iter().map(of).collect(),
        }
    }

    /// Docker's file, unless there is no place for it.
    pub fn docker(&self) -> Option<&DockerConfig> {
        self.docker.as_ref()
    }

    /// The file beside docker's that has a credential for a host, or for this part of one.
    pub async fn elsewhere(&self, place: &str) -> Result<Option<PathBuf>, CredentialsError> {
        for file in &self.podman {
            if file.keeps(place).await? {
                return Ok(Some(file.path().to_owned()));
            }
        }
        Ok(None)
    }
}

/// The id of whoever this is.
fn user() -> Option<u32> {
    Some(std::fs::metadata("/proc/self").ok()?.uid())
}

impl Credentials for Accounts {
    fn credential<'a>(
        &'a self,
        place: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async move {
            for file in self.docker.iter().chain(&self.podman) {
                if let Some(credential) = file.credential(place).await? {
                    return Ok(Some(credential));
                }
            }
            Ok(None)
        })
    }
}
