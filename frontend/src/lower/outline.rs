//! What a build can be given: arguments, secrets, agents and caches of what its target needs.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{Display, MountKind, Op, Plan};

use super::reach::Reach;
use super::scope::Globals;
use super::settings::Settings;
use super::stage::State;
use super::stages::Stages;
use crate::dockerfile::ast::{Arg, ArgDeclaration, Dockerfile, Instruction, Kind, Word};
use crate::dockerfile::expand::{Environment, Expander};
use crate::dockerfile::span::LineRange;

/// What the target of a build takes, each list in source order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name in lower case, if it has one.
    pub name: Option<String>,
    /// The text of the comment above its FROM.
    pub description: Option<String>,
    /// The arguments that make a difference.
    pub args: Vec<OutlineArg>,
    /// The secrets by id.
    pub secrets: Vec<OutlineMount>,
    /// The ssh agents by id.
    pub ssh: Vec<OutlineMount>,
    /// The caches by id; these are never required.
    pub caches: Vec<OutlineMount>,
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The text of the comment above it.
    pub description: Option<String>,
    /// Its value in this build; none if it has none.
    pub value: Option<String>,
    /// Where it is declared.
    pub lines: LineRange,
}

/// One thing that RUN mounts and that comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether a step fails without it.
    pub required: bool,
    /// The first step that mounts it.
    pub lines: LineRange,
}

/// A lowered target, as far as its arguments are concerned.
pub(super) struct Lowered<'l, 'a> {
    pub(super) dockerfile: &'l Dockerfile,
    pub(super) settings: &'l Settings,
    pub(super) globals: &'l Globals,
    pub(super) stages: &'l Stages<'a>,
    pub(super) reach: &'l Reach,
    pub(super) target: usize,
    pub(super) done: &'l [Option<State>],
}

impl Outline {
    /// Collects the target's name and the arguments.
    pub(super) fn new(lowered: &Lowered<'_, '_>) -> Outline {
        let stage = lowered.stages.list[lowered.target].ast;
        let mut found = BTreeMap::new();
        let mut used = BTreeSet::new();
        // Of equal names the target's own goes before those of its bases.
        let others = lowered.reach.stages.iter().rev().copied();
        for index in std::iter::once(lowered.target).chain(others) {
            lowered.stage(index, &mut found, &mut used);
        }
        lowered.globals(&mut found, used);
        let mut args: Vec<OutlineArg> = found.into_values().collect();
        args.sort_by_key(|arg| arg.lines.first);
        Outline {
            name: stage.name(),
            description: stage.description.clone(),
            args,
            ..Outline::default()
        }
    }

    /// Adds what the steps of a plan mount.
    pub(super) fn add_mounts(&mut self, plan: &Plan) {
        let mut secrets = Found::default();
        let mut ssh = Found::default();
        let mut caches = Found::default();
        for (node, display) in &plan.display {
            let Op::Exec(exec) = &plan.graph.node(*node).op else {
                continue;
            };
            for mount in &exec.mounts {
                match &mount.kind {
                    MountKind::Secret(secret) => secrets.add(&secret.id, !secret.optional, display),
                    MountKind::Ssh(agent) => ssh.add(&agent.id, !agent.optional, display),
                    MountKind::Cache { id, .. } => caches.add(id, false, display),
                    _ => {}
                }
            }
            for secret in &exec.secret_env {
                secrets.add(&secret.id, !secret.optional, display);
            }
        }
        self.secrets = secrets.in_order();
        self.ssh = ssh.in_order();
        self.caches = caches.in_order();
    }
}

/// Mounts by id.
#[derive(Default)]
struct Found<'p>(BTreeMap<&'p str, (bool, LineRange)>);

impl<'p> Found<'p> {
    fn add(&mut self, id: &'p str, required: bool, display: &Display) {
        let lines = display.ranges.iter().map(|range| LineRange {
            first: range.start_line,
            last: range.end_line,
        });
        let Some(lines) = lines.min_by_key(|lines| lines.first) else {
            return;
        };
        let known = self.0.entry(id).or_insert((required, lines));
        known.0 |= required;
        if lines.first < known.1.first {
            known.1 = lines;
        }
    }

    fn in_order(self) -> Vec<OutlineMount> {
        let mut list: Vec<OutlineMount> = self
            .0
            .into_iter()
            .map(|(id, (required, lines))| OutlineMount {
                id: id.to_owned(),
                required,
                lines,
            })
            .collect();
        list.sort_by_key(|mount| mount.lines.first);
        list
    }
}

impl Lowered<'_, '_> {
    /// Collects the arguments that a stage declares, and the names of the global ones that it uses.
    fn stage(
        &self,
        index: usize,
        found: &mut BTreeMap<String, OutlineArg>,
        used: &mut BTreeSet<String>,
    ) {
        let stage = self.stages.list[index].ast;
        let from = &stage.from;
        for word in [Some(&from.kind.image), from.kind.platform.as_ref()] {
            used.extend(word.into_iter().flat_map(|word| self.uses(word)));
        }
        let values: BTreeMap<&str, Option<&str>> = match &self.done[index] {
            Some(state) => state.args.iter().collect(),
            None => BTreeMap::new(),
        };
        let triggers = self.reach.triggers.get(&index).into_iter().flatten();
        let triggers = triggers.map(|trigger| (&trigger.instruction, from.lines));
        let own = stage.instructions.iter().map(|one| (one, one.lines));
        for (instruction, lines) in triggers.chain(own) {
            let Kind::Arg(arg) = &instruction.kind else {
                continue;
            };
            for declaration in &arg.declarations {
                let name = declaration.name.text.as_str();
                let given = self.settings.build_args.contains_key(name);
                if declaration.default.is_none() && !given && self.globals.get(name).is_some() {
                    used.insert(name.to_owned());
                    continue;
                }
                let value = values.get(name).copied().flatten();
                found
                    .entry(name.to_owned())
                    .or_insert_with(|| entry(declaration, value, lines));
            }
        }
    }

    /// Adds the used ones of the arguments before the first FROM, and those that make up their values.
    fn globals(&self, found: &mut BTreeMap<String, OutlineArg>, mut used: BTreeSet<String>) {
        let declared: BTreeMap<&str, (&ArgDeclaration, &Instruction<Arg>)> = self
            .dockerfile
            .global_args
            .iter()
            .flat_map(|arg| arg.kind.declarations.iter().map(move |one| (one, arg)))
            .map(|(one, arg)| (one.name.text.as_str(), (one, arg)))
            .collect();
        while let Some(name) = used.pop_first() {
            let Some((declaration, arg)) = declared.get(name.as_str()) else {
                continue;
            };
            if found.contains_key(&name) {
                continue;
            }
            if let Some(default) = &declaration.default
                && !self.settings.build_args.contains_key(&name)
            {
                let more = self.uses(default);
                used.extend(more.into_iter().filter(|other| !found.contains_key(other)));
            }
            let value = self.globals.value(&name);
            found.insert(name, entry(declaration, value, arg.lines));
        }
    }

    /// Returns the variables of a word that have a value.
    fn uses(&self, word: &Word) -> BTreeSet<String> {
        let expander = Expander::new(self.dockerfile.directives.escape);
        let expansion = expander.expand(&word.text, self.globals);
        expansion.map(|found| found.matched).unwrap_or_default()
    }
}

fn entry(declaration: &ArgDeclaration, value: Option<&str>, lines: LineRange) -> OutlineArg {
    OutlineArg {
        name: declaration.name.text.to_string(),
        description: declaration.description.clone(),
        value: value.map(str::to_owned),
        lines,
    }
}
