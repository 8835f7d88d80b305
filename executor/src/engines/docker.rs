//! Images of a docker engine.

use std::sync::Arc;

use kiln_ir::{ImageConfig, Platform};
use kiln_oci::daemon::{Daemon, DaemonImage};
use kiln_oci::digest::Sha256Digest;
use kiln_store::{Content, DiffId, Lease};
use tokio::sync::mpsc;

use super::saved::{self, Wanted};
use super::{Asking, Engine, LocalImage, LocalLayers, diff_id};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::{Pieces, blocking, check_platform, stated_time};
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// Pieces of an archive that wait for the reader.
const PIECES: usize = 64;
/// An archive that is so much longer than the files in it, and this, is none of an image.
const MOST_TIMES_ITS_FILES: u64 = 4;
const MOST_BYTES_BESIDES: u64 = 1 << 30;

/// An image that a docker engine sends as one archive.
#[derive(Debug, Clone)]
pub(crate) struct SavedImage {
    daemon: Daemon,
    /// As the engine knows it.
    id: Sha256Digest,
    diff_ids: Arc<[DiffId]>,
    size_bytes: u64,
    platform: Platform,
    /// As people call it.
    shown: String,
}

/// Looks for an image; takes it, if its config is not known here.
///
/// The engine does not send the config of an image by itself, and tells too little of it otherwise: the id
/// is a digest of its bytes. So the layers, which are likely needed too, are taken at the same time.
pub(super) async fn find(daemon: &Daemon, asking: Asking<'_>) -> Result<Option<LocalImage>, Error> {
    let Asking {
        executor,
        lease,
        reference,
        ..
    } = asking;
    // A digest is of a manifest, and the engine keeps none: nothing could be proven.
    if reference.digest().is_some() {
        return Ok(None);
    }
    let shown = reference.familiar();
    let Some(found) = daemon.image(&shown).await? else {
        return Ok(None);
    };
    check_platform(&stated(&found), asking.platform, reference)?;
    let image = SavedImage {
        daemon: daemon.clone(),
        id: found.id,
        diff_ids: found.root.diff_ids.iter().map(diff_id).collect(),
        size_bytes: found.size.unsigned_abs(),
        platform: asking.platform.clone(),
        shown,
    };
    let config = match known_config(executor, &found.id)? {
        Some(config) => config,
        None => {
            (asking.tell)(format!("taking `{}` from docker", image.shown));
            let layers = Content::of_image(&image.diff_ids);
            let missing = match asking.takes_layers {
                true => executor.store().lease_layers(lease, &layers)?,
                false => Vec::new(),
            };
            let config = bring(executor, lease, &image, &missing, None).await?;
            if asking.keeps {
                executor
                    .store()
                    .remember_remote(&filed_as(&found.id), &config)?;
            }
            config
        }
    };
    let local = LocalImage {
        engine: Engine::Docker,
        manifest: Sha256Digest::of(&config),
        config,
        added: found
            .metadata
            .last_tag_time
            .as_deref()
            .and_then(stated_time),
        layers: LocalLayers::Saved(Box::new(image)),
        blobs: Vec::new(),
    };
    Ok(Some(local))
}

/// What the engine says the image is for.
fn stated(image: &DaemonImage) -> ImageConfig {
    ImageConfig {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone().unwrap_or_default(),
        ..ImageConfig::default()
    }
}

fn filed_as(id: &Sha256Digest) -> String {
    format!("config of the docker image {id}")
}

/// The config of an image that was here before.
fn known_config(executor: &Executor, id: &Sha256Digest) -> Result<Option<Vec<u8>>, Error> {
    let store = executor.store();
    let remembered = store.remembered_remote(&filed_as(id))?;
    let stored = || {
        store
            .peek_image(&id.to_string())
            .ok()
            .map(|image| image.config)
    };
    let config = remembered.or_else(stored);
    Ok(config.filter(|config| Sha256Digest::of(config) == *id))
}

/// Takes layers of an image, all that miss, and returns its config.
pub(crate) async fn bring(
    executor: &Executor,
    lease: &Lease,
    image: &SavedImage,
    missing: &[Content],
    observer: Option<&TransferObserver>,
) -> Result<Vec<u8>, Error> {
    let mut archive = image.daemon.save(&image.id.to_string()).await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let reading = {
        let (executor, lease) = (executor.clone(), lease.clone());
        let wanted = Wanted {
            id: image.id,
            diff_ids: Arc::clone(&image.diff_ids),
            missing: missing.to_vec(),
            platform: image.platform.clone(),
            shown: image.shown.clone(),
        };
        blocking(move || saved::read(&executor, &lease, Pieces::new(receiver), &wanted))
    };
    let sending = async move {
        let limit = image
            .size_bytes
            .saturating_mul(MOST_TIMES_ITS_FILES)
            .saturating_add(MOST_BYTES_BESIDES);
        let mut done = 0;
        loop {
            let piece = match archive.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let cut = std::io::Error::other("the transfer failed");
                    let _ = sender.send(Err(cut)).await;
                    return Err(Error::from(error));
                }
            };
            done += piece.len() as u64;
            if done > limit {
                let cut = std::io::Error::other("the archive is too long");
                let _ = sender.send(Err(cut)).await;
                return Err(Error::Engine {
                    engine: Engine::Docker,
                    attempt: format!("take `{}`", image.shown),
                    reason: format!("it sends more than {limit} bytes"),
                });
            }
            if let Some(observer) = observer {
                observer.tell(TransferEvent::Blob {
                    digest: image.id.to_string(),
                    size_bytes: image.size_bytes.max(done),
                    state: BlobState::Moving(done),
                });
            }
            // Who has what was wanted reads no further.
            if sender.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let (sent, read) = futures_util::future::join(sending, reading).await;
    // What broke the stream says more than what that led to.
    sent.and(read)
}
