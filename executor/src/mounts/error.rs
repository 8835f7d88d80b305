//! Why cache mounts cannot travel.

use std::path::PathBuf;

/// Cache mounts could not be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum MountsError {
    /// No cache mount has this id.
    #[error("there is no cache mount `{id}` here")]
    NoSuchMount {
        /// The id.
        id: String,
    },
    /// A cache mount that is to be removed is in use.
    #[error("the cache mount `{id}` is in use by {}", user_words(*.pid))]
    InUse {
        /// The id.
        id: String,
        /// By that process, if it is known.
        pid: Option<u32>,
    },
    /// An export does not hold this mount.
    #[error("`{place}` holds no cache mount `{id}`; it has {available}")]
    NotExported {
        /// The id.
        id: String,
        /// Where it was looked for.
        place: String,
        /// The ids that there are, or `none`.
        available: String,
    },
    /// Nothing was exported there.
    #[error("there are no cache mounts at `{place}`")]
    NothingThere {
        /// Where.
        place: String,
    },
    /// What is to be imported is something else.
    #[error("`{place}` is no export of cache mounts: {reason}")]
    NoExport {
        /// Where.
        place: String,
        /// What it lacks.
        reason: String,
    },
    /// A place for exports that can mean nothing.
    #[error("`{text}` is no place for cache mounts: {reason}")]
    Place {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is something there that is no export of cache mounts.
    #[error("`{place}` holds {found}, not cache mounts")]
    SomethingElse {
        /// Where.
        place: String,
        /// What is there.
        found: String,
    },
    /// An export that was written by a newer kiln.
    #[error(
        "the cache mounts at `{place}` have format version {found}; this kiln reads {supported}"
    )]
    Version {
        /// Where.
        place: String,
        /// The version that it has.
        found: u64,
        /// The version that is read here.
        supported: u64,
    },
    /// An export that contradicts itself, or would do harm.
    #[error("the export of cache mounts at `{place}` cannot be used: {reason}")]
    Hostile {
        /// Where.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content that has not the digest that it is named by.
    #[error("{what} of `{place}` is damaged: its digest is not {expected}")]
    Damaged {
        /// What it is.
        what: &'static str,
        /// Where.
        place: String,
        /// The digest that it should have.
        expected: String,
    },
    /// An archive that cannot be read.
    #[error("could not read the archive `{}`", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Files of a cache mount cannot be read or written.
    #[error("could not {attempt} the cache mount `{id}`")]
    Files {
        /// What was tried.
        attempt: &'static str,
        /// The mount.
        id: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A mount that holds more than an export can.
    #[error("the cache mount `{id}` holds more than an export can")]
    TooLarge {
        /// The mount.
        id: String,
    },
    /// A mount that the disk has no room for.
    #[error(
        "the cache mount `{id}` of `{place}` holds {needed} bytes, and the store's disk has {free} left"
    )]
    NoRoom {
        /// The mount.
        id: String,
        /// Where it is.
        place: String,
        /// What it takes.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// Others keep writing there.
    #[error(
        "`{place}` was written by somebody else {tries} times in a row while cache mounts were exported to it"
    )]
    Contended {
        /// Where.
        place: String,
        /// How often it was tried.
        tries: usize,
    },
}

fn user_words(pid: Option<u32>) -> String {
    pid.map_or("another kiln".to_owned(), |pid| {
        format!("kiln with pid {pid}")
    })
}

impl MountsError {
    /// A way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            MountsError::NoSuchMount { .. } => {
                "`kiln mounts ls` lists those that are here".to_owned()
            }
            MountsError::InUse { .. } => "remove it when that build is done".to_owned(),
            MountsError::Place { .. } => {
                "a file ends in .tar or is -, a directory begins with / or ., and all else is a registry reference"
                    .to_owned()
            }
            MountsError::NothingThere { .. } | MountsError::NoExport { .. } => {
                "`kiln mounts export PLACE` makes one where the mounts are: a .tar file, a directory or a tag of a registry"
                    .to_owned()
            }
            MountsError::SomethingElse { .. } => "choose another name or tag for cache mounts".to_owned(),
            MountsError::Version { .. } => "export them again with this kiln, or use a newer one".to_owned(),
            MountsError::TooLarge { .. } => "leave something out with --exclude".to_owned(),
            MountsError::NoRoom { .. } => "`kiln prune` makes room".to_owned(),
            MountsError::Hostile { .. } | MountsError::Damaged { .. } => {
                "nothing was changed here; export the mounts again".to_owned()
            }
            MountsError::Contended { .. } => "export again".to_owned(),
            _ => return None,
        })
    }
}
