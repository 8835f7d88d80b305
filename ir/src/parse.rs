//! Reads the text form of a plan.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::attributes::{Attributes, Inputs, Reader, Value, action_input, entries, record};
use crate::link::{LinkError, NamedNode, link};
use crate::op::*;
use crate::syntax::{Fault, Item, Kind, ParseProblem, statements};
use crate::text::default_action_input;
use crate::{
    Graph, GraphError, ImageConfig, Input, NodeId, ParseError, Pin, Plan, Platform, ResultEntry,
};

/// Reads what [`crate::text::print`] writes, and what people write by the same grammar.
///
/// Nodes may be named before they are defined. Errors name the first problem with its place.
pub fn parse(text: &str) -> Result<Plan, ParseError> {
    parse_labelled(text).map(|(plan, _)| plan)
}

/// Reads like [`parse`], and tells which node each label names; equal nodes have several.
pub fn parse_labelled(text: &str) -> Result<(Plan, BTreeMap<String, NodeId>), ParseError> {
    read_plan(text).map_err(|fault| fault.locate(text))
}

impl std::str::FromStr for Plan {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
    }
}

/// A statement that needs the whole graph: a result or a pin.
struct Later<'a> {
    items: &'a [Item],
    span: Range<usize>,
}

fn read_plan(text: &str) -> Result<(Plan, BTreeMap<String, NodeId>), Fault> {
    let statements = statements(text)?;
    let (mut nodes, mut places) = (Vec::new(), Vec::new());
    let (mut results, mut pins) = (Vec::new(), Vec::new());
    for items in &statements {
        let span = items[0].span.start..items[items.len() - 1].span.end;
        match (&items[0].kind, items.get(1).map(|item| &item.kind)) {
            (
                Kind::Node {
                    label,
                    output: 0,
                    path,
                },
                Some(Kind::Equals),
            ) if path.is_empty() => {
                let (node, inputs) = read_node(label, &items[2..], &span)?;
                nodes.push(node);
                places.push((span, inputs));
            }
            (
                Kind::Word {
                    text,
                    quoted: false,
                },
                _,
            ) if text == "result" => {
                results.push(Later {
                    items: &items[1..],
                    span,
                });
            }
            (
                Kind::Word {
                    text,
                    quoted: false,
                },
                _,
            ) if text == "pin" => pins.push(Later {
                items: &items[1..],
                span,
            }),
            _ => {
                let expected = "`%name = op …`, `result …` or `pin %name = …`".to_owned();
                let found = items[0].describe();
                return Err(Fault::new(
                    &items[0].span,
                    ParseProblem::Expected { expected, found },
                ));
            }
        }
    }
    let (graph, ids) = link(nodes).map_err(|LinkError { node, input, error }| {
        let (span, inputs) = &places[node];
        let span = input.and_then(|index| inputs.get(index)).unwrap_or(span);
        Fault::new(span, ParseProblem::Graph(error))
    })?;
    let mut plan = Plan {
        graph,
        ..Plan::default()
    };
    for later in results {
        let (name, entry) = read_result(&later, &plan.graph, &ids)?;
        if plan.results.insert(name.clone(), entry).is_some() {
            return Err(Fault::new(
                &later.span,
                ParseProblem::Duplicate {
                    key: format!("result {name}"),
                },
            ));
        }
    }
    for later in pins {
        let (node, pin) = read_pin(&later, &ids)?;
        pin.check(node, &plan.graph.node(node).op)
            .map_err(|error| Fault::new(&later.span, ParseProblem::Plan(error)))?;
        if plan.pins.insert(node, pin).is_some() {
            return Err(Fault::new(
                &later.span,
                ParseProblem::Duplicate {
                    key: "pin".to_owned(),
                },
            ));
        }
    }
    Ok((plan, ids))
}

