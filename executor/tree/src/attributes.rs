//! Owners, modes, xattrs and times put on disk, as far as the disk takes them.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::handle::{self, FsError, FsResult};
use crate::manifest::Meta;
use crate::owners;
use crate::seal::IdMap;

/// An owner that nothing on disk can have, since the namespace has no such id.
///
/// It is what the `io::Error` of a failed change of an owner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its owner {uid}:{gid} is outside of the ids that are mapped here")]
pub struct UnmappedOwner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl UnmappedOwner {
    /// The owner that `error`, or what it comes from, is about.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<UnmappedOwner> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|cause| {
            let cause = cause.downcast_ref::<io::Error>()?.get_ref()?;
            cause.downcast_ref().copied()
        })
    }
}

/// What happens on disk to the owners that a layer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Files get them, mapped to the ids outside; an owner that is not mapped stays ours on disk.
    Apply(IdMap),
    /// On disk everything is ours. The manifest has them, and a note beside each file of others.
    Record,
}

impl Ownership {
    /// Gives an open file or directory its attributes.
    ///
    /// The manifest is the truth: xattrs that the disk or our rights do not take are passed over.
    pub fn set(&self, file: impl AsFd, meta: &Meta, is_directory: bool) -> FsResult<()> {
        let failed = |attempt| move |source: Errno| FsError::new(attempt, b"", source);
        let (uid, gid) = self.owner(meta);
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(&file, uid, gid).map_err(refused(b"", meta))?;
        }
        let mode = self.mode(meta, is_directory);
        rustix::fs::fchmod(&file, mode).map_err(failed("set the mode of"))?;
        for (name, value) in &meta.xattrs {
            let set = rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty());
            tolerate(set).map_err(failed("set xattr of"))?;
        }
        if *self == Self::Record {
            owners::note(&file, (meta.uid, meta.gid))?;
        }
        rustix::fs::futimens(&file, &times(meta)).map_err(failed("set the time of"))
    }

    /// Gives `name` itself its attributes: a link, or a device or pipe, which is not opened.
    ///
    /// A link's mode is left alone. The directory must be private: a device is changed by name.
    pub fn set_at(&self, dir: impl AsFd, name: &[u8], meta: &Meta, is_link: bool) -> FsResult<()> {
        let failed = |attempt| move |source: Errno| FsError::new(attempt, name, source);
        let (uid, gid) = self.owner(meta);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(&dir, name, uid, gid, flags).map_err(refused(name, meta))?;
        }
        if !is_link {
            rustix::fs::chmodat(&dir, name, self.mode(meta, false), AtFlags::empty())
                .map_err(failed("set the mode of"))?;
        }
        for (key, value) in &meta.xattrs {
            match handle::set_xattr(&dir, name, key, value) {
                Err(FsError::Io { source, .. }) => {
                    let error = Errno::from_io_error(&source).unwrap_or(Errno::IO);
                    tolerate(Err(error)).map_err(failed("set xattr of"))?;
                }
                done => done?,
            }
        }
        rustix::fs::utimensat(&dir, name, &times(meta), flags).map_err(failed("set the time of"))
    }

    fn owner(&self, meta: &Meta) -> (Option<Uid>, Option<Gid>) {
        match self {
            Self::Apply(ids) => (
                ids.uid_outside(meta.uid).map(Uid::from_raw),
                ids.gid_outside(meta.gid).map(Gid::from_raw),
            ),
            Self::Record => (None, None),
        }
    }

    fn mode(&self, meta: &Meta, is_directory: bool) -> Mode {
        // Root of a namespace reads what nobody may read; whoever is not root anywhere could not go on.
        let ours = match (self, is_directory) {
            (Self::Apply(_), _) => 0,
            (Self::Record, _) if rustix::process::geteuid().is_root() => 0,
            (Self::Record, true) => 0o700,
            (Self::Record, false) => 0o600,
        };
        Mode::from_raw_mode(meta.mode | ours)
    }
}

fn refused<'a>(name: &'a [u8], meta: &Meta) -> impl FnOnce(Errno) -> FsError + 'a {
    let (uid, gid) = (meta.uid, meta.gid);
    move |source| {
        let source = match source {
            Errno::INVAL => io::Error::new(io::ErrorKind::InvalidInput, UnmappedOwner { uid, gid }),
            source => source.into(),
        };
        FsError::new("set the owner of", name, source)
    }
}

fn tolerate(set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL) => Ok(()),
        other => other,
    }
}

pub(crate) fn times(meta: &Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime.seconds,
        tv_nsec: meta.mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
