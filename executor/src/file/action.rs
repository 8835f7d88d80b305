//! Running a file op: its actions in order, each chain of them one layer.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::SystemTime;

use kiln_ir::{ActionInput, CopyAction, FileAction, FileActionKind, FileOp, Owner, UserRef};
use kiln_store::{Content as LayerContent, Lease, Store};
use kiln_tree::stop::Stoppable;
use kiln_tree::tar::{ApplyOptions, LowerFiles, apply};
use kiln_tree::{Entry, Kind, Meta, Mtime, Stop, TreePath, View, handle};
use rustix::fs::OFlags;

use super::FileError;
use super::changeset::{ChangeError, Changeset};
use super::copy::{Copier, ModeChange, Treatment};
use super::pick::{self, Pick};
use super::source::{Layers, Source};
use crate::archive;
use crate::context::ScannedContext;
use crate::users::Accounts;

/// A tree that a file op reads.
pub(crate) enum Base<'a> {
    /// Layers, lowest first.
    Layers(&'a [LayerContent]),
    /// A build context.
    Context(&'a ScannedContext),
}

/// What is where an archive is unpacked, for its links.
struct Unpacked<'a, 'l> {
    changes: &'a Changeset<'l>,
    at: &'a TreePath,
    layers: &'a [OwnedFd],
}

impl LowerFiles for Unpacked<'_, '_> {
    fn open(&self, path: &TreePath) -> io::Result<Option<(Entry, OwnedFd)>> {
        let path = [self.at.as_bytes(), b"/", path.as_bytes()].concat();
        let found = self
            .changes
            .resolve(&path, false)
            .and_then(|at| Ok((self.changes.open(&at, self.layers)?, at)));
        let (found, at) = found.map_err(io::Error::other)?;
        Ok(found.map(|(seen, file)| (Entry::new(at, seen.kind, seen.meta), file)))
    }
}

/// Accounts are small; a hostile one is cut.
const ACCOUNTS_LIMIT_BYTES: u64 = 8 << 20;

/// Runs a file op; returns the layers of each action that has an output number.
///
/// Files that are the same in all in `donor`, the leased layers of an earlier result, are linked
/// from there instead of being written.
pub(crate) fn run(
    store: &Store,
    lease: &Lease,
    op: &FileOp,
    inputs: &[Base<'_>],
    donor: &[LayerContent],
    stop: &Stop,
) -> Result<Vec<(u32, Vec<LayerContent>)>, FileError> {
    let donor = open_layers(store, donor)?;
    let mut done: Vec<Option<Vec<LayerContent>>> = vec![None; op.actions.len()];
    let mut outputs = Vec::new();
    let mut next = 0;
    while next < op.actions.len() {
        let end = chain_end(op, next);
        let chain = &op.actions[next..end];
        let layers = run_chain(store, lease, chain, inputs, &done, &donor, stop)?;
        if let Some(output) = op.actions[end - 1].output {
            outputs.push((output, layers.clone()));
        }
        done[end - 1] = Some(layers);
        next = end;
    }
    Ok(outputs)
}

/// The end of the run of actions from `start` of which each but the last is read by the next alone.
fn chain_end(op: &FileOp, start: usize) -> usize {
    let readers = |index: usize| {
        let this = ActionInput::Action(u32::try_from(index).unwrap_or(u32::MAX));
        let reads = |action: &FileAction| {
            let owner = action.kind.owner().into_iter().flat_map(Owner::parts);
            let lookups = owner.filter_map(|user| match user {
                // What an action changes it may look into at any time.
                UserRef::Name { input, .. } if *input != action.input => Some(*input),
                _ => None,
            });
            [action.input, action.secondary]
                .into_iter()
                .chain(lookups)
                .filter(|input| *input == this)
                .count()
        };
        op.actions.iter().map(reads).sum::<usize>()
    };
    let mut end = start + 1;
    while end < op.actions.len() {
        let before = ActionInput::Action(u32::try_from(end - 1).unwrap_or(u32::MAX));
        let goes_on = op.actions[end].input == before
            && op.actions[end - 1].output.is_none()
            && readers(end - 1) == 1;
        if !goes_on {
            break;
        }
        end += 1;
    }
    end
}

fn run_chain(
    store: &Store,
    lease: &Lease,
    actions: &[FileAction],
    inputs: &[Base<'_>],
    done: &[Option<Vec<LayerContent>>],
    donor: &Layers,
    stop: &Stop,
) -> Result<Vec<LayerContent>, FileError> {
    let mut layers = match tree(actions[0].input, inputs, done) {
        None => Vec::new(),
        Some(Base::Layers(layers)) => layers.to_vec(),
        Some(Base::Context(context)) => copy_whole(store, lease, context)?,
    };
    let below = open_layers(store, &layers)?;
    let draft = store.begin_layer()?;
    let mut changes = changeset(store, &below.view, draft.fs(), stop).with_donor(Some(donor));
    let now = now();
    for action in actions {
        let step = Step {
            store,
            inputs,
            done,
            below: &below,
            now,
        };
        step.run(&mut changes, action)?;
    }
    let manifest = changes.finish()?;
    let content = LayerContent::Layer(manifest.id());
    store.commit_layer(lease, draft, &manifest, content)?;
    layers.push(content);
    Ok(layers)
}

/// A layer in the making over `lower`, whose files `directory` gets as the store keeps them.
pub(crate) fn changeset<'a>(
    store: &Store,
    lower: &'a View,
    directory: BorrowedFd<'a>,
    stop: &Stop,
) -> Changeset<'a> {
    let options = store.options();
    Changeset::new(
        lower,
        directory,
        options.ownership.clone(),
        options.overlay_xattrs,
    )
    .with_threads(options.threads)
    .with_stop(stop)
}

/// Makes a layer of a whole context.
pub(crate) fn copy_whole(
    store: &Store,
    lease: &Lease,
    context: &ScannedContext,
) -> Result<Vec<LayerContent>, FileError> {
    let view = View::new(Vec::new());
    let draft = store.begin_layer()?;
    let mut changes = changeset(store, &view, draft.fs(), context.stop());
    let treatment = Treatment::PLAIN;
    let whole = Pick {
        name: Vec::new(),
        at: TreePath::ROOT,
        contents: true,
    };
    let picked = pick::items(context, &whole, &kiln_solver::CopySelection::default())?;
    Copier::new(&mut changes, context, treatment, now()).copy(&whole, &picked, &TreePath::ROOT)?;
    let manifest = changes.finish()?;
    let content = LayerContent::Layer(manifest.id());
    store.commit_layer(lease, draft, &manifest, content)?;
    Ok(vec![content])
}

/// What becomes of attributes where a whole tree is made a layer.
pub(crate) struct Keep {
    /// The time of everything, in seconds since 1970; none keeps the times of files.
    pub(crate) mtime_seconds: Option<i64>,
    /// Permission bits, as chmod takes them.
    pub(crate) mode: &'static str,
}

/// Makes a layer of the directory `subdir` of a tree; none if there is no such directory.
pub(crate) fn copy_tree(
    store: &Store,
    lease: &Lease,
    tree: &ScannedContext,
    subdir: &str,
    keep: &Keep,
) -> Result<Option<LayerContent>, FileError> {
    let selection = kiln_solver::CopySelection {
        src: format!("/{subdir}"),
        follow_symlink: true,
        dir_copy_contents: true,
        ..kiln_solver::CopySelection::default()
    };
    let picked = match pick::picks(tree, &selection) {
        Err(pick::PickError::NotFound { .. }) => return Ok(None),
        picked => picked?,
    };
    let view = View::new(Vec::new());
    let draft = store.begin_layer()?;
    let mut changes = changeset(store, &view, draft.fs(), tree.stop());
    let treatment = Treatment {
        mode: ModeChange::of(None, keep.mode)?,
        mtime: keep
            .mtime_seconds
            .map(|seconds| Mtime { seconds, nanos: 0 }),
        ..Treatment::PLAIN
    };
    for pick in &picked {
        let items = pick::items(tree, pick, &selection)?;
        if !items
            .first()
            .is_some_and(|first| first.item.kind.is_directory())
        {
            return Ok(None);
        }
        let mut copier = Copier::new(&mut changes, tree, treatment.clone(), now());
        copier.copy(pick, &items, &TreePath::ROOT)?;
    }
    let manifest = changes.finish()?;
    let content = LayerContent::Layer(manifest.id());
    store.commit_layer(lease, draft, &manifest, content)?;
    Ok(Some(content))
}

/// Copies what is at `selector` into a changeset's root; a file is put there by its name.
///
/// Returns the name of that file.
pub(crate) fn copy_contents<S: Source + Sync>(
    source: &S,
    selector: &str,
    changes: &mut Changeset<'_>,
) -> Result<Option<Vec<u8>>, FileError> {
    let selection = kiln_solver::CopySelection {
        src: selector.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        ..kiln_solver::CopySelection::default()
    };
    let treatment = Treatment::PLAIN;
    let mut file = None;
    for pick in pick::picks(source, &selection)? {
        let items = pick::items(source, &pick, &selection)?;
        let root = items.first().map(|picked| picked.item.clone());
        Copier::new(changes, source, treatment.clone(), now()).copy(
            &pick,
            &items,
            &TreePath::ROOT,
        )?;
        match root.filter(|item| item.kind.is_directory()) {
            Some(item) => changes.put_directory(&TreePath::ROOT, &item.meta, false)?,
            None => file = Some(pick.name),
        }
    }
    Ok(file)
}

fn tree<'a>(
    input: ActionInput,
    inputs: &'a [Base<'a>],
    done: &'a [Option<Vec<LayerContent>>],
) -> Option<Base<'a>> {
    match input {
        ActionInput::Scratch => None,
        ActionInput::Input(index) => Some(match &inputs[index as usize] {
            Base::Layers(layers) => Base::Layers(layers),
            Base::Context(context) => Base::Context(context),
        }),
        ActionInput::Action(index) => match &done[index as usize] {
            Some(layers) => Some(Base::Layers(layers)),
            None => unreachable!("BUG: action {index} is read before it is done"),
        },
    }
}

