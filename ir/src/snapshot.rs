//! A plan kept beside what it was made of, for tests: the text form under a header that says with
//! which arguments.
//!
//! The header is comments, so a snapshot is a plan like any other; docs/formats/plan-text.md has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::parse::parse_labelled;
use crate::syntax::ParseError;
use crate::{NodeId, Plan, PrintOptions, print};

/// What the first line of a snapshot begins with; its version follows.
const MARK: &str = "# kiln plan snapshot ";
/// The version that is written, and the only one that is read.
const VERSION: &str = "0";
/// More arguments than anybody gives.
const MOST_ARGUMENTS: usize = 10_000;

/// A plan with the arguments that it was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Arguments in order, by the names of the flags: `platform`, `target`, `build-arg`.
    pub arguments: Vec<(String, String)>,
    /// The plan. What is read has names of steps and stages where the text has them.
    pub plan: Plan,
}

/// Why a text is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin like one.
    #[error("the first line is not `{MARK}{VERSION}`")]
    NoHeader,
    /// It is of a version that is not known.
    #[error("the snapshot has version `{found}`, and only `{VERSION}` is known")]
    Version {
        /// The version found.
        found: String,
    },
    /// A line of the header is none.
    #[error("line {line}: `{text}` is not `# NAME: VALUE`; a line `#` ends the header")]
    Argument {
        /// Which line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// What follows is no plan.
    #[error(transparent)]
    Plan(#[from] ParseError),
}

impl Snapshot {
    /// Writes it; equal snapshots are equal texts.
    pub fn to_text(&self) -> String {
        let mut text = format!("{MARK}{VERSION}\n");
        for (name, value) in &self.arguments {
            let _ = writeln!(text, "# {name}: {}", written(value));
        }
        text.push_str("#\n");
        let options = PrintOptions {
            display: true,
            pins: true,
        };
        text.push_str(&print(&self.plan, options));
        text
    }

    /// Reads one. Lines may end in `\r\n`, as git may have made them.
    pub fn parse(text: &str) -> Result<Snapshot, SnapshotError> {
        let mut lines = (1..).zip(text.lines());
        let first = lines.next().map_or("", |(_, line)| line);
        let version = first.strip_prefix(MARK).ok_or(SnapshotError::NoHeader)?;
        if version.trim_end() != VERSION {
            return Err(SnapshotError::Version {
                found: version.trim_end().to_owned(),
            });
        }
        let mut arguments = Vec::new();
        for (line, header) in lines {
            let header = header.trim_end();
            if header == "#" {
                break;
            }
            let argument = header.strip_prefix("# ").and_then(|argument| {
                let (name, value) = argument.split_once(": ").or_else(|| {
                    let name = argument.strip_suffix(':')?;
                    Some((name, ""))
                })?;
                Some((name.to_owned(), read(value)?))
            });
            match argument.filter(|_| arguments.len() < MOST_ARGUMENTS) {
                Some(argument) => arguments.push(argument),
                None => {
                    return Err(SnapshotError::Argument {
                        line,
                        text: header.to_owned(),
                    });
                }
            }
        }
        let (mut plan, labels) = parse_labelled(text)?;
        take_names(&mut plan, &labels, text);
        Ok(Snapshot { arguments, plan })
    }
}

/// A value as one line: in quotes, as JSON has them, if it would not read back otherwise.
fn written(value: &str) -> String {
    let plain = value == value.trim()
        && !value.starts_with('"')
        && !value.chars().any(char::is_control)
        && !value.is_empty();
    match plain {
        true => value.to_owned(),
        false => serde_json::Value::from(value).to_string(),
    }
}

fn read(value: &str) -> Option<String> {
    match value.starts_with('"') {
        true => serde_json::from_str(value).ok(),
        false => Some(value.to_owned()),
    }
}

/// Takes the names of steps from the comments above them.
fn take_names(plan: &mut Plan, labels: &BTreeMap<String, NodeId>, text: &str) {
    let mut above = None;
    for line in text.lines() {
        let label = line
            .strip_prefix('%')
            .and_then(|line| line.split_once([' ', '=']))
            .and_then(|(label, _)| labels.get(label));
        let Some(&node) = label else {
            above = line.strip_prefix("# ");
            continue;
        };
        let Some(name) = above.take() else { continue };
        let staged = name
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "));
        let (stage, name) = staged.unwrap_or(("", name));
        let display = plan.display_mut(node);
        (display.stage, display.name) = (stage.to_owned(), name.to_owned());
    }
}
