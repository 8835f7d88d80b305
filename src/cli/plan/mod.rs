//! `kiln plan` and what belongs to it.

mod args;
mod show;

use super::Done;
pub(crate) use args::PlanArgs;

pub(crate) fn plan(args: &PlanArgs) -> Done {
    show::show(args)
}