/// Reads one node and where its inputs stand.
fn read_node(
    label: &str,
    items: &[Item],
    span: &Range<usize>,
) -> Result<(NamedNode, Vec<Range<usize>>), Fault> {
    let inputs = read_inputs(items)?;
    let mut reader = Reader::new(items, &inputs, span.clone())?;
    reader.attribute("inputs");
    let kind_span = reader.peek().map_or(span.clone(), |item| item.span.clone());
    let kind = reader.string("an op")?;
    let mut platform = None;
    let op = match kind.as_str() {
        "image" => {
            let mut op = ImageSource {
                reference: reader.string("an image reference")?,
                ..Default::default()
            };
            platform = read_platform(&mut reader)?;
            op.read(&mut reader)?;
            Op::Source(SourceOp::Image(op))
        }
        "local" => {
            let mut op = LocalSource {
                name: reader.string("a name")?,
                ..Default::default()
            };
            op.read(&mut reader)?;
            Op::Source(SourceOp::Local(op))
        }
        "git" => {
            let mut op = GitSource {
                remote: reader.string("a remote")?,
                ..Default::default()
            };
            op.read(&mut reader)?;
            Op::Source(SourceOp::Git(op))
        }
        "http" => {
            let mut op = HttpSource {
                url: reader.string("a URL")?,
                ..Default::default()
            };
            op.read(&mut reader)?;
            Op::Source(SourceOp::Http(op))
        }
        "oci-layout" => {
            let mut op = OciLayoutSource {
                reference: reader.string("a reference")?,
                ..Default::default()
            };
            platform = read_platform(&mut reader)?;
            op.read(&mut reader)?;
            Op::Source(SourceOp::OciLayout(op))
        }
        "blob" => {
            let mut op = BlobSource {
                reference: reader.string("a reference")?,
                ..Default::default()
            };
            op.read(&mut reader)?;
            Op::Source(SourceOp::Blob(op))
        }
        "exec" => {
            let op = read_exec(&mut reader, span)?;
            platform = read_platform(&mut reader)?;
            Op::Exec(op)
        }
        "file" => Op::File(read_file(&mut reader, span)?),
        "merge" => {
            let mut op = MergeOp::default();
            while let Some(input) = read_whole(&mut reader)? {
                op.inputs.push(input);
            }
            Op::Merge(op)
        }
        "diff" => {
            let lower = read_whole(&mut reader)?.ok_or_else(|| reader.expected("a tree"))?;
            reader.arrow()?;
            let upper = read_whole(&mut reader)?.ok_or_else(|| reader.expected("a tree"))?;
            Op::Diff(DiffOp { lower, upper })
        }
        "build" => Op::Build(read_build(&mut reader)?),
        "passthrough" => {
            let mut op = PassthroughOp::default();
            while let Some(input) = read_whole(&mut reader)? {
                op.outputs
                    .push(input.ok_or_else(|| Fault::new(span, expected("a node", "`scratch`")))?);
            }
            op.read(&mut reader)?;
            Op::Passthrough(op)
        }
        word => {
            let problem = ParseProblem::UnknownWord {
                what: "op",
                word: word.to_owned(),
                known: "image, local, git, http, oci-layout, blob, exec, file, merge, diff, build, passthrough".to_owned(),
            };
            return Err(Fault::new(&kind_span, problem));
        }
    };
    reader.finish()?;
    let (names, spans) = inputs
        .list
        .into_iter()
        .map(|(name, output, span)| ((name, output), span))
        .unzip();
    Ok((
        NamedNode {
            name: label.to_owned(),
            op,
            inputs: names,
            platform,
        },
        spans,
    ))
}

