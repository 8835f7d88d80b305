//! A process in the making.

use super::{Inputs, Made, Place, Tree};
use crate::Platform;
use crate::op::*;

/// A process with its mounts; [`Exec::root`] adds it to the plan.
#[derive(Debug)]
pub struct Exec<'b> {
    root: Tree<'b>,
    op: ExecOp,
    /// The tree of each mount of `op`, but of the root.
    mounted: Vec<Option<Tree<'b>>>,
    platform: Option<Platform>,
}

/// What a process leaves behind.
#[derive(Debug, Clone, Copy)]
pub struct Outputs<'b> {
    made: Made<'b>,
}

impl<'b> Exec<'b> {
    pub(super) fn new(root: Tree<'b>, args: Vec<String>) -> Self {
        let meta = Meta {
            args,
            cwd: "/".to_owned(),
            ..Meta::default()
        };
        Self {
            root,
            op: ExecOp {
                meta,
                ..ExecOp::default()
            },
            mounted: Vec::new(),
            platform: None,
        }
    }

    /// The working directory; `/` unless it is set.
    pub fn cwd(self, path: impl Into<String>) -> Self {
        self.change(|op| op.meta.cwd = path.into())
    }

    /// Adds a variable.
    pub fn env(self, name: &str, value: &str) -> Self {
        self.change(|op| op.meta.env.push(format!("{name}={value}")))
    }

    /// `user[:group]`, by name or number; root unless it is set.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.change(|op| op.meta.user = user.into())
    }

    /// The network it asks for.
    pub fn network(self, mode: NetworkMode) -> Self {
        self.change(|op| op.network = mode)
    }

    /// Where it runs; the builder's own platform unless it is set.
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.clone());
        self
    }

    /// Shows a place in a tree, read-only.
    pub fn bind(self, place: impl Into<Place<'b>>, target: impl Into<String>) -> Self {
        let mount = Mount {
            readonly: true,
            ..Mount::default()
        };
        self.mount(mount, Some(place.into()), target)
    }

    /// Shows a place in a tree and keeps what is written there as [`Outputs::mount`].
    pub fn bind_writable(self, place: impl Into<Place<'b>>, target: impl Into<String>) -> Self {
        let taken = self.op.mounts.iter().filter_map(|mount| mount.output).max();
        let mount = Mount {
            // Output 0 is the root's.
            output: Some(taken.unwrap_or(0) + 1),
            ..Mount::default()
        };
        self.mount(mount, Some(place.into()), target)
    }

    /// A directory that stays between builds.
    pub fn cache(self, id: impl Into<String>, target: impl Into<String>) -> Self {
        let (id, sharing) = (id.into(), CacheSharing::Shared);
        self.kind(MountKind::Cache { id, sharing }, target)
    }

    /// A directory in memory.
    pub fn tmpfs(self, target: impl Into<String>) -> Self {
        self.kind(MountKind::Tmpfs { size_bytes: 0 }, target)
    }

    /// A file with a secret that has to be there.
    pub fn secret(self, id: impl Into<String>, target: impl Into<String>) -> Self {
        let secret = SecretOpt {
            id: id.into(),
            mode: 0o400,
            ..SecretOpt::default()
        };
        self.kind(MountKind::Secret(secret), target)
    }

    fn kind(self, kind: MountKind, target: impl Into<String>) -> Self {
        let mount = Mount {
            kind,
            ..Mount::default()
        };
        self.mount(mount, None, target)
    }

    /// Any mount with all that can be said of it; its input, selector and target are filled in.
    pub fn mount(
        mut self,
        mount: Mount,
        place: Option<Place<'b>>,
        target: impl Into<String>,
    ) -> Self {
        let (tree, selector) = match place {
            Some(Place { tree, path }) => (Some(tree), path),
            None => (None, String::new()),
        };
        self.op.mounts.push(Mount {
            target: target.into(),
            selector,
            ..mount
        });
        self.mounted.push(tree);
        self
    }

    /// Changes what has no method of its own.
    pub fn change(mut self, change: impl FnOnce(&mut ExecOp)) -> Self {
        change(&mut self.op);
        self
    }

    /// Adds the process; returns its root afterwards.
    pub fn root(self) -> Tree<'b> {
        self.outputs().root()
    }

    /// Adds the process; returns all that it leaves behind.
    pub fn outputs(self) -> Outputs<'b> {
        let Self {
            root,
            mut op,
            mounted,
            platform,
        } = self;
        let builder = root.builder;
        let mut inputs = Inputs::new(builder);
        let root = Mount {
            target: "/".to_owned(),
            input: inputs.index(root),
            output: Some(0),
            ..Mount::default()
        };
        for (mount, tree) in op.mounts.iter_mut().zip(mounted) {
            mount.input = tree.and_then(|tree| inputs.index(tree));
        }
        op.mounts.insert(0, root);
        Outputs {
            made: builder.finish_node(Op::Exec(op), inputs, platform),
        }
    }
}

impl<'b> Outputs<'b> {
    /// The root.
    pub fn root(self) -> Tree<'b> {
        self.made.output(0)
    }

    /// What was written to a mount of [`Exec::bind_writable`], by the order of these, from 1.
    pub fn mount(self, number: u32) -> Tree<'b> {
        self.made.output(number)
    }
}
