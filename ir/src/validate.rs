//! What a node has to be by itself, whatever its inputs are.

use std::collections::BTreeMap;

use crate::{
    ActionInput, ContentCache, ExecOp, FileActionKind, FileOp, GraphError, Mount, MountKind, Node,
    Op, Owner, PassthroughOp, SourceOp, UserRef,
};

/// Checks everything about `node` that needs no graph.
pub(crate) fn check_node(node: &Node) -> Result<(), GraphError> {
    let count = u32::try_from(node.inputs.len()).unwrap_or(u32::MAX);
    if let Some(platform) = &node.platform
        && !node.op.has_platform()
    {
        return Err(GraphError::UnexpectedPlatform {
            op: node.op.kind(),
            platform: Box::new(platform.clone()),
        });
    }
    match &node.op {
        Op::Source(_) if count > 0 => Err(GraphError::SourceWithInputs { count }),
        Op::Source(_) => Ok(()),
        Op::Exec(op) => check_exec(op, count),
        Op::File(op) => check_file(op, count),
        Op::Merge(op) => (0..)
            .zip(&op.inputs)
            .try_for_each(|(layer, input): (u32, _)| {
                check_index(*input, count, || format!("layer {layer}"))
            }),
        Op::Diff(op) => {
            check_index(op.lower, count, || "`lower`".to_owned())?;
            check_index(op.upper, count, || "`upper`".to_owned())
        }
        Op::Build(op) => {
            check_index(op.builder, count, || "`builder`".to_owned())?;
            op.inputs.iter().try_for_each(|(name, input)| {
                check_index(Some(*input), count, || format!("build input `{name}`"))
            })
        }
        Op::Passthrough(PassthroughOp { outputs, .. }) => {
            (0..)
                .zip(outputs)
                .try_for_each(|(output, input): (u32, _)| {
                    check_index(Some(*input), count, || format!("output {output}"))
                })
        }
    }
}

fn check_index(
    index: Option<u32>,
    available: u32,
    place: impl FnOnce() -> String,
) -> Result<(), GraphError> {
    match index {
        Some(index) if index >= available => Err(GraphError::NoSuchInput {
            place: place(),
            index,
            available,
        }),
        _ => Ok(()),
    }
}

fn check_exec(op: &ExecOp, inputs: u32) -> Result<(), GraphError> {
    let mut outputs = BTreeMap::new();
    let mut roots = 0;
    for mount in &op.mounts {
        check_mount(mount, inputs)?;
        if let Some(output) = mount.output {
            let place = format!("the mount at `{}`", mount.target);
            check_output(&mut outputs, output, op.mounts.len(), place)?;
        }
        roots += u32::from(mount.target == "/");
    }
    match roots {
        1 => Ok(()),
        count => Err(GraphError::RootMounts { count }),
    }
}

/// Outputs are the indices of a list that every result of the op has, so gaps must be few.
fn check_output(
    seen: &mut BTreeMap<u32, String>,
    output: u32,
    most: usize,
    place: String,
) -> Result<(), GraphError> {
    if output as usize >= most {
        return Err(GraphError::OutputNumber {
            output,
            place,
            most,
        });
    }
    match seen.insert(output, place.clone()) {
        Some(first) => Err(GraphError::DuplicateOutput {
            output,
            first,
            second: place,
        }),
        None => Ok(()),
    }
}

fn check_mount(mount: &Mount, inputs: u32) -> Result<(), GraphError> {
    let target = || mount.target.clone();
    if let Some(problem) = target_problem(&mount.target) {
        return Err(GraphError::MountTarget {
            target: target(),
            problem,
        });
    }
    check_index(mount.input, inputs, || {
        format!("the mount at `{}`", mount.target)
    })?;
    let kind = mount.kind.name();
    if mount.target == "/" && mount.kind != MountKind::Bind {
        return Err(GraphError::RootMountKind { kind });
    }
    match (&mount.kind, mount.input, mount.output) {
        (MountKind::Bind, _, _) => {}
        (_, _, Some(output)) => {
            return Err(GraphError::MountOutput {
                kind,
                target: target(),
                output,
            });
        }
        (MountKind::Cache { .. }, _, None) => {}
        (_, Some(input), None) => {
            return Err(GraphError::MountInput {
                kind,
                target: target(),
                input,
            });
        }
        (_, None, None) => {}
    }
    if mount.input.is_none()
        && !mount.selector.is_empty()
        && !matches!(mount.kind, MountKind::Bind | MountKind::Cache { .. })
    {
        return Err(GraphError::MountSelector {
            target: target(),
            selector: mount.selector.clone(),
        });
    }
    if mount.content_cache == ContentCache::On && mount.output.is_some() && !mount.readonly {
        return Err(GraphError::ContentCache { target: target() });
    }
    Ok(())
}

