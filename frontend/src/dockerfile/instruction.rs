//! From a split line to a typed instruction: flags, argument counts, forms.

use std::collections::HashMap;
use std::ops::Range;

use super::ast::{
    Add, Arg, ArgDeclaration, Command, Comment, Copy, Expose, From, GoDuration, Healthcheck,
    Heredoc, Kind, Pair, Pairs, Run, RunDevice, RunMount, RunNetwork, RunSecurity, Transfer, Word,
};
use super::expand::Expander;
use super::flags::{Flags, Known, Takes, parse_bool};
use super::json::{self, Form};
use super::lines::Logical;
use super::lint::check;
use super::span::Span;
use super::split::{self, FlagText, Split};
use super::{csv, duration, heredoc, suggest};
use crate::diagnostic::Diagnostic;
use crate::remedy;

/// The names of all instructions.
pub(super) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One instruction being built.
pub(super) struct Builder<'a> {
    pub(super) line: &'a Logical,
    pub(super) split: &'a Split,
    /// Those below the line; RUN takes them over.
    pub(super) heredocs: &'a mut Vec<Heredoc>,
    pub(super) comments: &'a [Comment],
    pub(super) escape: char,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

/// The error was reported; the instruction is left out.
#[derive(Debug)]
pub(super) struct Reported;

type Result<T> = std::result::Result<T, Reported>;

