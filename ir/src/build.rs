//! Builds plans from Rust, in the order and the words of their text form.
//!
//! ```
//! use kiln_ir::build::{Builder, copy, mkdir};
//! use kiln_ir::{Config, ImageConfig, Platform};
//!
//! let amd64 = Platform::linux("amd64");
//! let b = Builder::new();
//! let base = b.image("docker.io/library/alpine:latest", &amd64);
//! let context = b.local("context");
//! let with_source = base.file([mkdir("/app").mode(0o750), copy(context.at("/src"), "/app")]);
//! let built = with_source
//!     .exec(["/bin/sh", "-c", "make -C /app"])
//!     .cwd("/app")
//!     .cache("ccache", "/root/.ccache")
//!     .root();
//! let config = Config { cmd: Some(vec!["/app/run".into()]), ..Config::default() };
//! b.result("", built, ImageConfig { config, ..ImageConfig::default() });
//! let plan = b.finish()?;
//!
//! assert_eq!(
//!     plan.to_string(),
//!     r#"%0 = image docker.io/library/alpine:latest linux/amd64
//! %1 = local context
//! %2 = file %0 { mkdir /app mode=0750; copy %1:/src -> /app create-dest }
//! %3 = exec %2 ["/bin/sh", "-c", "make -C /app"] cwd=/app { cache -> /root/.ccache id=ccache }
//! result %3 { cmd=["/app/run"] }
//! "#
//! );
//! # Ok::<(), kiln_ir::build::BuildError>(())
//! ```
//!
//! Equal nodes are one node, however often they are made. Nothing here fails where it stands: the
//! first thing that was wrong is what [`Builder::finish`] returns, with the op that it was wrong in.

mod exec;
mod file;

pub use exec::{Exec, Outputs};
pub use file::{Action, User, copy, copy_with, mkdir, mkfile, rm, symlink};

use std::cell::RefCell;
use std::fmt;

use crate::op::*;
use crate::{
    GraphError, ImageConfig, Input, Node, NodeId, Pin, Plan, PlanError, Platform, ResultEntry,
};

/// Why what was built is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A node is wrong by itself.
    #[error("the {kind} op number {number} is not valid")]
    Node {
        /// What op it is, as the text form calls it.
        kind: &'static str,
        /// Which one, of all that were made, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: GraphError,
    },
    /// Something of one builder was used in another.
    #[error("the {kind} op number {number} reads a tree of another builder")]
    OtherBuilder {
        /// What op it is, as the text form calls it.
        kind: &'static str,
        /// Which one, of all that were made, from 1.
        number: usize,
    },
    /// An action was given what it does not have.
    #[error(
        "the file op number {number} sets the {setting} of its action {action}, a {kind}, which has none"
    )]
    NoSuchSetting {
        /// Which op, of all that were made, from 1.
        number: usize,
        /// Which of its actions, from 0.
        action: usize,
        /// What the action is.
        kind: &'static str,
        /// What was set.
        setting: &'static str,
    },
    /// A result has a name that another has.
    #[error("there are two results named `{name}`")]
    DuplicateResult {
        /// The name.
        name: String,
    },
    /// Nothing was named as a result.
    #[error("the plan has no result")]
    NoResult,
    /// The plan as a whole is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A plan in the making.
#[derive(Debug, Default)]
pub struct Builder {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    /// How many ops were made, equal ones counted again.
    made: usize,
    error: Option<BuildError>,
}

/// A file tree: an output of a node of a [`Builder`], or nothing at all.
#[derive(Clone, Copy)]
pub struct Tree<'b> {
    builder: &'b Builder,
    input: Option<Input>,
}

/// A path in a tree.
#[derive(Debug, Clone)]
pub struct Place<'b> {
    tree: Tree<'b>,
    path: String,
}

impl fmt::Debug for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.input {
            Some(input) => write!(f, "{input}"),
            None => f.write_str("scratch"),
        }
    }
}

impl<'b> From<Tree<'b>> for Place<'b> {
    fn from(tree: Tree<'b>) -> Self {
        tree.at("")
    }
}

