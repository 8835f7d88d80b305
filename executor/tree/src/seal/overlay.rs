//! Reads a raw overlay upper directory.

use std::os::fd::BorrowedFd;

use crate::seal::options::{SealError, SealOptions, Sealed};
use crate::view::View;

/// Turns the upper directory of a finished step into a layer.
///
/// The overlay must be unmounted. What the step did not mean is removed from the directory too, so
/// that it shows what the manifest says when it is stacked on anything.
pub fn seal(upper: BorrowedFd<'_>, lower: &View, options: &SealOptions) -> Result<Sealed, SealError> {
    let _ = (upper, lower, options);
    unimplemented!()
}
