//! Pushing: blobs that are not there yet, then manifests.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use url::Url;

use super::auth::Scopes;
use super::endpoint::Endpoint;
use super::error::{Attempt, Error};
use super::retry::Backoff;
use super::transport::{Activity, Call, Target};
use super::{Client, sending};
use crate::digest::{Sha256Digest, VerifyError};
use crate::document::Descriptor;
use crate::reference::Reference;

/// Whoever answers so is a proxy or the page of a network that wants somebody to log in.
const NO_REGISTRY: &str =
    "this is no registry, but perhaps a proxy or the page where a network wants a log-in";

/// How much of a file is in memory at once.
const PIECE_BYTES: usize = 256 << 10;

/// How much a chunk of an upload holds when the registry cannot take all at once.
const CHUNK_BYTES: u64 = 16 << 20;

/// The largest chunk that a registry can insist on; beyond it chunks are as large as this.
const MOST_CHUNK_BYTES: u64 = 1 << 30;

/// How long a registry is waited for that is to forget an upload.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Content that can be read again from anywhere, since an upload may have to be taken up.
pub trait BlobSource: Send + Sync {
    /// Returns the content from `offset` to its end; it is opened when first polled.
    fn read_from(&self, offset: u64) -> BoxStream<'static, io::Result<Bytes>>;
}

impl BlobSource for Bytes {
    fn read_from(&self, offset: u64) -> BoxStream<'static, io::Result<Bytes>> {
        let rest = usize::try_from(offset)
            .ok()
            .filter(|&at| at < self.len())
            .map(|at| self.slice(at..));
        stream::iter(rest.map(Ok)).boxed()
    }
}

/// The file at this path.
impl BlobSource for PathBuf {
    fn read_from(&self, offset: u64) -> BoxStream<'static, io::Result<Bytes>> {
        let path = self.clone();
        pieces(async move { tokio::fs::File::open(&path).await }, offset)
    }
}

/// Reads a file from `offset` to its end, in pieces; `open` is polled with the first.
pub fn pieces(
    open: impl Future<Output = io::Result<tokio::fs::File>> + Send + 'static,
    offset: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let open = async move {
        let mut file = open.await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        let pieces = stream::try_unfold(file, |mut file| async move {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            (&mut file)
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut piece)
                .await?;
            Ok::<_, io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
        });
        Ok::<_, io::Error>(pieces)
    };
    stream::once(open).try_flatten().boxed()
}

/// How a blob is pushed.
#[derive(Clone, Default)]
pub struct PushOptions {
    /// Repositories that may have the blob; those of the same registry are asked to share it.
    pub mount_from: Vec<Reference>,
    /// Sends in chunks of so many bytes from the start; by default all at once, and in chunks only
    /// when that failed.
    pub chunk_bytes: Option<u64>,
    /// Is told how many bytes of the blob were sent so far; may go back after a failure.
    pub progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// Another repository of the registry shared it.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// What a registry made of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutManifest {
    /// Its digest.
    pub digest: Sha256Digest,
    /// The registry lists it as a referrer of its subject (distribution-spec 1.1, `OCI-Subject`).
    pub lists_subject: bool,
}

/// What asking for a blob of another repository came to.
enum Mount {
    /// It is here now.
    Done,
    /// The registry opened an upload instead.
    Opened(Opened),
    /// Neither.
    Refused,
}

/// An upload that can be sent to.
struct Opened {
    location: Url,
    /// No chunk but the last may be smaller, if the registry says so.
    least_chunk_bytes: u64,
    /// How much the registry has of it.
    held: u64,
    /// How much it can have of it, since so much was sent.
    sent: u64,
    /// It was gone on with after a failure.
    taken_up: bool,
}

/// The tries of one blob, over all its uploads.
struct Tries {
    backoff: Backoff,
    /// How much of it a registry has taken at most.
    furthest: u64,
}

impl Tries {
    /// Renews the tries, if this is new ground: a registry that forgets could keep them going for ever else.
    fn reached(&mut self, offset: u64) {
        if offset > self.furthest {
            self.furthest = offset;
            self.backoff.reset();
        }
    }
}

/// An upload's fixed parts.
struct Upload<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    attempt: Attempt,
    reference: &'a Reference,
    scopes: Scopes,
    digest: Sha256Digest,
    size: u64,
    source: &'a dyn BlobSource,
    options: &'a PushOptions,
}

