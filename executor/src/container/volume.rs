//! Host paths in a container.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_sandbox::{Mount, MountSource};
use kiln_tree::TreePath;
use rustix::fs::OFlags;

use super::request::{Tmpfs, Volume};
use crate::error::Error;

/// What is to be seen at a place in the container.
#[derive(Clone, Copy)]
enum Wanted<'r> {
    Host(&'r Volume),
    Memory(&'r Tmpfs),
}

/// Opens every volume, those nearest to the root first, so that none hides another.
pub(super) fn mounts(volumes: &[Volume], tmpfs: &[Tmpfs]) -> Result<Vec<Mount>, Error> {
    let mut known: Vec<(TreePath, Wanted<'_>)> = Vec::with_capacity(volumes.len() + tmpfs.len());
    let memory = tmpfs.iter().map(Wanted::Memory);
    for wanted in volumes.iter().map(Wanted::Host).chain(memory) {
        let target = path(wanted.target())?;
        if known.iter().any(|(other, _)| *other == target) {
            return Err(refused(wanted.target(), "two volumes want it"));
        }
        known.push((target, wanted));
    }
    known.sort_by_key(|(target, _)| {
        target
            .as_bytes()
            .iter()
            .filter(|&&byte| byte == b'/')
            .count()
    });
    known
        .into_iter()
        .map(|(_, wanted)| wanted.mount())
        .collect()
}

/// A target without `.`, `..` and double slashes.
fn path(target: &str) -> Result<TreePath, Error> {
    if !target.starts_with('/') {
        return Err(refused(target, "it is not an absolute path"));
    }
    match TreePath::normalise(target.as_bytes()) {
        Ok(path) if path.is_root() => Err(refused(target, "it is the root")),
        Ok(path) => Ok(path),
        Err(_) => Err(refused(target, "it is not a path within the container")),
    }
}

fn refused(target: &str, reason: &str) -> Error {
    Error::Mount {
        target: target.to_owned(),
        reason: reason.to_owned(),
    }
}

impl<'r> Wanted<'r> {
    fn target(self) -> &'r str {
        match self {
            Wanted::Host(volume) => &volume.target,
            Wanted::Memory(tmpfs) => &tmpfs.target,
        }
    }

    fn mount(self) -> Result<Mount, Error> {
        match self {
            Wanted::Host(volume) => mount(volume),
            Wanted::Memory(tmpfs) => Ok(Mount {
                target: PathBuf::from(&tmpfs.target),
                source: MountSource::Tmpfs {
                    size_bytes: tmpfs.size_bytes,
                    mode: tmpfs.mode,
                },
                readonly: false,
            }),
        }
    }
}

fn mount(volume: &Volume) -> Result<Mount, Error> {
    let host = std::path::absolute(&volume.host).map_err(Error::io("find", &volume.host))?;
    let fd = match open(&host) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(&host).map_err(Error::io("make the directory", &host))?;
            open(&host)
        }
        other => other,
    };
    let fd = fd.map_err(Error::io("open", &host))?;
    Ok(Mount {
        target: PathBuf::from(&volume.target),
        source: MountSource::Bind { fd, subpath: None },
        readonly: volume.readonly,
    })
}

fn open(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = (OFlags::PATH | OFlags::CLOEXEC).bits().cast_signed();
    Ok(File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(targets: &[&str], expected: Result<&[&str], &str>) {
        let host = tempfile::tempdir().unwrap();
        let volume = |target: &&str| Volume {
            host: host.path().join("made/here"),
            target: (*target).to_owned(),
            readonly: true,
        };
        let volumes: Vec<Volume> = targets.iter().map(volume).collect();
        match (mounts(&volumes, &[]), expected) {
            (Ok(mounts), Ok(expected)) => {
                let found: Vec<&Path> = mounts.iter().map(|mount| mount.target.as_path()).collect();
                assert_eq!(found, expected.iter().map(Path::new).collect::<Vec<_>>());
                assert!(host.path().join("made/here").is_dir());
                assert!(mounts.iter().all(|mount| mount.readonly));
            }
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected),
            (found, expected) => panic!("{targets:?}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn volumes_are_mounted_from_the_root_on() {
        check(&["/src"], Ok(&["/src"]));
        check(
            &["/a/b/c", "/z", "/a", "/a/b"],
            Ok(&["/z", "/a", "/a/b", "/a/b/c"]),
        );
    }

    #[test]
    fn targets_are_paths_below_the_root() {
        check(
            &["src"],
            Err("could not mount `src`: it is not an absolute path"),
        );
        check(&["/"], Err("could not mount `/`: it is the root"));
        check(
            &["/a", "/b", "//a/."],
            Err("could not mount `//a/.`: two volumes want it"),
        );
        let memory = Tmpfs {
            target: "/a".to_owned(),
            size_bytes: None,
            mode: 0o755,
        };
        assert_eq!(mounts(&[], std::slice::from_ref(&memory)).unwrap().len(), 1);
        assert!(mounts(&[], &[memory.clone(), memory]).is_err());
    }

    #[test]
    fn files_are_taken_as_they_are() {
        let host = tempfile::NamedTempFile::new().unwrap();
        let volume = Volume {
            host: host.path().into(),
            target: "/f".into(),
            readonly: false,
        };
        assert_eq!(mounts(&[volume], &[]).unwrap().len(), 1);
        let below = Volume {
            host: host.path().join("x"),
            target: "/f".into(),
            readonly: false,
        };
        assert!(mounts(&[below], &[]).is_err());
    }
}
