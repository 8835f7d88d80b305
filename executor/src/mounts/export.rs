//! Exporting: a picture of each mount, what the destination lacks of it, and the documents.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::SystemTime;

use bytes::Bytes;
use kiln_ir::pattern::PatternList;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::Descriptor;
use kiln_store::{Beside, Lease};
use kiln_tree::FsError;

use super::error::MountsError;
use super::format::{ExportedTree, Pack, TREE, Tree, regular};
use super::packing::{Before, pack};
use super::place::{Contents, MountsPlace, Shelf};
use super::publish::Ours;
use super::{MountsEvent, Tell, files_error, picture};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::stoppable;
use crate::transfer::{TransferEvent, TransferObserver};

/// What is to be exported.
#[derive(Debug, Clone)]
pub struct ExportMounts {
    /// The mounts; none is all that are here.
    pub ids: Vec<String>,
    /// Where to.
    pub place: MountsPlace,
    /// What is left out, in patterns as ignore files have them.
    pub exclude: Vec<String>,
}

/// A mount whose picture was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedMount {
    /// Its id.
    pub id: String,
    /// How many files it has, directories not counted.
    pub files: u64,
    /// What they hold, each hard link group counted once.
    pub bytes: u64,
    /// What was sent, compressed: what was not there yet.
    pub new_bytes: u64,
    /// What its blobs are beside that: the place had them already.
    pub there_bytes: u64,
    /// The destination has this very picture.
    pub unchanged: bool,
}

impl ExportedMount {
    /// Counts what a mount is made of: what is new, which is so for the first mount that has it, and the rest.
    fn split(&mut self, mount: &ExportedTree, new: &mut BTreeMap<Sha256Digest, u64>) {
        let packs = mount.packs.iter().map(|pack| (pack.digest, pack.size));
        (self.new_bytes, self.there_bytes) = (0, 0);
        for (blob, size) in packs.chain([(mount.tree.digest, mount.tree.size)]) {
            match new.remove(&blob) {
                Some(_) => self.new_bytes += size,
                None => self.there_bytes += size,
            }
        }
    }
}

/// What an export did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountsExported {
    /// The mounts, in the order of their ids.
    pub mounts: Vec<ExportedMount>,
    /// Bytes of blobs that were sent or written.
    pub sent_bytes: u64,
    /// The digest of the export's manifest; none if all was there.
    pub digest: Option<String>,
}

/// One mount, packed.
struct Taken {
    mount: ExportedTree,
    tree: Bytes,
    new: Vec<Pack>,
    told: ExportedMount,
}

impl Executor {
    /// Exports cache mounts: only what is not there yet, but for a stream.
    ///
    /// Each mount is taken from all others while it is read, as by a step that locks it. What the
    /// destination has of other ids stays, and of an id the younger picture counts.
    pub async fn export_mounts(
        &self,
        request: &ExportMounts,
        tell: Tell<'_>,
        observer: &TransferObserver,
    ) -> Result<MountsExported, Error> {
        let excluded = PatternList::new(&request.exclude).map_err(|source| Error::Pattern {
            of: "what is to be excluded",
            source,
        })?;
        let here = self.store().cache_mounts()?;
        let here = here.into_iter().filter(|mount| mount.instance == 0);
        let here: Vec<String> = here.map(|mount| mount.id).collect();
        let mut ids = match request.ids.is_empty() {
            true => here.clone(),
            false => request.ids.clone(),
        };
        ids.sort();
        ids.dedup();
        if let Some(id) = ids.iter().find(|id| !here.contains(id)) {
            return Err(MountsError::NoSuchMount { id: id.clone() }.into());
        }
        let lease = self.store().lease();
        let shelf = Shelf::to_add_to(self, &request.place).await?;
        let before = match &shelf {
            Some(shelf) => observer.awaiting(shelf.shown(), shelf.contents()).await?,
            None => None,
        };
        let mut ours = Ours::default();
        let (mut mounts, mut exported) = (Vec::new(), Vec::new());
        for id in ids {
            let old = match (&shelf, &before) {
                (Some(shelf), Some(contents)) => old_tree(shelf, contents, &id).await?,
                _ => None,
            };
            observer.tell(TransferEvent::Doing(format!("packing {id}")));
            let taken = self.take_picture(&lease, &id, old, &excluded, tell).await?;
            tell(MountsEvent::Packed(taken.told.clone()));
            mounts.push(taken.told.clone());
            exported.push(taken.mount.clone());
            if !taken.told.unchanged {
                ours.add(taken.mount, taken.tree, taken.new);
            }
        }
        let (sent_bytes, digest) = match ours.is_empty() && shelf.is_some() {
            true => (0, None),
            false => {
                let published = self.publish_mounts(&request.place, shelf, &ours, observer);
                let published = published.await?;
                let mut new = ours.blobs();
                new.retain(|blob, _| !published.there.contains(blob));
                for (told, mount) in mounts.iter_mut().zip(&exported) {
                    told.split(mount, &mut new);
                }
                (published.sent_bytes, Some(published.digest.to_string()))
            }
        };
        // They are of no use here.
        let packs = ours.packs().map(|pack| *pack.digest.as_bytes());
        let packs: Vec<[u8; 32]> = packs.collect();
        drop(lease);
        for pack in packs {
            self.store().delete_blob(&kiln_store::BlobDigest(pack))?;
        }
        Ok(MountsExported {
            mounts,
            sent_bytes,
            digest,
        })
    }

