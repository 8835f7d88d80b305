//! One stage: its state, and its instructions one after the other.

use std::collections::BTreeSet;

use kiln_ir::{History, HttpSource, ImageConfig, Input, Platform};

use super::answer::Question;
use super::input::{NamedContext, NoCache};
use super::reach::Trigger;
use super::remote::{self, RemoteContext};
use super::round::{Label, Round, Step};
use super::scope::{Arguments, EnvPlaces, Globals, Scope, is_internal};
use super::stages::{Base, Stage, Stages};
use super::{path, reference};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Instruction, Kind, Word};
use crate::dockerfile::expand::{Expander, Expansion};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::span::Span;
use crate::dockerfile::suggest::closest;

/// What the environment's PATH is where the base has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who wrote a line of history.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Names that a base was probably meant to be.
const COMMON_IMAGES: &[&str] = &[
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "node", "python", "rust", "ubuntu",
];

/// What a stage comes to, after each instruction.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The file system; none is empty.
    pub(super) fs: Option<Input>,
    /// The image.
    pub(super) image: ImageConfig,
    /// What it runs on.
    pub(super) platform: Platform,
    /// Where the variables of the image are.
    pub(super) env_places: EnvPlaces,
    /// The arguments in scope.
    pub(super) args: Arguments,
    /// A WORKDIR of this file was seen.
    pub(super) workdir_set: bool,
    /// Somebody looked at the base, so that its variables are known.
    base_known: bool,
}

impl State {
    fn new(fs: Option<Input>, image: ImageConfig, platform: &Platform) -> State {
        State {
            fs,
            env_places: EnvPlaces::of(&image.config.env),
            image,
            platform: platform.clone(),
            args: Arguments::default(),
            workdir_set: false,
            base_known: true,
        }
    }
}

/// Returns the config of an image with nothing in it.
fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    image.config.working_dir = "/".to_owned();
    image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
    image
}

/// Where an instruction takes files from.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    /// A directory of the client: its name and what is excluded.
    Local(&'a str, &'a [String]),
    /// A file system; none is empty.
    Tree(Option<Input>),
}

/// A stage in the making.
#[derive(Debug)]
pub(super) struct StageLowering<'r, 'a> {
    /// The plan it goes into.
    pub(super) round: &'r mut Round<'a>,
    /// All stages.
    pub(super) stages: &'r Stages<'a>,
    /// The arguments before the first FROM.
    pub(super) globals: &'r Globals,
    /// What the stages before it came to.
    done: &'r [Option<State>],
    stage: &'r Stage<'a>,
    /// What it has come to.
    pub(super) state: State,
    /// A CMD of this stage was seen.
    pub(super) cmd_set: bool,
    escape: char,
    /// The instruction comes from the base.
    is_trigger: bool,
    ignore_cache: bool,
}

/// Lowers the stage at `index`, whose references were all lowered before it.
pub(super) fn lower<'a>(
    round: &mut Round<'a>,
    stages: &Stages<'a>,
    globals: &Globals,
    triggers: &[Trigger],
    escape: char,
    done: &[Option<State>],
    index: usize,
) -> State {
    let stage = &stages.list[index];
    let ignore_cache = match &round.input.no_cache {
        NoCache::No => false,
        NoCache::All => true,
        NoCache::Stages(names) => stage
            .ast
            .name()
            .is_some_and(|own| names.iter().any(|name| name.to_lowercase() == own)),
    };
    let mut lowering = StageLowering {
        state: State::new(None, empty_image(&stage.platform), &stage.platform),
        round,
        stages,
        globals,
        done,
        stage,
        cmd_set: false,
        escape,
        is_trigger: false,
        ignore_cache,
    };
    if lowering.round.is_full {
        return lowering.state;
    }
    if let Err(error) = lowering.start() {
        lowering.report(*error);
    }
    if stage.replaced {
        return lowering.state;
    }
    lowering.is_trigger = true;
    for trigger in triggers {
        lowering.escape = trigger.escape;
        lowering.instruction(&trigger.instruction);
    }
    lowering.is_trigger = false;
    lowering.escape = escape;
    for instruction in &stage.ast.instructions {
        lowering.instruction(instruction);
    }
    lowering.state
}

