//! Files over http: which bytes an address means now, and a layer that holds them as one file.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use kiln_ir::HttpSource;
use kiln_oci::web::{Validators, WebAnswer, WebFile, WebRequest, without_password};
use kiln_solver::StepSink;
use kiln_store::{Content, Lease};
use kiln_tree::{Entry, FileDigest, Kind, Manifest, Meta, Mtime, TreePath};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::sync::mpsc;

use super::age::ago;
use super::resolve::short;
use crate::error::Error;
use crate::executor::Executor;
use crate::file::{ChangeError, FileError, create, set};

/// Permission bits of a file that nobody chose any for.
const DEFAULT_MODE: u32 = 0o600;
/// Pieces that wait to be written.
const PIECES: usize = 64;

/// What an address means now.
#[derive(Debug, Clone)]
pub(crate) struct PinnedFile {
    /// The digest of its bytes.
    pub(crate) digest: String,
    /// For people.
    pub(crate) label: String,
    /// Seconds since 1970 of its last change, as the server says.
    pub(crate) modified: Option<i64>,
    /// Its layer, if it had to be fetched to find out.
    pub(crate) layer: Option<Content>,
}

/// What the store remembers of an address.
#[derive(Serialize, Deserialize)]
struct Remembered {
    etag: Option<String>,
    last_modified: Option<String>,
    digest: String,
    /// Seconds since 1970.
    seen: u64,
}

/// What there is to say of an address before anything is fetched.
enum Asked {
    /// It is known which bytes it means.
    Known(PinnedFile),
    /// It still means what it did.
    NotModified(Remembered),
    /// Its bytes are on the way.
    File(Box<WebFile>),
}

/// Finds out which bytes `source` means; a checksum or an earlier pin says it without a request.
pub(crate) async fn pin(
    executor: &Executor,
    lease: &Lease,
    source: &HttpSource,
    pinned: Option<&str>,
    authorization: Option<String>,
) -> Result<PinnedFile, Error> {
    match ask(executor, source, pinned, authorization).await? {
        Asked::Known(file) => Ok(file),
        Asked::NotModified(known) => {
            let known = Remembered {
                seen: seconds_now(),
                ..known
            };
            remember(executor, source, &known)?;
            Ok(known.pinned("not changed"))
        }
        Asked::File(file) => {
            let (known, layer) = take(executor, lease, source, *file, None, None).await?;
            Ok(PinnedFile {
                layer: Some(layer),
                ..known.pinned("fetched just now")
            })
        }
    }
}

/// The same without fetching anything; errors where that is what it takes.
pub(crate) async fn look(
    executor: &Executor,
    source: &HttpSource,
    pinned: Option<&str>,
    authorization: Option<String>,
) -> Result<PinnedFile, Error> {
    match ask(executor, source, pinned, authorization).await? {
        Asked::Known(file) => Ok(file),
        Asked::NotModified(known) => Ok(known.pinned("not changed")),
        Asked::File(_) => Err(Error::NotFetched {
            url: without_password(&source.url),
        }),
    }
}

async fn ask(
    executor: &Executor,
    source: &HttpSource,
    pinned: Option<&str>,
    authorization: Option<String>,
) -> Result<Asked, Error> {
    if let Some(digest) = pinned.or(source.checksum.as_deref()) {
        return Ok(Asked::Known(PinnedFile {
            digest: digest.to_owned(),
            label: short(digest),
            modified: None,
            layer: None,
        }));
    }
    let known = remembered(executor, source)?;
    if executor.options().offline {
        return match known {
            Some(known) => {
                let state = format!("seen {}", ago(known.when()));
                Ok(Asked::Known(known.pinned(&state)))
            }
            None => Err(Error::Offline {
                reference: without_password(&source.url),
            }),
        };
    }
    let mut request = request(source, authorization);
    if let Some(known) = &known {
        request.known = known.validators();
    }
    match (executor.registry()?.get(request).await?, known) {
        (WebAnswer::NotModified, Some(known)) => Ok(Asked::NotModified(known)),
        (WebAnswer::NotModified, None) => {
            unreachable!("BUG: nothing was known, so nothing can still hold")
        }
        (WebAnswer::File(file), _) => Ok(Asked::File(file)),
    }
}

/// Fetches the file whose digest is known already.
pub(crate) async fn fetch(
    executor: &Executor,
    lease: &Lease,
    source: &HttpSource,
    digest: &str,
    authorization: Option<String>,
    sink: Option<&StepSink>,
) -> Result<Content, Error> {
    if executor.options().offline {
        return Err(Error::Offline {
            reference: without_password(&source.url),
        });
    }
    let request = request(source, authorization);
    let WebAnswer::File(file) = executor.registry()?.get(request).await? else {
        unreachable!("BUG: nothing was said to be known")
    };
    let (_, layer) = take(executor, lease, source, *file, Some(digest), sink).await?;
    Ok(layer)
}

