//! The text form of a plan: one op a line, in an order that depends on the plan alone.
//!
//! The grammar is docs/formats/plan-text.md. [`crate::parse()`] reads it back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::attributes::{Attributes, Writer};
use crate::op::*;
use crate::{Graph, ImageConfig, Node, NodeId, Plan, Platform, ResultEntry, SourceOp};

/// A line that is longer is broken up where the grammar allows it: in the block of a result.
const WIDTH: usize = 100;

/// What a printed plan says beside its ops and results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrintOptions {
    /// Names of steps, as comments.
    pub display: bool,
    /// Pins, in a section of their own.
    pub pins: bool,
}

impl Default for PrintOptions {
    fn default() -> Self {
        Self {
            display: false,
            pins: true,
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&print(self, PrintOptions::default()))
    }
}

/// Prints a valid plan; equal plans print equally.
pub fn print(plan: &Plan, options: PrintOptions) -> String {
    print_marked(plan, options, &BTreeMap::new())
}

/// Prints a valid plan, with something said of nodes in comments before them.
pub fn print_marked(
    plan: &Plan,
    options: PrintOptions,
    marks: &BTreeMap<NodeId, String>,
) -> String {
    let order = plan.order();
    let numbers: BTreeMap<NodeId, usize> = order
        .iter()
        .enumerate()
        .map(|(number, &id)| (id, number))
        .collect();
    let mut text = String::new();
    for &id in &order {
        if let Some(display) = plan.display.get(&id).filter(|_| options.display) {
            let stage = if display.stage.is_empty() {
                String::new()
            } else {
                format!("[{}] ", display.stage)
            };
            let comment: String = format!("{stage}{}", display.name);
            if !comment.is_empty() {
                let _ = writeln!(text, "# {}", one_line(&comment));
            }
        }
        if let Some(mark) = marks.get(&id) {
            let _ = writeln!(text, "# {}", one_line(mark));
        }
        let _ = writeln!(
            text,
            "%{} = {}",
            numbers[&id],
            print_node(&plan.graph, id, &numbers)
        );
    }
    for (name, entry) in &plan.results {
        let _ = writeln!(text, "{}", print_result(name, entry, &numbers));
    }
    let pins: BTreeMap<usize, _> = plan
        .pins
        .iter()
        .map(|(node, pin)| (numbers[node], pin))
        .collect();
    for (number, pin) in pins.into_iter().filter(|_| options.pins) {
        let mut line = Writer::new(Vec::new());
        line.words(&["pin", &format!("%{number}"), "=", pin.kind()]);
        line.string(pin.value());
        let _ = writeln!(text, "{}", line.finish());
    }
    text
}

/// What may stand in a comment.
fn one_line(comment: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = comment.chars().map(visible).collect();
    line.trim().to_owned()
}

/// Prints one node as the right side of its line, with inputs named by `numbers`.
fn print_node(graph: &Graph, id: NodeId, numbers: &BTreeMap<NodeId, usize>) -> String {
    let node = graph.node(id);
    let names: Vec<String> = node
        .inputs
        .iter()
        .map(|input| reference(numbers[&input.node], input.output))
        .collect();
    let count = names.len();
    let mut line = Writer::new(names);
    write_op(&mut line, node);
    if line.used() != (0..count).collect::<Vec<_>>() {
        // The order of inputs is part of the node, and it is not the order of their first use.
        line = Writer::new(line.into_names());
        line.list_all_inputs();
        write_op(&mut line, node);
    }
    line.finish()
}

fn reference(number: usize, output: u32) -> String {
    match output {
        0 => format!("%{number}"),
        output => format!("%{number}.{output}"),
    }
}

fn write_op(line: &mut Writer, node: &Node) {
    line.word(node.op.kind());
    match &node.op {
        Op::Source(source) => write_source(line, source, node.platform.as_ref()),
        Op::Exec(op) => write_exec(line, op, node.platform.as_ref()),
        Op::File(op) => write_file(line, op),
        Op::Merge(op) => op.inputs.iter().for_each(|input| line.tree(*input, "")),
        Op::Diff(op) => {
            line.tree(op.lower, "");
            line.word("->");
            line.tree(op.upper, "");
        }
        Op::Build(op) => {
            if op.builder.is_some() {
                line.tree(op.builder, "");
            }
            if !op.inputs.is_empty() {
                line.attribute("with", |line| {
                    line.block(|line| {
                        for (name, input) in &op.inputs {
                            line.string_key(name);
                            line.tree(Some(*input), "");
                        }
                    });
                });
            }
            op.write(line);
        }
        Op::Passthrough(op) => {
            op.outputs
                .iter()
                .for_each(|input| line.tree(Some(*input), ""));
            op.write(line);
        }
    }
    line.write_inputs();
}

fn write_source(line: &mut Writer, source: &SourceOp, platform: Option<&Platform>) {
    match source {
        SourceOp::Image(op) => {
            line.string(&op.reference);
            write_platform(line, platform, true);
            op.write(line);
        }
        SourceOp::Local(op) => {
            line.string(&op.name);
            op.write(line);
        }
        SourceOp::Git(op) => {
            line.string(&op.remote);
            op.write(line);
        }
        SourceOp::Http(op) => {
            line.string(&op.url);
            op.write(line);
        }
        SourceOp::OciLayout(op) => {
            line.string(&op.reference);
            write_platform(line, platform, true);
            op.write(line);
        }
        SourceOp::Blob(op) => {
            line.string(&op.reference);
            op.write(line);
        }
    }
}

