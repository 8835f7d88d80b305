//! Why a step ran again: each cause, by really changing that thing.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