fn target_problem(target: &str) -> Option<&'static str> {
    if !target.starts_with('/') {
        return Some("is not an absolute path");
    }
    if target.contains('\0') {
        return Some("has a NUL byte");
    }
    let mut parts = target
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .peekable();
    if parts.peek().is_none() && target != "/" {
        return Some("is the root, which is written `/`");
    }
    parts.any(|part| part == "..").then_some("has a `..` part")
}

fn check_file(op: &FileOp, inputs: u32) -> Result<(), GraphError> {
    let mut outputs = BTreeMap::new();
    for (number, action) in (0u32..).zip(&op.actions) {
        let check = |tree: ActionInput, what: &str| {
            let place = || format!("the {what} of action {number}");
            match tree {
                ActionInput::Scratch => Ok(()),
                ActionInput::Input(index) => check_index(Some(index), inputs, place),
                ActionInput::Action(index) if index < number => Ok(()),
                ActionInput::Action(index) => Err(GraphError::ForwardAction {
                    place: place(),
                    index,
                }),
            }
        };
        check(action.input, "tree")?;
        check(action.secondary, "source")?;
        if action.secondary != ActionInput::Scratch
            && !matches!(action.kind, FileActionKind::Copy(_))
        {
            return Err(GraphError::UnexpectedSecondary {
                action: number,
                kind: action.kind.name(),
            });
        }
        for user in action.kind.owner().into_iter().flat_map(Owner::parts) {
            if let UserRef::Name { input, .. } = user {
                check(*input, "owner")?;
            }
        }
        if let Some(output) = action.output {
            let place = format!("action {number}");
            check_output(&mut outputs, output, op.actions.len(), place)?;
        }
    }
    Ok(())
}

impl Op {
    /// Returns how much the op counts on a critical path: a process takes longer than what kiln
    /// does itself.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Exec(_) | Self::Build(_) => 8,
            _ => 1,
        }
    }

    /// Returns the numbers of the outputs it yields, ascending.
    pub fn outputs(&self) -> Vec<u32> {
        let mut outputs: Vec<u32> = match self {
            Self::Source(_) | Self::Merge(_) | Self::Diff(_) | Self::Build(_) => vec![0],
            Self::Exec(op) => op.mounts.iter().filter_map(|mount| mount.output).collect(),
            Self::File(op) => op
                .actions
                .iter()
                .filter_map(|action| action.output)
                .collect(),
            Self::Passthrough(op) => (0..).zip(&op.outputs).map(|(output, _)| output).collect(),
        };
        outputs.sort_unstable();
        outputs
    }

    /// Returns the word for what it is, as the text form writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source(SourceOp::Image(_)) => "image",
            Self::Source(SourceOp::Local(_)) => "local",
            Self::Source(SourceOp::Git(_)) => "git",
            Self::Source(SourceOp::Http(_)) => "http",
            Self::Source(SourceOp::OciLayout(_)) => "oci-layout",
            Self::Source(SourceOp::Blob(_)) => "blob",
            Self::Exec(_) => "exec",
            Self::File(_) => "file",
            Self::Merge(_) => "merge",
            Self::Diff(_) => "diff",
            Self::Build(_) => "build",
            Self::Passthrough(_) => "passthrough",
        }
    }

    /// Returns whether a node with this op may carry a platform.
    pub fn has_platform(&self) -> bool {
        matches!(
            self,
            Self::Exec(_) | Self::Source(SourceOp::Image(_) | SourceOp::OciLayout(_))
        )
    }
}

impl MountKind {
    /// Returns the word for what it is, as the text form writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache { .. } => "cache",
            Self::Tmpfs { .. } => "tmpfs",
            Self::Secret(_) => "secret",
            Self::Ssh(_) => "ssh",
        }
    }
}

impl FileActionKind {
    /// Returns the word for what it is, as the text form writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Copy(_) => "copy",
            Self::Mkfile(_) => "mkfile",
            Self::Mkdir(_) => "mkdir",
            Self::Rm(_) => "rm",
            Self::Symlink(_) => "symlink",
        }
    }

    /// Returns the owner that it gives to what it makes.
    pub fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Copy(action) => action.owner.as_ref(),
            Self::Mkfile(action) => action.owner.as_ref(),
            Self::Mkdir(action) => action.owner.as_ref(),
            Self::Rm(_) => None,
            Self::Symlink(action) => action.owner.as_ref(),
        }
    }
}

impl Owner {
    /// Returns the user and the group that are given.
    pub fn parts(&self) -> impl Iterator<Item = &UserRef> {
        self.user.iter().chain(&self.group)
    }
}
