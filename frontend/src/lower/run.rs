//! RUN: a process, and what it sees.

use std::collections::BTreeSet;

use kiln_ir::{
    ActionInput, Device, ExecOp, FileAction, FileActionKind, FileOp, Input, Meta, MkfileAction,
    Mount, MountKind, NetworkMode, Op, SecurityMode,
};

use super::config::texts;
use super::mount::Mounts;
use super::path;
use super::round::{Inputs, Label, Step, output};
use super::stage::{StageLowering, error};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Command, Heredoc, Instruction, Run, RunNetwork, RunSecurity};
use crate::dockerfile::span::Span;

/// Where a script written in the Dockerfile is mounted.
const SCRIPTS: &str = "/dev/pipes";

impl StageLowering<'_, '_> {
    /// RUN
    pub(super) fn run(&mut self, instruction: &Instruction, run: &Run) -> Step {
        let devices = self.devices(run)?;
        let mut label = self.label(instruction, instruction.span);
        let mut inputs = Inputs::default();
        let mut mounts = Mounts::default();
        mounts.list.push(Mount {
            target: "/".to_owned(),
            input: self.state.fs.map(|fs| inputs.index(fs)),
            output: Some(0),
            ..Mount::default()
        });
        let args = match run.sole_heredoc() {
            Some(heredoc) => {
                label
                    .name
                    .push_str(&format!(" ({})", summary(&heredoc.body)));
                self.script(heredoc, instruction.span, &mut inputs, &mut mounts)?
            }
            None => self.command_line(&run.command, &run.heredocs),
        };
        if args.is_empty() {
            let message = "RUN needs a command";
            return Err(error("empty-command", instruction.span, message));
        }
        for mount in &run.mounts {
            self.mount(mount, &mut inputs, &mut mounts)?;
        }
        if let Some(size_bytes) = self.round.input.shm_size_bytes {
            mounts.list.push(Mount {
                target: "/dev/shm".to_owned(),
                kind: MountKind::Tmpfs { size_bytes },
                ..Mount::default()
            });
        }
        let meta = self.meta(&args, &mounts);
        let bytes = meta
            .env
            .iter()
            .chain(&meta.args)
            .map(|text| text.len() + 24);
        self.round.charge(bytes.sum(), instruction.span)?;
        let secret_env = std::mem::take(&mut mounts.secret_env);
        let op = Op::Exec(ExecOp {
            meta,
            mounts: mounts.in_order(),
            network: match run.network {
                Some(RunNetwork::Host) => NetworkMode::Host,
                Some(RunNetwork::None) => NetworkMode::None,
                Some(RunNetwork::Default) | None => self.round.input.network,
            },
            security: match run.security {
                Some(RunSecurity::Insecure) => SecurityMode::Insecure,
                Some(RunSecurity::Sandbox) | None => SecurityMode::Sandbox,
            },
            secret_env,
            devices,
        });
        let limits = self.round.input.limits.clone();
        let platform = self.state.platform.clone();
        let node =
            self.round
                .add_with(op, inputs.into_list(), Some(&platform), &label, |display| {
                    display.limits = limits
                })?;
        self.state.fs = Some(output(node));
        let mut created_by = "RUN ".to_owned();
        if let Some(declared) = self.scope().history_args() {
            created_by.push_str(&declared);
            created_by.push(' ');
        }
        created_by.push_str(&args.join(" "));
        created_by.push_str(" # buildkit");
        self.history(created_by, false, instruction.span)
    }

    /// Returns the devices that a step may do without; there are no others here.
    fn devices(&mut self, run: &Run) -> Step<Vec<Device>> {
        let mut devices = Vec::new();
        for device in &run.devices {
            let name = self.expand(&device.name)?;
            if device.required {
                let message =
                    format!("RUN --device={name} requires a CDI device, and kiln has none");
                let help = "a step goes on without a device that is not `required`";
                let error = Diagnostic::error("unsupported-device", device.span, message);
                return Err(Box::new(error.with_help(help)));
            }
            devices.push(Device {
                name,
                optional: true,
            });
        }
        Ok(devices)
    }

    fn meta(&self, args: &[String], mounts: &Mounts) -> Meta {
        let input = self.round.input;
        let settings = self.round.settings;
        let mut env = self.scope().process_env();
        if let Some(socket) = mounts.first_ssh_socket()
            && !env.iter().any(|pair| pair.starts_with("SSH_AUTH_SOCK="))
        {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let config = &self.state.image.config;
        Meta {
            args: args.to_vec(),
            env,
            cwd: path::absolute("/", &config.working_dir),
            user: config.user.clone(),
            proxy: settings.proxy.clone(),
            extra_hosts: input.add_hosts.clone(),
            hostname: settings.hostname.clone(),
            ulimits: input.ulimits.clone(),
            cgroup_parent: input.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }

    /// Returns the arguments of a command that is no heredoc alone; heredocs within it go to the
    /// shell as they are written.
    fn command_line(&self, command: &Command, heredocs: &[Heredoc]) -> Vec<String> {
        match command {
            Command::Exec(words) => texts(words),
            Command::Shell(text) => {
                let mut script = text.text.to_string();
                for heredoc in heredocs {
                    script.push('\n');
                    script.push_str(&heredoc.body);
                    script.push_str(&heredoc.name);
                }
                self.with_shell(&script)
            }
        }
    }

    /// Returns the arguments for a heredoc that is the whole command: a script that the shell
    /// starts if it begins with `#!`, else text for the shell.
    fn script(
        &mut self,
        heredoc: &Heredoc,
        span: Span,
        inputs: &mut Inputs,
        mounts: &mut Mounts,
    ) -> Step<Vec<String>> {
        let content = heredoc.content();
        if !content.starts_with("#!") {
            return Ok(self.with_shell(&content));
        }
        let file = path::absolute("/", &heredoc.name);
        let document = self.inline_document(&file, 0o755, content.into_bytes(), span)?;
        mounts.list.push(Mount {
            target: SCRIPTS.to_owned(),
            input: Some(inputs.index(document)),
            readonly: true,
            ..Mount::default()
        });
        Ok(self.with_shell(&format!("{SCRIPTS}{file}")))
    }

    /// Adds a tree that holds one file, written in the Dockerfile.
    pub(super) fn inline_document(
        &mut self,
        file: &str,
        mode: u32,
        data: Vec<u8>,
        span: Span,
    ) -> Step<Input> {
        self.round.charge(data.len(), span)?;
        let op = Op::File(FileOp {
            actions: vec![FileAction {
                input: ActionInput::Scratch,
                secondary: ActionInput::Scratch,
                output: Some(0),
                kind: FileActionKind::Mkfile(MkfileAction {
                    path: file.to_owned(),
                    mode,
                    data,
                    owner: None,
                    timestamp: self.timestamp(),
                }),
            }],
        });
        let label = Label {
            name: "preparing inline document".to_owned(),
            span,
            ..Label::default()
        };
        Ok(output(self.round.add(op, Vec::new(), None, &label)?))
    }

    /// Returns what of a local source is read where `path` is: nothing to name is everything.
    pub(super) fn include(path: &str) -> BTreeSet<String> {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return BTreeSet::new();
        }
        BTreeSet::from([path.to_owned()])
    }
}

/// The first line of a script, with dots if there are more.
fn summary(body: &str) -> String {
    let body = body.trim();
    let first: String = body
        .lines()
        .next()
        .unwrap_or("")
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let dots = if body.contains('\n') { "..." } else { "" };
    format!("{first}{dots}")
}
