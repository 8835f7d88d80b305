//! Ways to a docker engine: a socket, the network with TLS or without, and ssh.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::DaemonError;
use super::address::Address;
use super::ssh::{self, Ended};
use crate::caller::Caller;
use crate::registry::client_tls;

/// Whoever does not take a connection for so long is not there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A connection, whatever it goes through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, and what can be told of its other end once it is lost.
pub(super) struct Dialled {
    pub(super) stream: Box<dyn Stream>,
    pub(super) ended: Option<Ended>,
}

/// Makes connections to one engine.
#[derive(Clone)]
pub(super) struct Dial {
    address: Address,
    caller: Arc<dyn Caller>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dial {
    pub(super) fn new(address: &Address, caller: Arc<dyn Caller>) -> Result<Dial, DaemonError> {
        let tls = match address {
            Address::Tcp {
                host,
                tls: Some(tls),
            } => {
                let refused = |reason: String| DaemonError::Tls {
                    at: address.to_string(),
                    reason,
                };
                let config = client_tls(tls).map_err(|error| refused(error.to_string()))?;
                let name = host
                    .rsplit_once(':')
                    .map_or(host.as_str(), |(name, _)| name);
                let name = name.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|error| refused(error.to_string()))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            _ => None,
        };
        Ok(Dial {
            address: address.clone(),
            caller,
            tls,
        })
    }

    /// What the engine is called in requests.
    pub(super) fn host(&self) -> &str {
        match &self.address {
            Address::Tcp { host, .. } => host,
            Address::Unix(_) | Address::Ssh(_) => "docker",
        }
    }

    /// How much longer than others it may take to answer the first time.
    pub(super) fn patience(&self) -> Duration {
        match self.address {
            Address::Ssh(_) => ssh::CONNECT_PATIENCE,
            Address::Unix(_) | Address::Tcp { .. } => Duration::ZERO,
        }
    }

    pub(super) async fn dial(&self) -> io::Result<Dialled> {
        let connecting = async {
            let stream: Box<dyn Stream> = match &self.address {
                Address::Ssh(target) => return ssh::dial(target, &*self.caller),
                Address::Unix(path) => {
                    let stream: UnixStream = self.caller.connect(path).await?;
                    Box::new(stream)
                }
                Address::Tcp { host, .. } => {
                    let stream = TcpStream::connect(host).await?;
                    stream.set_nodelay(true)?;
                    match &self.tls {
                        None => Box::new(stream),
                        Some((connector, name)) => {
                            Box::new(connector.connect(name.clone(), stream).await.map_err(tls)?)
                        }
                    }
                }
            };
            Ok(Dialled {
                stream,
                ended: None,
            })
        };
        match tokio::time::timeout(CONNECT_PATIENCE, connecting).await {
            Ok(dialled) => dialled,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The words of a handshake, which say nothing of whom they come from.
fn tls(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}"))
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
