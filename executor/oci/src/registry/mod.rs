//! The registry protocol (OCI distribution-spec 1.1): pull, push, and who may.
//!
//! ```no_run
//! # async fn pull() -> Result<(), Box<dyn std::error::Error>> {
//! use futures_util::TryStreamExt as _;
//! use kiln_oci::registry::{Client, Overrides, Settings};
//! use kiln_oci::{platform::Platform, reference::Reference};
//!
//! let client = Client::new(Settings::load(&Overrides::default())?.config());
//! let reference = Reference::parse("alpine:3.20")?;
//! let image = client.image(&reference, &Platform::host()).await?;
//! for layer in &image.layers {
//!     let mut pieces = client.blob(&reference, layer);
//!     while let Some(piece) = pieces.try_next().await? {
//!         println!("{} bytes", piece.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod auth;
mod challenge;
mod challenges;
mod clients;
mod config;
mod credentials;
mod endpoint;
mod error;
mod login;
mod mirrors;
mod pull;
mod push;
mod referrers;
pub(crate) mod retry;
mod settings;
mod tags;
mod tls;
pub(crate) mod transport;
mod verifier;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

pub use challenges::{Asks, Challenges, Forgetful};
pub use config::{ClientCertificate, Config, HostTls, Mirror, RetryPolicy};
pub use credentials::{
    Accounts, Anonymous, Credential, Credentials, CredentialsError, DockerConfig, Fixed, Kept,
};
pub use error::{About, Attempt, Cause, Error, InVain};
pub use login::{LoggedIn, registry_name};
pub use pull::BlobStream;
pub use push::{BlobSource, PushOptions, Pushed, PutManifest, pieces};
pub use settings::{ConfigError, Given, HostSettings, Origin, Overrides, Settings};
pub(crate) use tls::client_tls;

use crate::digest::Sha256Digest;
use crate::document::{Descriptor, ImageConfig, Root};
use crate::reference::Reference;
use endpoint::Endpoint;
use transport::Transport;

/// A registry client; clones share connections, tokens and what was learnt about hosts.
///
/// Making one costs nothing: certificates are read and connections made when first needed.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Transport,
    /// Mirrors that served wrong content.
    distrusted: Mutex<HashSet<String>>,
    /// Mirrors that failed at something.
    failing: Mutex<HashSet<String>>,
}

/// What a reference means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of the manifest or index.
    pub digest: Sha256Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size.
    pub size: u64,
}

/// A manifest or index with the very bytes that its digest is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledManifest {
    /// The digest of `bytes`, verified.
    pub digest: Sha256Digest,
    /// Its media type.
    pub media_type: String,
    /// The bytes as they were served; store and push these.
    pub bytes: Bytes,
    /// The bytes, parsed.
    pub root: Root,
}

/// An image for one platform, without its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What the reference means: an index, or the same as `manifest`.
    pub root: PulledManifest,
    /// The manifest for the platform.
    pub manifest: PulledManifest,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The config's digest (the image's id) and size.
    pub config_descriptor: Descriptor,
    /// The config as it was served.
    pub config_bytes: Bytes,
    /// The config, parsed.
    pub config: ImageConfig,
}

impl PulledManifest {
    /// Describes the document.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(
            self.media_type.clone(),
            self.digest,
            self.bytes.len() as u64,
        )
    }
}

impl Client {
    /// Makes a client with these settings.
    pub fn new(config: Config) -> Self {
        let transport = Transport::new(config);
        Self {
            shared: Arc::new(Shared {
                transport,
                distrusted: Mutex::default(),
                failing: Mutex::default(),
            }),
        }
    }

    /// Returns what went wrong without an error, in words, each once: credentials that could not be read where nobody's
    /// were enough, and mirrors that failed or served wrong content.
    pub fn doubts(&self) -> Vec<String> {
        self.transport().doubts()
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.shared.transport
    }

    fn is_distrusted(&self, endpoint: &Endpoint) -> bool {
        self.shared
            .distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&endpoint.key())
    }

    fn distrust(&self, endpoint: &Endpoint) {
        self.shared
            .distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(endpoint.key());
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}

fn attempt(action: impl Into<Box<str>>, reference: &Reference, host: &str) -> Attempt {
    Attempt {
        action: action.into(),
        image: reference.familiar().into(),
        host: host.into(),
        about: About::Name,
        mirrors: None,
    }
}

/// As [`attempt`], where something is sent.
fn sending(action: impl Into<Box<str>>, reference: &Reference, host: &str) -> Attempt {
    Attempt {
        about: About::Sending,
        ..attempt(action, reference, host)
    }
}
