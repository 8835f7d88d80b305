//! What is to be scanned for software beside the result, where an SBOM is made.
//!
//! The arguments `BUILDKIT_SBOM_SCAN_CONTEXT` and `BUILDKIT_SBOM_SCAN_STAGE` are true, false or a list of
//! stages. They count where they are declared: before the first FROM for every stage, or in a stage, which
//! goes before, for it and those built on it.

use std::collections::BTreeMap;

use kiln_ir::Input;

use super::scope::{Globals, SCAN_CONTEXT, SCAN_STAGE};
use super::stage::State;
use super::stages::Stages;

/// Something to be scanned beside a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The result, by its name in the plan.
    pub result: String,
    /// What it is called: `context`, or the stage's name in lower case.
    pub name: String,
    /// What it is.
    pub what: Scanned,
}

/// What is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// The build context, after its ignore rules.
    Context,
    /// What a stage came to; none is an empty file system.
    Stage(Option<Input>),
}

/// Returns what is scanned beside the stage `target`, by name, of stages that were lowered for it.
pub(super) fn scans(
    stages: &Stages<'_>,
    globals: &Globals,
    target: usize,
    done: &[Option<State>],
) -> BTreeMap<String, Scanned> {
    let name = |index: usize| stages.list[index].title.to_lowercase();
    let asks = |argument: &str, index: usize, state: &State| {
        let mut own = state.args.iter().filter(|(name, _)| *name == argument);
        let own = own.find_map(|(_, value)| value);
        let value = own.or_else(|| globals.value(argument));
        !stages.list[index].replaced && value.is_some_and(|value| covers(value, &name(index)))
    };
    let mut scans = BTreeMap::new();
    for (index, state) in done.iter().enumerate() {
        let Some(state) = state else { continue };
        if index == target {
            if asks(SCAN_CONTEXT, index, state) {
                scans
                    .entry("context".to_owned())
                    .or_insert(Scanned::Context);
            }
        } else if asks(SCAN_STAGE, index, state) {
            scans.insert(name(index), Scanned::Stage(state.fs));
        }
    }
    scans
}

/// Whether a value means a stage: all for true, none for false, else those that it lists.
fn covers(value: &str, stage: &str) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        list => list
            .split(',')
            .any(|name| name.trim().eq_ignore_ascii_case(stage)),
    }
}
