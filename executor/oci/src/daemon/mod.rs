//! A docker engine: where it listens, and the few requests that images take.
//!
//! What it says is as hostile as what a registry says: documents are bounded, silence ends a request, and
//! digests are the caller's to check.

mod address;
mod error;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
pub use reqwest::Body;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use address::{Address, Places};
pub use error::DaemonError;

use crate::digest::Sha256Digest;

/// A question that takes longer than this is given up: whoever asks waits.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// An engine writes an image to its disk before it sends the first byte of it.
const SAVE_PATIENCE: Duration = Duration::from_secs(300);
/// Between two pieces of an archive, or two messages about one.
const IDLE_PATIENCE: Duration = Duration::from_secs(60);
/// Unpacking a layer may take an engine this long without a word.
const LOAD_PATIENCE: Duration = Duration::from_secs(600);
/// The longest answer to a question.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;
/// The longest message of a stream of them.
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// A docker engine at an address. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Daemon {
    client: Client,
    base: String,
    shown: String,
}

/// What an engine says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DaemonImage {
    /// The digest of its config, or with some stores of its manifest.
    pub id: Sha256Digest,
    /// When its config says it was made.
    #[serde(default)]
    pub created: Option<String>,
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `v7`.
    #[serde(default)]
    pub variant: Option<String>,
    /// What its files hold.
    #[serde(default)]
    pub size: i64,
    /// Its layers.
    #[serde(rename = "RootFS", default)]
    pub root: DaemonLayers,
}

/// The layers of an image of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DaemonLayers {
    /// The diff ids, lowest first.
    #[serde(rename = "Layers", default)]
    pub diff_ids: Vec<Sha256Digest>,
}

/// An entry of an engine's list of images.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

/// One message of an engine that loads an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// Something for people, as in `Loaded image: app:latest`.
    pub stream: String,
    /// What is being done, as in `Loading layer`.
    pub status: String,
    /// The beginning of the layer's diff id.
    pub id: String,
    /// How far it is.
    pub progress_detail: Progress,
    /// What went wrong.
    pub error: String,
}

