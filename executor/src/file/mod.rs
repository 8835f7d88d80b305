//! File operations: new layers made entry by entry, without a mount and without running anything.

mod action;
mod changeset;
mod chmod;
mod copy;
mod pick;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod writer;

use kiln_store::StoreError;
use kiln_tree::TreePath;
use kiln_tree::tar::ApplyError;

pub(crate) use action::{
    Base, Keep, accounts, changeset, copy_contents, copy_tree, copy_whole, open_layers, run,
};
pub use changeset::ChangeError;
pub(crate) use changeset::set;
pub use chmod::ModeError;
pub use pick::PickError;
pub(crate) use pick::{items, picks};
pub(crate) use writer::{Writer, create};

use crate::users::AccountError;

/// A file operation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// What is to be copied is not there.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// The destination does not allow it.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Permission bits that are none.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// An owner that nobody knows.
    #[error("could not find the owner")]
    Account(#[from] AccountError),
    /// Somebody wrote to the context.
    #[error("context changed while building: `{path}`")]
    ContextChanged {
        /// The file.
        path: TreePath,
    },
    /// An archive that is to be unpacked is damaged or hostile.
    #[error("could not unpack `{path}`")]
    Unpack {
        /// The archive.
        path: TreePath,
        /// Why not.
        #[source]
        source: ApplyError,
    },
    /// Something to remove or to make is in the wrong state.
    #[error("`{path}` {state}")]
    State {
        /// Where.
        path: TreePath,
        /// What is wrong.
        state: &'static str,
    },
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
