//! `kiln plan diff`: two plans or two images held against each other.

mod images;
mod side;

use std::process::ExitCode;

use kiln::{Rerun, compare, reruns};
use serde_json::json;

use super::args::{PlanDiffArgs, ReportFormat};
use crate::cli::{Done, Failure, print, report};
use side::Side;

/// So many steps that would run again are named.
const NAMED: usize = 20;

pub(super) fn diff(args: &PlanDiffArgs) -> Done {
    let old = Side::of(args, &args.old)?;
    let new = match &args.new {
        Some(new) => Side::of(args, new)?,
        None => Side::here(args),
    };
    let (old, new) = match (old, new) {
        (Side::Image(old), Side::Image(new)) => return images::diff(args, &old, &new),
        (Side::Image(_), _) | (_, Side::Image(_)) => {
            report::usage(
                "an image can be compared with an image only",
                Some("`kiln build` makes one of the other, and `kiln plan` says what it would do"),
            );
            return Err(Failure::Told(2));
        }
        (old, new) => (old.plan(args)?, new.plan(args)?),
    };
    let comparison = compare(&old, &new);
    let again = reruns(&old, &new);
    match args.format {
        ReportFormat::Text if comparison.is_empty() => {}
        ReportFormat::Text => {
            print(&format!("{}{}", comparison.to_text(), words(&again)))?;
        }
        ReportFormat::Json => {
            let mut document = comparison.to_json();
            document["reruns"] = json!(again);
            print(&format!("{document:#}\n"))?;
        }
    }
    Ok(done(comparison.is_empty()))
}

fn done(equal: bool) -> ExitCode {
    ExitCode::from(u8::from(!equal))
}

/// Says what would run again, result by result.
fn words(reruns: &[Rerun]) -> String {
    let mut text = String::new();
    for rerun in reruns {
        let of = match rerun.result.as_str() {
            "" => String::new(),
            name => format!(" of result {name}"),
        };
        let count = rerun.again.len();
        text.push_str(&match (count, rerun.steps) {
            (0, _) => format!("no step{of} would run again\n"),
            (1, 1) => format!("the only step{of} would run again:\n"),
            (count, steps) if count == steps => format!("all {count} steps{of} would run again:\n"),
            (count, steps) => format!("{count} of {steps} steps{of} would run again:\n"),
        });
        for step in rerun.again.iter().take(NAMED) {
            text.push_str(&format!("    %{} {}\n", step.number, step.name));
        }
        if count > NAMED {
            text.push_str(&format!("    and {} more\n", count - NAMED));
        }
    }
    text
}
