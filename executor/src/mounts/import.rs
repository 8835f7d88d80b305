//! Importing: what is missing is brought here, and the new directory takes the old one's place.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_oci::layout::LAYOUT_FILE;
use kiln_store::{MountDraft, WholeMount};
use kiln_tree::assemble::{Put, assemble};
use kiln_tree::copy::{copy_bytes_unseen, create_file, link_file};
use kiln_tree::handle::{self, FsError};
use kiln_tree::{Entry, Kind, Manifest, Stop, TreePath};
use rustix::fs::CWD;

use super::error::MountsError;
use super::export::RECORDED;
use super::format::{ExportedTree, Tree, regular};
use super::place::{Contents, MountsPlace, Shelf};
use super::stage::{FileKey, Stage};
use super::{MountsEvent, Tell, files_error, picture};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::stoppable;
use crate::transfer::TransferObserver;

/// So often a mount may change while what it lacks is fetched; after that it is held meanwhile.
const MOST_LOOKS: usize = 3;

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct ImportMounts {
    /// The mounts; none is all that there are.
    pub ids: Vec<String>,
    /// Where from.
    pub place: MountsPlace,
    /// What is here and is younger, or not in the export, stays.
    pub merge: bool,
}

/// Says of what is none that an export was expected: there, nothing is to be written.
fn no_export(place: &MountsPlace, error: Error) -> Error {
    let reason = match &error {
        Error::NotALayout { .. } => format!("there is no file `{LAYOUT_FILE}` in it"),
        Error::Mounts(MountsError::Archive { source, .. })
            if source.kind() != io::ErrorKind::StorageFull =>
        {
            "it is no whole tar archive".to_owned()
        }
        _ => return error,
    };
    let place = place.to_string();
    MountsError::NoExport { place, reason }.into()
}

/// A mount that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedMount {
    /// Its id.
    pub id: String,
    /// How many files it has, directories not counted.
    pub files: u64,
    /// What they hold, each hard link group counted once.
    pub bytes: u64,
    /// Bytes that were fetched for it, compressed.
    pub fetched_bytes: u64,
    /// It held just this before.
    pub unchanged: bool,
}

/// What becomes of a mount that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// The export takes its place.
    Replace,
    /// The export is added to it.
    Merge,
    /// It stays.
    Keep,
}

impl Executor {
    /// Imports cache mounts: of each only what is not here.
    ///
    /// Whoever uses a mount has the old one until the new one is whole.
    pub async fn import_mounts(
        &self,
        request: &ImportMounts,
        tell: Tell<'_>,
        observer: &TransferObserver,
    ) -> Result<Vec<ImportedMount>, Error> {
        let shelf = Shelf::open(self, &request.place).await;
        let shelf = shelf.map_err(|error| no_export(&request.place, error))?;
        let nothing = || MountsError::NothingThere {
            place: shelf.shown().to_owned(),
        };
        let contents = shelf.contents().await;
        let contents = contents.map_err(|error| no_export(&request.place, error))?;
        let contents = contents.ok_or_else(nothing)?;
        let existing = match request.merge {
            true => Existing::Merge,
            false => Existing::Replace,
        };
        let mut wanted = Vec::new();
        for id in &request.ids {
            wanted.push(find(&shelf, &contents, id)?);
        }
        if request.ids.is_empty() {
            wanted = contents.config.mounts.iter().collect();
        }
        let mut done = Vec::new();
        for mount in wanted {
            let imported = self.import_mount(&shelf, mount, existing, tell, observer);
            if let Some(imported) = imported.await? {
                tell(MountsEvent::Imported(imported.clone()));
                done.push(imported);
            }
        }
        Ok(done)
    }

    /// Imports one mount; none if there is one that is to be kept.
    pub(super) async fn import_mount(
        &self,
        shelf: &Shelf,
        mount: &ExportedTree,
        existing: Existing,
        tell: Tell<'_>,
        observer: &TransferObserver,
    ) -> Result<Option<ImportedMount>, Error> {
        let blob = shelf.blob(&mount.tree, mount.tree.size).await?;
        let packs = mount.packs.clone();
        let decoded = crate::source::blocking(move || Ok(Tree::decode(&blob, &packs))).await?;
        let tree = decoded.map_err(|reason| shelf.hostile(reason))?;
        let mut import = Import {
            executor: self,
            shelf,
            mount,
            existing,
            tell,
            stage: Some(Stage::new(self, observer)?),
            tree: std::sync::Arc::new(tree),
        };
        import.run().await
    }
}

