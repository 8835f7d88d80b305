//! `RUN --mount`: what a process sees beside its root.

use kiln_ir::{
    ActionInput, CacheSharing, FileAction, FileActionKind, FileOp, Input, MkdirAction, Mount,
    MountKind, Op, Owner, SecretEnv, SecretOpt, UserRef,
};
use std::borrow::Cow;

use super::path;
use super::round::{CONTEXT, Inputs, Label, Step, output};
use super::stage::{Source, StageLowering, error};
use crate::dockerfile::ast::{self, MountError, MountKey, RunMount, Sharing};
use crate::dockerfile::span::Span;

/// The mounts of one step in the making.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// The root, then binds, caches and tmpfs as written.
    pub(super) list: Vec<Mount>,
    /// Secrets and agents as written; they come after all others.
    late: Vec<Mount>,
    /// Secrets that are variables.
    pub(super) secret_env: Vec<SecretEnv>,
}

impl Mounts {
    /// Returns the mounts so that no mount hides one within it.
    pub(super) fn in_order(mut self) -> Vec<Mount> {
        self.list.sort_by(|one, two| one.target.cmp(&two.target));
        self.list.extend(self.late);
        self.list
    }

    /// Returns where the first agent's socket is.
    pub(super) fn first_ssh_socket(&self) -> Option<&str> {
        let mut sockets = self.late.iter().filter_map(|mount| match mount.kind {
            MountKind::Ssh(_) => Some(mount.target.as_str()),
            _ => None,
        });
        sockets.next()
    }

    fn ssh_sockets(&self) -> usize {
        let is_ssh = |mount: &&Mount| matches!(mount.kind, MountKind::Ssh(_));
        self.late.iter().filter(is_ssh).count()
    }
}

impl StageLowering<'_, '_> {
    /// Adds one `--mount`.
    pub(super) fn mount(
        &mut self,
        flag: &RunMount,
        inputs: &mut Inputs,
        mounts: &mut Mounts,
    ) -> Step {
        let mount = flag
            .evaluate(|word| self.expand(word).map(Cow::Owned))
            .map_err(|(span, failure)| match failure {
                MountError::Expand(diagnostic) => diagnostic,
                MountError::Invalid(message) => error("invalid-mount", span, message),
            })?;
        // As written, which is what was looked up before: it never holds a variable.
        let from = flag
            .fields
            .iter()
            .rev()
            .filter(|field| field.key == MountKey::From)
            .find_map(|field| field.value.as_ref());
        let mount = ast::Mount {
            from: mount.from.and(from).map(|from| from.text.to_string()),
            ..mount
        };
        match mount.kind {
            ast::MountKind::Bind => {
                let target = self.target(&mount, flag.span)?;
                let bind = self.bind(&mount, target, flag.span, inputs)?;
                mounts.list.push(bind);
            }
            ast::MountKind::Cache => {
                let target = self.target(&mount, flag.span)?;
                let cache = self.cache(&mount, target, flag.span, inputs)?;
                mounts.list.push(cache);
            }
            ast::MountKind::Tmpfs => mounts.list.push(Mount {
                target: self.target(&mount, flag.span)?,
                readonly: mount.readonly,
                kind: MountKind::Tmpfs {
                    size_bytes: mount.size_bytes,
                },
                ..Mount::default()
            }),
            ast::MountKind::Secret => self.secret(&mount, flag.span, mounts)?,
            ast::MountKind::Ssh => self.ssh(&mount, flag.span, mounts)?,
        }
        Ok(())
    }

    fn target(&self, mount: &ast::Mount, span: Span) -> Step<String> {
        let written = mount.target.as_deref().unwrap_or_default();
        let target = path::absolute(&self.state.image.config.working_dir, written);
        if target == "/" {
            return Err(error(
                "invalid-mount",
                span,
                format!("invalid mount target {target:?}"),
            ));
        }
        Ok(target)
    }

    fn bind(
        &mut self,
        mount: &ast::Mount,
        target: String,
        span: Span,
        inputs: &mut Inputs,
    ) -> Step<Mount> {
        let source = match &mount.from {
            Some(from) => self.source(from, false, "mount", span)?,
            None => Source::Local(CONTEXT, &self.round.input.ignore),
        };
        let selector = selector(mount);
        let input = self.input(&source, Self::include(&selector), span)?;
        Ok(Mount {
            target,
            input: input.map(|input| inputs.index(input)),
            selector,
            readonly: mount.readonly,
            ..Mount::default()
        })
    }