fn request(source: &HttpSource, authorization: Option<String>) -> WebRequest {
    let headers = source.headers.iter();
    WebRequest {
        url: source.url.clone(),
        headers: headers
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        authorization,
        known: Validators::default(),
    }
}

/// Takes a file into a layer of its own, and remembers which bytes its address means.
async fn take(
    executor: &Executor,
    lease: &Lease,
    source: &HttpSource,
    file: WebFile,
    expected: Option<&str>,
    sink: Option<&StepSink>,
) -> Result<(Remembered, Content), Error> {
    let validators = file.validators().clone();
    let (digest, layer) = write(executor, lease, source, file, expected, sink).await?;
    let known = Remembered {
        etag: validators.etag,
        last_modified: validators.last_modified,
        digest,
        seen: seconds_now(),
    };
    remember(executor, source, &known)?;
    Ok((known, layer))
}

/// Writes a file into a layer of its own; returns the digest of its bytes, and the layer.
///
/// Bytes of another digest than the expected one never become a layer.
async fn write(
    executor: &Executor,
    lease: &Lease,
    source: &HttpSource,
    mut file: WebFile,
    expected: Option<&str>,
    sink: Option<&StepSink>,
) -> Result<(String, Content), Error> {
    let name = file_name(source)?;
    let meta = Meta {
        mode: source.perm.unwrap_or(DEFAULT_MODE) & 0o7777,
        uid: source.uid.unwrap_or(0),
        gid: source.gid.unwrap_or(0),
        mtime: Mtime {
            seconds: file
                .validators()
                .modified()
                .and_then(|seconds| i64::try_from(seconds).ok())
                .unwrap_or(0),
            nanos: 0,
        },
        ..Meta::default()
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking({
        let (executor, lease) = (executor.clone(), lease.clone());
        let job = Job {
            name,
            meta,
            url: without_password(&source.url),
            expected: expected.map(str::to_owned),
            is_gzipped: file.is_gzipped(),
        };
        move || job.write(&executor, &lease, receiver)
    });
    let total = file.size();
    let mut done = 0;
    let mut failure = None;
    loop {
        match file.next().await {
            Ok(Some(piece)) => {
                done += piece.len() as u64;
                if let Some(sink) = sink {
                    sink.progress(source.url.clone(), done, total);
                }
                // A writer that gave up says why at its end.
                if sender.send(Some(piece)).await.is_err() {
                    break;
                }
            }
            Ok(None) => {
                let _ = sender.send(None).await;
                break;
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let written = match writing.await {
        Ok(written) => written,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    match failure {
        Some(error) => Err(error.into()),
        None => written,
    }
}

/// A file that is to be written.
struct Job {
    name: TreePath,
    meta: Meta,
    url: String,
    expected: Option<String>,
    is_gzipped: bool,
}

/// Where the bytes of a file go.
struct Taken {
    file: std::fs::File,
    hash: Hash,
    content: blake3::Hasher,
    size: u64,
}

impl io::Write for Taken {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.file.write_all(piece)?;
        self.hash.update(piece);
        self.content.update(piece);
        self.size += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same, where the bytes may be compressed for the way.
enum Way {
    Plain(Box<Taken>),
    Gzipped(Box<MultiGzDecoder<Taken>>),
}

impl Way {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Way::Plain(taken) => taken.write_all(piece),
            Way::Gzipped(decoder) => decoder.write_all(piece),
        }
    }

    fn finish(self) -> io::Result<Taken> {
        match self {
            Way::Plain(taken) => Ok(*taken),
            Way::Gzipped(decoder) => decoder.finish(),
        }
    }
}

impl Job {
    fn write(
        self,
        executor: &Executor,
        lease: &Lease,
        mut pieces: mpsc::Receiver<Option<Bytes>>,
    ) -> Result<(String, Content), Error> {
        let store = executor.store();
        let draft = store.begin_layer()?;
        let name = &self.name;
        let fd: OwnedFd = create(draft.fs(), name.name(), name).map_err(FileError::from)?;
        let taken = Taken {
            file: std::fs::File::from(fd),
            hash: Hash::of(self.expected.as_deref().unwrap_or_default()),
            content: blake3::Hasher::new(),
            size: 0,
        };
        let mut way = match self.is_gzipped {
            true => Way::Gzipped(Box::new(MultiGzDecoder::new(taken))),
            false => Way::Plain(Box::new(taken)),
        };
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof => {
                let url = self.url.clone();
                Error::Encoding { url, source: error }
            }
            _ => Error::io("write", draft.fs_path().join("file"))(error),
        };
        loop {
            match pieces.blocking_recv() {
                Some(Some(piece)) => way.write(&piece).map_err(refused)?,
                Some(None) => break,
                // The transfer failed; nobody looks at this.
                None => return Err(Error::Cancelled),
            }
        }
        let taken = way.finish().map_err(refused)?;
        let Taken {
            file,
            hash,
            content,
            size,
        } = taken;
        let digest = hash.finish();
        if let Some(expected) = self.expected.filter(|expected| *expected != digest) {
            return Err(Error::Checksum {
                url: self.url,
                expected,
                found: digest,
            });
        }
        let ownership = &store.options().ownership;
        set(ownership, file.as_fd(), name, &self.meta, false).map_err(FileError::from)?;
        let kind = Kind::File {
            size,
            digest: FileDigest(*content.finalize().as_bytes()),
        };
        let entry = Entry::new(name.clone(), kind, self.meta);
        let manifest = Manifest::new(vec![entry])
            .map_err(ChangeError::from)
            .map_err(FileError::from)?;
        let layer = Content::Layer(manifest.id());
        store.commit_layer(lease, draft, &manifest, layer)?;
        Ok((digest, layer))
    }
}

/// The name that the file gets: as asked for, or the last part of the address.
fn file_name(source: &HttpSource) -> Result<TreePath, Error> {
    let path = source.url.split(['?', '#']).next().unwrap_or_default();
    let name = match &source.filename {
        Some(name) => name.as_str(),
        None => path.rsplit('/').next().unwrap_or_default(),
    };
    let refused = || Error::FileName {
        name: name.to_owned(),
        url: without_password(&source.url),
    };
    match TreePath::new(name) {
        Ok(path) if !name.contains('/') && !path.is_root() => Ok(path),
        _ => Err(refused()),
    }
}

/// What the address is remembered under: whoever sends other headers may see another file.
fn memory_name(source: &HttpSource) -> String {
    let mut name = source.url.clone();
    for (header, value) in &source.headers {
        name.push_str(&format!("\n{header}: {value}"));
    }
    if let Some(secret) = &source.auth_header_secret {
        name.push_str(&format!("\nsecret {secret}"));
    }
    name
}

fn remembered(executor: &Executor, source: &HttpSource) -> Result<Option<Remembered>, Error> {
    let bytes = executor.store().remembered_remote(&memory_name(source))?;
    // What cannot be read was damaged by a loss of power, and is found out again.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn remember(executor: &Executor, source: &HttpSource, known: &Remembered) -> Result<(), Error> {
    let bytes = serde_json::to_vec(known).expect("BUG: strings are always JSON");
    Ok(executor
        .store()
        .remember_remote(&memory_name(source), &bytes)?)
}

impl Remembered {
    fn validators(&self) -> Validators {
        Validators {
            etag: self.etag.clone(),
            last_modified: self.last_modified.clone(),
        }
    }

    fn when(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(self.seen)
    }

    fn pinned(&self, state: &str) -> PinnedFile {
        let modified = self.validators().modified();
        PinnedFile {
            digest: self.digest.clone(),
            label: format!("{}, {state}", short(&self.digest)),
            modified: modified.and_then(|seconds| i64::try_from(seconds).ok()),
            layer: None,
        }
    }
}

fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The digest that a checksum is of.
enum Hash {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hash {
    /// The one that `digest` is of; plans are checked to name no other.
    fn of(digest: &str) -> Hash {
        match digest.split(':').next().unwrap_or_default() {
            "sha384" => Hash::Sha384(Sha384::new()),
            "sha512" => Hash::Sha512(Sha512::new()),
            _ => Hash::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha384(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> String {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        match self {
            Hash::Sha256(hash) => format!("sha256:{}", hex(&hash.finalize())),
            Hash::Sha384(hash) => format!("sha384:{}", hex(&hash.finalize())),
            Hash::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, filename: Option<&str>, expected: Option<&str>) {
        let source = HttpSource {
            url: url.to_owned(),
            filename: filename.map(str::to_owned),
            ..HttpSource::default()
        };
        let found = file_name(&source).ok();
        let found = found.map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned());
        assert_eq!(found.as_deref(), expected, "{url} {filename:?}");
    }

    #[test]
    fn names_of_files() {
        check("http://x/a/b.tar?c=d/e", None, Some("b.tar"));
        check("http://x/a", Some("name"), Some("name"));
        for bad in ["", ".", "..", "a/b", "/a", "../a"] {
            check("http://x/a", Some(bad), None);
        }
        check("http://x/a/", None, None);
    }
}