fn find<'a>(shelf: &Shelf, contents: &'a Contents, id: &str) -> Result<&'a ExportedTree, Error> {
    let mut mounts = contents.config.mounts.iter();
    mounts.find(|mount| mount.id == id).ok_or_else(|| {
        let ids = contents.config.mounts.iter().take(20);
        let ids: Vec<String> = ids.map(|mount| format!("`{}`", mount.id)).collect();
        MountsError::NotExported {
            id: id.to_owned(),
            place: shelf.shown().to_owned(),
            available: match ids.is_empty() {
                true => "none".to_owned(),
                false => ids.join(", "),
            },
        }
        .into()
    })
}

struct Import<'a> {
    executor: &'a Executor,
    shelf: &'a Shelf,
    mount: &'a ExportedTree,
    existing: Existing,
    tell: Tell<'a>,
    stage: Option<Stage>,
    tree: std::sync::Arc<Tree>,
}

/// A mount as it is, with what it is to become.
struct Look {
    whole: WholeMount,
    /// The directory, with what is in it; none if there is none.
    here: Option<(OwnedFd, Manifest)>,
    target: Manifest,
    /// Files that are neither here nor brought here.
    lacks: HashSet<FileKey>,
}

impl Import<'_> {
    async fn run(&mut self) -> Result<Option<ImportedMount>, Error> {
        let mut looks = 0;
        // Where nothing is here, nothing needs to be held to know what is lacking.
        if !self.executor.store().has_cache_mount(&self.mount.id) {
            let all = regular(&self.tree.manifest).filter(|(size, _)| *size > 0);
            self.bring(all.collect()).await?;
        }
        loop {
            let Some(look) = self.look().await? else {
                return Ok(None);
            };
            looks += 1;
            if look.lacks.is_empty() {
                return self.place(look).await.map(Some);
            }
            let lacks = look.lacks.clone();
            match looks < MOST_LOOKS {
                true => {
                    drop(look);
                    self.bring(lacks).await?;
                }
                false => {
                    self.bring(lacks).await?;
                    return self.place(look).await.map(Some);
                }
            }
        }
    }

    async fn bring(&mut self, files: HashSet<FileKey>) -> Result<(), Error> {
        self.check_room(&files)?;
        let (shelf, mount, tell) = (self.shelf, self.mount, self.tell);
        let tree = std::sync::Arc::clone(&self.tree);
        let stage = self
            .stage
            .as_mut()
            .expect("BUG: the stage is put to use once");
        stage.bring(shelf, mount, &tree, &files, tell).await
    }

    /// Errors if the disk has no room for what is to be fetched.
    fn check_room(&self, files: &HashSet<FileKey>) -> Result<(), Error> {
        let root = self.executor.store().root();
        let disk = rustix::fs::statvfs(root)
            .map_err(|error| Error::io("look at the disk of", root)(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Holes take no room, and there are none in files that chunks fill.
        let sizes = files
            .iter()
            .fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
        let needed = sizes.min(self.tree.data_bytes());
        match needed > free {
            true => Err(MountsError::NoRoom {
                id: self.mount.id.clone(),
                place: self.shelf.shown().to_owned(),
                needed,
                free,
            }
            .into()),
            false => Ok(()),
        }
    }

    /// Takes the mount, and sees what it has; none if it is to stay as it is.
    async fn look(&mut self) -> Result<Option<Look>, Error> {
        let id = self.mount.id.clone();
        let waiting = |pid| {
            (self.tell)(MountsEvent::Waiting {
                id: id.clone(),
                pid,
            });
        };
        let only_new = self.existing == Existing::Keep;
        let whole = self.executor.whole_mount(&id, only_new, &waiting).await?;
        let Some(whole) = whole else {
            return Ok(None);
        };
        let single_id = self.executor.options().single_id;
        let (existing, tree) = (self.existing, std::sync::Arc::clone(&self.tree));
        let stage = self
            .stage
            .take()
            .expect("BUG: the stage is put to use once");
        let (look, stage) = stoppable(move |stop| {
            let look = look(whole, &id, single_id, existing, &tree, &stage, stop);
            Ok((look?, stage))
        })
        .await?;
        self.stage = Some(stage);
        Ok(look)
    }

    /// Makes the new directory, and puts it in the old one's place.
    async fn place(&mut self, look: Look) -> Result<ImportedMount, Error> {
        let stage = self
            .stage
            .take()
            .expect("BUG: the stage is put to use once");
        let executor = self.executor.clone();
        let id = self.mount.id.clone();
        stoppable(move |stop| place(&executor, &id, look, stage, stop)).await
    }
}

fn look(
    whole: WholeMount,
    id: &str,
    single_id: bool,
    existing: Existing,
    tree: &Tree,
    stage: &Stage,
    stop: &Stop,
) -> Result<Option<Look>, Error> {
    let here = match whole.directory()? {
        None => None,
        Some(_) if existing == Existing::Keep => return Ok(None),
        Some(root) => {
            let manifest = picture::take(&whole, id, root.as_fd(), single_id, stop)?;
            Some((root, manifest))
        }
    };
    let target = match (&here, existing) {
        (Some((_, here)), Existing::Merge) => picture::merged(here, &tree.manifest)
            .map_err(|error| files_error("merge into", id)(Box::new(error)))?,
        _ => tree.manifest.clone(),
    };
    let local = here.as_ref().map(|(_, here)| picture::by_digest(here));
    let local = local.unwrap_or_default();
    let lacks = regular(&target)
        .filter(|file| file.0 > 0 && !local.contains_key(file) && !stage.has(file))
        .collect();
    drop(local);
    Ok(Some(Look {
        whole,
        here,
        target,
        lacks,
    }))
}

fn place(
    executor: &Executor,
    id: &str,
    look: Look,
    stage: Stage,
    stop: &Stop,
) -> Result<ImportedMount, Error> {
    let Look {
        whole,
        here,
        target,
        ..
    } = look;
    let files = target
        .entries()
        .iter()
        .filter(|entry| !entry.kind.is_directory());
    let imported = ImportedMount {
        id: id.to_owned(),
        files: files.count() as u64,
        bytes: target.total_bytes(),
        fetched_bytes: stage.fetched_bytes,
        unchanged: here.as_ref().is_some_and(|(_, here)| *here == target),
    };
    if imported.unchanged {
        return Ok(imported);
    }
    let options = executor.store().options();
    let draft: MountDraft = executor.store().begin_mount()?;
    let mut sources = Sources::new(here.as_ref(), stage, &target, stop);
    let written = assemble(
        &target,
        draft.directory(),
        &options.ownership,
        stop,
        |entry, dir, name| sources.put(entry, dir, name),
    );
    written.map_err(|error| files_error("write", id)(error.into()))?;
    let stage = sources.stage;
    // A record of another directory than the one that is there says nothing that is wrong of both.
    let record = executor.options().single_id.then(|| target.encode());
    whole.keep_beside(RECORDED, record.as_deref())?;
    whole.replace(draft)?;
    stage.done()?;
    Ok(imported)
}

/// Where the files of the new directory come from.
struct Sources<'a> {
    here: Option<(BorrowedFd<'a>, HashMap<FileKey, Vec<&'a Entry>>)>,
    /// Files of the old directory that are in the new one under another name already.
    linked: HashSet<&'a TreePath>,
    stage: Stage,
    /// How often a file is still to be made.
    left: HashMap<FileKey, usize>,
    stop: &'a Stop,
}

