//! The image store: names, ids, layers, history.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
