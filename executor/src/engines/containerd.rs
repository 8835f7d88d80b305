//! Images of containerd, by its own command: names and digests, then one blob at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use kiln_oci::caller::CommandLine;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, ImageConfig};
use kiln_store::Content;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::AsyncReadExt as _;

use super::documents::{self, Documents};
use super::{Asking, Engine, LayerSource, LocalImage, LocalLayers, diff_id};
use crate::error::Error;

/// Whoever asks waits, so a command that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pieces of a blob.
const IDLE_PATIENCE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
/// The longest list that is read.
const LIST_LIMIT_BYTES: u64 = 64 << 20;
/// What a command says about its failure.
const WORDS_LIMIT_BYTES: u64 = 4096;
/// Where the namespaces are that people and engines use, in the order in which they are looked into.
const NAMESPACES: [&str; 4] = ["default", "moby", "k8s.io", "buildkit"];
const SOCKET: &str = "/run/containerd/containerd.sock";
const PROGRAM: &str = "ctr";

/// A containerd that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Containerd {
    program: PathBuf,
    pub(crate) socket: PathBuf,
}

/// A blob of its content store.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    containerd: Containerd,
    namespace: String,
    pub(crate) digest: Sha256Digest,
    pub(crate) size: u64,
}

impl Containerd {
    /// Where it listens, whether or not somebody is there.
    pub(crate) fn socket() -> PathBuf {
        let named = std::env::var_os("CONTAINERD_ADDRESS").filter(|value| !value.is_empty());
        let path = named.unwrap_or_else(|| OsString::from(SOCKET));
        match path.to_str().and_then(|text| text.strip_prefix("unix://")) {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(path),
        }
    }

    /// The one of this host: none without a socket that this user may use, or without its command.
    pub(crate) async fn find() -> Option<Containerd> {
        let socket = Containerd::socket();
        if !socket.exists() {
            return None;
        }
        let connect = tokio::net::UnixStream::connect(&socket);
        if !matches!(tokio::time::timeout(PATIENCE, connect).await, Ok(Ok(_))) {
            return None;
        }
        let program = super::program(PROGRAM)?;
        Some(Containerd { program, socket })
    }

    /// The namespaces to look into.
    pub(crate) fn wanted_namespace() -> Option<String> {
        std::env::var("CONTAINERD_NAMESPACE")
            .ok()
            .filter(|name| !name.is_empty())
    }

    pub(crate) fn line(&self, namespace: &str, arguments: &[&str]) -> CommandLine {
        let before = [
            OsStr::new("--address"),
            self.socket.as_os_str(),
            OsStr::new("--namespace"),
            OsStr::new(namespace),
        ];
        let arguments = arguments.iter().map(OsStr::new);
        CommandLine::new(&self.program, before.into_iter().chain(arguments))
    }

