//! `kiln plan` and what belongs to it.

mod args;
mod diff;
mod recorded;
mod show;
mod snapshot;
mod test;

use super::{Done, Failure, report};
pub(crate) use args::PlanArgs;
use args::PlanCommand;

pub(crate) fn plan(args: &PlanArgs) -> Done {
    match &args.command {
        Some(PlanCommand::Diff(args)) => diff::diff(args),
        Some(PlanCommand::Test(args)) => test::test(args),
        None if args.check => snapshot::check(args),
        None if args.accept => snapshot::accept(args),
        None if args.output.is_some() => {
            report::usage(
                "`-o` names a snapshot, and this neither checks nor accepts one",
                Some("the plan itself is on standard output"),
            );
            Err(Failure::Told(2))
        }
        None => show::show(args),
    }
}
