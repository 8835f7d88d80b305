//! The instructions that change the image's config and no file, and WORKDIR.

use kiln_ir::{ActionInput, FileAction, FileActionKind, FileOp, Healthcheck, MkdirAction, Op};

use super::copy::owner;
use super::round::{Inputs, Step, output};
use super::stage::{StageLowering, error};
use super::{gotext, path, port, signal};
use crate::dockerfile::ast::{self, Arg, Command, Expose, Instruction, Onbuild, Pairs, Word};
use crate::dockerfile::lint::{Rule, port_warning};
use crate::dockerfile::span::Span;

/// How many ports one EXPOSE may name: every port with every protocol.
const MOST_PORTS: usize = 3 << 16;

impl StageLowering<'_, '_> {
    /// ARG
    pub(super) fn arg(&mut self, instruction: &Instruction<ast::Kind>, arg: &Arg) -> Step {
        let mut declared = Vec::with_capacity(arg.declarations.len());
        for declaration in &arg.declarations {
            let name = declaration.name.text.as_str();
            let value = match (
                self.round.settings.build_args.get(name),
                &declaration.default,
            ) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.globals.value(name).map(str::to_owned),
            };
            declared.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            });
            self.state.args.declare(name, value);
        }
        self.history(
            format!("ARG {}", declared.join(" ")),
            true,
            instruction.span,
        )
    }

    /// ENV
    pub(super) fn env(&mut self, pairs: &Pairs, span: Span) -> Step {
        let pairs = self.pairs(pairs)?;
        let mut created_by = "ENV".to_owned();
        for (key, value, place) in pairs {
            created_by.push_str(&format!(" {key}={value}"));
            let env = &mut self.state.image.config.env;
            self.state.env_places.set(env, &key, &value);
            self.state.args.hide(&key);
            self.round.charge(key.len() + value.len(), place)?;
        }
        self.history(created_by, true, span)
    }

    /// LABEL
    pub(super) fn labels(&mut self, pairs: &Pairs, span: Span) -> Step {
        let pairs = self.pairs(pairs)?;
        let mut created_by = "LABEL".to_owned();
        for (key, value, _) in pairs {
            created_by.push_str(&format!(" {key}={value}"));
            self.state.image.config.labels.insert(key, value);
        }
        self.history(created_by, true, span)
    }

    /// Expands all pairs before any of them counts.
    fn pairs(&mut self, pairs: &Pairs) -> Step<Vec<(String, String, Span)>> {
        let mut expanded = Vec::with_capacity(pairs.pairs.len());
        for pair in &pairs.pairs {
            let key = self.expand(&pair.key)?;
            let value = self.expand(&pair.value)?;
            expanded.push((key, value, pair.key.span));
        }
        Ok(expanded)
    }

    /// CMD
    pub(super) fn cmd(&mut self, instruction: &Instruction, command: &Command) -> Step {
        self.cmd_set = true;
        let args = self.command_args("CMD", instruction, command);
        let created_by = format!("CMD {}", gotext::quoted_list(&args));
        let config = &mut self.state.image.config;
        config.cmd = Some(args);
        config.args_escaped = true;
        self.history(created_by, true, instruction.span)
    }

    /// ENTRYPOINT, which hides a CMD of the base
    pub(super) fn entrypoint(&mut self, instruction: &Instruction, command: &Command) -> Step {
        let args = self.command_args("ENTRYPOINT", instruction, command);
        let created_by = format!("ENTRYPOINT {}", gotext::quoted_list(&args));
        let config = &mut self.state.image.config;
        config.entrypoint = Some(args);
        if !self.cmd_set {
            config.cmd = None;
        }
        self.history(created_by, true, instruction.span)
    }

    fn command_args(
        &mut self,
        name: &str,
        instruction: &Instruction,
        command: &Command,
    ) -> Vec<String> {
        match command {
            Command::Exec(words) => texts(words),
            Command::Shell(text) => {
                if self.state.image.config.shell.is_none() {
                    let message = format!(
                        "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                    );
                    self.lint(Rule::JSONArgsRecommended, instruction.span, message);
                }
                self.with_shell(&text.text)
            }
        }
    }

    /// Returns the arguments that give `text` to the stage's shell.
    pub(super) fn with_shell(&self, text: &str) -> Vec<String> {
        let mut args = match &self.state.image.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        args.push(text.to_owned());
        args
    }

    /// SHELL
    pub(super) fn shell(&mut self, words: &[Word], span: Span) -> Step {
        let words = texts(words);
        let created_by = format!("SHELL {}", gotext::plain_list(&words));
        self.state.image.config.shell = Some(words);
        self.history(created_by, true, span)
    }

    /// HEALTHCHECK
    pub(super) fn healthcheck(
        &mut self,
        instruction: &Instruction,
        check: &ast::Healthcheck,
    ) -> Step {
        let nanoseconds = |duration: &Option<ast::GoDuration>| duration.map_or(0, |value| value.0);
        let check = match check {
            ast::Healthcheck::None => Healthcheck {
                test: vec!["NONE".to_owned()],
                ..Healthcheck::default()
            },
            ast::Healthcheck::Cmd {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            } => {
                let mut test = match command {
                    Command::Exec(_) => vec!["CMD".to_owned()],
                    Command::Shell(_) => vec!["CMD-SHELL".to_owned()],
                };
                match command {
                    Command::Exec(words) => test.extend(texts(words)),
                    Command::Shell(text) => test.push(text.text.to_string()),
                }
                Healthcheck {
                    test,
                    interval_ns: nanoseconds(interval),
                    timeout_ns: nanoseconds(timeout),
                    start_period_ns: nanoseconds(start_period),
                    start_interval_ns: nanoseconds(start_interval),
                    retries: retries.map_or(0, i64::from),
                }
            }
        };
        let created_by = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            gotext::plain_list(&check.test),
            gotext::duration(check.interval_ns),
            gotext::duration(check.timeout_ns),
            gotext::duration(check.start_period_ns),
            gotext::duration(check.start_interval_ns),
            check.retries
        );
        self.state.image.config.healthcheck = Some(check);
        self.history(created_by, true, instruction.span)
    }

    /// EXPOSE
    pub(super) fn expose(&mut self, expose: &Expose, span: Span) -> Step {
        let mut ports = Vec::new();
        for word in &expose.ports {
            for text in self.expand_words(word)? {
                // The parser looked at those that hold no variable.
                if word.text.contains('$') {
                    for (rule, message) in port_warning(&text) {
                        self.lint(rule, word.span, message);
                    }
                }
                let found = port::container_ports(&text)
                    .map_err(|message| error("invalid-port", word.span, message))?;
                ports.extend(found);
                if ports.len() > MOST_PORTS {
                    let message = format!("EXPOSE names more than {MOST_PORTS} ports");
                    return Err(error("invalid-port", span, message));
                }
            }
        }
        self.round.charge(ports.len() * 32, span)?;
        let created_by = format!("EXPOSE {}", gotext::plain_list(&ports));
        insert_sorted(&mut self.state.image.config.exposed_ports, ports);
        self.history(created_by, true, span)
    }

    /// VOLUME
    pub(super) fn volume(&mut self, paths: &[Word], span: Span) -> Step {
        let mut volumes = Vec::with_capacity(paths.len());
        for word in paths {
            let volume = self.expand(word)?;
            if volume.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(error("invalid-volume", word.span, message));
            }
            volumes.push(volume);
        }
        let created_by = format!("VOLUME {}", gotext::plain_list(&volumes));
        insert_sorted(&mut self.state.image.config.volumes, volumes);
        self.history(created_by, true, span)
    }

    /// USER
    pub(super) fn user(&mut self, word: &Word) -> Step {
        let user = self.expand(word)?;
        let created_by = format!("USER {user}");
        self.state.image.config.user = user;
        self.history(created_by, true, word.span)
    }

    /// STOPSIGNAL
    pub(super) fn stopsignal(&mut self, word: &Word) -> Step {
        let name = self.expand(word)?;
        if !signal::is_signal(&name) {
            let message = format!("invalid signal: {name}");
            return Err(error("invalid-signal", word.span, message));
        }
        let created_by = format!("STOPSIGNAL {name}");
        self.state.image.config.stop_signal = name;
        self.history(created_by, true, word.span)
    }

    /// MAINTAINER
    pub(super) fn maintainer(&mut self, name: &Word) -> Step {
        self.state.image.author = name.text.to_string();
        self.history(format!("MAINTAINER {}", name.text), true, name.span)
    }

    /// ONBUILD, which leaves no line of history
    pub(super) fn onbuild(&mut self, onbuild: &Onbuild, span: Span) -> Step {
        self.round.charge(onbuild.trigger.len(), span)?;
        let trigger = onbuild.trigger.clone();
        self.state.image.config.on_build.push(trigger);
        Ok(())
    }

    /// WORKDIR, which makes the directory unless it is the root
    pub(super) fn workdir(&mut self, instruction: &Instruction, word: &Word) -> Step {
        let dir = self.expand(word)?;
        if !self.state.workdir_set && !dir.starts_with('/') {
            let message = format!(
                "Relative workdir {dir:?} can have unexpected results if the base image changes"
            );
            self.lint(Rule::WorkdirRelativePath, word.span, message);
        }
        self.state.workdir_set = true;
        let working_dir = &mut self.state.image.config.working_dir;
        let clean = path::absolute(working_dir, &dir);
        // The image tells an absolute path as it was written.
        *working_dir = match dir.starts_with('/') {
            true => dir,
            false => clean.clone(),
        };
        let created_by = format!("WORKDIR {working_dir}");
        if clean != "/" {
            self.make_dir(instruction, &clean)?;
        }
        self.history(created_by, clean == "/", word.span)
    }

    fn make_dir(&mut self, instruction: &Instruction, dir: &str) -> Step {
        let mut inputs = Inputs::default();
        let tree = match self.state.fs {
            Some(fs) => ActionInput::Input(inputs.index(fs)),
            None => ActionInput::Scratch,
        };
        let mkdir = MkdirAction {
            path: dir.to_owned(),
            mode: 0o755,
            make_parents: true,
            owner: owner(&self.state.image.config.user, tree),
            timestamp: self.timestamp(),
        };
        let op = Op::File(FileOp {
            actions: vec![FileAction {
                input: tree,
                secondary: ActionInput::Scratch,
                output: Some(0),
                kind: FileActionKind::Mkdir(mkdir),
            }],
        });
        let mut label = self.label(instruction, instruction.span);
        label.ignore_cache = false;
        let node = self.round.add(op, inputs.into_list(), None, &label)?;
        self.state.fs = Some(output(node));
        Ok(())
    }

    /// Returns the time that files made here bear.
    pub(super) fn timestamp(&self) -> Option<i64> {
        self.round.epoch.and_then(super::epoch::Epoch::nanoseconds)
    }
}

pub(super) fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.to_string()).collect()
}

/// Adds to a sorted list what it does not have.
fn insert_sorted(list: &mut Vec<String>, more: Vec<String>) {
    for text in more {
        if let Err(place) = list.binary_search(&text) {
            list.insert(place, text);
        }
    }
}
