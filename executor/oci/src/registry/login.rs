//! Logging in: a credential is shown to the registry before anybody keeps it.

use std::sync::Arc;

use super::challenges::Forgetful;
use super::credentials::{Credential, Fixed, host_of};
use super::endpoint::Endpoint;
use super::error::{About, Attempt, Error};
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
/// URL, or of a part of one, such as `quay.io/team`; the Hub is the default.
pub fn registry_name(argument: Option<&str>) -> Result<String, String> {
    let Some(argument) = argument else {
        return Ok("docker.io".to_owned());
    };
    let without = argument
        .strip_prefix("https://")
        .or_else(|| argument.strip_prefix("http://"));
    let (host, part) = without.unwrap_or(argument).split_once('/').unzip();
    let host = host.unwrap_or(without.unwrap_or(argument));
    // The path of a URL is that of the protocol, as docker once wrote it.
    let part = part
        .map(|part| part.trim_end_matches('/'))
        .filter(|part| without.is_none() && !matches!(*part, "" | "v1" | "v2"));
    let wrong = || {
        format!(
            "`{argument}` is not the name of a registry, as in `ghcr.io` or `localhost:5000`, or of a part of one, \
             as in `quay.io/team`"
        )
    };
    let reference = Reference::parse(&format!("{host}/x")).map_err(|_| wrong())?;
    let domain = match reference.repository() {
        "x" => reference.domain(),
        // The Hub adds `library/` to names of one part.
        "library/x" => "docker.io",
        _ => return Err(wrong()),
    };
    let Some(part) = part else {
        return Ok(domain.to_owned());
    };
    let place = format!("{domain}/{part}");
    match Reference::parse(&format!("{place}/x")) {
        Ok(reference) if reference.repository() == format!("{part}/x") => Ok(place),
        _ => Err(wrong()),
    }
}

impl Client {
    /// Shows a credential to a registry, named as references name it; that of a part of it goes to all of it.
    pub async fn log_in(&self, place: &str, credential: Credential) -> Result<LoggedIn, Error> {
        let registry = host_of(place);
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
            about: About::Name,
            mirrors: None,
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
        check("ghcr.io/", "ghcr.io");
        check("r.example/v1/", "r.example");
        check("https://r.example:5000/v2/", "r.example:5000");
        check("localhost:5000", "localhost:5000");
        check("[::1]:5000", "[::1]:5000");
    }

    #[test]
    fn parts_of_registries_are_named_without_a_scheme() {
        check("ghcr.io/owner/image", "ghcr.io/owner/image");
        check("quay.io/team/", "quay.io/team");
        check("localhost:5000/a", "localhost:5000/a");
        check("index.docker.io/team", "docker.io/team");
        check("https://quay.io/team", "quay.io");
    }

    #[test]
    fn what_names_none_is_refused() {
        for argument in [
            "",
            "alpine",
            "a b",
            "http://",
            "x:y",
            "quay.io/team:1",
            "quay.io/Team",
            "quay.io//a",
            "quay.io/../a",
            "alpine/x",
        ] {
            registry_name(Some(argument)).unwrap_err();
        }
    }
}
