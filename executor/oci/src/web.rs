//! One file over http, whoever serves it: the registry client's TLS, proxies and patience, without
//! its protocol.
//!
//! A cut line is taken up where it broke. Nothing is held in memory but the piece at hand, so that
//! the size of a file is bounded by where its pieces go.

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::registry::retry::{Backoff, parse_http_date};
use crate::registry::{About, Attempt, Cause, Client, Error};

/// A piece of so many bytes shows that trying on is worth it.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebRequest {
    /// Where it is, with `http` or `https`; an account in it is sent as basic proof.
    pub url: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The value of `Authorization`; not sent on to another host.
    pub authorization: Option<String>,
    /// What is known of it; if that still holds, nothing is sent.
    pub known: Validators,
}

/// What a server says of a version of a file, to be asked about again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

/// The answer to a [`WebRequest`].
#[derive(Debug)]
pub enum WebAnswer {
    /// What is known still holds.
    NotModified,
    /// The file, piece by piece.
    File(Box<WebFile>),
}

/// A file on its way.
#[derive(Debug)]
pub struct WebFile {
    client: Client,
    request: WebRequest,
    url: Url,
    /// Where redirects led: a cut line is taken up with the whole way again.
    response: Option<Response>,
    /// What a piece brought beyond what was known, after a cut.
    left_over: Option<Bytes>,
    validators: Validators,
    /// Its size, if the server says.
    size: Option<u64>,
    is_gzipped: bool,
    received: u64,
    /// Of what was received: what comes again after a cut must be the same.
    hash: Sha256,
    fresh_bytes: u64,
    backoff: Backoff,
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// The address is none.
    #[error("could not fetch `{url}`: {reason}")]
    Url {
        /// As asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A header cannot be sent.
    #[error("could not fetch `{url}`: the header `{name}` has characters that no header may have")]
    Header {
        /// The address.
        url: String,
        /// Its name; the value may be secret.
        name: String,
    },
    /// The server answered something else.
    #[error("could not fetch `{url}`: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The status with its words.
        status: String,
        /// The status.
        code: u16,
    },
    /// No connection could be made, or it was lost before an answer.
    #[error("could not fetch `{url}`: no answer")]
    Unreachable {
        /// The address.
        url: String,
        /// How the last try ended.
        #[source]
        source: Cause,
    },
    /// The host speaks TLS with a certificate that is not trusted.
    #[error("could not fetch `{url}`: its certificate is not trusted")]
    Certificate {
        /// The address.
        url: String,
        /// What the certificate lacks.
        #[source]
        source: Cause,
    },
    /// The transfer stopped again and again before its end.
    #[error(
        "could not fetch `{url}`: the transfer stopped {attempts} times, at last after {received} of {} bytes",
        size.map_or_else(|| "an unknown number of".to_owned(), |size| size.to_string())
    )]
    Interrupted {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// How many bytes came.
        received: u64,
        /// How many there are, as the server said.
        size: Option<u64>,
        /// How the last try ended.
        #[source]
        source: Cause,
    },
    /// After a cut the server sent something else.
    #[error("could not fetch `{url}`: it changed while it was fetched")]
    Changed {
        /// The address.
        url: String,
    },
    /// The client could not be made.
    #[error(transparent)]
    Client(Error),
}

impl WebError {
    /// A way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Url { .. } => "as in https://example.org/file.tar.gz".to_owned(),
            Self::Status {
                code: 401 | 403, ..
            } => "where a proof is needed, give it with --secret id=HTTP_AUTH_TOKEN_<host>"
                .to_owned(),
            Self::Status {
                code: 404 | 410, ..
            } => "check the address".to_owned(),
            Self::Unreachable { .. } => {
                "check the address, the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
                    .to_owned()
            }
            Self::Certificate { .. } => {
                "put its authority into the system store or name its file with SSL_CERT_FILE"
                    .to_owned()
            }
            Self::Interrupted { .. } | Self::Changed { .. } => "try again later".to_owned(),
            _ => return None,
        })
    }
}

