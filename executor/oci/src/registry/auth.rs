//! Tokens and passwords: what a registry wants to see, kept for as long as it is good.
//!
//! Follows docker's token and OAuth2 specifications (distribution, docs/content/spec/auth).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::challenge::Challenge;
use super::credentials::Credential;
use super::endpoint::Endpoint;
use super::error::{Attempt, Error};
use super::transport::Transport;

/// The most bytes of a token server's answer.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

/// How kiln names itself to OAuth2 servers.
const CLIENT_ID: &str = "kiln";

/// What a request needs to be allowed: `repository:library/alpine:pull`, in a fixed order.
pub(super) type Scopes = Vec<String>;

/// The proofs that were got so far, by endpoint and scopes.
#[derive(Default)]
pub(super) struct Sessions {
    by_scope: Mutex<HashMap<(String, Scopes), Shared>>,
}

/// A session whose lock is held while its token is being got.
type Shared = Arc<tokio::sync::Mutex<Session>>;

/// What is sent along, and until when it is good.
#[derive(Default)]
struct Session {
    header: Option<HeaderValue>,
    expires: Option<Instant>,
    had_credentials: bool,
    /// What stands for the credentials from now on, if the token server says so.
    refresh_token: Option<String>,
}

/// The answer of a token server.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// What a token server gave.
struct Token {
    token: String,
    lifetime: Duration,
    refresh: Option<String>,
}

impl Sessions {
    fn session(&self, endpoint: &Endpoint, scopes: &Scopes) -> Shared {
        let mut sessions = self.by_scope.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            sessions
                .entry((endpoint.key(), scopes.clone()))
                .or_default(),
        )
    }

    /// Returns the header to send now, if any is known to be wanted.
    ///
    /// While another request is getting a token, this waits for it.
    pub(super) async fn header(&self, endpoint: &Endpoint, scopes: &Scopes) -> Option<HeaderValue> {
        let session = self.session(endpoint, scopes);
        let session = session.lock().await;
        let good = session
            .expires
            .is_none_or(|expires| Instant::now() < expires);
        session.header.clone().filter(|_| good)
    }

    /// Tells whether the current header was made from credentials.
    pub(super) async fn had_credentials(&self, endpoint: &Endpoint, scopes: &Scopes) -> bool {
        self.session(endpoint, scopes).lock().await.had_credentials
    }

    /// Returns what the token server gave in place of the credentials, if anything.
    pub(super) async fn refresh_token(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Option<String> {
        let session = self.session(endpoint, scopes);
        let session = session.lock().await;
        session.refresh_token.clone()
    }

    /// Gets what the challenges ask for, unless another request has got it since `rejected` was sent.
    ///
    /// Returns `false` if there is nothing new to send, so that the refusal stands.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        attempt: &Attempt,
        endpoint: &Endpoint,
        scopes: &Scopes,
        rejected: Option<&HeaderValue>,
        challenges: &[Challenge],
    ) -> Result<bool, Error> {
        let session = self.session(endpoint, scopes);
        let mut session = session.lock().await;
        if session.header.is_some() && session.header.as_ref() != rejected {
            return Ok(true);
        }
        let find = |scheme: &str| {
            challenges
                .iter()
                .find(|challenge| challenge.scheme == scheme)
        };
        let (bearer, basic) = (find("bearer"), find("basic"));
        if bearer.is_none() && basic.is_none() {
            return Ok(false);
        }
        let credential = transport
            .credentials()
            .credential(endpoint.credentials_host())
            .await
            .map_err(|source| Error::Credentials {
                attempt: attempt.clone(),
                source,
            })?;
        session.had_credentials = credential.is_some();
        session.header = None;
        session.expires = None;
        if let Some(Credential::RegistryToken(token)) = &credential {
            session.header = Some(secret(attempt, &format!("Bearer {token}"))?);
        } else if let Some(challenge) = bearer {
            let request = TokenRequest {
                transport,
                attempt,
                endpoint,
                scopes,
                challenge,
                credential,
            };
            let got = request.run().await?;
            session.header = Some(secret(attempt, &format!("Bearer {}", got.token))?);
            session.expires = Some(Instant::now() + got.lifetime);
            session.refresh_token = got.refresh;
        } else if let Some(Credential::Basic { username, password }) = &credential {
            session.header = Some(basic_header(attempt, username, password)?);
        }
        // A password that was just refused is not tried again.
        Ok(session.header.is_some() && (bearer.is_some() || session.header.as_ref() != rejected))
    }
}

/// One question to a token server.
struct TokenRequest<'a> {
    transport: &'a Transport,
    attempt: &'a Attempt,
    endpoint: &'a Endpoint,
    scopes: &'a Scopes,
    challenge: &'a Challenge,
    credential: Option<Credential>,
}

