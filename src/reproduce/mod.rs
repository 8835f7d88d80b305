//! Whether a build gives the same twice: conditions that it runs under, and what makes results differ.

mod conditions;
mod culprit;
mod layers;

pub use conditions::Conditions;
pub use culprit::{Culprit, culprit};
pub(crate) use layers::layer_steps;