impl<'r, 'a> StageLowering<'r, 'a> {
    /// Takes in the base.
    fn start(&mut self) -> Step {
        let from = &self.stage.ast.from;
        let platform = self.stage.platform.clone();
        self.state = match &self.stage.base {
            Base::Scratch => State::new(None, empty_image(&platform), &platform),
            Base::Stage(index) => match &self.done[*index] {
                Some(state) => state.clone(),
                None => unreachable!("BUG: stage {index} was not lowered before its child"),
            },
            Base::Image(reference) => {
                let question = image_question(reference.clone(), &platform);
                self.image_base(&question, from.span)?
            }
            Base::Context(context) => self.context_base(context, from.span, &platform)?,
        };
        self.state.args.inherit();
        let image = &mut self.state.image;
        image.config.on_build.clear();
        let env = &mut image.config.env;
        if self.state.env_places.value(env, "PATH").is_none() {
            self.state.env_places.set(env, "PATH", DEFAULT_PATH);
        }
        if !image.config.working_dir.starts_with('/') && !image.config.working_dir.is_empty() {
            image.config.working_dir = path::absolute("/", &image.config.working_dir);
        }
        let args = self.state.args.iter();
        let args: usize = args
            .map(|(name, value)| 2 * name.len() + value.map_or(0, str::len) + 96)
            .sum();
        let bytes = image_bytes(&self.state.image) + args;
        self.round.charge(bytes, from.span)
    }