impl Builder {
    /// Begins a plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// An image by its normalised reference: registry, repository, and tag or digest.
    pub fn image(&self, reference: impl Into<String>, platform: &Platform) -> Tree<'_> {
        let source = ImageSource {
            reference: reference.into(),
            ..ImageSource::default()
        };
        self.source(SourceOp::Image(source), Some(platform.clone()))
    }

    /// A directory of the client by its name; the build context is `context`.
    pub fn local(&self, name: impl Into<String>) -> Tree<'_> {
        let source = LocalSource {
            name: name.into(),
            ..LocalSource::default()
        };
        self.source(SourceOp::Local(source), None)
    }

    /// One file over http, named after the last part of its path.
    pub fn http(&self, url: impl Into<String>) -> Tree<'_> {
        let source = HttpSource {
            url: url.into(),
            ..HttpSource::default()
        };
        self.source(SourceOp::Http(source), None)
    }

    /// Any source with all that can be said of it.
    pub fn source(&self, source: SourceOp, platform: Option<Platform>) -> Tree<'_> {
        self.node(Op::Source(source), Vec::new(), platform)
            .output(0)
    }

    /// An empty tree.
    pub fn scratch(&self) -> Tree<'_> {
        Tree {
            builder: self,
            input: None,
        }
    }

    /// Trees over each other, lowest first.
    pub fn merge<'b>(&'b self, trees: impl IntoIterator<Item = Tree<'b>>) -> Tree<'b> {
        let mut inputs = Inputs::new(self);
        let layers = trees.into_iter().map(|tree| inputs.index(tree)).collect();
        let op = Op::Merge(MergeOp { inputs: layers });
        self.finish_node(op, inputs, None).output(0)
    }

    /// What `upper` has beyond `lower`.
    pub fn diff<'b>(&'b self, lower: Tree<'b>, upper: Tree<'b>) -> Tree<'b> {
        let mut inputs = Inputs::new(self);
        let (lower, upper) = (inputs.index(lower), inputs.index(upper));
        let op = Op::Diff(DiffOp { lower, upper });
        self.finish_node(op, inputs, None).output(0)
    }

    /// Fixes what a source is in this build.
    pub fn pin(&self, source: Tree<'_>, pin: Pin) {
        if let Some(input) = source.input {
            self.state.borrow_mut().plan.pins.insert(input.node, pin);
        }
    }

    /// Names what the build ends in: a platform such as `linux/arm64`, or nothing.
    pub fn result(
        &self,
        name: impl Into<String>,
        tree: Tree<'_>,
        config: impl Into<Option<ImageConfig>>,
    ) {
        let name = name.into();
        let entry = ResultEntry {
            output: tree.input,
            config: config.into(),
            ..ResultEntry::default()
        };
        let mut state = self.state.borrow_mut();
        if state.plan.results.insert(name.clone(), entry).is_some() {
            state.fail(BuildError::DuplicateResult { name });
        }
    }

    /// Returns the plan, without nodes that no result needs.
    ///
    /// Errors with the first thing that was wrong on the way, or with what is wrong with the whole.
    pub fn finish(self) -> Result<Plan, BuildError> {
        let State {
            mut plan, error, ..
        } = self.state.into_inner();
        if let Some(error) = error {
            return Err(error);
        }
        if plan.results.is_empty() {
            return Err(BuildError::NoResult);
        }
        plan.prune();
        plan.validate()?;
        Ok(plan)
    }

    fn finish_node<'b>(
        &'b self,
        op: Op,
        inputs: Inputs<'b>,
        platform: Option<Platform>,
    ) -> Made<'b> {
        let kind = op.kind();
        if inputs.foreign {
            let mut state = self.state.borrow_mut();
            let number = state.made + 1;
            state.fail(BuildError::OtherBuilder { kind, number });
        }
        self.node(op, inputs.list, platform)
    }

    /// Adds a node, unless something was wrong before: then nothing that follows means anything.
    fn node(&self, op: Op, inputs: Vec<Input>, platform: Option<Platform>) -> Made<'_> {
        let kind = op.kind();
        let mut state = self.state.borrow_mut();
        state.made += 1;
        let mut node = None;
        if state.error.is_none() {
            let added = state.plan.graph.add(Node {
                op,
                inputs,
                platform,
            });
            match added {
                Ok(id) => node = Some(id),
                Err(source) => {
                    let number = state.made;
                    state.fail(BuildError::Node {
                        kind,
                        number,
                        source,
                    });
                }
            }
        }
        Made {
            builder: self,
            node,
        }
    }
}

impl State {
    /// The first error stays.
    fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }
}

/// A node that was made, or nothing after an error.
#[derive(Debug, Clone, Copy)]
struct Made<'b> {
    builder: &'b Builder,
    node: Option<NodeId>,
}

impl<'b> Made<'b> {
    fn output(self, output: u32) -> Tree<'b> {
        Tree {
            builder: self.builder,
            input: self.node.map(|node| Input { node, output }),
        }
    }
}

/// The inputs of a node in the order of their first use, each once.
#[derive(Debug)]
struct Inputs<'b> {
    builder: &'b Builder,
    list: Vec<Input>,
    /// A tree of another builder was among them.
    foreign: bool,
}

impl<'b> Inputs<'b> {
    fn new(builder: &'b Builder) -> Self {
        Self {
            builder,
            list: Vec::new(),
            foreign: false,
        }
    }

    /// Returns the index of a tree; none is scratch.
    fn index(&mut self, tree: Tree<'_>) -> Option<u32> {
        if !std::ptr::eq(tree.builder, self.builder) {
            self.foreign = true;
            return None;
        }
        let input = tree.input?;
        let known = self.list.iter().position(|known| *known == input);
        let index = known.unwrap_or_else(|| {
            self.list.push(input);
            self.list.len() - 1
        });
        Some(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

impl<'b> Tree<'b> {
    /// A path in the tree.
    pub fn at(self, path: impl Into<String>) -> Place<'b> {
        Place {
            tree: self,
            path: path.into(),
        }
    }

    /// Changes files, in order; each action sees what the one before it made.
    pub fn file(self, actions: impl IntoIterator<Item = Action<'b>>) -> Tree<'b> {
        file::file(self, actions)
    }

    /// Begins a process with this tree as its root.
    pub fn exec<A: Into<String>>(self, args: impl IntoIterator<Item = A>) -> Exec<'b> {
        Exec::new(self, args.into_iter().map(Into::into).collect())
    }

    /// Says what people see of the node that made the tree, such as `RUN make`.
    pub fn named(self, name: impl Into<String>) -> Tree<'b> {
        self.display(|display| display.name = name.into())
    }

    /// Says to which stage the node that made the tree belongs.
    pub fn in_stage(self, stage: impl Into<String>) -> Tree<'b> {
        self.display(|display| display.stage = stage.into())
    }

    fn display(self, change: impl FnOnce(&mut crate::Display)) -> Tree<'b> {
        if let Some(input) = self.input {
            change(self.builder.state.borrow_mut().plan.display_mut(input.node));
        }
        self
    }
}
