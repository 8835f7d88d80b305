//! Objects of an S3 bucket, or of whatever speaks its protocol: read (`object`), look, write if unchanged; large
//! ones in `parts`.
//!
//! Requests are signed in their address (SigV4); it never stands in a message. TLS, proxies and
//! patience are those of the registry client.

mod object;
mod parts;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};
use reqwest::{RequestBuilder, Response, StatusCode};
use rusty_s3::actions::{GetObject, HeadObject, PutObject, S3Action as _};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use url::{Host, Url};

use crate::registry::transport::Activity;
use crate::registry::{About, Attempt, Cause, Client, Error};
use crate::web::without_password;
pub use object::S3Object;
pub use parts::{LEAST_PART_BYTES, MOST_OBJECT_BYTES, MOST_PART_BYTES, Moved, PART_BYTES};

/// How long a signed address holds; a slow upload must begin within it, not end.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// The most bytes of an error's body that are looked at.
const MESSAGE_BYTES: u64 = 16 << 10;

/// Which bucket, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Where it is, if not at Amazon's.
    pub endpoint_url: Option<String>,
    /// The bucket is in the path of addresses, not in their host's name.
    pub use_path_style: bool,
    /// The account.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Of an account for a while.
    pub session_token: Option<String>,
    /// Larger objects are sent in parts of so many bytes.
    pub part_bytes: u64,
}

impl std::fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Settings")
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("endpoint_url", &self.endpoint_url)
            .field("use_path_style", &self.use_path_style)
            .field("part_bytes", &self.part_bytes)
            .finish_non_exhaustive()
    }
}

impl S3Settings {
    /// Tells whether these can mean a bucket, without asking anybody.
    pub fn check(&self) -> Result<(), S3Error> {
        self.address().map(drop)
    }

    fn address(&self) -> Result<Bucket, S3Error> {
        let given = self.endpoint_url.clone();
        let url = given.unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", self.region));
        let refused = |reason: String| S3Error::Endpoint {
            url: without_password(&url),
            reason,
        };
        let endpoint = Url::parse(&url).map_err(|error| refused(error.to_string()))?;
        let style = match (self.use_path_style, endpoint.host()) {
            (true, _) => UrlStyle::Path,
            (false, Some(Host::Ipv4(_) | Host::Ipv6(_))) => {
                return Err(S3Error::NoName {
                    url: without_password(&url),
                    bucket: self.bucket.clone(),
                });
            }
            (false, _) => UrlStyle::VirtualHost,
        };
        Bucket::new(endpoint, style, self.bucket.clone(), self.region.clone())
            .map_err(|error| refused(error.to_string()))
    }
}

impl S3Error {
    /// A way out, where there is one to name.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            S3Error::Endpoint { .. } => "as in endpoint_url=https://s3.example",
            S3Error::NoName { .. } => {
                "use_path_style=true puts the bucket into the path, as most stores but Amazon's want it"
            }
            S3Error::Denied { .. } => {
                "access_key_id, secret_access_key and session_token, or AWS_ACCESS_KEY_ID, \
                 AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, say who asks"
            }
            _ => return None,
        })
    }
}

/// A bucket. Clones share connections.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: Bucket,
    credentials: Credentials,
    part_bytes: u64,
    /// What was begun and is not complete.
    open: Arc<Mutex<BTreeSet<parts::Open>>>,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3({})", self.bucket.name())
    }
}

/// What an object must be for it to be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    #[default]
    None,
    /// Nothing.
    Absent,
    /// What had this ETag.
    Unchanged(String),
}

/// What came of writing an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is there.
    Done,
    /// The condition did not hold.
    Refused,
    /// The server knows no conditions; nothing was written.
    Unconditional,
}