    fn image_base(&mut self, question: &Question, span: Span) -> Step<State> {
        let platform = question.platform();
        let mut label = self.label(&self.stage.ast.from, span);
        label.name = format!("FROM {}", self.stage.base_name);
        label.ignore_cache = false;
        let (fs, config) = self
            .round
            .image(question, &label)
            .map_err(|error| self.suggest_base(error))?;
        let Some(config) = config else {
            let mut state = State::new(Some(fs), assumed_image(platform), platform);
            state.base_known = false;
            return Ok(state);
        };
        let pulled = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            ..Platform::default()
        }
        .normalized();
        if (&pulled.os, &pulled.architecture) != (&platform.os, &platform.architecture) {
            let message = format!(
                "Base image {} was pulled with platform {:?}, expected {:?} for current build",
                self.stage.base_name,
                pulled.format_all(),
                platform.format_all()
            );
            self.lint(Rule::InvalidBaseImagePlatform, span, message);
        }
        let mut image = config.clone();
        image.created = None;
        Ok(State::new(Some(fs), image, platform))
    }

    fn context_base(
        &mut self,
        context: &'a NamedContext,
        span: Span,
        platform: &Platform,
    ) -> Step<State> {
        if let Some(question) = context_question(context, span, platform)? {
            return self.image_base(&question, span);
        }
        let source = self.context(context, span)?;
        let fs = self.input(&source, BTreeSet::new(), span)?;
        Ok(State::new(fs, empty_image(platform), platform))
    }

    /// Returns the files of a named context that is no image's.
    fn context(&mut self, context: &'a NamedContext, span: Span) -> Step<Source<'a>> {
        let platform = self.stages.target_platform();
        if let Some(question) = context_question(context, span, platform)? {
            return self.image_source(&question, span);
        }
        match context {
            NamedContext::Local { source, ignore } => Ok(Source::Local(source, ignore)),
            NamedContext::Image(_) | NamedContext::OciLayout(_) => {
                unreachable!("BUG: an image that is not asked about: {context:?}")
            }
            NamedContext::Url(url) => {
                let remote = remote::remote_context(url)
                    .map_err(|message| error("invalid-context", span, message))?;
                let label = Label {
                    name: format!("load context {url}"),
                    span,
                    ..Label::default()
                };
                let tree = match remote {
                    Some(RemoteContext::Git(source)) => self.round.git(*source, &label)?,
                    Some(RemoteContext::Http(url)) => {
                        let source = HttpSource {
                            url,
                            filename: Some(remote::CONTEXT_FILE.to_owned()),
                            ..HttpSource::default()
                        };
                        self.round.http(source, &label)?
                    }
                    None => {
                        let message =
                            format!("context `{url}` is neither a git repository nor http");
                        return Err(error("unsupported-context", span, message));
                    }
                };
                Ok(Source::Tree(Some(tree)))
            }
        }
    }

    fn image_source(&mut self, question: &Question, span: Span) -> Step<Source<'a>> {
        let label = Label {
            name: format!("FROM {}", reference::familiar(question.reference())),
            span,
            ..Label::default()
        };
        let (fs, _) = self.round.image(question, &label)?;
        Ok(Source::Tree(Some(fs)))
    }

    /// Returns the files that `--from` or `from=` names; `verb` is `copy` or `mount`.
    pub(super) fn source(
        &mut self,
        from: &str,
        by_number: bool,
        verb: &str,
        span: Span,
    ) -> Step<Source<'a>> {
        let base = self
            .stages
            .lookup(from, by_number)
            .map_err(|message| error("invalid-reference", span, message))?;
        match base {
            Base::Scratch => Ok(Source::Tree(None)),
            Base::Stage(index) => match &self.done[index] {
                Some(state) => Ok(Source::Tree(state.fs)),
                None => {
                    let message = format!(
                        "cannot {verb} from stage {from:?}, it needs to be defined before current stage {:?}",
                        self.stage.title
                    );
                    let mut error = error("stage-defined-later", span, message);
                    let defined = &self.stages.list[index].ast.from;
                    if !self.is_trigger {
                        *error = error.with_label(defined.span, "defined here");
                    }
                    Err(error)
                }
            },
            Base::Image(reference) => {
                let question = image_question(reference, self.stages.target_platform());
                self.image_source(&question, span)
            }
            Base::Context(context) => self.context(context, span),
        }
    }

    /// Returns the input for a source of which `include` is read; empty is all of it.
    pub(super) fn input(
        &mut self,
        source: &Source<'_>,
        include: BTreeSet<String>,
        span: Span,
    ) -> Step<Option<Input>> {
        match source {
            Source::Local(name, exclude) => {
                self.round.local(name, exclude, include, span).map(Some)
            }
            Source::Tree(tree) => Ok(*tree),
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        if self.round.is_full {
            return;
        }
        let result = match &instruction.kind {
            Kind::Add(add) => self.add(instruction, add),
            Kind::Arg(arg) => self.arg(instruction, arg),
            Kind::Cmd(command) => self.cmd(instruction, command),
            Kind::Copy(copy) => self.copy(instruction, copy),
            Kind::Entrypoint(command) => self.entrypoint(instruction, command),
            Kind::Env(pairs) => self.env(pairs, instruction.span),
            Kind::Expose(expose) => self.expose(expose, instruction.span),
            Kind::Healthcheck(check) => self.healthcheck(instruction, check),
            Kind::Label(pairs) => self.labels(pairs, instruction.span),
            Kind::Maintainer(name) => self.maintainer(name),
            Kind::Onbuild(onbuild) => self.onbuild(onbuild, instruction.span),
            Kind::Run(run) => self.run(instruction, run),
            Kind::Shell(words) => self.shell(words, instruction.span),
            Kind::Stopsignal(signal) => self.stopsignal(signal),
            Kind::User(user) => self.user(user),
            Kind::Volume(paths) => self.volume(paths, instruction.span),
            Kind::Workdir(dir) => self.workdir(instruction, dir),
        };
        if let Err(error) = result {
            self.report(*error);
        }
    }

    /// Returns what the instructions see.
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope {
            env: &self.state.image.config.env,
            places: &self.state.env_places,
            args: &self.state.args,
        }
    }

    /// Expands a word with the variables as they are now.
    pub(super) fn expand(&mut self, word: &Word) -> Step<String> {
        Ok(self
            .expansion(&Expander::new(self.escape), &word.text, word.span)?
            .text)
    }

    /// Expands a word that may become several.
    pub(super) fn expand_words(&mut self, word: &Word) -> Step<Vec<String>> {
        Ok(self
            .expansion(&Expander::new(self.escape), &word.text, word.span)?
            .words)
    }

    /// Expands text, and warns of variables that are not set; of a base that nobody looked at they
    /// may be.
    pub(super) fn expansion(
        &mut self,
        expander: &Expander,
        text: &str,
        span: Span,
    ) -> Step<Expansion> {
        let expansion = expander
            .expand(text, &self.scope())
            .map_err(|failure| error("expansion", span, failure.to_string()))?;
        let unset = expansion
            .unmatched
            .iter()
            .filter(|name| !self.state.args.declares(name) && !is_internal(name));
        let warn = |name: &String| {
            let near = closest(name, self.scope().names());
            let suggestion = near.map(|near| format!(" (did you mean ${near}?)"));
            let message = format!(
                "Usage of undefined variable '${name}'{}",
                suggestion.unwrap_or_default()
            );
            let span = variable(&self.round.input.text, span, name);
            Diagnostic::lint(Rule::UndefinedVar, span, message)
                .with_help(self.undefined_help(name, near))
        };
        let warnings: Vec<Diagnostic> = match self.state.base_known {
            true => unset.map(warn).collect(),
            false => Vec::new(),
        };
        for warning in warnings {
            self.report(warning);
        }
        Ok(expansion)
    }

    fn undefined_help(&self, name: &str, near: Option<&str>) -> String {
        match near {
            Some(near) => format!("write `${near}`, or declare it: `ARG {name}`"),
            None if self.globals.declares(name) => {
                format!("`ARG {name}` in this stage takes over the one before FROM")
            }
            None => format!("declare it above: `ARG {name}`"),
        }
    }

    /// Returns the stage's title, after what it runs on and perhaps what it makes things for, if the
    /// build is for several platforms.
    fn title(&self) -> String {
        let title = &self.stage.title;
        if !self.round.is_multi_platform {
            return title.clone();
        }
        let platform = &self.state.platform;
        let target = self
            .scope()
            .target_platform()
            .and_then(|target| beyond(platform, &target))
            .unwrap_or_default();
        format!("{}{target} {title}", platform.format_all())
    }

    /// Returns what people see of an instruction.
    pub(super) fn label<K>(&self, instruction: &Instruction<K>, span: Span) -> Label {
        let arguments = instruction
            .text
            .get(instruction.keyword.text.len()..)
            .unwrap_or_default()
            .trim();
        let keyword = instruction.keyword.text.to_uppercase();
        let trigger = if self.is_trigger { "ONBUILD " } else { "" };
        let lines = match self.is_trigger {
            true => self.stage.ast.from.lines,
            false => instruction.lines,
        };
        Label {
            name: one_line(&format!("{trigger}{keyword} {arguments}")),
            stage: self.title(),
            command: instruction.text.to_string(),
            lines: Some((lines.first, lines.last)),
            span,
            ignore_cache: self.ignore_cache,
        }
    }

    /// Appends a line of history; the empty ones made no layer.
    pub(super) fn history(&mut self, created_by: String, empty_layer: bool, span: Span) -> Step {
        self.round.charge(created_by.len() + 64, span)?;
        self.state.image.history.push(History {
            created: self.round.epoch.map(|epoch| epoch.rfc3339()),
            created_by,
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer,
            ..History::default()
        });
        Ok(())
    }

    /// Warns.
    pub(super) fn lint(&mut self, rule: Rule, span: Span, message: String) {
        self.report(Diagnostic::lint(rule, span, message));
    }

    /// Takes down a finding; one about a trigger is a finding about FROM.
    pub(super) fn report(&mut self, mut diagnostic: Diagnostic) {
        if self.is_trigger {
            diagnostic.span = self.stage.ast.from.span;
            diagnostic.labels.clear();
            let base = &self.stage.base_name;
            diagnostic.help = Some(format!("it comes from an ONBUILD trigger of `{base}`"));
        }
        self.round.diagnostics.push(diagnostic);
    }

    fn suggest_base(&self, mut error: Box<Diagnostic>) -> Box<Diagnostic> {
        let names = self.stages.names().chain(COMMON_IMAGES.iter().copied());
        if error.code == "image-unavailable"
            && let Some(near) = closest(&self.stage.base_name, names)
        {
            error.help = Some(format!("did you mean `{near}`?"));
        }
        error
    }
}