impl Builder<'_> {
    /// Builds a FROM.
    pub(super) fn from(mut self) -> Result<From> {
        let mut flags = self.flags(&[("platform", Takes::Value)]);
        let mut words = split::fields(self.line, self.split.rest.clone()).into_iter();
        let (image, name) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(image), None, ..) => (image, None),
            (Some(image), Some(keyword), Some(name), None)
                if keyword.text.eq_ignore_ascii_case("as") =>
            {
                self.diagnostics
                    .extend(check::from_as(&self.split.keyword, &keyword));
                (image, Some(name))
            }
            _ => {
                let message = "FROM requires either one or three arguments";
                return Err(self.misused("FROM", message));
            }
        };
        if let Some(name) = &name
            && !is_stage_name(&name.text)
        {
            let message = format!(
                "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
                name.text
            );
            return Err(self.error("invalid-stage-name", name.span, message));
        }
        Ok(From {
            platform: flags.value("platform"),
            image,
            name,
        })
    }

    /// Builds any other instruction but ONBUILD; `name` is in upper case.
    pub(super) fn kind(mut self, name: &'static str) -> Result<Kind> {
        Ok(match name {
            "ADD" => Kind::Add(Box::new(self.add()?)),
            "ARG" => Kind::Arg(self.arg()?),
            "CMD" => Kind::Cmd(self.plain_command()?),
            "COPY" => Kind::Copy(Box::new(self.copy()?)),
            "ENTRYPOINT" => Kind::Entrypoint(self.plain_command()?),
            "ENV" => Kind::Env(self.pairs(name)?),
            "EXPOSE" => Kind::Expose(self.expose()?),
            "HEALTHCHECK" => Kind::Healthcheck(Box::new(self.healthcheck()?)),
            "LABEL" => Kind::Label(self.pairs(name)?),
            "MAINTAINER" => Kind::Maintainer(self.one(name)?),
            "RUN" => Kind::Run(self.run()?),
            "SHELL" => Kind::Shell(self.shell()?.into()),
            "STOPSIGNAL" => Kind::Stopsignal(self.one(name)?),
            "USER" => Kind::User(self.one(name)?),
            "VOLUME" => Kind::Volume(self.volume()?.into()),
            "WORKDIR" => Kind::Workdir(self.one(name)?),
            _ => unreachable!("BUG: `{name}` is built elsewhere"),
        })
    }

    fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Reported {
        self.diagnostics
            .push(Diagnostic::error(code, span, message));
        Reported
    }

    /// Returns the span of keyword and arguments.
    fn whole(&self) -> Span {
        let arguments = self.line.span(self.split.arguments.clone());
        self.split.keyword.span.join(arguments)
    }

    pub(super) fn flags(&mut self, known: &[Known]) -> Flags {
        Flags::read(self.line, &self.split.flags, known, self.diagnostics)
    }

    fn rest(&self) -> Range<usize> {
        self.split.rest.clone()
    }

    fn at_least_one(&mut self, name: &str) -> Reported {
        let message = format!("{name} requires at least one argument");
        self.misused(name, message)
    }

    /// Reports a wrong number of arguments.
    fn misused(&mut self, name: &str, message: impl Into<String>) -> Reported {
        let mut error = Diagnostic::error("argument-count", self.whole(), message);
        if let Some(usage) = remedy::usage(name) {
            error = error.with_help(format!("as in `{usage}`"));
        }
        self.diagnostics.push(error);
        Reported
    }

    /// The whole rest as one argument.
    fn one(&mut self, name: &str) -> Result<Word> {
        self.flags(&[]);
        if self.rest().is_empty() {
            let message = format!("{name} requires exactly one argument");
            return Err(self.misused(name, message));
        }
        Ok(self.line.word(self.rest()))
    }

    /// The JSON form, if `range` is in it.
    fn json(&mut self, range: Range<usize>) -> Result<Option<Vec<Word>>> {
        match json::form(self.line, range.clone()) {
            Form::Strings(words) => Ok(Some(words)),
            Form::Text => Ok(None),
            Form::NotStrings => {
                let span = self.line.span(range);
                let message =
                    "when using JSON array syntax, arrays must be comprised of strings only";
                Err(self.error("json-not-strings", span, message))
            }
        }
    }

    fn command(&mut self, range: Range<usize>) -> Result<Command> {
        Ok(match self.json(range.clone())? {
            Some(words) => Command::Exec(words.into()),
            None => Command::Shell(self.line.word(range)),
        })
    }

    fn plain_command(&mut self) -> Result<Command> {
        self.flags(&[]);
        self.command(self.rest())
    }

    /// The JSON form, or words between white space.
    fn list(&mut self) -> Result<Vec<Word>> {
        let range = self.rest();
        Ok(match self.json(range.clone())? {
            Some(words) => words,
            None => split::fields(self.line, range),
        })
    }

    fn run(&mut self) -> Result<Run> {
        let split = self.split;
        let mut flags = self.flags(&[
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ]);
        let given = flags.numbered("mount");
        let mut mounts = Vec::with_capacity(given.len());
        for (flag, value) in &given {
            mounts.extend(self.mount(&split.flags[*flag], value));
        }
        let network = flags.value("network").and_then(|value| {
            self.choice(
                &value,
                format!("invalid network mode {:?}", value.text),
                &[
                    ("default", RunNetwork::Default),
                    ("none", RunNetwork::None),
                    ("host", RunNetwork::Host),
                ],
            )
            .ok()
        });
        let security = flags.value("security").and_then(|value| {
            self.choice(
                &value,
                format!("security {:?} is not valid", value.text),
                &[
                    ("sandbox", RunSecurity::Sandbox),
                    ("insecure", RunSecurity::Insecure),
                ],
            )
            .ok()
        });
        let devices = flags.numbered("device");
        let devices = devices
            .iter()
            .filter_map(|(flag, value)| self.device(&split.flags[*flag], value).ok())
            .collect();
        Ok(Run {
            command: self.command(self.rest())?,
            heredocs: std::mem::take(self.heredocs).into(),
            mounts: mounts.into(),
            network,
            security,
            devices,
        })
    }

    fn choice<T: std::marker::Copy>(
        &mut self,
        value: &Word,
        wrong: String,
        options: &[(&str, T)],
    ) -> Result<T> {
        match options.iter().find(|(name, _)| *name == value.text) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let lower = value.text.to_ascii_lowercase();
                let names = || options.iter().map(|(name, _)| *name);
                let message = match names().find(|name| *name == lower) {
                    Some(name) => format!("{wrong} (did you mean {name}?)"),
                    None => suggest::with_suggestion(wrong, &lower, names()),
                };
                Err(self.error("invalid-flag", value.span, message))
            }
        }
    }

    fn mount(&mut self, flag: &FlagText, value: &Word) -> Result<RunMount> {
        let line = self.line;
        let place = |part: Range<usize>| place(line, flag, value, part);
        let mount = match RunMount::parse(value, place) {
            Ok(mount) => mount,
            Err((span, message)) => return Err(self.error("invalid-mount", span, message)),
        };
        if mount.is_constant() {
            let expander = Expander::new(self.escape);
            let evaluated = mount.evaluate(|word| expander.text(&word.text, &()));
            if let Err((span, error)) = evaluated {
                return Err(self.error("invalid-mount", span, error.to_string()));
            }
        }
        Ok(mount)
    }

    fn device(&mut self, flag: &FlagText, value: &Word) -> Result<RunDevice> {
        let fields = match csv::fields(&value.text) {
            Ok(fields) => fields,
            Err(error) => {
                let message = format!("failed to parse csv devices: {error}");
                return Err(self.error("invalid-device", value.span, message));
            }
        };
        let mut name = None;
        let mut required = false;
        for (index, field) in fields.iter().enumerate() {
            let span = place(self.line, flag, value, field.place.clone());
            let (key, text) = match field.text.split_once('=') {
                Some((key, text)) => (key.to_ascii_lowercase(), Some(text)),
                None => (field.text.to_ascii_lowercase(), None),
            };
            match (key.as_str(), text) {
                ("name", Some(text)) => {
                    name = Some(Word {
                        text: text.into(),
                        span,
                    });
                }
                ("required", None) => required = true,
                ("required", Some(text)) => match parse_bool(text) {
                    Some(value) => required = value,
                    None => {
                        let message = format!("invalid value for required: {text}");
                        return Err(self.error("invalid-device", span, message));
                    }
                },
                // A name may hold `=` itself: `vendor.example/gpu=0`.
                _ if index == 0 => {
                    name = Some(Word {
                        text: (*field.text).into(),
                        span,
                    });
                }
                (_, None) => {
                    let message =
                        format!("invalid field '{}' must be a key=value pair", field.text);
                    return Err(self.error("invalid-device", span, message));
                }
                (key, Some(_)) => {
                    let message = suggest::with_suggestion(
                        format!("unexpected key '{key}' in '{}'", field.text),
                        key,
                        ["name", "required"],
                    );
                    return Err(self.error("invalid-device", span, message));
                }
            }
        }
        match name.filter(|name| !name.text.is_empty()) {
            Some(name) => Ok(RunDevice {
                name,
                required,
                span: value.span,
            }),
            None => Err(self.error("invalid-device", value.span, "device name is required")),
        }
    }

    fn transfer(&mut self, name: &str, flags: &mut Flags) -> Result<Transfer> {
        let mut words = self.list()?;
        let destination = words.pop();
        let Some(destination) = destination.filter(|_| !words.is_empty()) else {
            let message = format!(
                "{name} requires at least two arguments, but only one was provided. \
                 Destination could not be determined"
            );
            return Err(self.misused(name, message));
        };
        if heredoc::marker(&destination.text).is_some() {
            let message = format!("{name} cannot accept a heredoc as a destination");
            return Err(self.error("heredoc-destination", destination.span, message));
        }
        let mut heredocs = Vec::new();
        words.retain(|word| {
            let heredoc = heredoc::source(word, self.heredocs);
            let is_path = heredoc.is_none();
            heredocs.extend(heredoc);
            is_path
        });
        Ok(Transfer {
            sources: words.drain(..).collect(),
            heredocs: heredocs.into(),
            destination,
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            exclude: flags.values("exclude").into(),
        })
    }

    fn copy(&mut self) -> Result<Copy> {
        let mut flags = self.flags(&[
            ("from", Takes::Value),
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Bool),
            ("parents", Takes::Bool),
            ("exclude", Takes::Values),
        ]);
        let from = flags.value("from");
        if let Some(from) = &from
            && from.text.contains('$')
        {
            let message = "variable expansion is not supported for --from, define a new stage \
                           with FROM using ARG from global scope as a workaround";
            self.error("variable-in-from", from.span, message);
        }
        Ok(Copy {
            transfer: self.transfer("COPY", &mut flags)?,
            from,
            parents: flags.boolean("parents").unwrap_or(false),
        })
    }

    fn add(&mut self) -> Result<Add> {
        let mut flags = self.flags(&[
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Bool),
            ("keep-git-dir", Takes::Bool),
            ("checksum", Takes::Value),
            ("unpack", Takes::Bool),
            ("exclude", Takes::Values),
        ]);
        Ok(Add {
            transfer: self.transfer("ADD", &mut flags)?,
            keep_git_dir: flags.boolean("keep-git-dir"),
            checksum: flags.value("checksum"),
            unpack: flags.boolean("unpack"),
        })
    }

    fn arg(&mut self) -> Result<Arg> {
        self.flags(&[]);
        let words = split::shell_words(self.line, self.rest(), self.escape);
        if words.is_empty() {
            return Err(self.at_least_one("ARG"));
        }
        let descriptions = Descriptions::new(self.comments);
        let mut declarations = Vec::with_capacity(words.len());
        for range in words {
            let (name, default) = match self.cut(range.clone()) {
                Some((name, default)) => (name, Some(default)),
                None => (self.line.word(range), None),
            };
            if name.text.is_empty() {
                return Err(self.error("blank-name", name.span, "ARG names can not be blank"));
            }
            declarations.push(ArgDeclaration {
                description: descriptions.get(&name.text),
                name,
                default,
            });
        }
        Ok(Arg {
            declarations: declarations.into(),
        })
    }

    /// Splits a range at its first `=`.
    fn cut(&self, range: Range<usize>) -> Option<(Word, Word)> {
        let at = range.start + self.line.text[range.clone()].find('=')?;
        Some((
            self.line.word(range.start..at),
            self.line.word(at + 1..range.end),
        ))
    }

    fn pairs(&mut self, name: &str) -> Result<Pairs> {
        self.flags(&[]);
        let words = split::shell_words(self.line, self.rest(), self.escape);
        let Some(first) = words.first() else {
            return Err(self.at_least_one(name));
        };
        if !self.line.text[first.clone()].contains('=') {
            let (key, value) = split::first_field(self.line, self.rest());
            let Some(value) = value else {
                let message = format!("{name} must have two arguments");
                return Err(self.error("missing-pair", self.whole(), message));
            };
            let pair = Pair {
                key: self.line.word(key),
                value: self.line.word(value),
            };
            return Ok(Pairs {
                pairs: Box::new([pair]),
                legacy: true,
            });
        }
        let mut pairs = Vec::with_capacity(words.len());
        for range in words {
            let Some((key, value)) = self.cut(range.clone()) else {
                let word = self.line.word(range);
                let message = format!(
                    "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                    word.text
                );
                return Err(self.error("missing-equals", word.span, message));
            };
            if key.text.is_empty() {
                let message = format!("{name} names can not be blank");
                return Err(self.error("blank-name", key.span, message));
            }
            pairs.push(Pair { key, value });
        }
        Ok(Pairs {
            pairs: pairs.into(),
            legacy: false,
        })
    }

    fn expose(&mut self) -> Result<Expose> {
        self.flags(&[]);
        let mut ports = split::fields(self.line, self.rest());
        if ports.is_empty() {
            return Err(self.at_least_one("EXPOSE"));
        }
        ports.sort_by(|one, other| one.text.cmp(&other.text));
        Ok(Expose {
            ports: ports.into(),
        })
    }

    fn volume(&mut self) -> Result<Vec<Word>> {
        self.flags(&[]);
        let mut words = self.list()?;
        if words.is_empty() {
            return Err(self.at_least_one("VOLUME"));
        }
        for word in &mut words {
            word.text = word.text.substr_using(str::trim);
            if word.text.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(self.error("empty-volume", word.span, message));
            }
        }
        Ok(words)
    }

    fn shell(&mut self) -> Result<Vec<Word>> {
        self.flags(&[]);
        match self.json(self.rest())? {
            Some(words) if !words.is_empty() => Ok(words),
            None if !self.rest().is_empty() => {
                let span = self.line.span(self.rest());
                let message = "SHELL requires the arguments to be in JSON form";
                Err(self.error("not-json", span, message))
            }
            _ => Err(self.at_least_one("SHELL")),
        }
    }

    fn healthcheck(&mut self) -> Result<Healthcheck> {
        let mut flags = self.flags(&[
            ("interval", Takes::Value),
            ("timeout", Takes::Value),
            ("start-period", Takes::Value),
            ("start-interval", Takes::Value),
            ("retries", Takes::Value),
        ]);
        let range = self.rest();
        let text = &self.line.text[range.clone()];
        let end = range.start + text.find(char::is_whitespace).unwrap_or(text.len());
        let kind = self.line.word(range.start..end);
        let rest = self.line.trim(end..range.end);
        match kind.text.to_ascii_uppercase().as_str() {
            "" => Err(self.at_least_one("HEALTHCHECK")),
            "NONE" if !rest.is_empty() => {
                let span = self.line.span(rest);
                Err(self.error(
                    "argument-count",
                    span,
                    "HEALTHCHECK NONE takes no arguments",
                ))
            }
            "NONE" => {
                if let Some(span) = flags.span() {
                    let mut warning = Diagnostic::error(
                        "useless-flag",
                        span,
                        "options have no effect on HEALTHCHECK NONE",
                    );
                    warning.severity = crate::diagnostic::Severity::Warning;
                    self.diagnostics.push(warning);
                }
                Ok(Healthcheck::None)
            }
            "CMD" => {
                let command = self.command(rest)?;
                if command.is_empty() {
                    let message = "Missing command after HEALTHCHECK CMD";
                    return Err(self.misused("HEALTHCHECK", message));
                }
                let mut option = |name| self.duration(&mut flags, name);
                let (interval, timeout) = (option("interval"), option("timeout"));
                let (start_period, start_interval) =
                    (option("start-period"), option("start-interval"));
                Ok(Healthcheck::Cmd {
                    command,
                    interval,
                    timeout,
                    start_period,
                    start_interval,
                    retries: self.retries(&mut flags),
                })
            }
            other => {
                let message = format!("Unknown type {other:?} in HEALTHCHECK (try CMD)");
                Err(self.error("healthcheck-type", kind.span, message))
            }
        }
    }

    fn duration(&mut self, flags: &mut Flags, name: &str) -> Option<GoDuration> {
        let value = flags.value(name)?;
        duration::parse(&value.text, name)
            .map_err(|message| self.error("invalid-duration", value.span, message))
            .ok()
    }

    fn retries(&mut self, flags: &mut Flags) -> Option<u32> {
        let value = flags.value("retries")?;
        match value.text.parse::<i32>() {
            Ok(retries) if retries >= 0 => Some(retries.unsigned_abs()),
            Ok(retries) => {
                let message = format!("--retries cannot be negative ({retries})");
                self.error("invalid-retries", value.span, message);
                None
            }
            Err(_) => {
                let message = format!("--retries must be a number, not {:?}", value.text);
                self.error("invalid-retries", value.span, message);
                None
            }
        }
    }
}

/// Maps a part of a flag's value to the source.
fn place(line: &Logical, flag: &FlagText, value: &Word, part: Range<usize>) -> Span {
    let start = flag.text.len() - value.text.len();
    flag.span(line, start + part.start..start + part.end)
}

fn is_stage_name(name: &str) -> bool {
    let name = name.to_lowercase();
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_.".contains(letter)
        })
}

/// The comments above an instruction that describe something: its name, a space, the text.
pub(super) struct Descriptions<'a>(HashMap<&'a str, &'a str>);

impl<'a> Descriptions<'a> {
    pub(super) fn new(comments: &'a [Comment]) -> Self {
        let mut texts = HashMap::new();
        for comment in comments {
            if let Some((name, text)) = comment.text.split_once(' ') {
                texts.entry(name).or_insert(text);
            }
        }
        Descriptions(texts)
    }

    /// Returns the text of the first comment that is about `name`.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| (*text).to_owned())
    }
}