/// The address without the password that may be in it.
pub fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Only addresses without a host refuse this.
            let _ = parsed.set_password(Some("xxxxx"));
            parsed.into()
        }
        _ => url.to_owned(),
    }
}

impl Validators {
    fn of(headers: &HeaderMap) -> Validators {
        Validators {
            etag: text(headers, ETAG.as_str()),
            last_modified: text(headers, LAST_MODIFIED.as_str()),
        }
    }

    /// When the file was last changed, in seconds since 1970, if the server says.
    pub fn modified(&self) -> Option<u64> {
        parse_http_date(self.last_modified.as_deref()?)
    }

    /// Whether there is anything to ask about.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// What must still hold for the rest of a file to fit its beginning (RFC 9110, section 13.1.5).
    fn for_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }
}

impl Client {
    /// Asks for a file; redirects are followed, and passing failures tried again.
    pub async fn get(&self, request: WebRequest) -> Result<WebAnswer, WebError> {
        let shown = without_password(&request.url);
        let invalid = |reason: String| WebError::Url {
            url: shown.clone(),
            reason,
        };
        let url = Url::parse(&request.url).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(format!("`{}` is not http or https", url.scheme())));
        }
        let headers = headers(&request, &shown)?;
        let mut conditional = headers.clone();
        let conditions = [
            (IF_NONE_MATCH, &request.known.etag),
            (IF_MODIFIED_SINCE, &request.known.last_modified),
        ];
        for (name, value) in conditions {
            // What cannot be sent back is not asked about.
            if let Some(value) = value.as_deref().and_then(|value| value.parse().ok()) {
                conditional.insert(name, value);
            }
        }
        let response = send(self, &url, conditional).await?;
        if response.status() == StatusCode::NOT_MODIFIED && !request.known.is_empty() {
            return Ok(WebAnswer::NotModified);
        }
        if response.status() != StatusCode::OK {
            return Err(refusal(&url, response.status()));
        }
        let size = text(response.headers(), CONTENT_LENGTH.as_str());
        let encoding = text(response.headers(), CONTENT_ENCODING.as_str());
        Ok(WebAnswer::File(Box::new(WebFile {
            client: self.clone(),
            request,
            url,
            validators: Validators::of(response.headers()),
            size: size.and_then(|size| size.parse().ok()),
            is_gzipped: encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip")),
            response: Some(response),
            left_over: None,
            received: 0,
            hash: Sha256::new(),
            fresh_bytes: 0,
            backoff: Backoff::new(&self.transport().config().retry),
        })))
    }
}

impl WebFile {
    /// What the server says of this version.
    pub fn validators(&self) -> &Validators {
        &self.validators
    }

    /// How many bytes there are, if the server says.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether what comes is compressed for the way only (`Content-Encoding: gzip`), and not the file.
    pub fn is_gzipped(&self) -> bool {
        self.is_gzipped
    }

