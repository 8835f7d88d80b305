//! Two processes at once, kills, hostile input, poor environments.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
