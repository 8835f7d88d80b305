//! How registries ask who somebody is, which may be kept from one process to the next.
//!
//! Whoever knows it has a token before the first question, and so asks once less. Nothing of it is a secret.

use url::Url;

use super::challenge::Challenge;

/// No token server has a longer name.
const LONGEST_BYTES: usize = 2048;

/// How a registry asks who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// For a name and a password.
    Password,
    /// For a token that another server gives.
    Token {
        /// That server's URL.
        realm: String,
        /// What the registry is called there.
        service: Option<String>,
    },
}

/// Keeps how registries ask; what cannot be kept is asked for again.
///
/// A place is scheme and authority with the path before `/v2/`, such as `https://ghcr.io`. What is remembered of
/// one is said to no other.
pub trait Challenges: Send + Sync {
    /// Returns how a place asked the last time.
    fn recall(&self, place: &str) -> Option<Asks>;

    /// Keeps how a place asks, or that it does not ask, instead of what was kept before.
    fn remember(&self, place: &str, asks: Option<&Asks>);
}

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forgetful;

impl Challenges for Forgetful {
    fn recall(&self, _: &str) -> Option<Asks> {
        None
    }

    fn remember(&self, _: &str, _: Option<&Asks>) {}
}

impl Asks {
    /// Returns what of a registry's challenges is worth keeping: not what may be of this moment alone, or secret.
    pub(super) fn of(challenges: &[Challenge]) -> Option<Self> {
        let find = |scheme: &str| {
            challenges
                .iter()
                .find(|challenge| challenge.scheme == scheme)
        };
        let Some(bearer) = find("bearer") else {
            return find("basic").map(|_| Self::Password);
        };
        let realm = bearer.parameter("realm")?;
        let service = bearer.parameter("service");
        let url = Url::parse(realm).ok()?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let longest = realm.len().max(service.map_or(0, str::len));
        (is_plain && longest <= LONGEST_BYTES).then(|| Self::Token {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    /// Returns the challenge that the registry is expected to make.
    pub(super) fn challenge(&self) -> Challenge {
        match self {
            Self::Password => Challenge::new("basic", &[]),
            Self::Token { realm, service } => {
                let service = service.as_deref().map(|service| ("service", service));
                let parameters: Vec<_> = [("realm", realm.as_str())]
                    .into_iter()
                    .chain(service)
                    .collect();
                Challenge::new("bearer", &parameters)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::challenge::parse;
    use super::*;

    fn check(header: &str, expected: Option<&str>) {
        let found = Asks::of(&parse(header)).map(|asks| match asks {
            Asks::Password => "password".to_owned(),
            Asks::Token { realm, service } => format!("{realm} {}", service.unwrap_or_default()),
        });
        assert_eq!(found.as_deref(), expected, "{header}");
    }

    #[test]
    fn what_is_worth_keeping() {
        check(r#"Basic realm="x""#, Some("password"));
        check(
            r#"Bearer realm="https://a.example/token",service="r",scope="repository:secret:pull""#,
            Some("https://a.example/token r"),
        );
        check(
            r#"Basic realm="x", Bearer realm="https://a.example/t""#,
            Some("https://a.example/t "),
        );
        check(r#"Bearer realm="https://a.example/t?nonce=1""#, None);
        check(r#"Bearer realm="https://ann:secret@a.example/t""#, None);
        check(r#"Bearer realm="nonsense""#, None);
        check("Bearer", None);
        check("Negotiate", None);
        check("", None);
    }

    #[test]
    fn what_is_kept_makes_the_same_challenge() {
        for header in [
            "Basic realm=x",
            r#"Bearer realm="https://a.example/t",service="r""#,
            r#"Bearer realm="https://a.example/t""#,
        ] {
            let asks = Asks::of(&parse(header)).unwrap();
            assert_eq!(Asks::of(&[asks.challenge()]), Some(asks));
        }
    }
}
