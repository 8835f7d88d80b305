//! Host paths in a container.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_sandbox::{Mount, MountSource};
use kiln_tree::TreePath;
use rustix::fs::OFlags;

use super::request::Volume;
use crate::error::Error;

/// Opens every volume, those nearest to the root first, so that none hides another.
pub(super) fn mounts(volumes: &[Volume]) -> Result<Vec<Mount>, Error> {
    let mut known: Vec<(TreePath, &Volume)> = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let target = target(volume)?;
        if known.iter().any(|(other, _)| *other == target) {
            return Err(refused(volume, "two volumes want it"));
        }
        known.push((target, volume));
    }
    known.sort_by_key(|(target, _)| {
        target
            .as_bytes()
            .iter()
            .filter(|&&byte| byte == b'/')
            .count()
    });
    known.into_iter().map(|(_, volume)| mount(volume)).collect()
}

/// The target without `.`, `..` and double slashes.
fn target(volume: &Volume) -> Result<TreePath, Error> {
    if !volume.target.starts_with('/') {
        return Err(refused(volume, "it is not an absolute path"));
    }
    match TreePath::normalise(volume.target.as_bytes()) {
        Ok(target) if target.is_root() => Err(refused(volume, "it is the root")),
        Ok(target) => Ok(target),
        Err(_) => Err(refused(volume, "it is not a path within the container")),
    }
}

fn refused(volume: &Volume, reason: &str) -> Error {
    Error::Mount {
        target: volume.target.clone(),
        reason: reason.to_owned(),
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
        match (mounts(&volumes), expected) {
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
    }

    #[test]
    fn files_are_taken_as_they_are() {
        let host = tempfile::NamedTempFile::new().unwrap();
        let volume = Volume {
            host: host.path().into(),
            target: "/f".into(),
            readonly: false,
        };
        assert_eq!(mounts(&[volume]).unwrap().len(), 1);
        let below = Volume {
            host: host.path().join("x"),
            target: "/f".into(),
            readonly: false,
        };
        assert!(mounts(&[below]).is_err());
    }
}