/// Finds the use of a variable within a span; the whole span where it is not to be seen.
pub(super) fn variable(text: &str, span: Span, name: &str) -> Span {
    let source = span.of(text);
    let goes_on = |rest: &str| {
        let next = rest.chars().next();
        next.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    };
    let place = source.match_indices('$').find_map(|(at, _)| {
        let after = &source[at + 1..];
        let (braced, after) = match after.strip_prefix('{') {
            Some(after) => (true, after),
            None => (false, after),
        };
        let rest = after.strip_prefix(name).filter(|rest| !goes_on(rest))?;
        let closed = braced && rest.starts_with('}');
        Some(at..source.len() - rest.len() + usize::from(closed))
    });
    match place {
        Some(place) => Span::new(
            span.start + place.start as u32,
            span.start + place.end as u32,
        ),
        None => span,
    }
}

/// Returns an error.
pub(super) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(code, span, message))
}

/// The config of an image that nobody looked at.
fn assumed_image(platform: &Platform) -> ImageConfig {
    let mut image = empty_image(platform);
    image.config.working_dir.clear();
    image
}

/// Returns what to ask about a named context: only images have something to tell.
fn context_question(
    context: &NamedContext,
    span: Span,
    platform: &Platform,
) -> Step<Option<Question>> {
    Ok(match context {
        NamedContext::Image(name) => {
            let reference = reference::normalize(name).map_err(|reason| {
                let message = format!("named context image `{name}` is no image: {reason}");
                error("invalid-context", span, message)
            })?;
            Some(image_question(reference, platform))
        }
        NamedContext::OciLayout(reference) => Some(Question::LayoutConfig {
            reference: reference.clone(),
            platform: platform.clone(),
        }),
        NamedContext::Local { .. } | NamedContext::Url(_) => None,
    })
}

