//! A cgroup for one sandbox: which hierarchies there are, what limits become in them, and making it.
//!
//! No sandbox needs one. Where limits or a parent are asked for, what has to be written is planned from what is
//! mounted (pure data), the directories are made, and the first process is put into them before it has its
//! plan. Whoever cannot have a limit is told why; nothing is left out in silence.

mod hierarchy;
mod limits;
mod make;

pub(crate) use hierarchy::{Hierarchies, here};
pub(crate) use limits::{CgroupPlan, plan};
pub(crate) use make::Made;
pub use make::{check, probe};