impl Client {
    /// Returns the size of a blob that the repository has, or `None`.
    pub async fn has_blob(
        &self,
        reference: &Reference,
        digest: &Sha256Digest,
    ) -> Result<Option<u64>, Error> {
        let endpoint = Endpoint::origin(self.transport().config(), reference.domain());
        let attempt = blob_attempt("look for", digest, reference, &endpoint);
        let path = format!("{}/blobs/{digest}", reference.repository());
        let scopes = push_scope(reference);
        let call = Call::to_path(&attempt, &endpoint, &scopes, &path);
        match self
            .transport()
            .send(&call, |client, url| client.head(url))
            .await
        {
            Ok(response) => {
                check_digest(&attempt, &response, *digest)?;
                let size = response
                    .headers()
                    .get(CONTENT_LENGTH)
                    .and_then(|size| size.to_str().ok()?.parse().ok());
                Ok(Some(size.unwrap_or_default()))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the repository has a blob: by finding it there, by mounting it, or by sending it.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
        options: &PushOptions,
    ) -> Result<Pushed, Error> {
        let endpoint = Endpoint::origin(self.transport().config(), reference.domain());
        let there = self.has_blob(reference, &descriptor.digest).await?;
        if let Some(size) = there.filter(|&size| !may_be_of(size, descriptor.size)) {
            return Err(Error::Protocol {
                attempt: blob_attempt("look for", &descriptor.digest, reference, &endpoint),
                what: format!(
                    "it says that the blob has {size} bytes, and it has {}, so {NO_REGISTRY}",
                    descriptor.size
                ),
            });
        }
        if there.is_some() {
            return Ok(Pushed::Present);
        }
        let upload = Upload {
            client: self,
            attempt: blob_attempt("push", &descriptor.digest, reference, &endpoint),
            endpoint,
            reference,
            scopes: push_scope(reference),
            digest: descriptor.digest,
            size: descriptor.size,
            source,
            options,
        };
        let same_registry = |from: &&Reference| {
            from.domain() == reference.domain() && from.repository() != reference.repository()
        };
        let mut opened = None;
        for from in options.mount_from.iter().filter(same_registry) {
            // A registry that will not mount opens an upload or refuses; either way it is sent.
            match upload.mount(from.repository()).await {
                Ok(Mount::Done) => return Ok(Pushed::Mounted),
                Ok(Mount::Opened(upload)) => {
                    opened = Some(upload);
                    break;
                }
                Ok(Mount::Refused) | Err(_) => {}
            }
        }
        upload.run(opened).await.map(|()| Pushed::Uploaded)
    }

    /// Asks which manifest the registry itself has under a tag or digest; `None` if it has none or does
    /// not say.
    ///
    /// With the proofs of a push, so that what follows needs no others.
    pub async fn has_manifest(&self, reference: &Reference) -> Result<Option<Sha256Digest>, Error> {
        let endpoint = Endpoint::origin(self.transport().config(), reference.domain());
        let attempt = sending("push", reference, &endpoint.authority);
        let scopes = push_scope(reference);
        let head = self.head_manifest(&attempt, &endpoint, &scopes, reference);
        match head.await {
            Ok(response) => Ok(response
                .headers()
                .get("docker-content-digest")
                .and_then(|digest| digest.to_str().ok()?.parse().ok())),
            // Some registries deny knowing repositories that a push would make.
            Err(Error::NotFound { .. } | Error::Denied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest or index under the reference's tag, or under its digest alone if it has no tag.
    ///
    /// Everything that it names must be there.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<PutManifest, Error> {
        let endpoint = Endpoint::origin(self.transport().config(), reference.domain());
        let attempt = sending("push the manifest of", reference, &endpoint.authority);
        let digest = Sha256Digest::of(&bytes);
        if let Some(&expected) = reference.digest().filter(|&&wanted| wanted != digest) {
            return Err(Error::Content {
                attempt,
                source: Box::new(VerifyError::Digest {
                    expected,
                    actual: digest,
                }),
            });
        }
        let name = reference
            .tag()
            .map_or_else(|| digest.to_string(), str::to_owned);
        let path = format!("{}/manifests/{name}", reference.repository());
        let scopes = push_scope(reference);
        let call = Call::to_path(&attempt, &endpoint, &scopes, &path);
        let make = |client: &reqwest::Client, url| {
            client
                .put(url)
                .header(CONTENT_TYPE, media_type)
                .body(bytes.clone())
        };
        let response = self.transport().send(&call, make).await?;
        if !check_digest(&attempt, &response, digest)? {
            check_taken(&attempt, &response)?;
        }
        Ok(PutManifest {
            digest,
            lists_subject: response.headers().contains_key("oci-subject"),
        })
    }
}

/// Errors if a registry says that it has something else; tells whether it says what it has.
fn check_digest(
    attempt: &Attempt,
    response: &Response,
    expected: Sha256Digest,
) -> Result<bool, Error> {
    let said = response.headers().get("docker-content-digest");
    let said = said.and_then(|digest| digest.to_str().ok()?.parse().ok());
    match said {
        Some(actual) if actual != expected => Err(Error::Content {
            attempt: attempt.clone(),
            source: Box::new(VerifyError::Digest { expected, actual }),
        }),
        said => Ok(said.is_some()),
    }
}

/// Tells whether what a registry says of a blob's size fits: some say 0, and do not know.
fn may_be_of(said: u64, size: u64) -> bool {
    said == 0 || said == size
}

/// An attempt with a blob, which is its repository's and no tag's.
fn blob_attempt(
    action: &str,
    digest: &Sha256Digest,
    reference: &Reference,
    endpoint: &Endpoint,
) -> Attempt {
    let action = format!("{action} blob {digest} of");
    Attempt {
        image: reference.familiar_name().into(),
        ..sending(action, reference, &endpoint.authority)
    }
}

/// Errors unless an answer says that what was sent is kept: 200 is what everything is answered with by
/// those who keep nothing.
fn check_taken(attempt: &Attempt, response: &Response) -> Result<(), Error> {
    match response.status() {
        StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
        status => Err(Error::Protocol {
            attempt: attempt.clone(),
            what: format!(
                "it answered {} where 201 says that something is kept, so {NO_REGISTRY}",
                status.as_u16()
            ),
        }),
    }
}

fn push_scope(reference: &Reference) -> Scopes {
    vec![format!("repository:{}:pull,push", reference.repository())]
}

impl Upload<'_> {
    /// Sends the blob, beginning anew or going on where the last try stopped.
    async fn run(&self, opened: Option<Opened>) -> Result<(), Error> {
        let mut tries = Tries {
            backoff: Backoff::new(&self.client.transport().config().retry),
            furthest: 0,
        };
        let mut chunk_bytes = self.options.chunk_bytes;
        let mut opened = opened;
        loop {
            let mut upload = match opened.take() {
                Some(upload) => upload,
                None => self.begin().await?,
            };
            let sent = match chunk_bytes {
                None => self.send_whole(&mut upload).await,
                Some(bytes) => {
                    let bytes = bytes.max(upload.least_chunk_bytes).max(1);
                    self.send_chunks(&mut upload, bytes, &mut tries).await
                }
            };
            let Err(error) = sent else {
                return Ok(());
            };
            let another = self.another_way(&error, &upload, chunk_bytes.is_none());
            // Whatever is said against a chunk, the registry may be asked which one it wants.
            let chunk = upload.held < self.size && chunk_bytes.is_some();
            let refused = chunk && matches!(error, Error::Status { .. });
            let delay = match is_passing(&error) || refused || another {
                true => tries.backoff.next(error.retry_after()),
                false => None,
            };
            let Some(delay) = delay else {
                self.give_up(&upload).await;
                return Err(error.after(tries.backoff.tries()));
            };
            tokio::time::sleep(delay).await;
            chunk_bytes = Some(chunk_bytes.unwrap_or(CHUNK_BYTES));
            opened = match another {
                true => {
                    self.give_up(&upload).await;
                    None
                }
                false => self.take_up(upload).await,
            };
            // The answer may have been lost, and not the content.
            if opened.is_none() {
                let there = self.client.has_blob(self.reference, &self.digest).await;
                if there.is_ok_and(|size| size.is_some_and(|size| may_be_of(size, self.size))) {
                    return Ok(());
                }
            }
        }
    }

    /// Tells whether an upload is at its end, and another one, in chunks, may fare better.
    fn another_way(&self, error: &Error, upload: &Opened, whole: bool) -> bool {
        match error {
            // The registry forgot the upload.
            Error::NotFound { .. } => true,
            Error::Status { status, .. } => match status {
                // Not all at once, then.
                400 | 405 | 411 | 413 | 415 | 416 | 501 if whole => true,
                // What was left of a failed try is not what was sent.
                400 | 416 => upload.taken_up && upload.held == self.size,
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns the upload as the registry has it after a failure, or `None` if it cannot be gone on with.
    async fn take_up(&self, upload: Opened) -> Option<Opened> {
        let call = self.call(&self.scopes, Target::Url(&upload.location), true);
        let get = |client: &reqwest::Client, url| client.get(url);
        let status = match self.client.transport().send(&call, get).await {
            Ok(status) => status,
            Err(error) => {
                if !error.is_not_found() {
                    self.give_up(&upload).await;
                }
                return None;
            }
        };
        let location = match status.headers().contains_key(LOCATION) {
            true => self.location(&status).ok()?,
            false => upload.location.clone(),
        };
        let held = offset_after(&status).unwrap_or(0);
        if held > upload.sent {
            // What it holds is not ours.
            self.give_up(&upload).await;
            return None;
        }
        Some(Opened {
            location,
            held,
            taken_up: true,
            ..upload
        })
    }

    /// Lets the registry forget an upload; one that does not answer forgets it some day by itself.
    async fn give_up(&self, upload: &Opened) {
        let call = self.call(&self.scopes, Target::Url(&upload.location), false);
        let delete = |client: &reqwest::Client, url| client.delete(url);
        let asked = self.client.transport().send(&call, delete);
        let _ = tokio::time::timeout(GIVE_UP_TIMEOUT, asked).await;
    }

    /// Asks the registry to take the blob from another repository.
    async fn mount(&self, from: &str) -> Result<Mount, Error> {
        let mut scopes = self.scopes.clone();
        scopes.push(format!("repository:{from}:pull"));
        let path = format!(
            "{}/blobs/uploads/?mount={}&from={from}",
            self.reference.repository(),
            self.digest
        );
        let call = self.call(&scopes, Target::Path(&path), true);
        let make = |client: &reqwest::Client, url| client.post(url).header(CONTENT_LENGTH, 0);
        let response = self.client.transport().send(&call, make).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Mount::Done);
        }
        Ok(self.opened(&response).map_or(Mount::Refused, Mount::Opened))
    }

    /// Opens an upload.
    async fn begin(&self) -> Result<Opened, Error> {
        let path = format!("{}/blobs/uploads/", self.reference.repository());
        let call = self.call(&self.scopes, Target::Path(&path), true);
        let make = |client: &reqwest::Client, url| client.post(url).header(CONTENT_LENGTH, 0);
        let response = self.client.transport().send(&call, make).await?;
        self.opened(&response)
    }

    fn opened(&self, response: &Response) -> Result<Opened, Error> {
        let least = response.headers().get("oci-chunk-min-length");
        let least = least.and_then(|bytes| bytes.to_str().ok()?.trim().parse().ok());
        Ok(Opened {
            location: self.location(response)?,
            least_chunk_bytes: least.unwrap_or(0).min(MOST_CHUNK_BYTES),
            held: 0,
            sent: 0,
            taken_up: false,
        })
    }

    async fn send_whole(&self, upload: &mut Opened) -> Result<(), Error> {
        upload.sent = self.size;
        let url = self.closing(upload.location.clone());
        let response = self
            .send_body(reqwest::Method::PUT, &url, 0, self.size)
            .await?;
        self.check_closed(&url, &response)
    }

    /// Errors unless the blob is kept now; a store elsewhere that the registry leads to has its own ways.
    fn check_closed(&self, url: &Url, response: &Response) -> Result<(), Error> {
        if !self.client.transport().is_own(&self.endpoint, url) {
            return Ok(());
        }
        check_taken(&self.attempt, response)?;
        check_digest(&self.attempt, response, self.digest).map(drop)
    }

    /// Sends chunk after chunk from what the registry has on, and closes the upload.
    async fn send_chunks(
        &self,
        upload: &mut Opened,
        chunk_bytes: u64,
        tries: &mut Tries,
    ) -> Result<(), Error> {
        while upload.held < self.size {
            let offset = upload.held;
            let length = chunk_bytes.min(self.size - offset);
            upload.sent = offset + length;
            let response = self
                .send_body(reqwest::Method::PATCH, &upload.location, offset, length)
                .await?;
            if response.headers().contains_key(LOCATION) {
                upload.location = self.location(&response)?;
            }
            // It may have taken a part; it cannot have taken what was never sent.
            upload.held = offset_after(&response)
                .filter(|&held| held > offset && held <= upload.sent)
                .unwrap_or(upload.sent);
            tries.reached(upload.held);
        }
        let url = self.closing(upload.location.clone());
        let call = self.call(&self.scopes, Target::Url(&url), true);
        let make = |client: &reqwest::Client, url| client.put(url).header(CONTENT_LENGTH, 0);
        let response = self.client.transport().send(&call, make).await?;
        self.check_closed(&url, &response)
    }

    /// Sends `length` bytes from `offset`, once.
    async fn send_body(
        &self,
        method: reqwest::Method,
        url: &Url,
        offset: u64,
        length: u64,
    ) -> Result<Response, Error> {
        let call = self.call(&self.scopes, Target::Url(url), false);
        let failure: Arc<Mutex<Option<io::Error>>> = Arc::default();
        let make = |client: &reqwest::Client, url| {
            let body = Outgoing {
                left: length,
                sent: offset,
                failure: Arc::clone(&failure),
                activity: call.activity.clone(),
                progress: self.options.progress.clone(),
            };
            let request = client
                .request(method.clone(), url)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, length)
                .body(body.of(self.source.read_from(offset)));
            if method == reqwest::Method::PATCH && length > 0 {
                request.header(CONTENT_RANGE, format!("{offset}-{}", offset + length - 1))
            } else {
                request
            }
        };
        let sent = self.client.transport().send(&call, make).await;
        match failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(source) => Err(Error::Source {
                attempt: self.attempt.clone(),
                source,
            }),
            None => sent,
        }
    }

    fn call<'a>(&'a self, scopes: &'a Scopes, target: Target<'a>, again: bool) -> Call<'a> {
        Call {
            attempt: &self.attempt,
            endpoint: &self.endpoint,
            scopes,
            target,
            again,
            ranged: false,
            activity: Activity::new(),
        }
    }