/// The merged view of layers with their directories.
pub(crate) fn open_layers(store: &Store, layers: &[LayerContent]) -> Result<Layers, FileError> {
    let directories: Result<Vec<OwnedFd>, _> =
        layers.iter().map(|layer| store.open_layer(layer)).collect();
    Ok(Layers {
        view: store.layers_view(layers)?,
        directories: directories?,
        may_link: false,
    })
}

fn now() -> Mtime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Mtime {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}

fn stamp(nanos: i64) -> Mtime {
    Mtime {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
    }
}

struct Step<'s> {
    store: &'s Store,
    inputs: &'s [Base<'s>],
    done: &'s [Option<Vec<LayerContent>>],
    below: &'s Layers,
    now: Mtime,
}

impl Step<'_> {
    fn run(&self, changes: &mut Changeset<'_>, action: &FileAction) -> Result<(), FileError> {
        match &action.kind {
            FileActionKind::Copy(copy) => self.copy(changes, action, copy),
            FileActionKind::Mkfile(mkfile) => {
                let (uid, gid) = self
                    .owner(changes, action, mkfile.owner.as_ref())?
                    .unwrap_or((0, 0));
                let meta = self.meta(mkfile.mode, uid, gid, mkfile.timestamp);
                let path = at(changes, &mkfile.path, true)?;
                self.expect_parent(changes, &path)?;
                changes.put_file(&path, &meta, &mkfile.data)?;
                Ok(())
            }
            FileActionKind::Mkdir(mkdir) => {
                let (uid, gid) = self
                    .owner(changes, action, mkdir.owner.as_ref())?
                    .unwrap_or((0, 0));
                let meta = self.meta(mkdir.mode, uid, gid, mkdir.timestamp);
                let path = at(changes, &mkdir.path, true)?;
                match (changes.get(&path), mkdir.make_parents) {
                    (Some(seen), true) if seen.kind.is_directory() => Ok(()),
                    (Some(_), _) => Err(FileError::State {
                        path,
                        state: "exists",
                    }),
                    (None, true) => {
                        let parent = path.parent().unwrap_or(TreePath::ROOT);
                        changes.make_directories(&parent, &meta)?;
                        Ok(changes.put_directory(&path, &meta, false)?)
                    }
                    (None, false) => {
                        self.expect_parent(changes, &path)?;
                        Ok(changes.put_directory(&path, &meta, false)?)
                    }
                }
            }
            FileActionKind::Rm(rm) => self.remove(changes, rm),
            FileActionKind::Symlink(symlink) => {
                let (uid, gid) = self
                    .owner(changes, action, symlink.owner.as_ref())?
                    .unwrap_or((0, 0));
                let meta = self.meta(0o777, uid, gid, symlink.timestamp);
                let path = at(changes, &symlink.path, false)?;
                self.expect_parent(changes, &path)?;
                let target = symlink.target.clone().into_bytes();
                changes.put_special(&path, Kind::Symlink { target }, &meta)?;
                Ok(())
            }
        }
    }

    fn meta(&self, mode: u32, uid: u32, gid: u32, timestamp: Option<i64>) -> Meta {
        let mtime = timestamp.map_or(self.now, stamp);
        Meta {
            mode: mode & 0o7777,
            uid,
            gid,
            mtime,
            ..Meta::default()
        }
    }

    fn expect_parent(&self, changes: &Changeset<'_>, path: &TreePath) -> Result<(), FileError> {
        let parent = path.parent().unwrap_or(TreePath::ROOT);
        match changes.get(&parent) {
            Some(seen) if seen.kind.is_directory() => Ok(()),
            Some(_) => Err(FileError::State {
                path: parent,
                state: "is not a directory",
            }),
            None => Err(FileError::State {
                path: parent,
                state: "does not exist",
            }),
        }
    }

    fn remove(&self, changes: &mut Changeset<'_>, rm: &kiln_ir::RmAction) -> Result<(), FileError> {
        let mut paths = Vec::new();
        if rm.allow_wildcard {
            let cleaned = kiln_ir::pattern::clean(&format!("/{}", rm.path));
            let (literal, patterns) = pick::split_wildcard(&cleaned);
            let start = changes.resolve(&literal, !patterns.is_empty())?;
            let found = pick::matching(start, &patterns, |at| changes.list(at))?;
            let found = found.into_iter().map(|(at, _)| at);
            let found = found.filter(|at| changes.get(at).is_some());
            paths.extend(found);
        } else {
            let path = at(changes, &rm.path, false)?;
            if changes.get(&path).is_some() {
                paths.push(path);
            }
        }
        if paths.is_empty() && !rm.allow_not_found {
            return Err(pick::PickError::NotFound {
                path: rm.path.clone(),
            }
            .into());
        }
        for path in paths {
            changes.remove(&path)?;
        }
        Ok(())
    }

    fn copy(
        &self,
        changes: &mut Changeset<'_>,
        action: &FileAction,
        copy: &CopyAction,
    ) -> Result<(), FileError> {
        let treatment = Treatment {
            owner: self.owner(changes, action, copy.owner.as_ref())?,
            mode: ModeChange::of(copy.mode, &copy.mode_str)?,
            mtime: copy.timestamp.map(stamp),
            replace: copy.always_replace_existing_dest_paths,
        };
        match tree(action.secondary, self.inputs, self.done) {
            None => self.copy_from(changes, &open_layers(self.store, &[])?, copy, treatment),
            Some(Base::Layers(layers)) => {
                self.copy_from(changes, &open_layers(self.store, layers)?, copy, treatment)
            }
            Some(Base::Context(context)) => self.copy_from(changes, context, copy, treatment),
        }
    }

    fn copy_from<S: Source + Sync>(
        &self,
        changes: &mut Changeset<'_>,
        source: &S,
        copy: &CopyAction,
        treatment: Treatment,
    ) -> Result<(), FileError> {
        let selection = kiln_solver::CopySelection::from(copy);
        let picks = pick::picks(source, &selection)?;
        if picks.is_empty() {
            return Ok(());
        }
        let mut copier = Copier::new(changes, source, treatment.clone(), self.now);
        let dest = copier.open_destination(&copy.dest, copy.create_dest_path)?;
        for pick in &picks {
            if copy.attempt_unpack
                && self.unpack(copier.changes(), source, pick, &dest, &treatment)?
            {
                continue;
            }
            let items = pick::items(source, pick, &selection)?;
            copier.copy(pick, &items, &dest)?;
        }
        Ok(())
    }

    /// Unpacks a pick that is an archive below `dest`; tells whether it was one.
    fn unpack<S: Source + Sync>(
        &self,
        changes: &mut Changeset<'_>,
        source: &S,
        pick: &Pick,
        dest: &TreePath,
        treatment: &Treatment,
    ) -> Result<bool, FileError> {
        let Some(item) = source
            .get(&pick.at)
            .filter(|item| matches!(item.kind, Kind::File { .. }))
        else {
            return Ok(false);
        };
        let file = source.open(&item)?;
        let Some(archive) = archive::tar_reader(file.into()) else {
            return Ok(false);
        };
        let draft = self.store.begin_layer()?;
        let options = self.store.options();
        let there = Unpacked {
            changes,
            at: dest,
            layers: &self.below.directories,
        };
        // What docker takes: some writers leave out the empty blocks at the end.
        let limits = ApplyOptions {
            require_end: false,
            unpacks: true,
            lower: Some(&there),
            ..ApplyOptions::new(options.ownership.clone(), options.overlay_xattrs)
        };
        let refused = |source| FileError::Unpack {
            path: item.path.clone(),
            source,
        };
        let archive = Stoppable::new(archive, changes.stop());
        let applied = apply(archive, draft.fs(), &limits).map_err(refused)?;
        let directory = handle::open_beneath(draft.fs(), b"", OFlags::PATH | OFlags::DIRECTORY)
            .map_err(ChangeError::from)?;
        let implied = applied.manifest.entries().iter();
        let implied = implied
            .filter(|entry| matches!(entry.kind, Kind::Directory { passing: true, .. }))
            .map(|entry| entry.path.clone())
            .collect();
        let unpacked = Layers {
            view: View::new(vec![std::sync::Arc::new(applied.manifest)]),
            directories: vec![directory],
            may_link: true,
        };
        let whole = Pick {
            name: Vec::new(),
            at: TreePath::ROOT,
            contents: true,
        };
        let items = pick::items(&unpacked, &whole, &kiln_solver::CopySelection::default())?;
        Copier::unpacking(changes, &unpacked, treatment, implied, self.now)
            .copy(&whole, &items, dest)?;
        Ok(true)
    }

    fn owner(
        &self,
        changes: &Changeset<'_>,
        action: &FileAction,
        owner: Option<&Owner>,
    ) -> Result<Option<(u32, u32)>, FileError> {
        let Some(owner) = owner else {
            return Ok(None);
        };
        let (uid, primary) = match &owner.user {
            None => (0, 0),
            // As an owner that is a number always had it.
            Some(UserRef::Id(uid)) => (*uid, *uid),
            Some(UserRef::Name { name, input }) => {
                self.accounts(changes, action, *input)?.user_ids(name)?
            }
        };
        let gid = match &owner.group {
            None => primary,
            Some(UserRef::Id(gid)) => *gid,
            Some(UserRef::Name { name, input }) => {
                self.accounts(changes, action, *input)?.gid(name)?
            }
        };
        Ok(Some((uid, gid)))
    }

    fn accounts(
        &self,
        changes: &Changeset<'_>,
        action: &FileAction,
        input: ActionInput,
    ) -> Result<Accounts, FileError> {
        if input == action.input {
            let directories = &self.below.directories;
            return accounts_by(|path| {
                Ok(changes.read(path, directories, ACCOUNTS_LIMIT_BYTES)?)
            });
        }
        let layers = match tree(input, self.inputs, self.done) {
            Some(Base::Layers(layers)) => layers.to_vec(),
            Some(Base::Context(_)) | None => Vec::new(),
        };
        accounts(self.store, &layers)
    }
}

