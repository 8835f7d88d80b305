//! Two plans compared by what they mean: which ops came, went or changed, and in which field.
//!
//! Neither the order in which a plan is written nor the numbers of its ops count, nor does what
//! people see of it. An op whose inputs alone changed because an op came in between, or went, is
//! named with that op and not as changed itself; what would run again is another question.

mod fields;
mod pairing;
mod side;
mod words;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::{Input, NodeId, Pin, Plan};
use fields::Fields;
use pairing::Pairing;
use side::Side;

/// How a plan differs from an older one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Ops, in the order of the new plan; one that went stands where it was.
    pub ops: Vec<OpChange>,
    /// Results, by name.
    pub results: Vec<ResultChange>,
    /// Pins, in the order of their ops.
    pub pins: Vec<PinChange>,
}

/// An op of one of the two plans, as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpName {
    /// The node in its plan.
    #[serde(skip)]
    pub node: NodeId,
    /// Its number in the text form of its plan.
    pub number: usize,
    /// What op it is, as the text form says.
    pub kind: &'static str,
    /// What it is called, or else what it does.
    pub name: String,
    /// Its stage, or empty.
    pub stage: String,
}

/// What became of an op.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum OpChange {
    /// It is new.
    Added(OpAround),
    /// It is gone.
    Removed(OpAround),
    /// It says something else.
    Changed {
        /// As it was.
        old: OpName,
        /// As it is.
        new: OpName,
        /// What differs; never empty.
        fields: Vec<FieldChange>,
    },
}

/// An op with its neighbours in its own plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpAround {
    /// The op.
    pub op: OpName,
    /// What it reads.
    pub reads: Vec<OpName>,
    /// What reads it.
    pub read_by: Vec<OpName>,
    /// Results that are its output.
    pub results: Vec<String>,
}

/// What became of a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum ResultChange {
    /// It is new.
    Added {
        /// Its name.
        name: String,
    },
    /// It is gone.
    Removed {
        /// Its name.
        name: String,
    },
    /// It says something else.
    Changed {
        /// Its name.
        name: String,
        /// What differs; never empty.
        fields: Vec<FieldChange>,
    },
}

/// A field that differs. A missing value is a field that is not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Where it is in the op, by the names of the JSON form, such as `args[2]` or `env.PATH`.
    pub field: String,
    /// What it was; an op that is read is an object of its number, its output and its name.
    pub old: Option<Value>,
    /// What it is.
    pub new: Option<Value>,
}

/// A pin that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinChange {
    /// The source: of the new plan where it is there.
    pub op: OpName,
    /// What it was.
    pub old: Option<Pin>,
    /// What it is.
    pub new: Option<Pin>,
}

impl Comparison {
    /// Returns whether the plans mean the same.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.results.is_empty() && self.pins.is_empty()
    }

    /// Writes it for people, a line a field; empty if nothing differs.
    pub fn to_text(&self) -> String {
        words::write(self)
    }

    /// Returns it as docs/formats/plan-comparison.md describes.
    pub fn to_json(&self) -> Value {
        let mut document = serde_json::Map::new();
        document.insert("version".to_owned(), VERSION.into());
        document.insert("equal".to_owned(), self.is_empty().into());
        if let Ok(Value::Object(parts)) = serde_json::to_value(self) {
            document.extend(parts);
        }
        Value::Object(document)
    }
}

/// The version that a comparison in JSON form names.
pub const VERSION: &str = "kiln.plan-comparison/0";

/// Compares two valid plans; the same plans always compare alike.
///
/// ```
/// let plan = |command: &str| {
///     let text = format!("%0 = image docker.io/library/alpine:latest linux/amd64\n\
///                         %1 = exec %0 [\"/bin/sh\", \"-c\", \"{command}\"]\nresult %1\n");
///     kiln_ir::parse(&text)
/// };
/// let comparison = kiln_ir::compare(&plan("make all")?, &plan("make some")?);
/// assert_eq!(comparison.to_text(), "\
/// ~ %1 exec /bin/sh -c make some
///     args[2]: \"make all\" -> \"make some\"
/// ");
/// # Ok::<(), kiln_ir::ParseError>(())
/// ```
pub fn compare(old: &Plan, new: &Plan) -> Comparison {
    let (old, new) = (Side::of(old), Side::of(new));
    let pairs = Pairing::of(&old, &new);
    let differ = Differ {
        old: &old,
        new: &new,
        pairs: &pairs,
    };
    Comparison {
        ops: differ.ops(),
        results: differ.results(),
        pins: differ.pins(),
    }
}

struct Differ<'a> {
    old: &'a Side<'a>,
    new: &'a Side<'a>,
    pairs: &'a Pairing,
}