    fn command(&self, namespace: &str, arguments: &[&str]) -> Command {
        let line = self.line(namespace, arguments);
        let mut command = Command::new(line.program);
        command
            .args(line.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command that prints a list, or fails.
    pub(crate) async fn ask(&self, namespace: &str, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let failed = |reason: String| Error::Engine {
            engine: Engine::Containerd,
            attempt: format!("run `{PROGRAM} {}`", arguments.join(" ")),
            reason,
        };
        let mut command = tokio::process::Command::from(self.command(namespace, arguments));
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            unreachable!("BUG: the command has no pipes");
        };
        let asking = async {
            let (mut bytes, mut words) = (Vec::new(), Vec::new());
            let mut stdout = stdout.take(LIST_LIMIT_BYTES + 1);
            let mut stderr = stderr.take(WORDS_LIMIT_BYTES);
            let reading = futures_util::future::try_join(
                stdout.read_to_end(&mut bytes),
                stderr.read_to_end(&mut words),
            );
            reading.await.map_err(|error| failed(error.to_string()))?;
            if bytes.len() as u64 > LIST_LIMIT_BYTES {
                return Err(failed(format!(
                    "it prints more than {LIST_LIMIT_BYTES} bytes"
                )));
            }
            let status = child
                .wait()
                .await
                .map_err(|error| failed(error.to_string()))?;
            match status.success() {
                true => Ok(bytes),
                false => Err(failed(last_words(&words))),
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(Error::EngineSilent {
                engine: Engine::Containerd,
                seconds: PATIENCE.as_secs(),
            }),
        }
    }

    /// The digests of a namespace's blobs.
    pub(crate) async fn blobs(&self, namespace: &str) -> Result<BTreeSet<Sha256Digest>, Error> {
        let list = self.ask(namespace, &["content", "ls", "-q"]).await?;
        let list = String::from_utf8_lossy(&list);
        Ok(list
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect())
    }

    async fn namespaces(&self) -> Result<Vec<String>, Error> {
        if let Some(name) = Containerd::wanted_namespace() {
            return Ok(vec![name]);
        }
        let list = self.ask("default", &["namespaces", "ls", "-q"]).await?;
        let list = String::from_utf8_lossy(&list);
        let there: BTreeSet<&str> = list.lines().map(str::trim).collect();
        let known = NAMESPACES.into_iter().filter(|name| there.contains(name));
        Ok(known.map(str::to_owned).collect())
    }

    /// What a name stands for.
    async fn target(&self, namespace: &str, name: &str) -> Result<Option<Sha256Digest>, Error> {
        let filter = format!("name==\"{name}\"");
        let list = self.ask(namespace, &["images", "ls", &filter]).await?;
        let list = String::from_utf8_lossy(&list);
        let row = list.lines().find_map(|line| line.strip_prefix(name));
        Ok(row.and_then(|row| row.split_whitespace().find_map(|word| word.parse().ok())))
    }
}

/// The end of what a command says: the reason, after what it was doing.
pub(crate) fn last_words(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("it failed without a word").trim();
    last.chars().take(500).collect()
}

/// Looks for an image.
pub(super) async fn find(asking: Asking<'_>) -> Result<Option<LocalImage>, Error> {
    let Some(containerd) = Containerd::find().await else {
        return Ok(None);
    };
    for namespace in containerd.namespaces().await? {
        let target = match asking.reference.digest() {
            Some(digest) => Some(*digest),
            None => {
                let name = asking.reference.to_string();
                containerd.target(&namespace, &name).await?
            }
        };
        if let Some(target) = target
            && let Some(image) = image(&containerd, &namespace, target, asking).await?
        {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

async fn image(
    containerd: &Containerd,
    namespace: &str,
    target: Sha256Digest,
    asking: Asking<'_>,
) -> Result<Option<LocalImage>, Error> {
    let there = containerd.blobs(namespace).await?;
    if !there.contains(&target) {
        return Ok(None);
    }
    let blob = |digest: Sha256Digest, size| Blob {
        containerd: containerd.clone(),
        namespace: namespace.to_owned(),
        digest,
        size,
    };
    let Some(found) = follow(containerd, namespace, target, &there, asking).await? else {
        return Ok(None);
    };
    let Ok(config) = ImageConfig::from_slice(&found.config) else {
        return Ok(None);
    };
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != found.manifest.layers.len() {
        return Ok(None);
    }
    let layers: Vec<Content> = diff_ids
        .iter()
        .map(|id| Content::DiffId(diff_id(id)))
        .collect();
    let missing = asking.executor.store().missing_layers(&layers)?;
    // With a setting for that, archives are thrown away once they are unpacked.
    let lacks = |(layer, blob): (&Content, &Descriptor)| {
        missing.contains(layer) && !there.contains(&blob.digest)
    };
    if layers.iter().zip(&found.manifest.layers).any(lacks) {
        return Ok(None);
    }
    let layers = found.manifest.layers.iter();
    Ok(Some(LocalImage {
        engine: Engine::Containerd,
        manifest: found.manifest_digest,
        config: found.config,
        added: None,
        layers: LocalLayers::Each(
            layers
                .map(|layer| LayerSource::Blob(blob(layer.digest, layer.size)))
                .collect(),
        ),
        blobs: found.manifest.layers,
    }))
}

/// Follows a target to the image for a platform, a document at a time.
async fn follow(
    containerd: &Containerd,
    namespace: &str,
    target: Sha256Digest,
    there: &BTreeSet<Sha256Digest>,
    asking: Asking<'_>,
) -> Result<Option<Documents>, Error> {
    let shown = asking.reference.familiar();
    let mut known: BTreeMap<Sha256Digest, Vec<u8>> = BTreeMap::new();
    loop {
        let lacks = Cell::new(None);
        let found = documents::follow(target, asking.platform, &shown, |digest, _| {
            if !known.contains_key(digest) {
                lacks.set(Some(*digest));
            }
            Ok(known.get(digest).cloned())
        })?;
        match lacks.take().filter(|digest| there.contains(digest)) {
            // Each is asked for once, and the way is short.
            Some(digest) => {
                let get = ["content", "get", &digest.to_string()];
                known.insert(digest, containerd.ask(namespace, &get).await?);
            }
            None => return Ok(found),
        }
    }
}

impl Blob {
    fn failed(&self, error: &io::Error) -> Error {
        Error::Engine {
            engine: Engine::Containerd,
            attempt: format!("read the blob {}", self.digest),
            reason: error.to_string(),
        }
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Result<Reading, Error> {
        let digest = self.digest.to_string();
        let mut command = self
            .containerd
            .command(&self.namespace, &["content", "get", &digest]);
        let mut child = command.spawn().map_err(|error| self.failed(&error))?;
        match child.stdout.take() {
            Some(stdout) => Ok(Reading { child, stdout }),
            None => unreachable!("BUG: the command has no pipe"),
        }
    }
}

/// A blob as its command prints it.
pub(crate) struct Reading {
    child: Child,
    stdout: ChildStdout,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ready = [PollFd::new(&self.stdout, PollFlags::IN)];
        if rustix::event::poll(&mut ready, Some(&IDLE_PATIENCE))? == 0 {
            let words = format!("nothing was heard for {} s", IDLE_PATIENCE.tv_sec);
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        let count = self.stdout.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            let status = self.child.wait()?;
            if !status.success() {
                let mut words = Vec::new();
                if let Some(stderr) = &mut self.child.stderr {
                    stderr.take(WORDS_LIMIT_BYTES).read_to_end(&mut words)?;
                }
                return Err(io::Error::other(last_words(&words)));
            }
        }
        Ok(count)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