    /// Returns the next piece, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, WebError> {
        loop {
            if let Some(piece) = self.left_over.take() {
                return Ok(Some(self.take(piece)));
            }
            let cause = match &mut self.response {
                Some(response) => match self.client.transport().chunk(response).await {
                    Ok(Some(piece)) if piece.is_empty() => continue,
                    Ok(Some(piece)) => return Ok(Some(self.take(piece))),
                    Ok(None) if self.size.is_none_or(|size| size == self.received) => {
                        return Ok(None);
                    }
                    Ok(None) => Cause::Closed,
                    Err(cause) => cause,
                },
                None => match self.take_up().await? {
                    Ok(response) => {
                        self.response = Some(response);
                        continue;
                    }
                    Err(cause) => cause,
                },
            };
            self.response = None;
            match self.backoff.next(None) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    return Err(WebError::Interrupted {
                        url: without_password(&self.request.url),
                        attempts: self.backoff.tries(),
                        received: self.received,
                        size: self.size,
                        source: cause,
                    });
                }
            }
        }
    }

    /// Counts a piece that is passed on.
    fn take(&mut self, piece: Bytes) -> Bytes {
        self.received += piece.len() as u64;
        self.hash.update(&piece);
        self.fresh_bytes += piece.len() as u64;
        if self.fresh_bytes >= PROGRESS_BYTES {
            self.fresh_bytes = 0;
            self.backoff.reset();
        }
        piece
    }

    /// Asks for what is still missing; a line that breaks meanwhile is the inner error.
    async fn take_up(&mut self) -> Result<Result<Response, Cause>, WebError> {
        let shown = without_password(&self.request.url);
        let changed = || WebError::Changed { url: shown.clone() };
        let mut headers = headers(&self.request, &shown)?;
        if self.received > 0
            && let Some(validator) = self.validators.for_range()
            && let Ok(validator) = validator.parse()
            && let Ok(range) = format!("bytes={}-", self.received).parse()
        {
            headers.insert(IF_RANGE, validator);
            headers.insert(RANGE, range);
        }
        let mut response = match send(&self.client, &self.url, headers).await {
            Ok(response) => response,
            Err(WebError::Unreachable { source, .. }) => return Ok(Err(source)),
            Err(error) => return Err(error),
        };
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => match first_byte(response.headers()) {
                Some(first) if first == self.received => return Ok(Ok(response)),
                _ => return Err(changed()),
            },
            StatusCode::OK => self.received,
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(changed()),
            status => return Err(refusal(&self.url, status)),
        };
        // The whole comes again: its beginning must be what came before.
        let mut hash = Sha256::new();
        while skip > 0 {
            let mut piece = match self.client.transport().chunk(&mut response).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Err(changed()),
                Err(cause) => return Ok(Err(cause)),
            };
            let known = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            hash.update(&piece[..known]);
            skip -= known as u64;
            self.left_over = Some(piece.split_off(known)).filter(|rest| !rest.is_empty());
        }
        match hash.finalize() == self.hash.clone().finalize() {
            true => Ok(Ok(response)),
            false => {
                self.left_over = None;
                Err(changed())
            }
        }
    }
}

async fn send(client: &Client, url: &Url, headers: HeaderMap) -> Result<Response, WebError> {
    let shown = without_password(url.as_str());
    let attempt = Attempt {
        action: "fetch".into(),
        image: shown.clone().into(),
        host: url.host_str().unwrap_or_default().into(),
        about: About::Name,
        mirrors: None,
    };
    let sent = client
        .transport()
        .execute(&attempt, url, |client| {
            client.get(url.clone()).headers(headers.clone())
        })
        .await;
    sent.map_err(|error| match error {
        Error::Unreachable { source, .. } => WebError::Unreachable { url: shown, source },
        Error::Certificate { source, .. } => WebError::Certificate { url: shown, source },
        Error::Status { status, .. } => status_error(shown, status),
        Error::RateLimited { .. } => status_error(shown, 429),
        error => WebError::Client(error),
    })
}

fn headers(request: &WebRequest, shown: &str) -> Result<HeaderMap, WebError> {
    let mut headers = HeaderMap::new();
    let authorization = request
        .authorization
        .as_deref()
        .map(|value| (AUTHORIZATION.as_str(), value));
    let given = request.headers.iter();
    let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in given.chain(authorization) {
        let refused = || WebError::Header {
            url: shown.to_owned(),
            name: name.to_owned(),
        };
        let name: reqwest::header::HeaderName = name.parse().map_err(|_| refused())?;
        let mut value: reqwest::header::HeaderValue = value.parse().map_err(|_| refused())?;
        value.set_sensitive(name == AUTHORIZATION);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn refusal(url: &Url, status: StatusCode) -> WebError {
    status_error(without_password(url.as_str()), status.as_u16())
}

fn status_error(url: String, code: u16) -> WebError {
    let words = StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason());
    WebError::Status {
        url,
        status: match words {
            Some(words) => format!("{code} {words}"),
            None => code.to_string(),
        },
        code,
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns the first byte's position in `Content-Range: bytes 5-9/10`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, CONTENT_RANGE.as_str())?;
    let range = range.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
