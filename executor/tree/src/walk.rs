//! Every name below a directory, sorted and without recursion.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat};

use crate::handle::{self, FsError, FsResult, Name};
use crate::path::TreePath;

/// Directories held open at once; those above are opened again when the walk comes back to them.
const MOST_OPEN: usize = 64;

/// Something that a walk came to.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Where it is below the root; never the root itself.
    pub path: &'a TreePath,
    /// The open directory that holds it.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a [u8],
    /// What it is; links are not followed.
    pub stat: &'a Stat,
}

/// Whether to go on into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descend {
    /// Visit what is in it.
    Into,
    /// Leave it out.
    Past,
}

struct Level {
    path: TreePath,
    dir: Option<OwnedFd>,
    rest: std::vec::IntoIter<Name>,
}

/// Visits everything below `root` in path order, each directory before what it holds.
///
/// What disappears meanwhile is passed over.
pub fn walk<E: From<FsError>>(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&Visit<'_>) -> Result<Descend, E>,
) -> Result<(), E> {
    let mut levels = match open(root, b".", TreePath::ROOT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        top => vec![top?],
    };
    while let Some(depth) = levels.len().checked_sub(1) {
        let level = &mut levels[depth];
        let Some((name, _)) = level.rest.next() else {
            levels.pop();
            continue;
        };
        let dir = match level.dir.take() {
            Some(dir) => dir,
            None => {
                let path = level.path.as_bytes();
                match handle::open_beneath(root, path, handle::READ_DIRECTORY) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        levels.pop();
                        continue;
                    }
                    opened => opened?,
                }
            }
        };
        let path = TreePath::new(level.path.child(&name).as_bytes()).map_err(FsError::from)?;
        let stat = handle::stat(&dir, &name).map_err(|error| error.at(path.as_bytes()))?;
        if let Some(stat) = stat {
            let seen = Visit {
                path: &path,
                dir: dir.as_fd(),
                name: &name,
                stat: &stat,
            };
            let descend = visit(&seen)?;
            if descend == Descend::Into && handle::file_type(&stat) == FileType::Directory {
                match open(dir.as_fd(), &name, path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    below => levels.push(below?),
                }
                if let Some(far) = depth.checked_sub(MOST_OPEN) {
                    levels[far].dir = None;
                }
            }
        }
        levels[depth].dir = Some(dir);
    }
    Ok(())
}

fn open(dir: BorrowedFd<'_>, name: &[u8], path: TreePath) -> FsResult<Level> {
    let opened = handle::open_directory(dir, name).map_err(|error| error.at(path.as_bytes()))?;
    let rest = handle::names(&opened)
        .map_err(|error| error.at(path.as_bytes()))?
        .into_iter();
    Ok(Level {
        path,
        dir: Some(opened),
        rest,
    })
}