/// Why an object store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum S3Error {
    /// The address of the store is none.
    #[error("`{url}` is no address of an S3 store: {reason}")]
    Endpoint {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// No bucket's name can stand before an IP address.
    #[error(
        "`{url}` has an IP address, before which the bucket `{bucket}` cannot stand as part of a host's name"
    )]
    NoName {
        /// The store's address.
        url: String,
        /// The bucket.
        bucket: String,
    },
    /// It does not believe who asks.
    #[error(
        "could not {attempt}: access denied ({code}); check the access key, the secret and the bucket's policy"
    )]
    Denied {
        /// What was attempted.
        attempt: String,
        /// Its own word, such as `SignatureDoesNotMatch`.
        code: String,
    },
    /// It answered otherwise than it should.
    #[error("could not {attempt}: the store answered {status}{}", if code.is_empty() { String::new() } else { format!(" ({code})") })]
    Status {
        /// What was attempted.
        attempt: String,
        /// The HTTP status.
        status: u16,
        /// Its own word, if any.
        code: String,
    },
    /// No answer, or it broke off.
    #[error("could not {attempt}: no answer; check endpoint_url and the network")]
    Unreachable {
        /// What was attempted.
        attempt: String,
        /// How the last try ended.
        #[source]
        source: Cause,
    },
    /// The transfer stopped again and again before its end.
    #[error(
        "could not {attempt}: the transfer stopped {attempts} times, at last after {received} of {} bytes",
        size.map_or_else(|| "an unknown number of".to_owned(), |size| size.to_string())
    )]
    Interrupted {
        /// What was attempted.
        attempt: String,
        /// How often it was tried without getting further.
        attempts: u32,
        /// How many bytes came.
        received: u64,
        /// How many there are, as the store said.
        size: Option<u64>,
        /// How the last try ended.
        #[source]
        source: Cause,
    },
    /// After a cut another version was there, or none.
    #[error("could not {attempt}: it was replaced or removed while it was read")]
    Changed {
        /// What was attempted.
        attempt: String,
    },
    /// The HTTP client itself.
    #[error("could not {attempt}")]
    Client {
        /// What was attempted.
        attempt: String,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// It answered something that it should not.
    #[error("could not {attempt}: the store's answer says not what became of it")]
    Answer {
        /// What was attempted.
        attempt: String,
    },
    /// More than may be read, or sent at once.
    #[error("could not {attempt}: it has more than {limit} bytes")]
    TooLarge {
        /// What was attempted.
        attempt: String,
        /// The limit.
        limit: u64,
    },
}

/// What a look at an object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Found {
    /// Its length in bytes.
    pub size: u64,
    /// Its ETag.
    pub etag: Option<String>,
}

impl S3 {
    /// A bucket as `client` reaches it. Nothing is asked.
    pub fn new(client: &Client, settings: &S3Settings) -> Result<S3, S3Error> {
        let bucket = settings.address()?;
        let (key, secret) = (&settings.access_key_id, &settings.secret_access_key);
        let credentials = match &settings.session_token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        Ok(S3 {
            client: client.clone(),
            bucket,
            credentials,
            part_bytes: settings.part_bytes,
            open: Arc::default(),
        })
    }

    /// Asks for an object; `None` if there is none.
    pub async fn get(&self, key: &str) -> Result<Option<S3Object>, S3Error> {
        let attempt = self.attempt("read", key);
        let response = self
            .send(&attempt, key, &Activity::new(), |client| {
                let action = GetObject::new(&self.bucket, Some(&self.credentials), key);
                client.get(action.sign(SIGNED_FOR))
            })
            .await?;
        match response.status() {
            StatusCode::OK => Ok(Some(S3Object::new(self, key, attempt, response))),
            StatusCode::NOT_FOUND => match self.refusal(&attempt, response).await {
                // A bucket that is not there is a mistake, an object that is not there is none.
                error @ S3Error::Status { .. } if said(&error) == "NoSuchBucket" => Err(error),
                _ => Ok(None),
            },
            _ => Err(self.refusal(&attempt, response).await),
        }
    }

    /// Looks at an object without reading it; `None` if there is none.
    pub async fn look(&self, key: &str) -> Result<Option<S3Found>, S3Error> {
        let attempt = self.attempt("look for", key);
        let response = self
            .send(&attempt, key, &Activity::new(), |client| {
                let action = HeadObject::new(&self.bucket, Some(&self.credentials), key);
                client.head(action.sign(SIGNED_FOR))
            })
            .await?;
        match response.status() {
            StatusCode::OK => {
                let size = response.headers().get(CONTENT_LENGTH);
                let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
                Ok(Some(S3Found {
                    size: size.unwrap_or_default(),
                    etag: etag(response.headers()),
                }))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(&attempt, response).await),
        }
    }

    /// Writes a small object.
    pub async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<Written, S3Error> {
        let attempt = self.attempt("write", key);
        let response = self
            .send(&attempt, key, &Activity::new(), |client| {
                let request = client.put(self.signed_put(key)).body(bytes.clone());
                match condition {
                    Condition::None => request,
                    Condition::Absent => request.header(IF_NONE_MATCH, "*"),
                    Condition::Unchanged(etag) => request.header(IF_MATCH, etag),
                }
            })
            .await?;
        match response.status() {
            status if status.is_success() => Ok(Written::Done),
            // The second is what a version says that was removed meanwhile.
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Ok(Written::Refused),
            StatusCode::NOT_FOUND if matches!(condition, Condition::Unchanged(_)) => {
                Ok(Written::Refused)
            }
            StatusCode::NOT_IMPLEMENTED if *condition != Condition::None => {
                Ok(Written::Unconditional)
            }
            _ => Err(self.refusal(&attempt, response).await),
        }
    }

    fn signed_put(&self, key: &str) -> Url {
        PutObject::new(&self.bucket, Some(&self.credentials), key).sign(SIGNED_FOR)
    }

