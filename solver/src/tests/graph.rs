//! Graphs in a few words.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_ir::{
    ActionInput, CacheSharing, CopyAction, Display, ExecOp, FileAction, FileActionKind, FileOp,
    ImageSource, Input, LocalSource, Meta, MkfileAction, Mount, MountKind, Node, NodeId, Op, Plan,
    SourceOp, SourceRange,
};

use crate::{NodeNote, Slot};

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) plan: Plan,
    pub(crate) notes: BTreeMap<NodeId, NodeNote>,
    steps: u32,
    no_cache: bool,
}

/// A base, `RUN` over a bind mount, and a step on top of that.
pub(crate) fn counted() -> (Script, [Input; 3]) {
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let count = script.run_with(base, "len /src/big /count", &[("/src", context)], &[]);
    let sorted = script.run(count, "cat /count /sorted");
    (script, [base, count, sorted])
}

/// [`counted`], and a copy of what it made.
pub(crate) fn screen() -> (Script, Input) {
    let (mut script, [base, _, sorted]) = counted();
    let app = script.copy(base, sorted, "/sorted", "/");
    (script, app)
}

impl Script {
    pub(crate) fn image(&mut self, reference: &str) -> Input {
        let op = Op::Source(SourceOp::Image(ImageSource {
            reference: reference.into(),
            ..ImageSource::default()
        }));
        self.node(op, vec![], None)
    }

    pub(crate) fn local(&mut self, name: &str) -> Input {
        let op = Op::Source(SourceOp::Local(LocalSource {
            name: name.into(),
            ..LocalSource::default()
        }));
        self.node(op, vec![], None)
    }

    /// The next steps read no record.
    pub(crate) fn no_cache(&mut self, on: bool) {
        self.no_cache = on;
    }

    pub(crate) fn run(&mut self, root: Input, command: &str) -> Input {
        self.run_with(root, command, &[], &[])
    }

    /// `binds` are read-only mounts of whole outputs.
    pub(crate) fn run_with(
        &mut self,
        root: Input,
        command: &str,
        binds: &[(&str, Input)],
        env: &[&str],
    ) -> Input {
        let mut inputs = vec![root];
        let mut mounts = vec![Mount {
            target: "/".into(),
            input: Some(0),
            output: Some(0),
            ..Mount::default()
        }];
        for (target, input) in binds {
            let index = inputs.iter().position(|have| have == input);
            let index = index.unwrap_or_else(|| {
                inputs.push(*input);
                inputs.len() - 1
            });
            mounts.push(Mount {
                target: (*target).into(),
                input: Some(index as u32),
                readonly: true,
                ..Mount::default()
            });
        }
        self.exec(command, inputs, mounts, env)
    }

    /// A step with locked cache mounts of these ids.
    pub(crate) fn run_caching(&mut self, root: Input, command: &str, ids: &[&str]) -> Input {
        let caches = ids.iter().map(|id| Mount {
            target: format!("/{id}"),
            kind: MountKind::Cache {
                id: (*id).into(),
                sharing: CacheSharing::Locked,
            },
            ..Mount::default()
        });
        let root_mount = Mount {
            target: "/".into(),
            input: Some(0),
            output: Some(0),
            ..Mount::default()
        };
        let mounts = std::iter::once(root_mount).chain(caches).collect();
        self.exec(command, vec![root], mounts, &[])
    }

    fn exec(
        &mut self,
        command: &str,
        inputs: Vec<Input>,
        mounts: Vec<Mount>,
        env: &[&str],
    ) -> Input {
        let op = Op::Exec(ExecOp {
            meta: Meta {
                args: command.split(' ').map(str::to_owned).collect(),
                env: env.iter().map(|&entry| entry.to_owned()).collect(),
                cwd: "/".into(),
                ..Meta::default()
            },
            mounts,
            ..ExecOp::default()
        });
        self.node(op, inputs, Some(format!("RUN {command}")))
    }

    pub(crate) fn copy(&mut self, onto: Input, from: Input, src: &str, dest: &str) -> Input {
        let kind = FileActionKind::Copy(CopyAction {
            src: src.into(),
            dest: dest.into(),
            ..CopyAction::default()
        });
        let op = Op::File(FileOp {
            actions: vec![FileAction {
                input: ActionInput::Input(0),
                secondary: ActionInput::Input(1),
                output: Some(0),
                kind,
            }],
        });
        self.node(op, vec![onto, from], Some(format!("COPY {src} {dest}")))
    }

    pub(crate) fn mkfile(&mut self, path: &str, text: &str) -> Input {
        let kind = FileActionKind::Mkfile(MkfileAction {
            path: path.into(),
            mode: 0o644,
            data: text.into(),
            ..MkfileAction::default()
        });
        let op = Op::File(FileOp {
            actions: vec![FileAction {
                input: ActionInput::Scratch,
                secondary: ActionInput::Scratch,
                output: Some(0),
                kind,
            }],
        });
        self.node(op, vec![], Some(format!("MKFILE {path}")))
    }

    pub(crate) fn node(&mut self, op: Op, inputs: Vec<Input>, name: Option<String>) -> Input {
        let before = self.plan.graph.len();
        let id = self
            .plan
            .graph
            .add(Node {
                op,
                inputs,
                platform: None,
            })
            .unwrap();
        if self.plan.graph.len() > before
            && let Some(name) = name
        {
            self.steps += 1;
            let line = self.steps + 1;
            self.plan.display.insert(
                id,
                Display {
                    name,
                    ranges: vec![SourceRange {
                        source: 0,
                        start_line: line,
                        end_line: line,
                    }],
                    ignore_cache: self.no_cache,
                    ..Display::default()
                },
            );
            let note = NodeNote {
                slot: Some(Slot {
                    lineage: "test".into(),
                    step: self.steps.to_string(),
                }),
                ..NodeNote::default()
            };
            self.notes.insert(id, note);
        }
        Input {
            node: id,
            output: 0,
        }
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::new(self.plan.clone())
    }
}