fn image_question(reference: String, platform: &Platform) -> Question {
    Question::ImageConfig {
        reference,
        platform: platform.clone(),
    }
}

/// Returns `->arm64` and the like where a target is another platform than what runs.
fn beyond(platform: &Platform, target: &Platform) -> Option<String> {
    let or = |own: &String, other: &String| match own.is_empty() {
        true => other.clone(),
        false => own.clone(),
    };
    let target = Platform {
        os: or(&target.os, &platform.os),
        architecture: or(&target.architecture, &platform.architecture),
        variant: target.variant.clone(),
        ..Platform::default()
    }
    .normalized();
    if (&target.os, &target.architecture, &target.variant)
        == (&platform.os, &platform.architecture, &platform.variant)
    {
        return None;
    }
    if target.os != platform.os {
        return Some(format!("->{target}"));
    }
    let variant = match target.variant.as_str() {
        "" => String::new(),
        variant => format!("/{variant}"),
    };
    Some(format!("->{}{variant}", target.architecture))
}

/// Control characters become spaces, so that a step's text is one line.
fn one_line(text: &str) -> String {
    text.trim()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// About what a config takes in memory.
fn image_bytes(image: &ImageConfig) -> usize {
    let config = &image.config;
    let env: usize = config.env.iter().map(|pair| pair.len() + 24).sum();
    let labels: usize = config
        .labels
        .iter()
        .map(|(key, value)| key.len() + value.len() + 64)
        .sum();
    let history: usize = image
        .history
        .iter()
        .map(|line| line.created_by.len() + 128)
        .sum();
    let lists: usize = config
        .exposed_ports
        .iter()
        .chain(&config.volumes)
        .map(|text| text.len() + 24)
        .sum();
    env + labels + history + lists
}
