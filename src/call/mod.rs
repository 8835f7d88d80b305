//! Questions about a build, answered without building: what is wrong with it, what it takes, which
//! targets it has, what it sees of its context.
//!
//! Answers have the JSON form of BuildKit's subrequests, so that what reads those reads these.

mod check;
mod context;
mod location;
mod look;
mod outline;
mod requests;
mod sarif;
mod targets;

pub use check::Checked;
pub(crate) use context::near;
pub use context::{ContextEntry, ContextListing, SeenContext, Sight};
pub use outline::Outlined;
pub use requests::{Subrequest, subrequests, subrequests_json};
pub use targets::{Target, Targets};