impl TokenRequest<'_> {
    async fn run(&self) -> Result<Token, Error> {
        let realm = self.realm()?;
        let mut fields = Vec::new();
        if let Some(service) = self.challenge.parameter("service") {
            fields.push(("service", service.to_owned()));
        }
        let response = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                fields.push(("client_id", CLIENT_ID.to_owned()));
                fields.push(("grant_type", "refresh_token".to_owned()));
                fields.push(("refresh_token", token.clone()));
                fields.push(("scope", self.all_scopes().join(" ")));
                let body = form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(&fields)
                    .finish();
                let make = |client: &reqwest::Client| {
                    let form = "application/x-www-form-urlencoded";
                    client
                        .post(realm.clone())
                        .header("content-type", form)
                        .body(body.clone())
                };
                self.transport.execute(self.attempt, &realm, make).await?
            }
            credential => {
                let mut url = realm.clone();
                let mut header = None;
                if let Some(Credential::Basic { username, password }) = credential {
                    fields.push(("account", username.clone()));
                    header = Some(basic_header(self.attempt, username, password)?);
                    if self.transport.config().offline_access {
                        fields.push(("client_id", CLIENT_ID.to_owned()));
                        fields.push(("offline_token", "true".to_owned()));
                    }
                }
                fields.extend(self.all_scopes().into_iter().map(|scope| ("scope", scope)));
                url.query_pairs_mut().extend_pairs(&fields);
                let make = |client: &reqwest::Client| {
                    let request = client.get(url.clone());
                    match &header {
                        Some(header) => request.header("authorization", header.clone()),
                        None => request,
                    }
                };
                self.transport.execute(self.attempt, &url, make).await?
            }
        };
        self.read(response).await
    }

    /// Returns the token server's address.
    ///
    /// A server that was reached over TLS must not talk kiln into sending secrets without it.
    fn realm(&self) -> Result<Url, Error> {
        let realm = self.challenge.parameter("realm").unwrap_or_default();
        let url = Url::parse(realm)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(self.broken(format!("its token server `{}` is not a URL", clip(realm))));
        };
        let over_tls = self.transport.scheme(self.endpoint) == "https";
        if url.scheme() == "http" && over_tls && self.credential.is_some() {
            return Err(self.broken(format!(
                "its token server `{}` is not reached over TLS",
                clip(realm)
            )));
        }
        Ok(url)
    }

    /// Returns the wanted scopes and, after them, what the registry asked for beside them.
    fn all_scopes(&self) -> Scopes {
        let mut scopes = self.scopes.clone();
        for asked in self
            .challenge
            .parameter("scope")
            .unwrap_or_default()
            .split_ascii_whitespace()
        {
            if !scopes.iter().any(|scope| covers(scope, asked)) {
                scopes.push(asked.to_owned());
            }
        }
        scopes
    }

    async fn read(&self, response: reqwest::Response) -> Result<Token, Error> {
        let status = response.status();
        if !status.is_success() {
            let had_credentials = self.credential.is_some();
            return Err(self
                .transport
                .refusal(self.attempt, response, had_credentials)
                .await);
        }
        let bytes = self
            .transport
            .read_bounded(self.attempt, response, ANSWER_LIMIT_BYTES)
            .await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| {
            self.broken("the token server's answer is not JSON of a token".to_owned())
        })?;
        let filled = |token: Option<String>| token.filter(|token| !token.is_empty());
        let token = filled(answer.token)
            .or_else(|| filled(answer.access_token))
            .ok_or_else(|| self.broken("the token server's answer has no token".to_owned()))?;
        // The specification's default; a token is not used in the last moments of its life.
        let seconds = answer
            .expires_in
            .filter(|&seconds| seconds > 0)
            .unwrap_or(60)
            .min(86_400);
        Ok(Token {
            token,
            lifetime: Duration::from_secs(seconds) - Duration::from_secs(seconds.min(50) / 10),
            refresh: filled(answer.refresh_token),
        })
    }

    fn broken(&self, what: String) -> Error {
        Error::Protocol {
            attempt: self.attempt.clone(),
            what,
        }
    }
}

/// Tells whether a token for scope `have` is good for scope `want`: the same thing, and more actions.
fn covers(have: &str, want: &str) -> bool {
    match (have.rsplit_once(':'), want.rsplit_once(':')) {
        (Some((thing, actions)), Some((wanted, needed))) => {
            thing == wanted
                && needed
                    .split(',')
                    .all(|need| actions.split(',').any(|action| action == need))
        }
        _ => have == want,
    }
}

fn basic_header(attempt: &Attempt, username: &str, password: &str) -> Result<HeaderValue, Error> {
    secret(
        attempt,
        &format!(
            "Basic {}",
            STANDARD.encode(format!("{username}:{password}"))
        ),
    )
}

fn secret(attempt: &Attempt, value: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        let what = "a token has characters that no HTTP header may have".to_owned();
        Error::Protocol {
            attempt: attempt.clone(),
            what,
        }
    })?;
    header.set_sensitive(true);
    Ok(header)
}

fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wider_scope_covers_a_narrower_one() {
        assert!(covers("repository:a/b:pull,push", "repository:a/b:pull"));
        assert!(covers(
            "repository:a/b:pull,push",
            "repository:a/b:push,pull"
        ));
        assert!(!covers("repository:a/b:pull", "repository:a/b:pull,push"));
        assert!(!covers("repository:a/b:pull", "repository:a/c:pull"));
        assert!(covers("x", "x"));
    }
}
