//! Steps that fail and how that is told.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
