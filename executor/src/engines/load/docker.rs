//! Into a docker engine: `POST /images/load`, without the layers that it has.

use std::collections::BTreeSet;
use std::io::{self, Write};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kiln_oci::daemon::Daemon;
use kiln_oci::digest::Sha256Digest;
use kiln_tree::Stop;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Form;
use crate::engines::Engine;
use crate::error::{Error, LOAD};
use crate::export::{Parcel, unless_stopped};

/// Images that are looked at for layers, and at once.
const MOST_IMAGES: usize = 1000;
const AT_ONCE: usize = 8;
/// An archive goes in pieces of this size, of which so many wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// How many of the lowest layers the engine has.
///
/// It knows a layer by all that lie below it, and tells of layers through images: those of the same names
/// are likely to have most.
pub(super) async fn known(
    daemon: &Daemon,
    diff_ids: &[Sha256Digest],
    names: &[String],
) -> Result<usize, Error> {
    let mut most = 0;
    let count = |image: Option<kiln_oci::daemon::DaemonImage>| {
        let found = image.map(|image| image.root.diff_ids).unwrap_or_default();
        let same = found.iter().zip(diff_ids).take_while(|(a, b)| a == b);
        same.count()
    };
    for name in names {
        most = most.max(count(daemon.image(name).await?));
    }
    if most == diff_ids.len() {
        return Ok(most);
    }
    let ids: BTreeSet<String> = daemon.images().await?.into_iter().collect();
    let mut asking = futures_util::stream::iter(ids.into_iter().take(MOST_IMAGES))
        .map(|id| async move { daemon.image(&id).await })
        .buffer_unordered(AT_ONCE);
    while let Some(image) = asking.next().await {
        most = most.max(count(image?));
        if most == diff_ids.len() {
            break;
        }
    }
    Ok(most)
}

/// Sends an image.
pub(super) fn send(
    daemon: &Daemon,
    parcel: &Parcel<'_>,
    runtime: &Handle,
    stop: &Stop,
    told: &dyn Fn(&Sha256Digest, u64),
    progress: &dyn Fn(String),
) -> Result<(), Error> {
    let (sender, receiver) = mpsc::channel::<Option<Bytes>>(PIECES);
    let archive = futures_util::stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(piece)) => Some((Ok(piece), Some(receiver))),
            Some(None) => None,
            // What has come of it is no archive, though it may look like one.
            None => {
                let cut = io::Error::other("the archive was not written to its end");
                Some((Err(cut), None))
            }
        }
    });
    // Given up, it closes the line: what has come of the archive is none, and is kept under no name.
    let loading = runtime.spawn({
        let (daemon, stop) = (daemon.clone(), stop.clone());
        async move { unless_stopped(&stop, daemon.load(archive)).await }
    });
    let mut out = Pieces {
        sender,
        piece: Vec::with_capacity(PIECE_BYTES),
        runtime,
        stop,
    };
    let written = parcel.write(Form::Docker, &mut out, stop, told);
    if written.is_ok() {
        // Whoever reads no further has said why.
        let _ = out.send(None);
    }
    drop(out);
    let loading = match runtime.block_on(loading) {
        Ok(loading) => loading,
        Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let loading = loading?;
    // An engine that refuses reads no further: its words say more than those of a broken pipe.
    let mut loading = match (loading, written) {
        (Ok(loading), Ok(())) => loading,
        (Err(error), Err(Error::Io { .. })) => return Err(error.into()),
        (_, Err(error)) => return Err(error),
        (Err(error), Ok(())) => return Err(error.into()),
    };
    let mut layer = String::new();
    while let Some(message) = runtime.block_on(unless_stopped(stop, loading.next()))?? {
        if !message.error.is_empty() {
            return Err(Error::Engine {
                engine: Engine::Docker,
                attempt: LOAD.to_owned(),
                reason: message.error.chars().take(500).collect(),
            });
        }
        if message.status == "Loading layer" && message.id != layer {
            progress(format!("docker unpacks layer sha256:{}", message.id));
            layer = message.id;
        }
    }
    // It says nothing about an archive that it does not understand.
    let look = |name: &str| -> Result<_, Error> {
        let found = runtime.block_on(unless_stopped(stop, daemon.image(name)))?;
        Ok(found?)
    };
    let there = look(&parcel.id())?;
    let names = parcel.names().iter().map(|name| name.familiar());
    for name in names {
        let named = look(&name)?;
        if named.is_none_or(|named| there.as_ref().is_some_and(|there| there.id != named.id)) {
            return Err(Error::Engine {
                engine: Engine::Docker,
                attempt: LOAD.to_owned(),
                reason: format!("it took the archive, and `{name}` is another image there"),
            });
        }
    }
    Ok(())
}

/// Passes on what is written to it in pieces.
struct Pieces<'p> {
    /// A piece, or nothing at the end.
    sender: mpsc::Sender<Option<Bytes>>,
    piece: Vec<u8>,
    runtime: &'p Handle,
    stop: &'p Stop,
}

impl Pieces<'_> {
    /// Waits for room, unless that is to stop.
    fn send(&self, piece: Option<Bytes>) -> io::Result<()> {
        let sending = unless_stopped(self.stop, self.sender.send(piece));
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.send(Some(piece))
    }
}
