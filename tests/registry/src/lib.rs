//! A registry in the test's own process, on a loopback port, that can be told to misbehave.
//!
//! It speaks enough of the distribution specification to be pulled from and pushed to, over HTTP or
//! over TLS with an authority of its own, with passwords or tokens if wanted. Faults are queued:
//! each is used by the first request that it fits. Every request is logged. It runs on threads of
//! its own, so tests without an async runtime can use it, and ends when it is dropped.
//!
//! ```no_run
//! use kiln_test_registry::{Auth, Fault, Registry};
//!
//! let registry = Registry::builder().auth(Auth::Token { user: None }).start();
//! let digest = registry.add_blob("library/x", b"layer");
//! registry.inject(Fault::CutAfter { path: "/blobs/".into(), bytes: 2 });
//! assert!(registry.host().starts_with("127.0.0.1:"));
//! ```

#![allow(clippy::unwrap_used)] // a test's server may fail its test

mod serve;
mod state;
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

pub use state::Logged;
use state::State;
pub use tls::Authority;

/// Who may use the registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// Everybody.
    #[default]
    None,
    /// Who sends this name and password.
    Basic {
        /// The account.
        user: String,
        /// Its password.
        password: String,
    },
    /// Who has a token of the registry's own token server at `/token`.
    Token {
        /// The name and password that the token server wants, or anybody. A refresh token is taken
        /// too: it is the password.
        user: Option<(String, String)>,
    },
}

/// One misdeed, done once to the first request whose path contains `path` (and, for those about
/// answers with a body, that is a GET).
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with a status, perhaps with `Retry-After`.
    Status {
        /// A part of the path.
        path: String,
        /// The status.
        status: u16,
        /// The value of `Retry-After`.
        retry_after: Option<String>,
    },
    /// Answers with a page for browsers.
    Page {
        /// A part of the path.
        path: String,
    },
    /// Announces the whole body, sends so many bytes of it and closes the connection.
    CutAfter {
        /// A part of the path.
        path: String,
        /// How many bytes are sent.
        bytes: usize,
    },
    /// Closes the connection without an answer.
    Drop {
        /// A part of the path.
        path: String,
    },
    /// Sends a body of the right length whose first byte is wrong.
    WrongBytes {
        /// A part of the path.
        path: String,
    },
    /// Sends so many bytes and then nothing, without closing.
    Stall {
        /// A part of the path.
        path: String,
        /// How many bytes are sent.
        bytes: usize,
    },
    /// Sends the body in pieces of one byte with a pause before each.
    Slow {
        /// A part of the path.
        path: String,
        /// The pause.
        pause: Duration,
    },
    /// Sends nothing of the body until as many requests wait here as the barrier is for.
    Together {
        /// A part of the path.
        path: String,
        /// Where they meet.
        barrier: Arc<tokio::sync::Barrier>,
    },
    /// Answers a GET with a redirect to `to` and the request's own path.
    Redirect {
        /// A part of the path.
        path: String,
        /// Scheme and authority: `http://127.0.0.1:1234`.
        to: String,
    },
    /// Reads so many bytes of a request's body and closes the connection; what was read of a chunk is kept,
    /// and of a whole upload with [`Builder::keep_cut_uploads`].
    CutUpload {
        /// A part of the path.
        path: String,
        /// How many bytes are read.
        bytes: usize,
    },
    /// Reads so many bytes of a request's body and then nothing, without closing.
    StallUpload {
        /// A part of the path.
        path: String,
        /// How many bytes are read.
        bytes: usize,
    },
    /// Reads a request's body with a pause before each piece.
    SlowUpload {
        /// A part of the path.
        path: String,
        /// The pause.
        pause: Duration,
    },
    /// Does nothing with a request's body until as many requests wait here as the barrier is for.
    TogetherUpload {
        /// A part of the path.
        path: String,
        /// Where they meet.
        barrier: Arc<tokio::sync::Barrier>,
    },
    /// Takes the first byte of a request's body for another one.
    AlterUpload {
        /// A part of the path.
        path: String,
    },
    /// Forgets all uploads that were opened, then goes on as usual.
    ForgetUploads {
        /// A part of the path.
        path: String,
    },
    /// Says of a part of a body that it begins here.
    WrongRange {
        /// A part of the path.
        path: String,
        /// The position that it says.
        first: usize,
    },
    /// Names another digest than the one of what it answers about.
    WrongDigest {
        /// A part of the path.
        path: String,
    },
    /// Forgets all tokens that were given out, then goes on as usual.
    ForgetTokens {
        /// A part of the path.
        path: String,
    },
}