/// Reads the accounts of a file system.
pub(crate) fn accounts(store: &Store, layers: &[LayerContent]) -> Result<Accounts, FileError> {
    let layers = open_layers(store, layers)?;
    accounts_by(|path| layers.read(path, ACCOUNTS_LIMIT_BYTES))
}

fn accounts_by(
    read: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, FileError>,
) -> Result<Accounts, FileError> {
    Ok(Accounts {
        passwd: read(b"etc/passwd")?.unwrap_or_default(),
        group: read(b"etc/group")?.unwrap_or_default(),
    })
}

fn at(changes: &Changeset<'_>, path: &str, follow_last: bool) -> Result<TreePath, ChangeError> {
    changes.resolve(path.as_bytes(), follow_last)
}

#[cfg(test)]
mod tests {
    use kiln_ir::{MkdirAction, MkfileAction};

    use super::*;
    use crate::executor::tests::executor;

    #[test]
    fn owners_may_be_looked_up_in_any_earlier_action() {
        let (_directory, executor) = executor();
        let lease = executor.store().lease();
        let action = |input, output, kind| FileAction {
            input,
            secondary: ActionInput::Scratch,
            output,
            kind,
        };
        let mkfile = |path: &str, data: &str| {
            FileActionKind::Mkfile(MkfileAction {
                path: path.to_owned(),
                mode: 0o644,
                data: data.as_bytes().to_vec(),
                ..MkfileAction::default()
            })
        };
        let etc = FileActionKind::Mkdir(MkdirAction {
            path: "/etc".to_owned(),
            mode: 0o755,
            ..MkdirAction::default()
        });
        let home = FileActionKind::Mkdir(MkdirAction {
            path: "/home".to_owned(),
            mode: 0o755,
            owner: Some(Owner {
                user: Some(UserRef::Name {
                    name: "www".to_owned(),
                    input: ActionInput::Action(1),
                }),
                group: None,
            }),
            ..MkdirAction::default()
        });
        let op = FileOp {
            actions: vec![
                action(ActionInput::Scratch, None, etc),
                action(
                    ActionInput::Action(0),
                    None,
                    mkfile("/etc/passwd", "www:x:33:34::/:/bin/sh\n"),
                ),
                action(ActionInput::Action(1), None, mkfile("/file", "")),
                action(ActionInput::Action(2), Some(0), home),
            ],
        };
        let outputs = run(executor.store(), &lease, &op, &[], &[], &Stop::NEVER).unwrap();
        let view = executor.store().layers_view(&outputs[0].1).unwrap();
        let made = view.get(b"home").unwrap().meta();
        assert_eq!((made.uid, made.gid), (33, 34));
    }
}