    fn cache(
        &mut self,
        mount: &ast::Mount,
        target: String,
        span: Span,
        inputs: &mut Inputs,
    ) -> Step<Mount> {
        let source = match &mount.from {
            Some(from) => self.source(from, false, "mount", span)?,
            None => Source::Tree(None),
        };
        let mut selector = selector(mount);
        let mut input = self.input(&source, Self::include(&selector), span)?;
        if selector.is_empty() && (mount.uid, mount.gid, mount.mode) != (None, None, None) {
            input = Some(self.owned_cache(mount, input, span)?);
            selector = "/cache".to_owned();
        }
        // The id is the target as written: a relative one is the same cache in every directory.
        let id = match &mount.id {
            Some(id) => id.clone(),
            None => clean(mount.target.as_deref().unwrap_or_default()),
        };
        let namespace = &self.round.settings.cache_mount_ns;
        Ok(Mount {
            target,
            input: input.map(|input| inputs.index(input)),
            selector,
            readonly: mount.readonly,
            kind: MountKind::Cache {
                id: match namespace.as_str() {
                    "" => id,
                    namespace => format!("{namespace}/{id}"),
                },
                sharing: match mount.sharing {
                    Sharing::Shared => CacheSharing::Shared,
                    Sharing::Private => CacheSharing::Private,
                    Sharing::Locked => CacheSharing::Locked,
                },
            },
            ..Mount::default()
        })
    }

    /// Adds what a new cache begins with where it has an owner or a mode: `/cache` of this tree.
    fn owned_cache(&mut self, mount: &ast::Mount, base: Option<Input>, span: Span) -> Step<Input> {
        let mut inputs = Inputs::default();
        let op = Op::File(FileOp {
            actions: vec![FileAction {
                input: match base {
                    Some(base) => ActionInput::Input(inputs.index(base)),
                    None => ActionInput::Scratch,
                },
                secondary: ActionInput::Scratch,
                output: Some(0),
                kind: FileActionKind::Mkdir(MkdirAction {
                    path: "/cache".to_owned(),
                    mode: mount.mode.unwrap_or(0o755),
                    make_parents: false,
                    owner: Some(Owner {
                        user: Some(UserRef::Id(mount.uid.unwrap_or(0))),
                        group: Some(UserRef::Id(mount.gid.unwrap_or(0))),
                    }),
                    timestamp: None,
                }),
            }],
        });
        let label = Label {
            name: "setting cache mount permissions".to_owned(),
            span,
            ..Label::default()
        };
        let node = self.round.add(op, inputs.into_list(), None, &label)?;
        Ok(output(node))
    }

    fn secret(&mut self, mount: &ast::Mount, span: Span, mounts: &mut Mounts) -> Step {
        let id = match (&mount.id, &mount.source, &mount.target) {
            (Some(id), _, _) | (None, Some(id), _) => id.clone(),
            (None, None, Some(target)) => path::base_name(target).to_owned(),
            (None, None, None) => {
                return Err(error(
                    "invalid-mount",
                    span,
                    "one of source, target required",
                ));
            }
        };
        let optional = !mount.required;
        if let Some(name) = &mount.env {
            mounts.secret_env.push(SecretEnv {
                id: id.clone(),
                name: name.clone(),
                optional,
            });
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let target = match &mount.target {
            Some(_) => self.target(mount, span)?,
            None => format!("/run/secrets/{}", path::base_name(&id)),
        };
        mounts.late.push(Mount {
            target,
            kind: MountKind::Secret(SecretOpt {
                id,
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
                mode: mount.mode.unwrap_or(0o400),
                optional,
            }),
            ..Mount::default()
        });
        Ok(())
    }

    fn ssh(&mut self, mount: &ast::Mount, span: Span, mounts: &mut Mounts) -> Step {
        let target = match &mount.target {
            Some(_) => self.target(mount, span)?,
            None => format!("/run/buildkit/ssh_agent.{}", mounts.ssh_sockets()),
        };
        mounts.late.push(Mount {
            target,
            kind: MountKind::Ssh(SecretOpt {
                id: mount.id.clone().unwrap_or_else(|| "default".to_owned()),
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
                mode: mount.mode.unwrap_or(0o600),
                optional: !mount.required,
            }),
            ..Mount::default()
        });
        Ok(())
    }
}

/// The part of the source that is mounted; empty is all of it.
fn selector(mount: &ast::Mount) -> String {
    match path::absolute("/", mount.source.as_deref().unwrap_or_default()).as_str() {
        "/" => String::new(),
        path => path.to_owned(),
    }
}

/// Cleans a path that may be relative.
fn clean(path: &str) -> String {
    let absolute = path::absolute("/", path);
    match path.starts_with('/') {
        true => absolute,
        false => absolute.trim_start_matches('/').to_owned(),
    }
}
