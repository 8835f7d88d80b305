//! Sending requests: clients made when first needed, schemes found out, failures tried again.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::auth::{Proof, Scopes, Sessions};
use super::challenge::{self, Challenge};
use super::challenges::Asks;
use super::clients::{Clients, Sent};
use super::config::Config;
use super::credentials::{Credentials, CredentialsError};
use super::endpoint::{Endpoint, Security};
use super::error::{Attempt, Cause, Error};
use super::retry::{Backoff, parse_retry_after};
use super::tls::{self, Handshake};

/// The most bytes of an error's body that are looked at.
const MESSAGE_LIMIT_BYTES: u64 = 64 << 10;

/// Everything that requests share.
pub(crate) struct Transport {
    config: Config,
    clients: Clients,
    sessions: Sessions,
    /// Endpoints that turned out not to speak TLS.
    plain: Mutex<HashSet<String>>,
    doubts: Mutex<Doubts>,
}

/// What people should hear of registries that failed nothing, in words.
#[derive(Default)]
struct Doubts {
    known: HashSet<String>,
    untold: Vec<String>,
}

/// A request to a registry, apart from what its method and body are.
pub(super) struct Call<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) endpoint: &'a Endpoint,
    pub(super) scopes: &'a Scopes,
    pub(super) target: Target<'a>,
    /// Whether lost and refused requests are sent again as they are.
    pub(super) again: bool,
    /// Whether 416 is an answer and not a failure.
    pub(super) ranged: bool,
    /// What the body reports to, if it is large.
    pub(super) activity: Activity,
}

impl<'a> Call<'a> {
    /// A request to a path after `/v2/` that may be sent again, and whose body is small.
    pub(super) fn to_path(
        attempt: &'a Attempt,
        endpoint: &'a Endpoint,
        scopes: &'a Scopes,
        path: &'a str,
    ) -> Self {
        Self {
            attempt,
            endpoint,
            scopes,
            target: Target::Path(path),
            again: true,
            ranged: false,
            activity: Activity::new(),
        }
    }
}

/// Where a request goes.
pub(super) enum Target<'a> {
    /// A path after `/v2/` of the endpoint.
    Path(&'a str),
    /// A URL that the registry gave, perhaps elsewhere; proofs go only to the endpoint itself.
    Url(&'a Url),
}

/// The last time when something moved.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Says that something moved.
    pub(crate) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a future until it is done, or until nothing has moved for `idle`.
    async fn watch<F: Future>(&self, idle: Duration, future: F) -> Result<F::Output, Cause> {
        self.touch();
        let mut future = std::pin::pin!(future);
        loop {
            let deadline = self.last() + idle;
            match tokio::time::timeout_at(deadline, &mut future).await {
                Ok(output) => return Ok(output),
                Err(_) if self.last() + idle > deadline => {}
                Err(_) => return Err(Cause::Idle(idle)),
            }
        }
    }
}

impl Transport {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            clients: Clients::default(),
            sessions: Sessions::default(),
            plain: Mutex::default(),
            doubts: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn credentials(&self) -> &dyn Credentials {
        &*self.config.credentials
    }

    /// Notes that nobody could tell whether there are credentials.
    pub(super) fn doubt_account(&self, error: &CredentialsError) {
        let cause = std::error::Error::source(error);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        self.doubt(format!(
            "a registry was asked without an account: {error}{cause}"
        ));
    }