impl Fault {
    fn path(&self) -> &str {
        match self {
            Self::Status { path, .. }
            | Self::CutAfter { path, .. }
            | Self::Drop { path }
            | Self::WrongBytes { path }
            | Self::Stall { path, .. }
            | Self::Slow { path, .. }
            | Self::Together { path, .. }
            | Self::Redirect { path, .. }
            | Self::CutUpload { path, .. }
            | Self::StallUpload { path, .. }
            | Self::SlowUpload { path, .. }
            | Self::TogetherUpload { path, .. }
            | Self::AlterUpload { path }
            | Self::ForgetUploads { path }
            | Self::WrongRange { path, .. }
            | Self::WrongDigest { path }
            | Self::Page { path }
            | Self::ForgetTokens { path } => path,
        }
    }
}

/// What becomes of a blob that another repository has and that is asked for here.
#[derive(Debug, Clone, Copy, Default)]
enum Mounts {
    #[default]
    Done,
    Refused,
    Claimed,
}

/// What a registry will be.
#[derive(Debug, Default)]
pub struct Builder {
    auth: Auth,
    authority: Option<Authority>,
    clients: Option<Authority>,
    refresh_tokens: bool,
    ignore_ranges: bool,
    mounts: Mounts,
    hide_digests: bool,
    body_limit: Option<usize>,
    keep_cut_uploads: bool,
    chunked_only: bool,
    least_chunk: Option<usize>,
    uploads_at: Option<String>,
    any_upload: bool,
    range: Option<String>,
    more_scope: Option<String>,
    token_seconds: Option<u64>,
    referrers: bool,
}

/// A running registry.
pub struct Registry {
    address: SocketAddr,
    authority: Option<Authority>,
    state: Arc<Mutex<State>>,
    /// Dropped last, which ends every connection.
    runtime: Option<Runtime>,
}

impl Builder {
    /// Wants proof of who asks.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Speaks TLS with a certificate for `localhost` and `127.0.0.1` that this authority signs.
    #[must_use]
    pub fn tls(mut self, authority: &Authority) -> Self {
        self.authority = Some(authority.clone());
        self
    }

    /// Wants, with TLS, a client certificate that this authority signed.
    #[must_use]
    pub fn client_certificates(mut self, authority: &Authority) -> Self {
        self.clients = Some(authority.clone());
        self
    }

    /// Gives a refresh token to who asks the token server for one.
    #[must_use]
    pub fn refresh_tokens(mut self) -> Self {
        self.refresh_tokens = true;
        self
    }

    /// Answers a request for a range with the whole.
    #[must_use]
    pub fn ignore_ranges(mut self) -> Self {
        self.ignore_ranges = true;
        self
    }

    /// Opens an upload where a mount is asked for.
    #[must_use]
    pub fn refuse_mounts(mut self) -> Self {
        self.mounts = Mounts::Refused;
        self
    }

    /// Answers that a blob was mounted, and keeps nothing.
    #[must_use]
    pub fn only_claim_mounts(mut self) -> Self {
        self.mounts = Mounts::Claimed;
        self
    }

    /// Leaves `Docker-Content-Digest` out.
    #[must_use]
    pub fn hide_digests(mut self) -> Self {
        self.hide_digests = true;
        self
    }