impl Differ<'_> {
    fn ops(&self) -> Vec<OpChange> {
        let mut changes = Vec::new();
        // One that went is told before the first that comes after it and is still there.
        let mut told = 0;
        for position in 0..self.new.len() {
            let partner = self.pairs.of_new(position);
            if let Some(partner) = partner {
                while told < partner {
                    changes.extend(self.removed(told));
                    told += 1;
                }
                told = told.max(partner + 1);
                changes.extend(self.changed(partner, position));
            } else {
                changes.push(OpChange::Added(self.new.around(position)));
            }
        }
        // Ops that moved forward were passed over with those before them.
        let seen: BTreeSet<NodeId> = changes
            .iter()
            .filter_map(|change| match change {
                OpChange::Removed(gone) => Some(gone.op.node),
                _ => None,
            })
            .collect();
        for position in 0..self.old.len() {
            if !seen.contains(&self.old.node_id(position)) {
                changes.extend(self.removed(position));
            }
        }
        changes
    }

    fn removed(&self, position: usize) -> Option<OpChange> {
        match self.pairs.of_old(position) {
            Some(_) => None,
            None => Some(OpChange::Removed(self.old.around(position))),
        }
    }

    fn changed(&self, old: usize, new: usize) -> Option<OpChange> {
        let (one, two) = (self.old.node(old), self.new.node(new));
        let same = |old, new| self.same_input(old, new);
        let fields = Fields::new(self.old, self.new, &same);
        let mut found = Vec::new();
        let mapped = |one: &Input, two: &Input| {
            one.output == two.output
                && self.pairs.of_old(self.old.position(one.node))
                    == Some(self.new.position(two.node))
        };
        let as_it_was = one.inputs.len() == two.inputs.len()
            && one
                .inputs
                .iter()
                .zip(&two.inputs)
                .all(|(one, two)| mapped(one, two));
        if as_it_was && one.op == two.op && one.platform == two.platform {
            return None;
        }
        fields.node(one, two, &mut found);
        let explained = one.inputs.len() == two.inputs.len()
            && one
                .inputs
                .iter()
                .zip(&two.inputs)
                .all(|(one, two)| self.same_input(Some(*one), Some(*two)));
        if found.is_empty() && !explained {
            // The order of inputs is part of a node, and so is one that nothing in the op names.
            found.push(FieldChange {
                field: "inputs".to_owned(),
                old: Some(self.old.references(&one.inputs)),
                new: Some(self.new.references(&two.inputs)),
            });
        }
        (!found.is_empty()).then(|| OpChange::Changed {
            old: self.old.name(old),
            new: self.new.name(new),
            fields: found,
        })
    }

    /// Whether two inputs are the same, but for ops that came in between or went.
    fn same_input(&self, old: Option<Input>, new: Option<Input>) -> bool {
        let old = self
            .old
            .below(old, |position| self.pairs.of_old(position).is_none());
        let new = self
            .new
            .below(new, |position| self.pairs.of_new(position).is_none());
        match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => {
                let partner = self.pairs.of_old(self.old.position(old.node));
                old.output == new.output && partner == Some(self.new.position(new.node))
            }
            _ => false,
        }
    }

    fn results(&self) -> Vec<ResultChange> {
        let (old, new) = (&self.old.plan().results, &self.new.plan().results);
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let same = |old, new| self.same_input(old, new);
        let fields = Fields::new(self.old, self.new, &same);
        let changes = names.into_iter().filter_map(|name| {
            let name = name.clone();
            match (old.get(&name), new.get(&name)) {
                (None, _) => Some(ResultChange::Added { name }),
                (_, None) => Some(ResultChange::Removed { name }),
                (Some(one), Some(two)) => {
                    let mut found = Vec::new();
                    fields.result(one, two, &mut found);
                    (!found.is_empty()).then_some(ResultChange::Changed {
                        name,
                        fields: found,
                    })
                }
            }
        });
        changes.collect()
    }

    fn pins(&self) -> Vec<PinChange> {
        let pin =
            |side: &Side<'_>, position| side.plan().pins.get(&side.node_id(position)).cloned();
        let mut changes = Vec::new();
        for position in 0..self.new.len() {
            let old = self.pairs.of_new(position);
            let old = old.and_then(|old| pin(self.old, old));
            let new = pin(self.new, position);
            if old != new {
                let op = self.new.name(position);
                changes.push(PinChange { op, old, new });
            }
        }
        for position in 0..self.old.len() {
            let (None, Some(old)) = (self.pairs.of_old(position), pin(self.old, position)) else {
                continue;
            };
            changes.push(PinChange {
                op: self.old.name(position),
                old: Some(old),
                new: None,
            });
        }
        changes
    }
}
