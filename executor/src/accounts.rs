//! Accounts at registries: logging in and out. No store is needed for it.

use std::path::PathBuf;

use kiln_oci::registry::{
    Client, Credential, Credentials as _, CredentialsError, DockerConfig, Kept, LoggedIn,
    Overrides, Settings, registry_name,
};

use crate::caller::registry_settings;
use crate::error::Error;

/// Where accounts are kept, and the way to their registries.
pub struct Accounts {
    settings: Settings,
    client: Client,
}

/// What came of logging in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLogin {
    /// Where the credential is kept now.
    pub kept: Kept,
    /// Whether the registry looked at it: one that is open to everybody does not.
    pub was_checked: bool,
}

/// What came of logging out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoggedOut {
    /// What was kept here is forgotten.
    Forgotten(Kept),
    /// Another tool's file has a credential, which is left to it.
    Elsewhere(PathBuf),
    /// Nobody knew any.
    Unknown,
}

impl Accounts {
    /// Reads the settings of registries.
    pub fn open(overrides: &Overrides) -> Result<Accounts, Error> {
        let settings = registry_settings(overrides)?;
        let client = Client::new(settings.config());
        Ok(Accounts { settings, client })
    }

    /// The settings that are in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The name of the registry that an argument means, which may be a URL, or of a part of one, such as
    /// `quay.io/team`; the Hub if there is none.
    pub fn registry(argument: Option<&str>) -> Result<String, Error> {
        registry_name(argument).map_err(|message| Error::RegistryName { message })
    }

    /// Returns what is kept for a registry.
    pub async fn stored(&self, registry: &str) -> Result<Option<Credential>, Error> {
        let found = self.settings.accounts.credential(registry).await;
        found.map_err(Error::Accounts)
    }

    /// Shows a credential to a registry, and keeps it if the registry takes it.
    pub async fn log_in(&self, registry: &str, credential: Credential) -> Result<NewLogin, Error> {
        // Before anything is sent: nobody types a password twice for want of a place.
        let docker = self.docker()?;
        docker.accepts(registry).await.map_err(Error::Accounts)?;
        let LoggedIn {
            credential,
            was_checked,
        } = self.client.log_in(registry, credential).await?;
        let kept = docker.store(registry, &credential).await;
        Ok(NewLogin {
            kept: kept.map_err(Error::Accounts)?,
            was_checked,
        })
    }

    /// Shows a registry what is kept for it already.
    pub async fn check(&self, registry: &str, credential: Credential) -> Result<(), Error> {
        self.client.log_in(registry, credential).await?;
        Ok(())
    }

    /// Forgets what is kept for a registry.
    pub async fn log_out(&self, registry: &str) -> Result<LoggedOut, Error> {
        let erased = self.docker()?.erase(registry).await;
        if let Some(kept) = erased.map_err(Error::Accounts)? {
            return Ok(LoggedOut::Forgotten(kept));
        }
        let elsewhere = self.settings.accounts.elsewhere(registry).await;
        Ok(match elsewhere.map_err(Error::Accounts)? {
            Some(file) => LoggedOut::Elsewhere(file),
            None => LoggedOut::Unknown,
        })
    }

    fn docker(&self) -> Result<&DockerConfig, Error> {
        let docker = self.settings.accounts.docker();
        docker.ok_or(Error::Accounts(CredentialsError::Nowhere))
    }
}
