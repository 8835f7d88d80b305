//! The small commands: names, records, space, completion, help.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
