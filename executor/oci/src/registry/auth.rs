//! Tokens and passwords: what a registry wants to see, kept for as long as it is good.
//!
//! Follows docker's token and OAuth2 specifications (distribution, docs/content/spec/auth).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::challenge::Challenge;
use super::challenges::Asks;
use super::credentials::{Credential, CredentialsError};
use super::endpoint::Endpoint;
use super::error::{Attempt, Cause, Error};
use super::transport::{Transport, is_page};

/// The most bytes of a token server's answer.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

/// How long a token server may take that no registry has named yet in this process.
const AHEAD_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// `header` was got before the registry asked, and the registry has not taken it yet.
    is_ahead: bool,
    /// How the registry asked (or that it does not), until it has taken what came of that.
    learnt: Option<Option<Asks>>,
    /// The place whose remembered ways were tried since it last took a header.
    tried: Option<String>,
    /// Why what is remembered gave no header.
    failed: Option<(Asks, Error)>,
}

/// What a request shows.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) header: Option<HeaderValue>,
    /// The registry has not taken it yet.
    is_new: bool,
    /// The registry has not asked for it either.
    is_ahead: bool,
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
    /// The session for these scopes; one that is good for pushing to a repository is good for pulling from it too.
    fn session(&self, endpoint: &Endpoint, scopes: &Scopes) -> Shared {
        let mut sessions = self.by_scope.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (endpoint.key(), scopes.clone());
        if !sessions.contains_key(&own)
            && let [scope] = scopes.as_slice()
            && scope.ends_with(":pull")
            && let Some(wider) = sessions.get(&(endpoint.key(), vec![format!("{scope},push")]))
        {
            return Arc::clone(wider);
        }
        Arc::clone(sessions.entry(own).or_default())
    }

    /// Returns what to show now, if anything is known to be wanted: by what was answered before, or by what is
    /// remembered of the registry.
    ///
    /// While another request is getting a token, this waits for it.
    pub(super) async fn proof(
        &self,
        transport: &Transport,
        attempt: &Attempt,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Proof {
        let session = self.session(endpoint, scopes);
        let mut session = session.lock().await;
        let place = transport.place(endpoint);
        if session.good().is_none() && session.tried.as_ref() != Some(&place) {
            let asks = transport.config().challenges.recall(&place);
            session.tried = Some(place);
            if let Some(asks) = asks {
                let wanted = Wanted {
                    transport,
                    attempt,
                    endpoint,
                    scopes,
                    ahead: true,
                };
                match session.get(&wanted, &[asks.challenge()]).await {
                    Ok(_) => session.is_ahead = session.header.is_some(),
                    // The registry itself is asked then; if it wants nothing, that is to be remembered.
                    Err(error) => {
                        session.failed = Some((asks, error));
                        session.learnt = Some(None);
                    }
                }
            }
        }
        Proof {
            header: session.good().cloned(),
            is_new: session.is_ahead || session.learnt.is_some(),
            is_ahead: session.is_ahead,
        }
    }

    /// Says that the registry took a proof, or wanted none: how it asks is known now, and worth remembering.
    pub(super) async fn taken(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
        proof: &Proof,
    ) {
        if !proof.is_new {
            return;
        }
        let session = self.session(endpoint, scopes);
        let mut session = session.lock().await;
        if session.header == proof.header {
            session.is_ahead = false;
            session.failed = None;
            if session.header.is_some() {
                session.tried = None;
            }
            if let Some(asks) = session.learnt.take() {
                transport.remember(endpoint, asks.as_ref());
            }
        }
    }

    /// Withdraws a proof that the registry did not ask for and refuses; `false` if it has asked for it.
    pub(super) async fn withdraw(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        proof: &Proof,
    ) -> bool {
        if !proof.is_ahead || proof.header.is_none() {
            return false;
        }
        let session = self.session(endpoint, scopes);
        let mut session = session.lock().await;
        if session.header == proof.header {
            session.header = None;
            session.is_ahead = false;
            session.learnt = Some(None);
        }
        true
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
        if session
            .good()
            .is_some_and(|header| Some(header) != rejected)
        {
            return Ok(true);
        }
        let asks = Asks::of(challenges);
        if let Some((known, error)) = session.failed.take()
            && asks.as_ref() == Some(&known)
            && matches!(
                error,
                Error::Unauthorized { .. } | Error::Denied { .. } | Error::Credentials { .. }
            )
        {
            // The same question has the same answer.
            return Err(error);
        }
        let wanted = Wanted {
            transport,
            attempt,
            endpoint,
            scopes,
            ahead: false,
        };
        let got = session.get(&wanted, challenges).await?;
        session.learnt = Some(asks);
        // A password that was just refused is not tried again.
        Ok(match got {
            Got::Nothing => false,
            Got::Password => session.header.as_ref() != rejected,
            Got::Token => true,
        })
    }
}

/// What a session is to be good for.
struct Wanted<'a> {
    transport: &'a Transport,
    attempt: &'a Attempt,
    endpoint: &'a Endpoint,
    scopes: &'a Scopes,
    /// Nobody has asked yet, so nobody waits long for it.
    ahead: bool,
}