/// How far an engine is with a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes that it has taken.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Daemon {
    /// The engine at an address; nobody is asked yet.
    pub fn new(address: &Address) -> Result<Daemon, DaemonError> {
        let failed = |source| DaemonError::Client {
            at: address.to_string(),
            source,
        };
        // The client insists on a TLS library, which is not used.
        let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|source| DaemonError::Tls {
            at: address.to_string(),
            source,
        })?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .connect_timeout(ANSWER_PATIENCE)
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base) = match address {
            Address::Unix(path) => (
                builder.unix_socket(path.clone()),
                "http://docker".to_owned(),
            ),
            Address::Tcp(host) => (builder, format!("http://{host}")),
        };
        Ok(Daemon {
            client: builder.build().map_err(failed)?,
            base,
            shown: address.to_string(),
        })
    }

    /// Where it listens, for people.
    pub fn address(&self) -> &str {
        &self.shown
    }

    /// Finds out whether it is there and answers.
    pub async fn ping(&self) -> Result<(), DaemonError> {
        self.get("ask", "/_ping").await.map(drop)
    }

    /// Looks an image up by name or id.
    pub async fn image(&self, name: &str) -> Result<Option<DaemonImage>, DaemonError> {
        self.ask(
            &format!("look up `{name}`"),
            &format!("/images/{name}/json"),
        )
        .await
    }

    /// Lists the ids of all images, those that only others are made of too.
    pub async fn images(&self) -> Result<Vec<String>, DaemonError> {
        let listed: Option<Vec<Listed>> = self.ask("list the images", "/images/json?all=1").await?;
        Ok(listed
            .unwrap_or_default()
            .into_iter()
            .map(|listed| listed.id)
            .collect())
    }

    /// Asks for an image as the archive that `docker save` writes.
    pub async fn save(&self, name: &str) -> Result<Saved, DaemonError> {
        let attempt = format!("read `{name}`");
        let request = self.client.get(format!("{}/images/{name}/get", self.base));
        let response = self.within(&attempt, SAVE_PATIENCE, request.send()).await?;
        Ok(Saved {
            attempt,
            at: self.shown.clone(),
            response: accepted(&self.shown, "read an image", response).await?,
        })
    }

    /// Sends an archive as `docker load` does; the messages say how it goes.
    pub async fn load(&self, archive: Body) -> Result<Loading, DaemonError> {
        let request = self
            .client
            .post(format!("{}/images/load?quiet=0", self.base))
            .header(CONTENT_TYPE, "application/x-tar")
            .body(archive);
        // The engine answers once it has read the archive, which has its own patience.
        let response = request.send().await.map_err(|source| DaemonError::Lost {
            attempt: "load an image".to_owned(),
            at: self.shown.clone(),
            cause: source,
        })?;
        Ok(Loading {
            at: self.shown.clone(),
            response: accepted(&self.shown, "load an image", response).await?,
            pending: BytesMut::new(),
            ended: false,
        })
    }

    /// Gives an image, by id, a name.
    pub async fn tag(&self, id: &str, repository: &str, tag: &str) -> Result<(), DaemonError> {
        let mut url = url::Url::parse(&format!("{}/images/{id}/tag", self.base))
            .expect("BUG: the address of an engine is none");
        url.query_pairs_mut()
            .append_pair("repo", repository)
            .append_pair("tag", tag);
        let attempt = format!("name an image `{repository}:{tag}`");
        let request = self.client.post(url);
        let response = self.within(&attempt, IDLE_PATIENCE, request.send()).await?;
        accepted(&self.shown, &attempt, response).await.map(drop)
    }

    /// Asks for a document; none if there is no such thing.
    async fn ask<T: DeserializeOwned>(
        &self,
        attempt: &str,
        path: &str,
    ) -> Result<Option<T>, DaemonError> {
        let Some(bytes) = self.get(attempt, path).await? else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&bytes).map_err(|source| DaemonError::Document {
            attempt: attempt.to_owned(),
            at: self.shown.clone(),
            source,
        });
        parsed.map(Some)
    }

    async fn get(&self, attempt: &str, path: &str) -> Result<Option<Bytes>, DaemonError> {
        let asking = async {
            let request = self.client.get(format!("{}{path}", self.base));
            let response = request
                .send()
                .await
                .map_err(|source| self.lost(attempt, source))?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let mut response = accepted(&self.shown, attempt, response).await?;
            let mut bytes = BytesMut::new();
            while let Some(piece) = response
                .chunk()
                .await
                .map_err(|source| self.lost(attempt, source))?
            {
                if bytes.len() + piece.len() > ANSWER_LIMIT_BYTES {
                    return Err(DaemonError::TooLong {
                        attempt: attempt.to_owned(),
                        at: self.shown.clone(),
                        limit: ANSWER_LIMIT_BYTES,
                    });
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(Some(bytes.freeze()))
        };
        match tokio::time::timeout(ANSWER_PATIENCE, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(self.silent(attempt, ANSWER_PATIENCE)),
        }
    }

    async fn within(
        &self,
        attempt: &str,
        patience: Duration,
        sending: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, DaemonError> {
        match tokio::time::timeout(patience, sending).await {
            Ok(sent) => sent.map_err(|source| self.lost(attempt, source)),
            Err(_) => Err(self.silent(attempt, patience)),
        }
    }

    fn lost(&self, attempt: &str, source: reqwest::Error) -> DaemonError {
        DaemonError::Lost {
            attempt: attempt.to_owned(),
            at: self.shown.clone(),
            cause: source,
        }
    }

    fn silent(&self, attempt: &str, patience: Duration) -> DaemonError {
        DaemonError::Silent {
            attempt: attempt.to_owned(),
            at: self.shown.clone(),
            seconds: patience.as_secs(),
        }
    }
}

/// An archive on its way from an engine.
#[derive(Debug)]
pub struct Saved {
    attempt: String,
    at: String,
    response: Response,
}

impl Saved {
    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DaemonError> {
        match tokio::time::timeout(IDLE_PATIENCE, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(source)) => Err(DaemonError::Lost {
                attempt: self.attempt.clone(),
                at: self.at.clone(),
                cause: source,
            }),
            Err(_) => Err(DaemonError::Silent {
                attempt: self.attempt.clone(),
                at: self.at.clone(),
                seconds: IDLE_PATIENCE.as_secs(),
            }),
        }
    }
}

/// What an engine says while it loads an archive.
#[derive(Debug)]
pub struct Loading {
    at: String,
    response: Response,
    pending: BytesMut,
    ended: bool,
}

impl Loading {
    /// The next message; none at the end. What is no message is passed over.
    pub async fn next(&mut self) -> Result<Option<Message>, DaemonError> {
        let attempt = || "load an image".to_owned();
        loop {
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                if let Ok(message) = serde_json::from_slice::<Message>(&line) {
                    return Ok(Some(message));
                }
            }
            if self.ended {
                let line = std::mem::take(&mut self.pending);
                return Ok(serde_json::from_slice::<Message>(&line).ok());
            }
            if self.pending.len() > MESSAGE_LIMIT_BYTES {
                return Err(DaemonError::TooLong {
                    attempt: attempt(),
                    at: self.at.clone(),
                    limit: MESSAGE_LIMIT_BYTES,
                });
            }
            match tokio::time::timeout(LOAD_PATIENCE, self.response.chunk()).await {
                Ok(Ok(Some(piece))) => self.pending.extend_from_slice(&piece),
                Ok(Ok(None)) => self.ended = true,
                Ok(Err(source)) => {
                    return Err(DaemonError::Lost {
                        attempt: attempt(),
                        at: self.at.clone(),
                        cause: source,
                    });
                }
                Err(_) => {
                    return Err(DaemonError::Silent {
                        attempt: attempt(),
                        at: self.at.clone(),
                        seconds: LOAD_PATIENCE.as_secs(),
                    });
                }
            }
        }
    }
}

/// What an engine says where it refuses.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

async fn accepted(
    at: &str,
    attempt: &str,
    mut response: Response,
) -> Result<Response, DaemonError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut bytes = BytesMut::new();
    let reading = async {
        while let Ok(Some(piece)) = response.chunk().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() > 64 << 10 {
                break;
            }
        }
    };
    // Its words are worth no long wait.
    let _ = tokio::time::timeout(ANSWER_PATIENCE, reading).await;
    let message = serde_json::from_slice::<Refusal>(&bytes)
        .map(|refusal| refusal.message)
        .unwrap_or_default();
    Err(DaemonError::Refused {
        attempt: attempt.to_owned(),
        at: at.to_owned(),
        status: status.as_u16(),
        message: message.chars().take(500).collect(),
    })
}
