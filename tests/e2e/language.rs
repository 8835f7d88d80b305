//! Dockerfile instructions, seen from inside the image that they make.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