    /// Answers larger request bodies with 413.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = Some(bytes);
        self
    }

    /// Keeps what came of a blob that was sent at once when its connection was cut.
    #[must_use]
    pub fn keep_cut_uploads(mut self) -> Self {
        self.keep_cut_uploads = true;
        self
    }

    /// Takes blobs in chunks only.
    #[must_use]
    pub fn chunked_only(mut self) -> Self {
        self.chunked_only = true;
        self
    }

    /// Wants no chunk but the last to be smaller, and says so.
    #[must_use]
    pub fn least_chunk(mut self, bytes: usize) -> Self {
        self.least_chunk = Some(bytes);
        self
    }

    /// Sends uploads to a place of another scheme and authority, `http://127.0.0.1:1234`.
    #[must_use]
    pub fn uploads_at(mut self, place: &str) -> Self {
        self.uploads_at = Some(place.to_owned());
        self
    }

    /// Takes uploads that were opened elsewhere.
    #[must_use]
    pub fn any_upload(mut self) -> Self {
        self.any_upload = true;
        self
    }

    /// Says of every upload that it holds this range, such as `0-0`, whatever it holds.
    #[must_use]
    pub fn lying_range(mut self, range: &str) -> Self {
        self.range = Some(range.to_owned());
        self
    }

    /// Wants every token to be good for this too, such as `repository:other:pull`.
    #[must_use]
    pub fn more_scope(mut self, scope: &str) -> Self {
        self.more_scope = Some(scope.to_owned());
        self
    }

    /// Lets tokens be good for so long, instead of five minutes; it takes them for longer.
    #[must_use]
    pub fn token_seconds(mut self, seconds: u64) -> Self {
        self.token_seconds = Some(seconds);
        self
    }

    /// Has the referrers API.
    #[must_use]
    pub fn referrers(mut self) -> Self {
        self.referrers = true;
        self
    }

    /// Starts it on a free port of 127.0.0.1.
    pub fn start(self) -> Registry {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // Bound here and not on the runtime, so that async tests can start it too.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let clients = self.clients.as_ref();
        let acceptor = self.authority.as_ref().map(|own| own.acceptor(clients));
        let authority = self.authority.clone();
        let state = Arc::new(Mutex::new(State::new(self, address)));
        runtime.spawn(serve::accept(listener, acceptor, Arc::clone(&state)));
        Registry {
            address,
            authority,
            state,
            runtime: Some(runtime),
        }
    }
}

impl Registry {
    /// Starts an open registry over plain HTTP.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Begins to describe a registry.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns its name in references: `127.0.0.1:1234`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns its URL without a slash at the end.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Queues a fault.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Returns the faults that no request has met yet.
    pub fn pending_faults(&self) -> Vec<Fault> {
        self.state().faults.clone()
    }

    /// Puts a blob into a repository and returns its digest, `sha256:..`.
    pub fn add_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.state()
            .put_blob(repository, &digest, bytes.to_vec().into());
        digest
    }

    /// Puts a manifest or index into a repository, under a tag or by digest alone, and returns its
    /// digest.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let digest = digest_of(bytes);
        let mut state = self.state();
        for name in tag.into_iter().chain([digest.as_str()]) {
            state.put_manifest(repository, name, media_type, bytes.to_vec().into());
        }
        digest
    }

    /// Puts an OCI image of these layers (gzip) with this config under a tag; returns the manifest's
    /// digest.
    pub fn add_image(
        &self,
        repository: &str,
        tag: &str,
        config: &[u8],
        layers: &[&[u8]],
    ) -> String {
        let describe = |kind: &str, bytes: &[u8]| {
            let digest = self.add_blob(repository, bytes);
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()
            })
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| describe("layer.v1.tar+gzip", layer))
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "config": describe("config.v1+json", config), "layers": layers
        });
        self.add_manifest(
            repository,
            Some(tag),
            media_type,
            manifest.to_string().as_bytes(),
        )
    }

    /// Returns a blob of a repository.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        self.state()
            .blob(repository, digest)
            .map(|bytes| bytes.to_vec())
    }

    /// Lets a repository lose a blob, as a sweep of the registry does.
    pub fn forget_blob(&self, repository: &str, digest: &str) {
        self.state().forget_blob(repository, digest);
    }

    /// Lets a tag mean nothing.
    pub fn forget_tag(&self, repository: &str, tag: &str) {
        self.state().forget_tag(repository, tag);
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        self.state().log.clear();
    }

    /// Returns the media type and the bytes of what a tag or digest of a repository names.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Vec<u8>)> {
        self.state()
            .manifest(repository, name)
            .map(|(kind, bytes)| (kind, bytes.to_vec()))
    }

    /// The list of what refers to a manifest, as the API gives it.
    pub fn referrers(&self, repository: &str, digest: &str) -> serde_json::Value {
        self.state().referring(repository, digest)
    }

    /// Returns how many uploads are open.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Returns the requests so far.
    pub fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// Returns how many requests of this method had a path that contains `path`.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.log()
            .iter()
            .filter(|request| request.method == method && request.path.contains(path))
            .count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Returns `sha256:` and the hex digits of the bytes' hash.
pub fn digest_of(bytes: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
