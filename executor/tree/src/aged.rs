//! Files with older times than they have.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Stat, Timespec, Timestamps};

use crate::handle::{FsError, FsResult};
use crate::manifest::Mtime;
use crate::stop::Stop;
use crate::walk::{Descend, walk};

/// What leaves a time as it is.
const OMIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: rustix::fs::UTIME_OMIT,
};

/// How much older files seem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// So much, unless that is before `since`.
    pub by: Duration,
    /// Seconds since 1970. No time is moved beyond, and those before it stay: whoever set one so meant it.
    pub since: i64,
}

impl Age {
    /// The time that one seems to be.
    pub fn of(&self, time: Mtime) -> Mtime {
        let since = Mtime {
            seconds: self.since,
            nanos: 0,
        };
        let seconds = i64::try_from(self.by.as_secs()).unwrap_or(i64::MAX);
        let older = Mtime {
            seconds: time.seconds.saturating_sub(seconds),
            ..time
        };
        match time <= since {
            true => time,
            false => older.max(since),
        }
    }
}

/// Makes `tree` and all that is below it older.
///
/// Errors once `stop` says so.
pub fn age(tree: BorrowedFd<'_>, by: Age, stop: &Stop) -> FsResult<()> {
    let older = |stat: &Stat| {
        let time = by.of(Mtime {
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        });
        Timestamps {
            last_access: OMIT,
            last_modification: Timespec {
                tv_sec: time.seconds,
                tv_nsec: time.nanos.into(),
            },
        }
    };
    let failed = |path: &[u8]| {
        let path = path.to_owned();
        move |source| FsError::new("set the time of", &path, source)
    };
    let stat = rustix::fs::fstat(tree).map_err(failed(b""))?;
    rustix::fs::utimensat(tree, ".", &older(&stat), AtFlags::empty()).map_err(failed(b""))?;
    let mut several_names = HashSet::new();
    walk(tree, |visit| {
        stop.check()?;
        let stat = visit.stat;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let is_first =
            is_directory || stat.st_nlink < 2 || several_names.insert((stat.st_dev, stat.st_ino));
        if is_first {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(visit.dir, visit.name, &older(stat), flags)
                .map_err(failed(visit.path.as_bytes()))?;
        }
        Ok(Descend::Into)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn every_file_is_older_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/file"), "x").unwrap();
        fs::hard_link(at("d/file"), at("other")).unwrap();
        symlink("nowhere", at("link")).unwrap();
        let names = [".", "d", "d/file", "link"];
        let times = || names.map(|name| fs::symlink_metadata(at(name)).unwrap().mtime());
        let before = times();
        let opened = File::open(dir.path()).unwrap();
        let hour = Duration::from_secs(3600);
        let by = Age { by: hour, since: 0 };
        age(opened.as_fd(), by, &Stop::NEVER).unwrap();
        assert_eq!(times(), before.map(|time| time - 3600));
    }

    #[test]
    fn times_that_were_set_stay() {
        let by = Duration::from_secs(3600);
        let age = Age { by, since: 10_000 };
        let of = |seconds, nanos| {
            let time = age.of(Mtime { seconds, nanos });
            (time.seconds, time.nanos)
        };
        assert_eq!(of(20_000, 5), (16_400, 5));
        assert_eq!(of(13_600, 5), (10_000, 5));
        assert_eq!(of(13_599, 5), (10_000, 0));
        assert_eq!(of(10_000, 5), (10_000, 0));
        assert_eq!(of(10_000, 0), (10_000, 0));
        assert_eq!(of(9_999, 5), (9_999, 5));
    }
}
