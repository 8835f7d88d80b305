//! Which strategy works here: found out by mounting.

use std::fs;
use std::io;

use rustix::fs::{Mode, OFlags};

use crate::StoreError;
use crate::layers::open_directory;
use crate::snapshot::overlay::{Directories, mount};
use crate::snapshot::{Strategy, WorkDirectory};
use crate::store::Store;

/// What was found out, as `kiln info` shows it.
#[derive(Debug)]
pub struct Probe {
    /// The strategy that works.
    pub strategy: Strategy,
    /// Why it is not the overlay.
    pub reason: Option<StoreError>,
}

impl Store {
    /// Tries a real overlay in the store: whether it mounts, and whether it can delete.
    ///
    /// Takes less than a millisecond; an error means that not even a directory could be made.
    pub fn probe_snapshots(&self) -> Result<Probe, StoreError> {
        let work = WorkDirectory::new(self)?;
        Ok(match self.try_overlay(&work) {
            Ok(()) => Probe {
                strategy: Strategy::Overlay,
                reason: None,
            },
            Err(reason) => Probe {
                strategy: Strategy::Copy,
                reason: Some(reason),
            },
        })
    }

    fn try_overlay(&self, work: &WorkDirectory) -> Result<(), StoreError> {
        let (lower, upper) = (work.make("lower")?, work.make("fs")?);
        let scratch = work.make("work")?;
        let file = lower.join("file");
        fs::write(&file, b"").map_err(StoreError::io("write", &file))?;
        let root = mount(&Directories {
            lowers: &[lower],
            upper: Some((&upper, &scratch)),
            marks: self.options().overlay_xattrs,
        })?;
        let fail = |action: &str| {
            let (action, path) = (format!("{action} a file"), upper.clone());
            move |errno: rustix::io::Errno| StoreError::Overlay {
                action,
                lowers: 1,
                path,
                detail: String::new(),
                source: io::Error::from(errno),
            }
        };
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        rustix::fs::openat(&root, "new", new, Mode::from(0o600)).map_err(fail("create"))?;
        rustix::fs::unlinkat(&root, "file", rustix::fs::AtFlags::empty())
            .map_err(fail("delete"))?;
        drop(root);
        open_directory(&upper).map(drop)
    }
}
