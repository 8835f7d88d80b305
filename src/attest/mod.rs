//! What is said of the images of a build beside the images: how they were built, and what is in them.
//!
//! `request.rs` is what can be asked for, in the words of buildx. `provenance.rs` writes the predicate of a
//! build's plan; `scans.rs` is what SBOMs are made of beside the result; they are the executor's, which has the files. `source.rs` tells what a build depends on,
//! `vcs.rs` which commit its context is.

mod provenance;
mod request;
mod scans;
mod source;
mod vcs;

pub(crate) use provenance::{Story, predicate};
pub use request::{AttestError, Attestations, Provenance, ProvenanceMode};
pub(crate) use scans::Scans;
pub use vcs::GitInfo;
pub(crate) use vcs::Vcs;
