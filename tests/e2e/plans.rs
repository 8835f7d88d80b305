//! The plan as text, JSON and dot, and builds of a plan.

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