    fn attempt(&self, action: &str, key: &str) -> String {
        format!("{action} `s3://{}/{key}`", self.bucket.name())
    }

    async fn send(
        &self,
        attempt: &str,
        key: &str,
        activity: &Activity,
        make: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, S3Error> {
        // Without the signature: which connections are used depends on the host alone.
        let url = self.bucket.object_url(key);
        let named = Attempt {
            action: "reach".into(),
            image: self.bucket.name().into(),
            host: url.host_str().unwrap_or_default().into(),
            about: About::Name,
            mirrors: None,
        };
        let transport = self.client.transport();
        let sent = transport
            .execute_watched(&named, &url, activity, make)
            .await;
        sent.map_err(|error| {
            let attempt = attempt.to_owned();
            match error {
                Error::Unreachable { source, .. } => S3Error::Unreachable { attempt, source },
                Error::Status { status, .. } => S3Error::Status {
                    attempt,
                    status,
                    code: String::new(),
                },
                Error::RateLimited { .. } => S3Error::Status {
                    attempt,
                    status: 429,
                    code: String::new(),
                },
                error => S3Error::Client {
                    attempt,
                    source: Box::new(error),
                },
            }
        })
    }

    async fn refusal(&self, attempt: &str, response: Response) -> S3Error {
        let status = response.status();
        // What the body would have said is a comfort, not a need.
        let body = self.words(attempt, response).await.unwrap_or_default();
        let (attempt, code) = (attempt.to_owned(), code_of(&body));
        match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => S3Error::Denied {
                attempt,
                code: match code.is_empty() {
                    true => status.as_u16().to_string(),
                    false => code,
                },
            },
            status => S3Error::Status {
                attempt,
                status: status.as_u16(),
                code,
            },
        }
    }

    /// Reads the words of an answer, which are few and not asked for again.
    async fn words(&self, attempt: &str, mut response: Response) -> Result<Vec<u8>, S3Error> {
        let mut bytes = Vec::new();
        loop {
            match self.client.transport().chunk(&mut response).await {
                Ok(Some(piece)) if (bytes.len() + piece.len()) as u64 > MESSAGE_BYTES => {
                    return Err(S3Error::TooLarge {
                        attempt: attempt.to_owned(),
                        limit: MESSAGE_BYTES,
                    });
                }
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => return Ok(bytes),
                Err(source) => {
                    return Err(S3Error::Unreachable {
                        attempt: attempt.to_owned(),
                        source,
                    });
                }
            }
        }
    }
}

fn said(error: &S3Error) -> &str {
    match error {
        S3Error::Denied { code, .. } | S3Error::Status { code, .. } => code,
        _ => "",
    }
}

fn etag(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(ETAG)?.to_str().ok()?.to_owned())
}

/// What stands in the element `Code` of an error.
fn code_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(80)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_an_error_is_found_and_made_harmless() {
        let check = |body: &str, expected: &str| assert_eq!(code_of(body.as_bytes()), expected);
        check(
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>",
            "NoSuchKey",
        );
        check("<Error><Code>a\x1b[2J</Code></Error>", "a2J");
        check("<Code>", "");
        check("", "");
    }

    #[test]
    fn a_bucket_is_part_of_names_only() {
        let check = |endpoint: &str, use_path_style, expected: Option<&str>| {
            let settings = S3Settings {
                endpoint_url: Some(endpoint.into()),
                use_path_style,
                ..settings()
            };
            let refused = settings.check().err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), expected);
        };
        check("http://127.0.0.1:9000", true, None);
        check("http://store:9000", false, None);
        let v4 = "`http://127.0.0.1:9000` has an IP address, before which the bucket `b` cannot stand \
                  as part of a host's name";
        check("http://127.0.0.1:9000", false, Some(v4));
        check(
            "http://[::1]:9000",
            false,
            Some(&v4.replace("127.0.0.1", "[::1]")),
        );
    }

    fn settings() -> S3Settings {
        S3Settings {
            bucket: "b".into(),
            region: "us-east-1".into(),
            endpoint_url: Some("http://127.0.0.1:1".into()),
            use_path_style: true,
            access_key_id: "account".into(),
            secret_access_key: "hunter2".into(),
            session_token: Some("token".into()),
            part_bytes: PART_BYTES,
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = settings();
        let client = Client::new(crate::registry::Config::default());
        let s3 = S3::new(&client, &settings).unwrap();
        let shown = format!("{settings:?} {s3:?}");
        for secret in ["account", "hunter2", "token"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let wrong = S3Settings {
            endpoint_url: Some("ftp://me:hunter2@x".into()),
            ..settings
        };
        let error = S3::new(&client, &wrong).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`ftp://me:xxxxx@x/` is no address"),
            "{error}"
        );
    }
}