/// Writes a platform as a word where that says it all.
fn write_platform(line: &mut Writer, platform: Option<&Platform>, positional: bool) {
    let Some(platform) = platform else { return };
    let short = platform.to_string();
    let is_short = Platform::parse(&short).is_ok_and(|parsed| parsed == *platform);
    match (is_short, positional) {
        (true, true) => line.string(&short),
        (true, false) => line.attribute("platform", |line| line.string(&short)),
        (false, _) => line.attribute("platform", |line| line.block(|line| platform.write(line))),
    }
}

fn write_exec(line: &mut Writer, op: &ExecOp, platform: Option<&Platform>) {
    let implied = |mount: &Mount| {
        let plain = Mount {
            target: "/".to_owned(),
            input: mount.input,
            output: Some(0),
            ..Mount::default()
        };
        *mount == plain
    };
    let mounts = match op.mounts.split_first() {
        Some((root, rest)) if implied(root) => {
            line.tree(root.input, "");
            rest
        }
        _ => &op.mounts,
    };
    line.strings(&op.meta.args);
    write_platform(line, platform, false);
    op.meta.write(line);
    op.write(line);
    if !mounts.is_empty() {
        line.statements(mounts, write_mount);
    }
}

fn write_mount(line: &mut Writer, mount: &Mount) {
    line.word(mount.kind.name());
    let optional = mount.kind != MountKind::Bind;
    if !optional || mount.input.is_some() || !mount.selector.is_empty() {
        line.tree(mount.input, &mount.selector);
    }
    line.word("->");
    line.string(&mount.target);
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Cache { id, sharing } => {
            line.field("id", id);
            line.field("sharing", sharing);
        }
        MountKind::Tmpfs { size_bytes } => line.field("size", size_bytes),
        MountKind::Secret(option) | MountKind::Ssh(option) => option.write(line),
    }
    mount.write(line);
}

fn write_file(line: &mut Writer, op: &FileOp) {
    if let Some(first) = op.actions.first() {
        line.action_input(first.input, "");
    }
    let last = op.actions.len().saturating_sub(1);
    let actions: Vec<(usize, &FileAction)> = op.actions.iter().enumerate().collect();
    line.statements(&actions, |line, (number, action)| {
        line.word(action.kind.name());
        match &action.kind {
            FileActionKind::Copy(copy) => {
                line.action_input(action.secondary, &copy.src);
                line.word("->");
                line.string(&copy.dest);
                copy.write(line);
            }
            FileActionKind::Mkfile(file) => {
                line.string(&file.path);
                file.write(line);
            }
            FileActionKind::Mkdir(directory) => {
                line.string(&directory.path);
                directory.write(line);
            }
            FileActionKind::Rm(rm) => {
                line.string(&rm.path);
                rm.write(line);
            }
            FileActionKind::Symlink(link) => {
                line.string(&link.path);
                line.word("->");
                line.string(&link.target);
                link.write(line);
            }
        }
        write_owner(line, action.kind.owner());
        if action.input != default_action_input(*number, op.actions[0].input) {
            line.attribute("on", |line| line.action_input(action.input, ""));
        }
        let default_output = (*number == last).then_some(0);
        if action.output != default_output {
            match action.output {
                Some(output) => line.field("out", &Some(output)),
                None => line.attribute("out", |line| line.word("none")),
            }
        }
    });
}

/// What an action changes unless it says otherwise: the tree that the one before it made.
pub(crate) fn default_action_input(number: usize, first: ActionInput) -> ActionInput {
    match u32::try_from(number) {
        Ok(0) | Err(_) => first,
        Ok(number) => ActionInput::Action(number - 1),
    }
}

fn write_owner(line: &mut Writer, owner: Option<&Owner>) {
    let Some(owner) = owner else { return };
    let mut part = |key: &str, user: &Option<UserRef>| match user {
        None => {}
        Some(UserRef::Id(id)) => line.field(key, &Some(*id)),
        Some(UserRef::Name { name, input }) => {
            line.attribute(key, |line| line.action_input(*input, name))
        }
    };
    part("user", &owner.user);
    part("group", &owner.group);
    if owner.user.is_none() && owner.group.is_none() {
        line.attribute("user", |line| line.word("default"));
    }
}

fn print_result(name: &str, entry: &ResultEntry, numbers: &BTreeMap<NodeId, usize>) -> String {
    let mut line = Writer::new(Vec::new());
    line.word("result");
    if !name.is_empty() {
        line.string(name);
    }
    match entry.output {
        Some(output) => line.word(&reference(numbers[&output.node], output.output)),
        None => line.word("scratch"),
    }
    if !entry.attestations.is_empty() {
        line.attribute("attestations", |line| {
            line.block(|line| {
                for (predicate, input) in &entry.attestations {
                    line.string_key(predicate);
                    line.word(&reference(numbers[&input.node], input.output));
                }
            });
        });
    }
    line.field("metadata", &entry.metadata);
    let Some(config) = &entry.config else {
        return line.finish();
    };
    let mut broken = line.clone();
    line.block(|line| write_config(line, config));
    let line = line.finish();
    if line.chars().count() <= WIDTH {
        return line;
    }
    broken.broken_block(|line| write_config(line, config));
    broken.finish()
}

fn write_config(line: &mut Writer, config: &ImageConfig) {
    config.config.write(line);
    config.write(line);
}