fn expected(expected: &str, found: &str) -> ParseProblem {
    ParseProblem::Expected {
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// Finds the node's inputs: those that `inputs=[…]` lists, or all references in order.
fn read_inputs(items: &[Item]) -> Result<Inputs, Fault> {
    let mut inputs = Inputs::default();
    let listed = items.iter().find_map(|item| match &item.kind {
        Kind::Attribute { key, value } if key == "inputs" => Some(value),
        _ => None,
    });
    let Some(listed) = listed else {
        items
            .iter()
            .for_each(|item| collect_references(item, &mut inputs));
        return Ok(inputs);
    };
    let Kind::List(list) = &listed.kind else {
        return Err(Fault::new(
            &listed.span,
            expected("a list", &listed.describe()),
        ));
    };
    for item in list {
        match &item.kind {
            Kind::Node {
                label,
                output,
                path,
            } if path.is_empty() => {
                if !inputs.add(label, *output, &item.span) {
                    let key = format!("{} in `inputs`", item.describe());
                    return Err(Fault::new(&item.span, ParseProblem::Duplicate { key }));
                }
            }
            _ => return Err(Fault::new(&item.span, expected("a node", &item.describe()))),
        }
    }
    Ok(inputs)
}

/// Adds references in the order of the text; nesting is bounded by the syntax.
fn collect_references(item: &Item, inputs: &mut Inputs) {
    match &item.kind {
        Kind::Node { label, output, .. } => {
            inputs.add(label, *output, &item.span);
        }
        Kind::List(items) => items
            .iter()
            .for_each(|item| collect_references(item, inputs)),
        Kind::Block(statements) => statements
            .iter()
            .flatten()
            .for_each(|item| collect_references(item, inputs)),
        Kind::Attribute { value, .. } => collect_references(value, inputs),
        Kind::Word { .. }
        | Kind::Scratch { .. }
        | Kind::Action { .. }
        | Kind::Arrow
        | Kind::Equals => {}
    }
}

/// Takes a tree that has no path.
fn read_whole(reader: &mut Reader<'_>) -> Result<Option<Option<u32>>, Fault> {
    let span = reader.peek().map_or(0..0, |item| item.span.clone());
    match reader.tree()? {
        Some((_, path)) if !path.is_empty() => Err(Fault::new(
            &span,
            expected("a tree without a path", &format!("`:{path}`")),
        )),
        tree => Ok(tree.map(|(input, _)| input)),
    }
}

fn read_platform(reader: &mut Reader<'_>) -> Result<Option<Platform>, Fault> {
    let word = |item: &Item| match &item.kind {
        Kind::Word { text, .. } => Some((text.clone(), item.span.clone())),
        _ => None,
    };
    let (text, span) = match reader.accept(word) {
        Some(positional) => positional,
        None => {
            let Some(item) = reader.attribute("platform") else {
                return Ok(None);
            };
            match word(item) {
                Some(named) => named,
                None => return <Platform as Value>::read(item, reader.inputs()).map(Some),
            }
        }
    };
    match Platform::parse(&text) {
        Ok(platform) => Ok(Some(platform)),
        Err(_) => Err(Fault::new(
            &span,
            ParseProblem::Value {
                value: text,
                expected: "platform",
            },
        )),
    }
}

fn read_exec(reader: &mut Reader<'_>, span: &Range<usize>) -> Result<ExecOp, Fault> {
    let mut op = ExecOp::default();
    if let Some(input) = read_whole(reader)? {
        op.mounts.push(Mount {
            target: "/".to_owned(),
            input,
            output: Some(0),
            ..Mount::default()
        });
    }
    op.meta.args = reader.list("a list of arguments")?;
    op.meta.read(reader)?;
    op.read(reader)?;
    for items in reader.block().unwrap_or_default() {
        let span = items.first().map_or(span.clone(), |first| {
            first.span.start..items[items.len() - 1].span.end
        });
        op.mounts
            .push(read_mount(Reader::new(items, reader.inputs(), span)?)?);
    }
    Ok(op)
}

fn read_mount(mut reader: Reader<'_>) -> Result<Mount, Fault> {
    let span = reader.peek().map_or(0..0, |item| item.span.clone());
    let kind = reader.string("a kind of mount")?;
    let tree = reader.tree()?;
    reader.arrow()?;
    let mut mount = Mount {
        target: reader.string("a path")?,
        ..Mount::default()
    };
    (mount.input, mount.selector) = match tree {
        Some(tree) => tree,
        None if kind == "bind" => {
            return Err(Fault::new(&span, expected("a tree after `bind`", "`->`")));
        }
        None => (None, String::new()),
    };
    mount.kind = match kind.as_str() {
        "bind" => MountKind::Bind,
        "cache" => {
            let (mut id, mut sharing) = (String::new(), CacheSharing::default());
            reader.field("id", &mut id)?;
            reader.field("sharing", &mut sharing)?;
            MountKind::Cache { id, sharing }
        }
        "tmpfs" => {
            let mut size_bytes = 0;
            reader.field("size", &mut size_bytes)?;
            MountKind::Tmpfs { size_bytes }
        }
        "secret" | "ssh" => {
            let mut option = SecretOpt::default();
            option.read(&mut reader)?;
            if kind == "secret" {
                MountKind::Secret(option)
            } else {
                MountKind::Ssh(option)
            }
        }
        word => {
            let (what, known) = (
                "kind of mount",
                "bind, cache, tmpfs, secret, ssh".to_owned(),
            );
            return Err(Fault::new(
                &span,
                ParseProblem::UnknownWord {
                    what,
                    word: word.to_owned(),
                    known,
                },
            ));
        }
    };
    mount.read(&mut reader)?;
    reader.finish()?;
    Ok(mount)
}

fn read_file(reader: &mut Reader<'_>, span: &Range<usize>) -> Result<FileOp, Fault> {
    let first = reader.action_input()?;
    let block = reader
        .block()
        .ok_or_else(|| reader.expected("a block of actions"))?;
    let first = match first {
        Some((input, path)) if path.is_empty() => input,
        Some((_, path)) => {
            return Err(Fault::new(
                span,
                expected("a tree without a path", &format!("`:{path}`")),
            ));
        }
        None if block.is_empty() => ActionInput::Scratch,
        None => return Err(reader.expected("the tree that the actions change")),
    };
    let mut actions = Vec::with_capacity(block.len());
    for (number, items) in block.iter().enumerate() {
        let span = items.first().map_or(span.clone(), |first| {
            first.span.start..items[items.len() - 1].span.end
        });
        let action_reader = Reader::new(items, reader.inputs(), span)?;
        let default_output = (number + 1 == block.len()).then_some(0);
        actions.push(read_action(
            action_reader,
            default_action_input(number, first),
            default_output,
        )?);
    }
    Ok(FileOp { actions })
}

fn read_action(
    mut reader: Reader<'_>,
    input: ActionInput,
    output: Option<u32>,
) -> Result<FileAction, Fault> {
    let span = reader.peek().map_or(0..0, |item| item.span.clone());
    let kind = reader.string("an action")?;
    let mut action = FileAction {
        input,
        secondary: ActionInput::Scratch,
        output,
        kind: FileActionKind::Rm(RmAction::default()),
    };
    let owner = read_owner(&mut reader)?;
    action.kind = match kind.as_str() {
        "copy" => {
            let (secondary, src) = reader
                .action_input()?
                .ok_or_else(|| reader.expected("`%node:path`"))?;
            reader.arrow()?;
            action.secondary = secondary;
            let mut copy = CopyAction {
                src,
                dest: reader.string("a path")?,
                owner,
                ..Default::default()
            };
            copy.read(&mut reader)?;
            FileActionKind::Copy(copy)
        }
        "mkfile" => {
            let mut file = MkfileAction {
                path: reader.string("a path")?,
                owner,
                ..Default::default()
            };
            file.read(&mut reader)?;
            FileActionKind::Mkfile(file)
        }
        "mkdir" => {
            let mut directory = MkdirAction {
                path: reader.string("a path")?,
                owner,
                ..Default::default()
            };
            directory.read(&mut reader)?;
            FileActionKind::Mkdir(directory)
        }
        "rm" => {
            if owner.is_some() {
                let key = "user".to_owned();
                return Err(Fault::new(&span, ParseProblem::UnknownAttribute { key }));
            }
            let mut rm = RmAction {
                path: reader.string("a path")?,
                ..Default::default()
            };
            rm.read(&mut reader)?;
            FileActionKind::Rm(rm)
        }
        "symlink" => {
            let path = reader.string("a path")?;
            reader.arrow()?;
            let mut link = SymlinkAction {
                path,
                target: reader.string("a path")?,
                owner,
                ..Default::default()
            };
            link.read(&mut reader)?;
            FileActionKind::Symlink(link)
        }
        word => {
            let (what, known) = ("action", "copy, mkfile, mkdir, rm, symlink".to_owned());
            return Err(Fault::new(
                &span,
                ParseProblem::UnknownWord {
                    what,
                    word: word.to_owned(),
                    known,
                },
            ));
        }
    };
    if let Some(item) = reader.attribute("on") {
        action.input = match action_input(item, reader.inputs()) {
            Some(tree) => match tree? {
                (input, path) if path.is_empty() => input,
                _ => {
                    return Err(Fault::new(
                        &item.span,
                        expected("a tree without a path", &item.describe()),
                    ));
                }
            },
            None => return Err(Fault::new(&item.span, expected("a tree", &item.describe()))),
        };
    }
    if let Some(item) = reader.attribute("out") {
        action.output = match &item.kind {
            Kind::Word {
                text,
                quoted: false,
            } if text == "none" => None,
            _ => Some(u32::read(item, reader.inputs())?),
        };
    }
    reader.finish()?;
    Ok(action)
}

fn read_owner(reader: &mut Reader<'_>) -> Result<Option<Owner>, Fault> {
    let mut part = |key: &str| {
        let Some(item) = reader.attribute(key) else {
            return Ok(None);
        };
        if let Some(tree) = action_input(item, reader.inputs()) {
            let (input, name) = tree?;
            return Ok(Some(Some(UserRef::Name { name, input })));
        }
        match &item.kind {
            Kind::Word {
                text,
                quoted: false,
            } if key == "user" && text == "default" => Ok(Some(None)),
            _ => Ok(Some(Some(UserRef::Id(u32::read(item, reader.inputs())?)))),
        }
    };
    let (user, group) = (part("user")?, part("group")?);
    let given = user.is_some() || group.is_some();
    Ok(given.then(|| Owner {
        user: user.flatten(),
        group: group.flatten(),
    }))
}

fn read_build(reader: &mut Reader<'_>) -> Result<BuildOp, Fault> {
    let mut op = BuildOp::default();
    if let Some(builder) = read_whole(reader)? {
        op.builder = builder;
    }
    if let Some(item) = reader.attribute("with") {
        for (name, value) in entries(item)? {
            let index = match &value.kind {
                Kind::Node {
                    label,
                    output,
                    path,
                } if path.is_empty() => reader.inputs().get(label, *output),
                _ => None,
            };
            let index = index
                .ok_or_else(|| Fault::new(&value.span, expected("an input", &value.describe())))?;
            op.inputs.insert(name.to_owned(), index);
        }
    }
    op.read(reader)?;
    Ok(op)
}

fn read_result(
    later: &Later<'_>,
    graph: &Graph,
    ids: &BTreeMap<String, NodeId>,
) -> Result<(String, ResultEntry), Fault> {
    let inputs = Inputs::default();
    let mut reader = Reader::new(later.items, &inputs, later.span.clone())?;
    let name = reader.accept(|item| match &item.kind {
        Kind::Word { text, .. } => Some(text.clone()),
        _ => None,
    });
    let mut entry = ResultEntry::default();
    let output = reader.accept(|item| match &item.kind {
        Kind::Scratch { path } if path.is_empty() => Some(Ok(None)),
        Kind::Node { .. } => Some(resolve(item, graph, ids).map(Some)),
        _ => None,
    });
    entry.output = output.unwrap_or_else(|| Err(reader.expected("a node or `scratch`")))?;
    if let Some(item) = reader.attribute("attestations") {
        for (predicate, value) in entries(item)? {
            entry
                .attestations
                .insert(predicate.to_owned(), resolve(value, graph, ids)?);
        }
    }
    reader.field("metadata", &mut entry.metadata)?;
    if let Some(item) = reader.block_item() {
        let mut fields = Reader::new(record(item)?, &inputs, item.span.clone())?;
        let mut config = ImageConfig::default();
        config.config.read(&mut fields)?;
        config.read(&mut fields)?;
        fields.finish()?;
        entry.config = Some(config);
    }
    reader.finish()?;
    Ok((name.unwrap_or_default(), entry))
}

fn resolve(item: &Item, graph: &Graph, ids: &BTreeMap<String, NodeId>) -> Result<Input, Fault> {
    let Kind::Node {
        label,
        output,
        path,
    } = &item.kind
    else {
        return Err(Fault::new(&item.span, expected("a node", &item.describe())));
    };
    if !path.is_empty() {
        return Err(Fault::new(
            &item.span,
            expected("a node without a path", &item.describe()),
        ));
    }
    let fault = |error| Fault::new(&item.span, ParseProblem::Graph(error));
    let Some(&node) = ids.get(label) else {
        return Err(fault(GraphError::DanglingInput {
            index: 0,
            node: label.clone(),
        }));
    };
    let input = Input {
        node,
        output: *output,
    };
    match graph.has_output(input) {
        true => Ok(input),
        false => {
            let available = graph.outputs(node).to_vec();
            Err(fault(GraphError::NoSuchOutput {
                index: 0,
                node: label.clone(),
                output: *output,
                available,
            }))
        }
    }
}

fn read_pin(later: &Later<'_>, ids: &BTreeMap<String, NodeId>) -> Result<(NodeId, Pin), Fault> {
    let inputs = Inputs::default();
    let mut reader = Reader::new(later.items, &inputs, later.span.clone())?;
    let label = reader.accept(|item| match &item.kind {
        Kind::Node {
            label,
            output: 0,
            path,
        } if path.is_empty() => Some((label, item)),
        _ => None,
    });
    let (label, item) = label.ok_or_else(|| reader.expected("a node"))?;
    let unknown = || GraphError::DanglingInput {
        index: 0,
        node: label.clone(),
    };
    let node = *ids
        .get(label)
        .ok_or_else(|| Fault::new(&item.span, ParseProblem::Graph(unknown())))?;
    reader
        .accept(|item| matches!(item.kind, Kind::Equals).then_some(()))
        .ok_or_else(|| reader.expected("`=`"))?;
    let span = reader
        .peek()
        .map_or(later.span.clone(), |item| item.span.clone());
    let kind = reader.string("a kind of pin")?;
    let value = reader.string("a digest or commit")?;
    let pin = match kind.as_str() {
        "manifest" => Pin::Manifest(value),
        "commit" => Pin::Commit(value),
        "checksum" => Pin::Checksum(value),
        word => {
            let (what, known) = ("kind of pin", "manifest, commit, checksum".to_owned());
            return Err(Fault::new(
                &span,
                ParseProblem::UnknownWord {
                    what,
                    word: word.to_owned(),
                    known,
                },
            ));
        }
    };
    reader.finish()?;
    Ok((node, pin))
}