    async fn take_picture(
        &self,
        lease: &Lease,
        id: &str,
        old: Option<(ExportedTree, Tree)>,
        excluded: &PatternList,
        tell: Tell<'_>,
    ) -> Result<Taken, Error> {
        let waiting = |pid| {
            tell(MountsEvent::Waiting {
                id: id.to_owned(),
                pid,
            });
        };
        let no_mount = || MountsError::NoSuchMount { id: id.to_owned() };
        let whole = self.whole_mount(id, false, &waiting).await?;
        let whole = whole.ok_or_else(no_mount)?;
        let (executor, lease, id) = (self.clone(), lease.clone(), id.to_owned());
        let excluded = excluded.clone();
        stoppable(move |stop| {
            let no_mount = || MountsError::NoSuchMount { id: id.clone() };
            let root = whole.directory()?.ok_or_else(no_mount)?;
            let taken = millis(SystemTime::now());
            let single_id = executor.options().single_id;
            let manifest = picture::take(&whole, &id, root.as_fd(), single_id, stop)?;
            let contradicts = |error| files_error("list", &id)(Box::new(error));
            let manifest = match excluded.is_empty() {
                true => manifest,
                false => picture::without(&manifest, &excluded).map_err(contradicts)?,
            };
            let known = match &old {
                Some((mount, tree)) => Before::of(tree, &mount.packs, &manifest),
                None => Before::default(),
            };
            let unreadable = |error: FsError| files_error("pack", &id)(error.into());
            let packed = pack(
                executor.store(),
                &lease,
                root.as_fd(),
                manifest,
                &known,
                stop,
                unreadable,
            )?;
            drop(root);
            drop(whole);
            let too_large = || MountsError::TooLarge { id: id.clone() };
            let tree = Bytes::from(packed.tree.encode().ok_or_else(too_large)?);
            let described = Descriptor::new(TREE, Sha256Digest::of(&tree), tree.len() as u64);
            let unchanged = old.as_ref().is_some_and(|(mount, _)| {
                mount.tree.digest == described.digest && mount.packs == packed.packs
            });
            let files = packed.tree.manifest.entries().iter();
            let mount = ExportedTree {
                id: id.clone(),
                taken,
                files: files.filter(|entry| !entry.kind.is_directory()).count() as u64,
                bytes: regular(&packed.tree.manifest)
                    .fold(0, |sum, (size, _)| size.saturating_add(sum)),
                tree: described,
                packs: packed.packs,
            };
            let mut told = ExportedMount {
                id: id.clone(),
                files: mount.files,
                bytes: mount.bytes,
                new_bytes: 0,
                there_bytes: 0,
                unchanged,
            };
            let packs = packed.new.iter().map(|pack| (pack.digest, pack.size));
            let mut new: BTreeMap<_, _> = packs.collect();
            if !unchanged {
                new.insert(mount.tree.digest, mount.tree.size);
            }
            told.split(&mount, &mut new);
            Ok(Taken {
                mount,
                tree,
                new: packed.new,
                told,
            })
        })
        .await
    }
}

/// What the destination has of a mount; nothing if it is of no use.
async fn old_tree(
    shelf: &Shelf,
    contents: &Contents,
    id: &str,
) -> Result<Option<(ExportedTree, Tree)>, Error> {
    let mut mounts = contents.config.mounts.iter();
    let Some(mount) = mounts.find(|mount| mount.id == id) else {
        return Ok(None);
    };
    let packs: Vec<Descriptor> = mount.packs.iter().map(Pack::descriptor).collect();
    if !shelf.has_all(&packs).await? {
        return Ok(None);
    }
    // An export that cannot be read is replaced.
    let Ok(blob) = shelf.blob(&mount.tree, mount.tree.size).await else {
        return Ok(None);
    };
    let tree = Tree::decode(&blob, &mount.packs).ok();
    Ok(tree.map(|tree| (mount.clone(), tree)))
}

fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Kept beside a mount where the disk cannot take owners.
pub(super) const RECORDED: Beside = Beside::Attributes;
