//! Logging in: a credential is shown to the registry before anybody keeps it.

use std::sync::Arc;

use super::challenges::Forgetful;
use super::credentials::{Credential, Fixed};
use super::endpoint::Endpoint;
use super::error::{Attempt, Error};
use super::transport::Call;
use super::{Client, Config};
use crate::reference::Reference;

/// What a registry says to a credential that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// What to keep: the credential, or the refresh token that stands for it.
    pub credential: Credential,
    /// Whether the registry looked at it: one that is open to everybody does not.
    pub was_checked: bool,
}

/// Returns the name in references of the registry that an argument of `login` means, which may be a
/// URL; the Hub is the default.
pub fn registry_name(argument: Option<&str>) -> Result<String, String> {
    let Some(argument) = argument else {
        return Ok("docker.io".to_owned());
    };
    let without = argument
        .strip_prefix("https://")
        .or_else(|| argument.strip_prefix("http://"))
        .unwrap_or(argument);
    let host = without.split('/').next().unwrap_or(without);
    let reference = Reference::parse(&format!("{host}/x"));
    match reference {
        Ok(reference) if reference.repository() == "x" => Ok(reference.domain().to_owned()),
        // The Hub adds `library/` to names of one part.
        Ok(reference) if reference.repository() == "library/x" => Ok("docker.io".to_owned()),
        _ => Err(format!(
            "`{argument}` is not the name of a registry, as in `ghcr.io` or `localhost:5000`"
        )),
    }
}

impl Client {
    /// Shows a credential to a registry, named as references name it.
    pub async fn log_in(&self, registry: &str, credential: Credential) -> Result<LoggedIn, Error> {
        // Nobody else's proofs are in the way, and nobody uses this one by accident.
        let client = Client::new(Config {
            credentials: Arc::new(Fixed([(registry.to_owned(), credential.clone())].into())),
            // Whether it looks at the credential is what is to be found out.
            challenges: Arc::new(Forgetful),
            offline_access: true,
            ..self.transport().config().clone()
        });
        let transport = client.transport();
        let endpoint = Endpoint::origin(transport.config(), registry);
        let account = match &credential {
            Credential::Basic { username, .. } => username.as_str(),
            Credential::IdentityToken(_) | Credential::RegistryToken(_) => "<token>",
        };
        let attempt = Attempt {
            action: "log in as".into(),
            image: account.into(),
            host: endpoint.authority.as_str().into(),
        };
        let scopes = Vec::new();
        let call = Call::to_path(&attempt, &endpoint, &scopes, "");
        let sent = transport.send(&call, |client, url| client.get(url)).await;
        match sent {
            Ok(_) => {}
            Err(
                Error::Unauthorized {
                    attempt, message, ..
                }
                | Error::Denied { attempt, message },
            ) => {
                return Err(Error::Login { attempt, message });
            }
            Err(Error::NotFound { attempt, .. }) => {
                let what = "it has no `/v2/`".to_owned();
                return Err(Error::Protocol { attempt, what });
            }
            Err(error) => return Err(error),
        }
        let sessions = transport.sessions();
        let refresh = sessions.refresh_token(&endpoint, &scopes).await;
        Ok(LoggedIn {
            credential: refresh.map_or(credential, Credential::IdentityToken),
            was_checked: sessions.had_credentials(&endpoint, &scopes).await,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::registry_name;

    fn check(argument: &str, expected: &str) {
        assert_eq!(registry_name(Some(argument)).unwrap(), expected);
    }

    #[test]
    fn registries_are_named_in_many_ways() {
        assert_eq!(registry_name(None).unwrap(), "docker.io");
        check("docker.io", "docker.io");
        check("index.docker.io", "docker.io");
        check("https://index.docker.io/v1/", "docker.io");
        check("ghcr.io", "ghcr.io");
        check("ghcr.io/owner/image", "ghcr.io");
        check("https://r.example:5000/v2/", "r.example:5000");
        check("localhost:5000", "localhost:5000");
        check("[::1]:5000", "[::1]:5000");
    }

    #[test]
    fn what_names_none_is_refused() {
        for argument in ["", "alpine", "a b", "http://", "x:y"] {
            registry_name(Some(argument)).unwrap_err();
        }
    }
}
