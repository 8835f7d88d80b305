//! Requests to one engine over connections of its own, which are used again.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::dial::{Dial, Dialled};
use super::ssh::Ended;

/// What a request sends.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Connections that wait for the next request; more than these are closed.
const MOST_IDLE: usize = 8;

/// Connections to an engine. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Http {
    dial: Dial,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// A connection for one request at a time.
struct Connection {
    sender: SendRequest<Body>,
    ended: Option<Ended>,
}

/// An answer whose body is still to come, over a connection that goes with it.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    connection: Connection,
}

/// How a connection failed.
#[derive(Debug)]
pub(super) struct Lost {
    /// It was never made.
    pub(super) unconnected: bool,
    pub(super) cause: Box<dyn StdError + Send + Sync>,
}

pub(super) fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
}

impl Http {
    pub(super) fn new(dial: Dial) -> Http {
        Http {
            dial,
            idle: Arc::default(),
        }
    }

    pub(super) fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Asks for a document; a connection that was lost while nobody used it is replaced by a new one.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Lost> {
        while let Some(mut connection) = self.take() {
            if connection.sender.ready().await.is_err() {
                continue;
            }
            let request = self.request(Method::GET, path, None, nothing())?;
            if let Ok(response) = connection.sender.send_request(request).await {
                return Ok(Answer {
                    response,
                    connection,
                });
            }
        }
        let request = self.request(Method::GET, path, None, nothing())?;
        self.connect().await?.send(request).await
    }

    /// Sends something, once.
    pub(super) async fn post(
        &self,
        path: &str,
        kind: Option<&'static str>,
        body: Body,
    ) -> Result<Answer, Lost> {
        let request = self.request(Method::POST, path, kind, body)?;
        self.connect().await?.send(request).await
    }

    /// Keeps the connection of an answer that was read to its end.
    pub(super) fn keep(&self, answer: Answer) {
        let Answer {
            response,
            connection,
        } = answer;
        drop(response);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE && !connection.sender.is_closed() {
            idle.push(connection);
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        kind: Option<&'static str>,
        body: Body,
    ) -> Result<Request<Body>, Lost> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.dial.host());
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        request.body(body).map_err(|error| Lost {
            unconnected: false,
            cause: error.into(),
        })
    }

    async fn connect(&self) -> Result<Connection, Lost> {
        let unconnected = |error: io::Error| Lost {
            // What answered, though not as it should, is there.
            unconnected: error.kind() != io::ErrorKind::InvalidData,
            cause: error.into(),
        };
        let Dialled { stream, ended } = self.dial.dial().await.map_err(unconnected)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unconnected(io::Error::other(error)))?;
        // How it ends is told to whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, ended })
    }
}

impl Connection {
    async fn send(mut self, request: Request<Body>) -> Result<Answer, Lost> {
        match self.sender.send_request(request).await {
            Ok(response) => Ok(Answer {
                response,
                connection: self,
            }),
            Err(error) => Err(self.lost(error).await),
        }
    }

    /// Why it failed: what it went through may know better.
    async fn lost(self, error: hyper::Error) -> Lost {
        let why = match self.ended {
            Some(ended) => ended.why().await,
            None => None,
        };
        Lost {
            unconnected: false,
            cause: match why {
                Some(words) => words.into(),
                None => error.into(),
            },
        }
    }
}

impl Answer {
    /// The next piece of the body; none at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Lost> {
        loop {
            match self.response.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) => {
                    return Err(Lost {
                        unconnected: false,
                        cause: error.into(),
                    });
                }
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({})", self.response.status())
    }
}
