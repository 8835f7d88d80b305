//! Plans for people who would rather look: Graphviz, Mermaid and SVG.
//!
//! All three draw the same `sketch`: the ops that the results need, by stage, with the critical
//! path marked. They are pure functions of the plan, so an equal plan is an equal picture.

mod dot;
mod layout;
mod mermaid;
mod sketch;
mod svg;

pub use dot::to_dot;
pub use mermaid::to_mermaid;
pub use svg::{Mark, to_marked_svg, to_svg};
