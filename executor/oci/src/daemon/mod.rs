//! A docker engine: where it listens, and the few requests that images take.
//!
//! What it says is as hostile as what a registry says: documents are bounded, silence ends a request, and
//! digests are the caller's to check.

mod address;
mod dial;
mod error;
mod http;
mod ssh;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use address::{Address, Places};
pub use error::DaemonError;
pub use ssh::SshTarget;

use self::dial::Dial;
use self::http::{Answer, Http, Lost};
use crate::caller::Caller;
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
    http: Http,
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
    /// What the engine itself notes of it.
    #[serde(default)]
    pub metadata: DaemonMetadata,
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

/// What an engine notes of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DaemonMetadata {
    /// When it got a name there; the beginning of time if it came with one.
    pub last_tag_time: Option<String>,
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
    /// The engine at an address, reached as `caller`; nobody is asked yet.
    pub fn new(address: &Address, caller: Arc<dyn Caller>) -> Result<Daemon, DaemonError> {
        Ok(Daemon {
            http: Http::new(Dial::new(address, caller)?),
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
        let path = format!("/images/{name}/get");
        let asking = self.http.get(&path);
        let answer = match tokio::time::timeout(SAVE_PATIENCE, asking).await {
            Ok(asked) => asked.map_err(|lost| self.lost(&attempt, lost))?,
            Err(_) => return Err(self.silent(&attempt, SAVE_PATIENCE)),
        };
        Ok(Saved {
            daemon: self.clone(),
            answer: self.accepted("read an image", answer).await?,
            attempt,
        })
    }

    /// Sends an archive as `docker load` does; the messages say how it goes.
    pub async fn load(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Loading, DaemonError> {
        const ATTEMPT: &str = "load an image";
        let path = "/images/load?quiet=0";
        let body = http::stream(archive);
        // The engine answers once it has read the archive, which has its own patience.
        let sent = self.http.post(path, Some("application/x-tar"), body).await;
        let answer = sent.map_err(|lost| self.lost(ATTEMPT, lost))?;
        Ok(Loading {
            daemon: self.clone(),
            answer: self.accepted(ATTEMPT, answer).await?,
            pending: BytesMut::new(),
            ended: false,
        })
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
            let answer = self.http.get(path).await;
            let answer = answer.map_err(|lost| self.lost(attempt, lost))?;
            if answer.response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let mut answer = self.accepted(attempt, answer).await?;
            let mut bytes = BytesMut::new();
            while let Some(piece) = answer
                .piece()
                .await
                .map_err(|lost| self.lost(attempt, lost))?
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
            self.http.keep(answer);
            Ok(Some(bytes.freeze()))
        };
        let patience = ANSWER_PATIENCE + self.http.dial().patience();
        match tokio::time::timeout(patience, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(self.silent(attempt, patience)),
        }
    }

    /// Passes on an answer that is none of a refusal.
    async fn accepted(&self, attempt: &str, mut answer: Answer) -> Result<Answer, DaemonError> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let mut bytes = BytesMut::new();
        let reading = async {
            while let Ok(Some(piece)) = answer.piece().await {
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
            at: self.shown.clone(),
            status: status.as_u16(),
            message: message.chars().take(500).collect(),
        })
    }

    fn lost(&self, attempt: &str, lost: Lost) -> DaemonError {
        DaemonError::Lost {
            attempt: attempt.to_owned(),
            at: self.shown.clone(),
            unconnected: lost.unconnected,
            cause: lost.cause,
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
    daemon: Daemon,
    answer: Answer,
}

impl Saved {
    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DaemonError> {
        match tokio::time::timeout(IDLE_PATIENCE, self.answer.piece()).await {
            Ok(piece) => piece.map_err(|lost| self.daemon.lost(&self.attempt, lost)),
            Err(_) => Err(self.daemon.silent(&self.attempt, IDLE_PATIENCE)),
        }
    }
}

/// What an engine says while it loads an archive.
#[derive(Debug)]
pub struct Loading {
    daemon: Daemon,
    answer: Answer,
    pending: BytesMut,
    ended: bool,
}

impl Loading {
    /// The next message; none at the end. What is no message is passed over.
    pub async fn next(&mut self) -> Result<Option<Message>, DaemonError> {
        const ATTEMPT: &str = "load an image";
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
                    attempt: ATTEMPT.to_owned(),
                    at: self.daemon.shown.clone(),
                    limit: MESSAGE_LIMIT_BYTES,
                });
            }
            match tokio::time::timeout(LOAD_PATIENCE, self.answer.piece()).await {
                Ok(Ok(Some(piece))) => self.pending.extend_from_slice(&piece),
                Ok(Ok(None)) => self.ended = true,
                Ok(Err(lost)) => return Err(self.daemon.lost(ATTEMPT, lost)),
                Err(_) => return Err(self.daemon.silent(ATTEMPT, LOAD_PATIENCE)),
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