impl Wanted<'_> {
    /// Whose credentials are meant: those for the repository that the first scope is of.
    fn place(&self) -> String {
        let host = self.endpoint.credentials_host();
        let scope = self.scopes.first().and_then(|scope| {
            let (repository, _) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
            Some(repository)
        });
        match scope {
            Some(repository) => format!("{host}/{repository}"),
            None => host.to_owned(),
        }
    }

    /// Whether nothing is to be sent, so that nobody in particular may be enough.
    fn only_reads(&self) -> bool {
        let mut scopes = self.scopes.iter();
        !self.scopes.is_empty() && scopes.all(|scope| scope.ends_with(":pull"))
    }

    /// The error where nobody can tell the credentials.
    fn unknown(&self, source: CredentialsError) -> Error {
        Error::Credentials {
            attempt: self.attempt.clone(),
            source: source.into(),
        }
    }
}

/// What came of answering challenges.
enum Got {
    Nothing,
    Password,
    /// Of this moment.
    Token,
}

impl Session {
    /// The header, as long as it is good.
    fn good(&self) -> Option<&HeaderValue> {
        let expired = self
            .expires
            .is_some_and(|expires| Instant::now() >= expires);
        self.header.as_ref().filter(|_| !expired)
    }

    /// Gets what the challenges ask for; boxed, since it sends requests on behalf of requests.
    fn get<'a>(
        &'a mut self,
        wanted: &'a Wanted<'a>,
        challenges: &'a [Challenge],
    ) -> BoxFuture<'a, Result<Got, Error>> {
        Box::pin(self.answer(wanted, challenges))
    }

    async fn answer(
        &mut self,
        wanted: &Wanted<'_>,
        challenges: &[Challenge],
    ) -> Result<Got, Error> {
        let Wanted {
            transport, attempt, ..
        } = wanted;
        let find = |scheme: &str| {
            challenges
                .iter()
                .find(|challenge| challenge.scheme == scheme)
        };
        let (bearer, basic) = (find("bearer"), find("basic"));
        if bearer.is_none() && basic.is_none() {
            return Ok(Got::Nothing);
        }
        let (credential, unknown) = match transport.credentials().credential(&wanted.place()).await
        {
            Ok(credential) => (credential, None),
            // A token server may give a token to anybody.
            Err(source) if bearer.is_some() && wanted.only_reads() => (None, Some(source)),
            Err(source) => return Err(wanted.unknown(source)),
        };
        self.had_credentials = credential.is_some();
        self.header = None;
        self.expires = None;
        self.is_ahead = false;
        if let Some(Credential::RegistryToken(token)) = &credential {
            self.header = Some(secret(attempt, &format!("Bearer {token}"))?);
        } else if let Some(challenge) = bearer {
            let request = TokenRequest {
                wanted,
                challenge,
                credential,
            };
            let got = match (request.run().await, unknown) {
                (Err(Error::Unauthorized { .. } | Error::Denied { .. }), Some(source)) => {
                    return Err(wanted.unknown(source));
                }
                (got, unknown) => {
                    if let (Ok(_), Some(source)) = (&got, &unknown) {
                        transport.doubt_account(source);
                    }
                    got?
                }
            };
            self.header = Some(secret(attempt, &format!("Bearer {}", got.token))?);
            self.expires = Some(Instant::now() + got.lifetime);
            self.refresh_token = got.refresh;
        } else if let Some(Credential::Basic { username, password }) = &credential {
            self.header = Some(basic_header(attempt, username, password)?);
        }
        Ok(match (&self.header, bearer) {
            (None, _) => Got::Nothing,
            (Some(_), None) => Got::Password,
            (Some(_), Some(_)) => Got::Token,
        })
    }
}

/// One question to a token server.
struct TokenRequest<'a> {
    wanted: &'a Wanted<'a>,
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
                self.send(&realm, make).await?
            }
            credential => {
                let mut url = realm.clone();
                let mut header = None;
                if let Some(Credential::Basic { username, password }) = credential {
                    fields.push(("account", username.clone()));
                    header = Some(basic_header(self.wanted.attempt, username, password)?);
                    if self.wanted.transport.config().offline_access {
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
                self.send(&url, make).await?
            }
        };
        self.read(response).await
    }

    async fn send(
        &self,
        url: &Url,
        make: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Error> {
        let Wanted {
            transport,
            attempt,
            ahead,
            ..
        } = self.wanted;
        // It is another host than the registry.
        let attempt = &Attempt {
            action: "get a token for".into(),
            host: url.authority().into(),
            ..(*attempt).clone()
        };
        if !ahead {
            return transport.execute(attempt, url, make).await;
        }
        let once = transport.execute_once(attempt, url, make);
        match tokio::time::timeout(AHEAD_TIMEOUT, once).await {
            Ok(sent) => sent,
            Err(_) => Err(Error::Unreachable {
                attempt: attempt.clone(),
                source: Cause::Idle(AHEAD_TIMEOUT),
            }),
        }
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
        let over_tls = self.wanted.transport.scheme(self.wanted.endpoint) == "https";
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
        let mut scopes = self.wanted.scopes.clone();
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
            let Wanted {
                transport, attempt, ..
            } = self.wanted;
            return Err(transport.refusal(attempt, response, had_credentials).await);
        }
        let (headers, host) = (
            response.headers().clone(),
            response.url().authority().into(),
        );
        let bytes = self
            .wanted
            .transport
            .read_bounded(self.wanted.attempt, response, ANSWER_LIMIT_BYTES)
            .await?;
        if is_page(&headers, &bytes) {
            let attempt = Attempt {
                action: "get a token for".into(),
                host,
                ..self.wanted.attempt.clone()
            };
            return Err(Error::Page { attempt });
        }
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
            attempt: self.wanted.attempt.clone(),
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