    /// Returns where the upload goes on.
    fn location(&self, response: &Response) -> Result<Url, Error> {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let url = location.and_then(|location| response.url().join(location).ok());
        let protocol = |what: String| Error::Protocol {
            attempt: self.attempt.clone(),
            what,
        };
        let url = url.ok_or_else(|| {
            protocol("an upload was opened without a usable `Location`".to_owned())
        })?;
        if response.url().scheme() == "https" && url.scheme() != "https" {
            // A registry behind a proxy that ends TLS does not know better.
            let mut secure = url.clone();
            let own = secure.set_scheme("https").is_ok()
                && secure.host_str() == response.url().host_str()
                && secure.port_or_known_default() == response.url().port_or_known_default();
            return match own {
                true => Ok(secure),
                // Sending the content in the clear is no way out.
                false => Err(protocol(format!(
                    "the upload's `Location` leads from https to {}",
                    url.scheme()
                ))),
            };
        }
        Ok(url)
    }

    /// Returns the URL that closes the upload: the digest is added to what the registry gave.
    fn closing(&self, mut location: Url) -> Url {
        location
            .query_pairs_mut()
            .append_pair("digest", &self.digest.to_string());
        location
    }
}

/// Tells whether a failure may not be met again.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::RateLimited { .. } => true,
        Error::Status { status, .. } => *status == 408 || *status >= 500 && *status != 501,
        _ => false,
    }
}

