//! What can go wrong with caches that lie elsewhere.

use std::path::PathBuf;

use kiln_oci::s3::S3Error;
use kiln_store::Content;

/// A cache elsewhere could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// There is nothing.
    #[error("there is no cache at `{place}` yet{others}")]
    Missing {
        /// Where.
        place: String,
        /// What is there beside it, in words.
        others: String,
    },
    /// What is there is of another kind.
    #[error("`{place}` is {what}, not a cache of kiln")]
    Foreign {
        /// Where.
        place: String,
        /// What it is.
        what: &'static str,
    },
    /// What is there cannot be understood.
    #[error("could not read the cache `{place}`")]
    Document {
        /// Where.
        place: String,
        /// Why not.
        #[source]
        source: DocumentError,
    },
    /// A cache of kiln whose document is gone, or is not what its digest says.
    #[error("the cache `{place}` is damaged: its document is gone")]
    Damaged {
        /// Where.
        place: String,
        /// What tells what lies there from what lay there before.
        version: Option<String>,
    },
    /// Nobody answered in time.
    #[error("`{place}` did not answer within {seconds} seconds")]
    Timeout {
        /// Where.
        place: String,
        /// How long it was given.
        seconds: u64,
    },
    /// A layer that is not what the cache says.
    #[error("layer {layer} of the cache `{place}` is not what the cache says: {reason}")]
    Layer {
        /// Which.
        layer: Content,
        /// Where it is from.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Others wrote there again and again.
    #[error("could not add to the cache `{place}`: others replaced it {tries} times meanwhile")]
    Contended {
        /// Where.
        place: String,
        /// How often it was tried.
        tries: u32,
    },
    /// A file of a local cache cannot be read or written.
    #[error("could not {attempt} `{}`", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An object store refused.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// A registry may not be asked.
    #[error("`{place}` is not asked: --offline forbids it")]
    Offline {
        /// Where.
        place: String,
    },
}

/// A cache document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON of the right shape.
    #[error("it is malformed")]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("it is of version {found}, and this kiln reads version 0")]
    Version {
        /// Its version.
        found: String,
    },
    /// A text is not what it should be.
    #[error("`{text}` is not {what}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// The beginning of the text.
        text: String,
    },
    /// It is larger than any build makes it.
    #[error("it is too large")]
    TooMuch,
    /// A layer is described twice.
    #[error("it describes the layer {content} twice")]
    Twice {
        /// Which.
        content: Content,
    },
    /// A record names a layer that is not listed.
    #[error("a record names layer {index}, which is not there")]
    NoSuchLayer {
        /// The index.
        index: u32,
    },
    /// A list of directories is malformed.
    #[error("a list of directories is malformed")]
    Passing(#[from] kiln_tree::DecodeError),
}

impl CacheError {
    /// A way out, where there is one to name.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            CacheError::Foreign { .. } => "give the cache a tag of its own".to_owned(),
            CacheError::Document {
                source: DocumentError::Version { .. },
                ..
            } => "a newer kiln wrote it: use that one, or give the cache another name".to_owned(),
            CacheError::Damaged { .. } => "the next export makes it anew".to_owned(),
            CacheError::Document { .. } => {
                "what is there was damaged, or another kiln wrote it: name another place, or remove it"
                    .to_owned()
            }
            CacheError::S3(error) => return error.hint().map(str::to_owned),
            CacheError::Contended { .. } => "`kiln push --cache` exports it later".to_owned(),
            _ => return None,
        })
    }

    pub(super) fn io(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> CacheError {
        let path = path.into();
        move |source| CacheError::Io {
            attempt,
            path,
            source,
        }
    }
}
