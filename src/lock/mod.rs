//! kiln.lock: what a Dockerfile takes from elsewhere, fixed; docs/formats/lock.md is the file.
//!
//! A lock answers what lowering asks and pins what a plan names, so that lowering, keys and fetching
//! all go by it, and a plan needs neither store nor registry.

mod file;
mod make;
mod pins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_ir::ImageConfig;

pub(crate) use file::LockFile;
pub use make::{LockChange, LockOptions, LockOutcome};
pub(crate) use pins::command as lock_command;

/// What a request says of locks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockRequest {
    /// The file; by default the one beside the Dockerfile, if it is there.
    pub file: Option<PathBuf>,
    /// The file that was named has to be there.
    pub must_exist: bool,
    /// Whatever the lock lacks is an error.
    pub locked: bool,
}

/// What is fixed, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    /// What results it was made for.
    pub(crate) platforms: BTreeSet<String>,
    /// What it was made to be built on.
    pub(crate) builders: BTreeSet<String>,
    /// By normalised reference, and by platform.
    pub(crate) images: BTreeMap<String, BTreeMap<String, LockedImage>>,
    /// Commits, by address with reference.
    pub(crate) git: BTreeMap<String, String>,
    /// Digests of bodies, by address.
    pub(crate) http: BTreeMap<String, String>,
    /// Seconds since 1970 of the last change, by address.
    pub(crate) times: BTreeMap<String, i64>,
}

/// An image that is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockedImage {
    /// The digest of its manifest.
    pub(crate) manifest: String,
    /// Its config.
    pub(crate) config: ImageConfig,
}

/// What is wrong with a lock, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is no JSON, or not of this shape.
    #[error("the lock `{}` cannot be read", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error("the lock `{}` is of the version `{found}`, and this kiln knows `{known}` only", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What can be read.
        known: &'static str,
    },
    /// A pin is no digest and no commit.
    #[error("the lock `{}` pins `{name}` to `{value}`, which is no {what}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is pinned.
        name: String,
        /// To what.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// What it is for is no platform.
    #[error("the lock `{}` names the platform `{name}`, which is none", path.display())]
    Platform {
        /// The file.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// The file that was named is not there.
    #[error("there is no lock `{}`", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// What makes one.
        command: String,
    },
    /// A build may use only what is locked, and needs more.
    #[error("{}", missing_words(path.as_deref(), *exists, missing.len()))]
    Missing {
        /// The file; none where there is no place for one.
        path: Option<PathBuf>,
        /// Whether it is there.
        exists: bool,
        /// What lacks, by name; never empty.
        missing: Vec<String>,
        /// What adds it.
        command: String,
    },
    /// What is to be moved is not locked.
    #[error("the lock `{}` has no entry `{name}`", path.display())]
    UnknownName {
        /// The file.
        path: PathBuf,
        /// As asked for.
        name: String,
        /// What there is.
        names: Vec<String>,
    },
    /// There is no place for a lock.
    #[error("there is no place for a lock beside {what}")]
    NoPlace {
        /// What the Dockerfile comes from.
        what: String,
    },
}

fn missing_words(path: Option<&Path>, exists: bool, count: usize) -> String {
    let count = match count {
        1 => "one thing".to_owned(),
        count => format!("{count} things"),
    };
    match (path.map(Path::display), exists) {
        (Some(path), true) => format!("the lock `{path}` lacks {count} that this build names"),
        (Some(path), false) => format!("there is no lock `{path}`, and this build names {count}"),
        (None, _) => format!("there is no lock, and this build names {count}"),
    }
}

/// Says that `--pull` asks about nothing that a lock pins.
pub fn pull_words(lock: &Path) -> String {
    format!(
        "`--pull` asks about nothing that `{}` pins; `kiln lock --update NAME` moves a pin",
        lock.display()
    )
}

/// So many names are listed; more would say less.
const MOST_LISTED: usize = 20;

impl LockError {
    /// A way out.
    pub fn hint(&self) -> String {
        match self {
            LockError::Malformed { .. } | LockError::Value { .. } | LockError::Platform { .. } => {
                "restore it from version control, or move it away and run `kiln lock` again"
                    .to_owned()
            }
            LockError::Version { .. } => {
                "build with the kiln that wrote it, or move it away and run `kiln lock` again"
                    .to_owned()
            }
            LockError::Absent { command, .. } | LockError::Missing { command, .. } => {
                format!("`{command}` adds what is needed")
            }
            LockError::UnknownName { names, .. } if names.is_empty() => {
                "it is empty; `kiln lock` without --update fills it".to_owned()
            }
            LockError::UnknownName { names, .. } => {
                let listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                let more = match listed.len().saturating_sub(MOST_LISTED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let shown = &listed[..listed.len().min(MOST_LISTED)];
                format!("its entries are {}{more}", shown.join(", "))
            }
            LockError::NoPlace { .. } => "name one with --lock-file FILE".to_owned(),
        }
    }
}
