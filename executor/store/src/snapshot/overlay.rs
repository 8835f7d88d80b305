//! Snapshots as detached overlay mounts.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_tree::seal::{SealOptions, seal};
use kiln_tree::{OverlayXattrs, Stop};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::layers::open_directory;
use crate::snapshot::lower::{Lower, Lowers};
use crate::snapshot::{
    SealedLayer, Snapshot, Snapshotter, State, Strategy, WorkDirectory, attributes,
};
use crate::{Content, Lease, StoreError};

/// The overlay strategy.
///
/// Options are all named, so that no kernel's defaults decide what a layer looks like. `volatile`
/// makes the last close cost no sync of the whole filesystem; a step that a power failure cuts off
/// is lost anyway.
#[derive(Debug, Clone)]
pub struct Overlay {
    lowers: Lowers,
}

/// The directories of one overlay mount.
#[derive(Debug)]
pub(crate) struct Directories<'a> {
    /// Lowest first.
    pub(crate) lowers: &'a [PathBuf],
    /// The upper and the work directory, unless it is only to be read.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
    pub(crate) marks: OverlayXattrs,
}

impl Overlay {
    pub(super) fn new(lowers: Lowers) -> Self {
        Self { lowers }
    }
}

impl Snapshotter for Overlay {
    fn strategy(&self) -> Strategy {
        Strategy::Overlay
    }

    fn prepare(
        &self,
        lease: &Lease,
        layers: &[Content],
        stop: &Stop,
    ) -> Result<Snapshot, StoreError> {
        let store = &self.lowers.store;
        let Lower {
            directories: mut lowers,
            view: lower,
        } = self.lowers.of(lease, layers, stop)?;
        let work = WorkDirectory::new(store)?;
        let (upper_path, work_path) = (work.make("fs")?, work.make("work")?);
        let upper = open_directory(&upper_path)?;
        attributes::prepare_root(&upper, &upper_path, &lower, &store.options().ownership)?;
        if lowers.is_empty() {
            lowers.push(work.make("empty")?);
        }
        let root = mount(&Directories {
            lowers: &lowers,
            upper: Some((&upper_path, &work_path)),
            marks: store.options().overlay_xattrs,
        })?;
        Ok(Snapshot {
            root,
            is_mount: true,
            writable: true,
            state: State::Overlay { upper: Some(upper) },
            lower,
            layers: layers.to_vec(),
            work,
        })
    }

    fn view(&self, lease: &Lease, layers: &[Content], stop: &Stop) -> Result<Snapshot, StoreError> {
        let store = &self.lowers.store;
        let Lower {
            directories: mut lowers,
            view: lower,
        } = self.lowers.of(lease, layers, stop)?;
        let work = WorkDirectory::new(store)?;
        // The merged root looks as the highest directory does, and without an upper there must be
        // two: one of our own on top serves both.
        let top_path = work.make("fs")?;
        let top = open_directory(&top_path)?;
        attributes::prepare_root(&top, &top_path, &lower, &store.options().ownership)?;
        if lowers.is_empty() {
            lowers.push(work.make("empty")?);
        }
        lowers.push(top_path);
        let marks = store.options().overlay_xattrs;
        let root = mount(&Directories {
            lowers: &lowers,
            upper: None,
            marks,
        })?;
        Ok(Snapshot {
            root,
            is_mount: true,
            writable: false,
            state: State::Overlay { upper: None },
            lower,
            layers: layers.to_vec(),
            work,
        })
    }

    fn seal(&self, snapshot: Snapshot, options: SealOptions) -> Result<SealedLayer, StoreError> {
        let Snapshot {
            root,
            state,
            lower,
            work,
            ..
        } = snapshot;
        let State::Overlay { upper: Some(upper) } = state else {
            return Err(StoreError::WrongSnapshot {
                expected: "overlay",
                found: state.name(),
            });
        };
        // The last handle of the mount: what is on disk is settled from here on.
        drop(root);
        let path = work.path().join("fs");
        let options = SealOptions {
            marks: self.lowers.store.options().overlay_xattrs,
            ..options
        };
        let sealed = seal(upper.as_fd(), &lower, &options).map_err(|source| StoreError::Tree {
            action: "seal",
            path: path.clone(),
            source: Box::new(source),
        })?;
        for name in ["work", "empty"] {
            self.lowers.store.remove(&work.path().join(name))?;
        }
        let draft = work.into_draft()?;
        Ok(SealedLayer {
            manifest: sealed.manifest,
            dropped: sealed.dropped,
            draft,
        })
    }
}

/// Mounts an overlay that is attached nowhere.
pub(crate) fn mount(directories: &Directories<'_>) -> Result<OwnedFd, StoreError> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| refused(directories, "begin the mount".into(), None, errno))?;
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(&context, key, value).map_err(|errno| {
            refused(
                directories,
                format!("set `{key}={value}`"),
                Some(&context),
                errno,
            )
        })
    };
    let flag = |key: &str| {
        rustix::mount::fsconfig_set_flag(&context, key)
            .map_err(|errno| refused(directories, format!("set `{key}`"), Some(&context), errno))
    };
    let path = |key: &str, path: &Path| {
        rustix::mount::fsconfig_set_string(&context, key, path).map_err(|errno| {
            let action = format!("set `{key}={}`", path.display());
            refused(directories, action, Some(&context), errno)
        })
    };
    set("source", "kiln")?;
    for (key, value) in [
        ("redirect_dir", "nofollow"),
        ("metacopy", "off"),
        ("index", "off"),
        ("xino", "off"),
    ] {
        set(key, value)?;
    }
    if directories.marks == OverlayXattrs::User {
        flag("userxattr")?;
    }
    // The kernel wants the highest first.
    for lower in directories.lowers.iter().rev() {
        path("lowerdir+", lower)?;
    }
    if let Some((upper, work)) = directories.upper {
        path("upperdir", upper)?;
        path("workdir", work)?;
        flag("volatile")?;
    }
    rustix::mount::fsconfig_create(&context)
        .map_err(|errno| refused(directories, "make the mount".into(), Some(&context), errno))?;
    let attributes = match directories.upper {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|errno| {
        refused(
            directories,
            "finish the mount".into(),
            Some(&context),
            errno,
        )
    })
}

fn refused(
    directories: &Directories<'_>,
    action: String,
    context: Option<&OwnedFd>,
    errno: Errno,
) -> StoreError {
    let own = directories.upper.map(|(upper, _)| upper);
    let path = own
        .or(directories.lowers.last().map(PathBuf::as_path))
        .unwrap_or(Path::new("/"));
    StoreError::Overlay {
        action,
        lowers: directories.lowers.len(),
        path: path.to_owned(),
        detail: context.map(messages).unwrap_or_default(),
        source: io::Error::from(errno),
    }
}

/// Reads what the kernel logged into the mount's context: one message a read.
fn messages(context: &OwnedFd) -> String {
    let Ok(copy) = context.try_clone() else {
        return String::new();
    };
    let mut file = fs::File::from(copy);
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..count]);
        text.push(line.trim_start_matches("e ").trim_end().to_owned());
    }
    text.join("; ")
}