impl<'a> Sources<'a> {
    fn new(
        here: Option<&'a (OwnedFd, Manifest)>,
        stage: Stage,
        target: &Manifest,
        stop: &'a Stop,
    ) -> Sources<'a> {
        let mut left = HashMap::new();
        for file in regular(target) {
            *left.entry(file).or_default() += 1;
        }
        Sources {
            here: here.map(|(root, here)| (root.as_fd(), picture::by_digest(here))),
            linked: HashSet::new(),
            stage,
            left,
            stop,
        }
    }

    fn put(&mut self, entry: &Entry, dir: BorrowedFd<'_>, name: &[u8]) -> Result<Put, FsError> {
        let Kind::File { size, digest } = entry.kind else {
            unreachable!("BUG: only files are put")
        };
        let key = (size, digest);
        let left = self
            .left
            .get_mut(&key)
            .expect("BUG: every file was counted");
        *left -= 1;
        let last = *left == 0;
        if size == 0 {
            create_file(dir, name)?;
            return Ok(Put::New);
        }
        if let Some((root, files)) = &self.here
            && let Some(there) = files.get(&key)
        {
            // The old directory goes, so that what stays as it is need not be copied.
            let same = |old: &&&Entry| old.meta == entry.meta && !self.linked.contains(&old.path);
            if let Some(old) = there.iter().find(same) {
                let above = old.path.parent().unwrap_or(TreePath::ROOT);
                let from = handle::open_beneath(root, above.as_bytes(), handle::READ_DIRECTORY)?;
                if link_file(from, old.path.name(), dir, name)? {
                    self.linked.insert(&old.path);
                    return Ok(Put::Linked);
                }
            }
            let from = handle::open_beneath(root, there[0].path.as_bytes(), handle::READ)?;
            copy_bytes_unseen(from, create_file(dir, name)?, size, self.stop)?;
            return Ok(Put::New);
        }
        let path = self.stage.path(&key);
        let failed = |source: rustix::io::Errno| FsError::new("put", name, source);
        if last {
            rustix::fs::renameat(CWD, &path, dir, name).map_err(failed)?;
            self.stage.took(&key);
            return Ok(Put::New);
        }
        let from =
            std::fs::File::open(&path).map_err(|source| FsError::new("open", name, source))?;
        copy_bytes_unseen(from, create_file(dir, name)?, size, self.stop)?;
        Ok(Put::New)
    }
}