    /// Notes what people should hear though nothing failed of it.
    pub(super) fn doubt(&self, words: String) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        if doubts.known.insert(words.clone()) {
            doubts.untold.push(words);
        }
    }

    /// Returns the doubts that were not returned before.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut doubts.untold)
    }

    /// Returns the scheme in which the endpoint is spoken to, as far as is known.
    pub(super) fn scheme(&self, endpoint: &Endpoint) -> &'static str {
        let known_plain = || {
            self.plain
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&endpoint.authority)
        };
        match endpoint.security {
            Security::Plain => "http",
            Security::Probe if known_plain() => "http",
            Security::Probe | Security::Tls => "https",
        }
    }

    /// Returns what an endpoint is remembered as.
    pub(super) fn place(&self, endpoint: &Endpoint) -> String {
        format!("{}://{}", self.scheme(endpoint), endpoint.key())
    }

    /// Remembers how an endpoint asks, if it is sure to have said so itself: a token server that somebody on the
    /// way named would be shown credentials ever after.
    pub(super) fn remember(&self, endpoint: &Endpoint, asks: Option<&Asks>) {
        let challenges = &self.config.challenges;
        let place = self.place(endpoint);
        let is_sure = |asks: &&Asks| match asks {
            Asks::Password => true,
            Asks::Token { .. } => {
                let url = Url::parse(&place);
                url.is_ok_and(|url| self.clients.verifies(&self.config, &url))
            }
        };
        let asks = asks.filter(is_sure);
        if challenges.recall(&place).as_ref() != asks {
            challenges.remember(&place, asks);
        }
    }

    /// Sends a request with what the registry wants to see, getting that first if need be.
    ///
    /// Returns an answer with a successful status (or 416, if the call is ranged); anything else is
    /// an error.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        make: impl Fn(&Client, Url) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let Call {
            attempt,
            endpoint,
            scopes,
            ..
        } = call;
        let mut answered = false;
        loop {
            let url = self.url(call)?;
            let trusted = matches!(call.target, Target::Path(_)) || self.is_own(endpoint, &url);
            let proof = if trusted {
                self.sessions.proof(self, attempt, endpoint, scopes).await
            } else {
                Proof::default()
            };
            let authorised = |client: &Client| {
                let request = make(client, url.clone());
                match &proof.header {
                    Some(header) => request.header(reqwest::header::AUTHORIZATION, header.clone()),
                    None => request,
                }
            };
            let response = match self.exchange(call, &url, authorised).await {
                Ok(response) => response,
                Err(Error::Unreachable {
                    source: Cause::Http(error),
                    ..
                }) if url.scheme() == "https"
                    && endpoint.security == Security::Probe
                    && tls::diagnose(&error) == Some(Handshake::NotTls) =>
                {
                    let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
                    plain.insert(endpoint.authority.clone());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let status = response.status();
            // What a redirect led to has no say in where proofs are got.
            let own_word = trusted && response.url().origin() == url.origin();
            if status.is_success() || (call.ranged && status == StatusCode::RANGE_NOT_SATISFIABLE) {
                self.sessions.taken(self, endpoint, scopes, &proof).await;
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && own_word && !answered {
                answered = true;
                let challenges = challenges(&response);
                let sent = proof.header.as_ref();
                if self
                    .sessions
                    .answer(self, attempt, endpoint, scopes, sent, &challenges)
                    .await?
                {
                    continue;
                }
            }
            // What nobody asked for may be what is refused: it is asked without that.
            let for_proof = status.is_client_error()
                && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND);
            if for_proof && own_word && self.sessions.withdraw(endpoint, scopes, &proof).await {
                continue;
            }
            if status == StatusCode::NOT_FOUND && proof.header.is_some() {
                self.sessions.taken(self, endpoint, scopes, &proof).await;
            }
            let had_credentials = self.sessions.had_credentials(endpoint, scopes).await;
            return Err(self.refusal(attempt, response, had_credentials).await);
        }
    }

    /// Sends a request to any host, again and again while its failures are passing ones.
    pub(crate) async fn execute(
        &self,
        attempt: &Attempt,
        url: &Url,
        make: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.try_often(attempt, url, &Activity::new(), true, make)
            .await
    }

    /// Like [`Transport::execute`], but once.
    pub(super) async fn execute_once(
        &self,
        attempt: &Attempt,
        url: &Url,
        make: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.try_often(attempt, url, &Activity::new(), false, make)
            .await
    }

    /// Like [`Transport::execute`], for a body that reports what it moves.
    pub(crate) async fn execute_watched(
        &self,
        attempt: &Attempt,
        url: &Url,
        activity: &Activity,
        make: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.try_often(attempt, url, activity, true, make).await
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        url: &Url,
        make: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        self.try_often(call.attempt, url, &call.activity, call.again, make)
            .await
    }

    async fn try_often(
        &self,
        attempt: &Attempt,
        url: &Url,
        activity: &Activity,
        again: bool,
        make: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let policy = &self.config.retry;
        let mut backoff = Backoff::new(policy);
        loop {
            let sending = self.clients.send(&self.config, url, &make);
            let sent = activity.watch(policy.idle_timeout, sending).await;
            let mut had_certificate = false;
            let cause = match sent {
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Sent::Answer(response))) if !is_passing(response.status()) => {
                    return Ok(response);
                }
                Ok(Ok(Sent::Answer(response))) => {
                    let asked = retry_after(&response);
                    match backoff.next(asked).filter(|_| again) {
                        Some(delay) => tokio::time::sleep(delay).await,
                        None => {
                            let error = self.refusal(attempt, response, false).await;
                            return Err(error.after(backoff.tries()));
                        }
                    }
                    continue;
                }
                Ok(Ok(Sent::Astray(words))) => {
                    return Err(Error::Unreachable {
                        attempt: attempt.clone(),
                        source: Cause::Redirect(words),
                    });
                }
                Ok(Ok(Sent::Lost { error, shown })) => {
                    had_certificate = shown;
                    Cause::Http(error.without_url())
                }
                Err(cause) => cause,
            };
            let attempt = attempt.clone();
            if let Cause::Http(error) = &cause {
                match tls::diagnose(error) {
                    Some(Handshake::Certificate) => {
                        return Err(Error::Certificate {
                            attempt,
                            source: cause,
                        });
                    }
                    Some(Handshake::Client) => {
                        return Err(Error::ClientCertificate {
                            attempt,
                            had_certificate,
                            source: cause,
                        });
                    }
                    Some(Handshake::NotTls) => {
                        return Err(Error::Unreachable {
                            attempt,
                            source: cause,
                        });
                    }
                    None if error.is_builder() || error.is_redirect() => {
                        return Err(Error::Unreachable {
                            attempt,
                            source: cause,
                        });
                    }
                    // A host that is not there rarely comes back within seconds.
                    None if error.is_connect() && backoff.tries() > 0 => {
                        return Err(Error::Unreachable {
                            attempt,
                            source: cause,
                        });
                    }
                    None => {}
                }
            }
            // Nor does one begin to speak that said nothing for so long, twice.
            let silent = matches!(cause, Cause::Idle(_)) && backoff.tries() > 0;
            match backoff.next(None).filter(|_| again && !silent) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    return Err(Error::Unreachable {
                        attempt,
                        source: cause,
                    });
                }
            }
        }
    }

    /// Reads the next bytes of an answer; `None` at its end.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Cause> {
        let idle = self.config.retry.idle_timeout;
        match tokio::time::timeout(idle, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Cause::Http(error.without_url())),
            Err(_) => Err(Cause::Idle(idle)),
        }
    }

    /// Reads a whole answer of at most `limit` bytes.
    pub(super) async fn read_bounded(
        &self,
        attempt: &Attempt,
        mut response: Response,
        limit: u64,
    ) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        loop {
            match self.chunk(&mut response).await {
                Ok(Some(chunk)) if bytes.len() as u64 + chunk.len() as u64 > limit => {
                    let what = format!("the answer has more than {limit} bytes");
                    return Err(Error::Protocol {
                        attempt: attempt.clone(),
                        what,
                    });
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes.freeze()),
                Err(source) => {
                    return Err(Error::Unreachable {
                        attempt: attempt.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Turns an answer that is no success into an error with the registry's own words.
    pub(super) async fn refusal(
        &self,
        attempt: &Attempt,
        response: Response,
        had_credentials: bool,
    ) -> Error {
        let status = response.status();
        let retry_after = retry_after(&response);
        // What the body would have said is a comfort, not a need.
        let body = self
            .read_bounded(attempt, response, MESSAGE_LIMIT_BYTES)
            .await
            .unwrap_or_default();
        let (attempt, message) = (attempt.clone(), message(&body));
        match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized {
                attempt,
                had_credentials,
                message,
            },
            StatusCode::FORBIDDEN => Error::Denied { attempt, message },
            StatusCode::NOT_FOUND => Error::NotFound { attempt, message },
            StatusCode::TOO_MANY_REQUESTS => Error::RateLimited {
                attempt,
                retry_after,
                message,
            },
            status => Error::Status {
                attempt,
                status: status.as_u16(),
                retry_after,
                tries: 1,
                message,
            },
        }
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, Error> {
        match call.target {
            Target::Url(url) => Ok(url.clone()),
            Target::Path(path) => {
                call.endpoint
                    .url(self.scheme(call.endpoint), path)
                    .map_err(|error| {
                        let what = format!("`{}` is not a host: {error}", call.endpoint.authority);
                        Error::Protocol {
                            attempt: call.attempt.clone(),
                            what,
                        }
                    })
            }
        }
    }

    /// Tells whether a URL that the registry gave leads to the registry itself.
    pub(super) fn is_own(&self, endpoint: &Endpoint, url: &Url) -> bool {
        endpoint
            .url(self.scheme(endpoint), "")
            .is_ok_and(|own| own.origin() == url.origin())
    }
}

/// Tells whether a document that should be JSON is a page for browsers.
pub(super) fn is_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match body.trim_ascii_start().first() {
        Some(b'<') => true,
        Some(b'{') => false,
        _ => says_html(headers),
    }
}

/// Tells whether an answer says of itself that it is a page for browsers.
pub(super) fn says_html(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(response: &Response) -> Option<Duration> {
    parse_retry_after(
        response.headers().get(RETRY_AFTER)?.to_str().ok()?,
        SystemTime::now(),
    )
}

fn challenges(response: &Response) -> Vec<Challenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
    headers
        .filter_map(|header| header.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

/// Returns the first error of a registry's answer in one printable line, or nothing.
fn message(body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return plain(body);
    };
    let first = &answer["errors"][0];
    let text = match (first["code"].as_str(), first["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(text), None) | (None, Some(text)) => text.to_owned(),
        // What token servers and proxies say instead.
        (None, None) => {
            let mut texts = ["details", "message", "error"].map(|key| answer[key].as_str());
            let text = texts.iter_mut().find_map(Option::take);
            text.unwrap_or_default().to_owned()
        }
    };
    printable(&text)
}

/// The first line of an answer that is text; a page for browsers says nothing.
fn plain(body: &[u8]) -> String {
    let text = str::from_utf8(body).unwrap_or_default().trim();
    match text.starts_with(['<', '{', '[']) {
        true => String::new(),
        false => printable(text.lines().next().unwrap_or_default()),
    }
}

/// What people may be shown of a text of strangers.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        assert_eq!(message(body.as_bytes()), expected);
    }

    #[test]
    fn a_registrys_words_are_found_and_made_harmless() {
        check(
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no \u001b[31msuch"}]}"#,
            "NAME_UNKNOWN: no  [31msuch",
        );
        check(r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED");
        check(
            r#"{"details":"incorrect username or password"}"#,
            "incorrect username or password",
        );
        check(r#"{"message":"too large"}"#, "too large");
        check(r#"{"error":{"code":1},"message":"no"}"#, "no");
        check("too large\nfor me\n", "too large");
        check("<html>", "");
        check("", "");
        check(r#"{"errors":[]}"#, "");
    }
}