/// Returns how much the registry has, from `Range: 0-99`; an empty upload says `0-0` as one byte does,
/// so that is taken for nothing.
fn offset_after(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok().filter(|_| first.trim() == "0")?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

/// The body of a request, watched as it goes.
struct Outgoing {
    left: u64,
    sent: u64,
    failure: Arc<Mutex<Option<io::Error>>>,
    activity: Activity,
    progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

impl Outgoing {
    /// Cuts the content at `left` bytes; a failure of the source is kept, since the HTTP library
    /// would hide it.
    fn of(self, content: BoxStream<'static, io::Result<Bytes>>) -> Body {
        let step = |(mut outgoing, mut content): (Self, BoxStream<'static, io::Result<Bytes>>)| async move {
            if outgoing.left == 0 {
                return Ok(None);
            }
            let piece = match content.next().await {
                Some(Ok(mut piece)) => {
                    piece.truncate(usize::try_from(outgoing.left).unwrap_or(usize::MAX));
                    piece
                }
                Some(Err(error)) => return Err(outgoing.fail(error)),
                None => {
                    let error = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the content is shorter than its descriptor says",
                    );
                    return Err(outgoing.fail(error));
                }
            };
            outgoing.left -= piece.len() as u64;
            outgoing.sent += piece.len() as u64;
            outgoing.activity.touch();
            if let Some(progress) = &outgoing.progress {
                progress(outgoing.sent);
            }
            Ok(Some((piece, (outgoing, content))))
        };
        Body::wrap_stream(stream::try_unfold((self, content), step))
    }

    fn fail(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        kind.into()
    }
}
