//! Pulling: names to digests, manifests, and blobs as streams that survive cut lines.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _, TryStreamExt as _};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode};

use super::auth::Scopes;
use super::endpoint::Endpoint;
use super::error::{About, Attempt, Cause, Error};
use super::mirrors::Passed;
use super::retry::Backoff;
use super::transport::{Call, is_page, printable, says_html};
use super::{Client, Image, PulledManifest, Resolved, attempt};
use crate::digest::{Sha256Digest, Verifier, VerifyError};
use crate::document::{CONFIG_LIMIT_BYTES, Descriptor, ImageConfig, MANIFEST_LIMIT_BYTES, Root};
use crate::media_type;
use crate::platform::{self, Platform};
use crate::reference::Reference;

/// An index within an index within an index is deep enough.
const INDEX_DEPTH_LIMIT: usize = 3;

/// A piece of this size shows that a line is worth another full round of tries.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The content of a blob, in order and in pieces.
///
/// Pieces come before the whole is verified: only the stream's end without an error proves them.
/// Dropping it closes the connection.
pub struct BlobStream(BoxStream<'static, Result<Bytes, Error>>);

impl Stream for BlobStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobStream(..)")
    }
}

impl Client {
    /// Asks which manifest a reference means now, without fetching it.
    ///
    /// Registries do not count this against their pull limits.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, Error> {
        let mut passed = Passed::default();
        for endpoint in self.endpoints(reference) {
            match self.resolve_at(&endpoint, reference).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) if endpoint.is_mirror => passed.add(self, &endpoint, reference, error),
                Err(error) => return Err(passed.add_to(error)),
            }
        }
        unreachable!("BUG: the registry itself is no place")
    }

    /// Fetches the manifest or index that a reference means.
    pub async fn manifest(&self, reference: &Reference) -> Result<PulledManifest, Error> {
        let mut passed = Passed::default();
        for endpoint in self.endpoints(reference) {
            match self.manifest_at(&endpoint, reference).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) if endpoint.is_mirror => passed.add(self, &endpoint, reference, error),
                Err(error) => return Err(passed.add_to(error)),
            }
        }
        unreachable!("BUG: the registry itself is no place")
    }

    /// Fetches what a reference means at the registry itself, whatever its mirrors say: for whoever
    /// replaces it.
    pub async fn own_manifest(&self, reference: &Reference) -> Result<PulledManifest, Error> {
        let endpoint = Endpoint::origin(self.transport().config(), reference.domain());
        self.manifest_at(&endpoint, reference).await
    }

    /// Asks which manifest the registry itself has under a tag or digest, whatever its mirrors say; `None` if
    /// it has none.
    pub async fn own_digest(&self, reference: &Reference) -> Result<Option<Sha256Digest>, Error> {
        let endpoint = Endpoint::origin(self.transport().config(), reference.domain());
        match self.resolve_at(&endpoint, reference).await {
            Ok(resolved) => Ok(Some(resolved.digest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches what a reference means for a platform: index, manifest and config, but no layer.
    ///
    /// An image that is not in an index is taken as it is; its config tells what it runs on.
    pub async fn image(&self, reference: &Reference, wanted: &Platform) -> Result<Image, Error> {
        let root = self.manifest(reference).await?;
        self.image_of(reference, root, wanted).await
    }

    /// Continues [`Client::image`] from a manifest or index that the caller has already.
    pub async fn image_of(
        &self,
        reference: &Reference,
        root: PulledManifest,
        wanted: &Platform,
    ) -> Result<Image, Error> {
        let mut current = root.clone();
        let mut depth = 0;
        let (manifest, parsed) = loop {
            let index = match &current.root {
                Root::Manifest(parsed) => {
                    let parsed = parsed.clone();
                    break (current, parsed);
                }
                Root::Index(index) => index,
            };
            let chosen = platform::select(index, wanted).filter(|_| depth < INDEX_DEPTH_LIMIT);
            let Some(chosen) = chosen else {
                return Err(Error::NoPlatform {
                    image: reference.familiar(),
                    wanted: wanted.to_string(),
                    available: platform::list(index),
                });
            };
            depth += 1;
            current = self.manifest(&reference.with_digest(chosen.digest)).await?;
        };
        if let Some(media_type) = parsed.artifact() {
            return Err(Error::Artifact {
                image: reference.familiar(),
                media_type: printable(media_type),
            });
        }
        let config_bytes = self
            .blob_bytes(reference, &parsed.config, CONFIG_LIMIT_BYTES)
            .await?;
        let config = ImageConfig::from_slice(&config_bytes).map_err(|source| {
            let host = reference.registry_host();
            Error::Document {
                attempt: attempt("read the config of", reference, host),
                source: source.into(),
            }
        })?;
        Ok(Image {
            root,
            manifest,
            layers: parsed.layers,
            config_descriptor: parsed.config,
            config_bytes,
            config,
        })
    }

    /// Fetches a blob as a stream; several may run at once.
    ///
    /// A cut line is taken up where it broke, and the whole is verified against the descriptor. The
    /// first request is sent when the stream is first polled.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> BlobStream {
        let seen = Verifier::new(descriptor.digest, Some(descriptor.size));
        self.rest_of_blob(reference, descriptor, seen)
    }

    /// Fetches what is left of a blob whose beginning `seen` has taken in already.
    pub fn rest_of_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        seen: Verifier,
    ) -> BlobStream {
        let transfer = Transfer {
            client: self.clone(),
            reference: reference.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            places: self.endpoints(reference).into(),
            passed: Passed::default(),
            line: None,
            backoff: Backoff::new(&self.transport().config().retry),
            fresh_bytes: 0,
            whole_only: false,
            had_part: Vec::new(),
            begun_before: seen.bytes() > 0,
            verifier: seen,
        };
        let step = |mut transfer: Transfer| async move {
            Ok(transfer.next().await?.map(|chunk| (chunk, transfer)))
        };
        BlobStream(stream::try_unfold(transfer, step).boxed())
    }

    /// Fetches a small blob whole and verified.
    ///
    /// Wrong content from a mirror is asked for again elsewhere.
    pub async fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Bytes, Error> {
        if descriptor.size > limit_bytes {
            let attempt = attempt(
                format!("fetch blob {} of", descriptor.digest),
                reference,
                reference.registry_host(),
            );
            let what = format!(
                "the blob has {} bytes, more than the limit of {limit_bytes}",
                descriptor.size
            );
            return Err(Error::Protocol { attempt, what });
        }
        // A mirror that sends wrong content is left out from then on, so this ends.
        loop {
            let places = self.places(reference);
            let pieces: Result<Vec<Bytes>, Error> =
                self.blob(reference, descriptor).try_collect().await;
            match pieces {
                Ok(pieces) => return Ok(pieces.concat().into()),
                Err(Error::Content { .. }) if self.places(reference) < places => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns how many places are asked for what a reference leads to: fewer once a mirror served wrong content.
    pub fn places(&self, reference: &Reference) -> usize {
        self.endpoints(reference).len()
    }

    /// Returns where to pull from, best first; the registry itself is always the last.
    pub(super) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let mut endpoints = Endpoint::for_pull(self.transport().config(), reference.domain());
        endpoints.retain(|endpoint| !endpoint.is_mirror || !self.is_distrusted(endpoint));
        endpoints
    }

    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<Resolved, Error> {
        let attempt = attempt("resolve", reference, &endpoint.authority);
        let scopes = pull_scope(endpoint, reference);
        let response = self
            .head_manifest(&attempt, endpoint, &scopes, reference)
            .await?;
        let headers = response.headers();
        let size = text(headers, CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        let served = text(headers, CONTENT_TYPE.as_str())
            .map(|kind| kind.split(';').next().unwrap_or(kind).trim());
        let known = |kind: &&str| media_type::is_manifest(kind) || media_type::is_index(kind);
        let digest = text(headers, "docker-content-digest").and_then(|digest| digest.parse().ok());
        match (digest, size, served.filter(known)) {
            (Some(digest), Some(size), Some(media_type)) => {
                if let Some(&expected) = reference.digest().filter(|&&wanted| wanted != digest) {
                    let source = Box::new(VerifyError::Digest {
                        expected,
                        actual: digest,
                    });
                    return Err(Error::Content { attempt, source });
                }
                Ok(Resolved {
                    digest,
                    media_type: media_type.to_owned(),
                    size,
                })
            }
            // The headers are optional in the specification; the manifest itself is not.
            _ => self
                .manifest_at(endpoint, reference)
                .await
                .map(|manifest| Resolved {
                    digest: manifest.digest,
                    size: manifest.bytes.len() as u64,
                    media_type: manifest.media_type,
                }),
        }
    }

    /// Asks for what would come with a manifest, but not for it.
    pub(super) async fn head_manifest(
        &self,
        attempt: &Attempt,
        endpoint: &Endpoint,
        scopes: &Scopes,
        reference: &Reference,
    ) -> Result<Response, Error> {
        let path = manifest_path(endpoint, reference);
        let call = Call::to_path(attempt, endpoint, scopes, &path);
        let make = |client: &reqwest::Client, url| {
            client
                .head(url)
                .header(ACCEPT, media_type::MANIFESTS.join(", "))
        };
        self.transport().send(&call, make).await
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<PulledManifest, Error> {
        let attempt = attempt("fetch the manifest of", reference, &endpoint.authority);
        let path = manifest_path(endpoint, reference);
        let scopes = pull_scope(endpoint, reference);
        let transport = self.transport();
        let call = Call::to_path(&attempt, endpoint, &scopes, &path);
        let make = |client: &reqwest::Client, url| {
            client
                .get(url)
                .header(ACCEPT, media_type::MANIFESTS.join(", "))
        };
        let mut backoff = Backoff::new(&transport.config().retry);
        let (headers, bytes) = loop {
            let response = transport.send(&call, make).await?;
            let headers = response.headers().clone();
            match transport
                .read_bounded(&attempt, response, MANIFEST_LIMIT_BYTES)
                .await
            {
                Ok(bytes) => break (headers, bytes),
                Err(error @ Error::Unreachable { .. }) => match backoff.next(None) {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        };
        if is_page(&headers, &bytes) {
            return Err(Error::Page { attempt });
        }
        let actual = Sha256Digest::of(&bytes);
        let claimed =
            text(&headers, "docker-content-digest").and_then(|digest| digest.parse().ok());
        if let Some(expected) = reference
            .digest()
            .copied()
            .or(claimed)
            .filter(|&expected| expected != actual)
        {
            let source = Box::new(VerifyError::Digest { expected, actual });
            return Err(Error::Content { attempt, source });
        }
        let served = text(&headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        match Root::from_slice(served, &bytes) {
            Ok(root) => Ok(PulledManifest {
                digest: actual,
                media_type: root.media_type().to_owned(),
                bytes,
                root,
            }),
            Err(source) => Err(Error::Document {
                attempt,
                source: source.into(),
            }),
        }
    }
}

/// The path of the manifest that a tag or digest means.
fn manifest_path(endpoint: &Endpoint, reference: &Reference) -> String {
    let (repository, name) = (endpoint.repository(reference), reference.identifier());
    format!("{repository}/manifests/{name}")
}

pub(super) fn pull_scope(endpoint: &Endpoint, reference: &Reference) -> Scopes {
    vec![format!(
        "repository:{}:pull",
        endpoint.repository(reference)
    )]
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A blob on its way.
struct Transfer {
    client: Client,
    reference: Reference,
    digest: Sha256Digest,
    size: u64,
    /// Where it is fetched from, and after that where else it may be; never empty.
    places: VecDeque<Endpoint>,
    passed: Passed,
    line: Option<Line>,
    backoff: Backoff,
    /// Bytes that came since the tries were last counted from the start.
    fresh_bytes: u64,
    /// This place does not do ranges, so what came before a cut is read again and dropped.
    whole_only: bool,
    /// Where bytes that were taken came from.
    had_part: Vec<Endpoint>,
    /// The beginning came from somewhere else, nobody knows where.
    begun_before: bool,
    verifier: Verifier,
}

/// An open connection, and how much of what it brings is known already.
struct Line {
    response: Response,
    skip_bytes: u64,
}

impl Transfer {
    /// Returns the next piece, or `None` when the whole is verified.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.verifier.bytes() == self.size {
                self.line = None;
                return match self.verifier.clone().finish() {
                    Ok(()) => Ok(None),
                    Err(source) => Err(self.wrong_content(source)),
                };
            }
            let Some(line) = &mut self.line else {
                match self.open().await {
                    Ok(line) => self.line = Some(line),
                    Err(error) => self.leave_place(error)?,
                }
                continue;
            };
            let cause = match self.client.transport().chunk(&mut line.response).await {
                Ok(Some(mut chunk)) => {
                    let known = line.skip_bytes.min(chunk.len() as u64);
                    line.skip_bytes -= known;
                    // At most the chunk's length, so it fits.
                    let fresh = chunk.split_off(known as usize);
                    if fresh.is_empty() {
                        continue;
                    }
                    if self.had_part.last() != self.places.front() {
                        self.had_part.extend(self.places.front().cloned());
                    }
                    if let Err(source) = self.verifier.update(&fresh) {
                        return Err(self.wrong_content(source));
                    }
                    self.fresh_bytes += fresh.len() as u64;
                    if self.fresh_bytes >= PROGRESS_BYTES {
                        self.fresh_bytes = 0;
                        self.backoff.reset();
                    }
                    return Ok(Some(fresh));
                }
                Ok(None) => Cause::Closed,
                Err(cause) => cause,
            };
            self.line = None;
            match self.backoff.next(None) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    let (attempt, attempts) = (self.attempt(), self.backoff.tries());
                    let (received, size) = (self.verifier.bytes(), self.size);
                    self.leave_place(Error::Interrupted {
                        attempt,
                        attempts,
                        received,
                        size,
                        source: cause,
                    })?;
                }
            }
        }
    }

    /// Asks the current place for what is still missing.
    async fn open(&mut self) -> Result<Line, Error> {
        let attempt = self.attempt();
        let repository = self.place().repository(&self.reference);
        let path = format!("{repository}/blobs/{}", self.digest);
        let scopes = pull_scope(self.place(), &self.reference);
        let received = self.verifier.bytes();
        loop {
            let range = (received > 0 && !self.whole_only).then(|| format!("bytes={received}-"));
            let call = Call {
                ranged: range.is_some(),
                ..Call::to_path(&attempt, self.place(), &scopes, &path)
            };
            let make = |client: &reqwest::Client, url| match &range {
                Some(range) => client.get(url).header(RANGE, range),
                None => client.get(url),
            };
            let response = self.client.transport().send(&call, make).await?;
            let length = response.content_length();
            if says_html(response.headers())
                && response.status() == StatusCode::OK
                && length != Some(self.size)
            {
                return Err(Error::Page { attempt });
            }
            let begins_at = match response.status() {
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    self.whole_only = true;
                    continue;
                }
                StatusCode::PARTIAL_CONTENT => first_byte(response.headers()),
                _ => Some(0),
            };
            return match begins_at {
                Some(first) if first <= received => Ok(Line {
                    response,
                    skip_bytes: received - first,
                }),
                _ if range.is_some() => {
                    // Then all of it once more, and what is known is dropped.
                    self.whole_only = true;
                    continue;
                }
                _ => {
                    let what =
                        format!("asked for the bytes from {received} on, it sent another range");
                    Err(Error::Protocol { attempt, what })
                }
            };
        }
    }

    fn place(&self) -> &Endpoint {
        self.places
            .front()
            .expect("BUG: a transfer has no place left")
    }

    fn attempt(&self) -> Attempt {
        let action = format!("fetch blob {} of", self.digest);
        Attempt {
            about: About::ListedBlob,
            ..attempt(action, &self.reference, &self.place().authority)
        }
    }

    /// Goes on at the next place from where this one stopped; with none left, the error stands.
    fn leave_place(&mut self, error: Error) -> Result<(), Error> {
        match self.places.pop_front() {
            Some(mirror) if !self.places.is_empty() => {
                self.passed
                    .add(&self.client, &mirror, &self.reference, error);
            }
            _ => return Err(std::mem::take(&mut self.passed).add_to(error)),
        }
        self.backoff.reset();
        self.whole_only = false;
        Ok(())
    }

    /// Nothing can be taken back from the reader, so wrong content ends the transfer; a mirror that
    /// had a part in it is not asked again.
    fn wrong_content(&self, source: VerifyError) -> Error {
        let attempt = self.attempt();
        let mirrors = self.had_part.iter().filter(|place| place.is_mirror);
        for mirror in mirrors.filter(|_| !self.begun_before) {
            self.client.distrust(mirror);
            self.client.transport().doubt(format!(
                "the mirror `{}` is not asked again: blob {} of `{}` came from it with wrong content: {source}",
                mirror.authority, self.digest, attempt.image,
            ));
        }
        Error::Content {
            attempt,
            source: Box::new(source),
        }
    }
}

/// Returns the first byte's position in `Content-Range: bytes 5-9/10`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
