//! The plan in the making, and everything that adds nodes to it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{
    Display, GitSource, HttpSource, ImageConfig, ImageSource, Input, LocalSource, Node, NodeId,
    OciLayoutSource, Op, PatternList, Pin, Plan, Platform, SourceOp, SourceRange,
};

use super::answer::{Answers, ImageAnswer, Question};
use super::epoch::Epoch;
use super::input::LowerInput;
use super::settings::Settings;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::span::Span;

/// A result whose error is one diagnostic.
pub(super) type Step<T = ()> = Result<T, Box<Diagnostic>>;

/// How many bytes a plan may come to. Environments and histories are repeated at each step, so a
/// small file can ask for a huge plan.
const PLAN_BYTES: usize = 128 << 20;

/// The name of the build context among local sources.
pub(super) const CONTEXT: &str = "context";

/// The key under which a step keeps its instruction as written.
const COMMAND: &str = "com.docker.dockerfile.v1.command";

/// One round of lowering.
#[derive(Debug)]
pub(super) struct Round<'a> {
    /// The question.
    pub(super) input: &'a LowerInput,
    /// What its options come to.
    pub(super) settings: &'a Settings,
    /// What is known.
    pub(super) answers: &'a Answers,
    /// The time of everything made.
    pub(super) epoch: Option<Epoch>,
    /// What the context's ignore file leaves out.
    pub(super) ignore: PatternList,
    /// Stages are told apart by platform.
    pub(super) is_multi_platform: bool,
    /// The plan so far.
    pub(super) plan: Plan,
    /// The findings so far.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The images that nobody looked at.
    pub(super) assumed: BTreeSet<NodeId>,
    /// The directories of the client, by name: most steps read the same one.
    locals: BTreeMap<String, NodeId>,
    bytes_left: usize,
    /// The plan is too large; nothing more is added.
    pub(super) is_full: bool,
}

/// What people see of a step, before it has a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    /// The step's text.
    pub(super) name: String,
    /// The title of its stage.
    pub(super) stage: String,
    /// The instruction as written.
    pub(super) command: String,
    /// Where it is written.
    pub(super) lines: Option<(u32, u32)>,
    /// What an error about it is about.
    pub(super) span: Span,
    /// No earlier result is used.
    pub(super) ignore_cache: bool,
}

impl Label {
    fn display(&self) -> Display {
        let mut display = Display {
            name: self.name.clone(),
            stage: self.stage.clone(),
            ranges: self
                .lines
                .map(|(start_line, end_line)| SourceRange {
                    source: 0,
                    start_line,
                    end_line,
                })
                .into_iter()
                .collect(),
            ignore_cache: self.ignore_cache,
            ..Display::default()
        };
        if !self.command.is_empty() {
            display
                .description
                .insert(COMMAND.to_owned(), self.command.clone());
        }
        display
    }
}

impl<'a> Round<'a> {
    /// Begins a round.
    pub(super) fn new(
        input: &'a LowerInput,
        settings: &'a Settings,
        answers: &'a Answers,
        epoch: Option<Epoch>,
        ignore: PatternList,
    ) -> Round<'a> {
        Round {
            input,
            settings,
            answers,
            epoch,
            ignore,
            is_multi_platform: settings.multi_platform,
            plan: Plan {
                sources: vec![(input.file_name.clone(), input.text.to_string())],
                ..Plan::default()
            },
            diagnostics: Vec::new(),
            assumed: BTreeSet::new(),
            locals: BTreeMap::new(),
            bytes_left: PLAN_BYTES,
            is_full: false,
        }
    }

    /// Counts bytes that go into the plan; errors when there are too many.
    pub(super) fn charge(&mut self, bytes: usize, span: Span) -> Step {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => {
                self.is_full = true;
                Err(Box::new(Diagnostic::error(
                    "plan-too-large",
                    span,
                    format!("the plan takes more than {} MiB", PLAN_BYTES >> 20),
                )))
            }
        }
    }

    /// Adds a node, or says of the equal one that it is this step too.
    pub(super) fn add(
        &mut self,
        op: Op,
        inputs: Vec<Input>,
        platform: Option<&Platform>,
        label: &Label,
    ) -> Step<NodeId> {
        self.add_with(op, inputs, platform, label, |_| {})
    }

    /// Adds a node, and lets `more` say more of it.
    pub(super) fn add_with(
        &mut self,
        op: Op,
        inputs: Vec<Input>,
        platform: Option<&Platform>,
        label: &Label,
        more: impl FnOnce(&mut Display),
    ) -> Step<NodeId> {
        self.charge(label.name.len() + label.command.len() + 256, label.span)?;
        let node = Node {
            op,
            inputs,
            platform: platform.cloned(),
        };
        let id = self.plan.graph.add(node).map_err(|error| {
            Box::new(Diagnostic::error(
                "invalid-step",
                label.span,
                error.to_string(),
            ))
        })?;
        let mut display = label.display();
        more(&mut display);
        self.plan.annotate(id, display);
        Ok(id)
    }

    /// Adds a directory of the client, of which `include` is read; empty is all of it.
    pub(super) fn local(
        &mut self,
        name: &str,
        exclude: &[String],
        include: BTreeSet<String>,
        span: Span,
    ) -> Step<Input> {
        if let Some(node) = self.locals.get(name).copied() {
            self.charge(64, span)?;
            let known = self.plan.display_mut(node);
            match include.is_empty() || known.include.is_empty() {
                true => known.include.clear(),
                false => known.include.extend(include),
            }
            return Ok(output(node));
        }
        let op = Op::Source(SourceOp::Local(LocalSource {
            name: name.to_owned(),
            exclude: exclude.to_vec(),
            ..LocalSource::default()
        }));
        let label = Label {
            name: match name {
                CONTEXT => "load build context".to_owned(),
                name => format!("load context {name}"),
            },
            span,
            ..Label::default()
        };
        let node = self.add_with(op, Vec::new(), None, &label, |display| {
            display.include = include;
        })?;
        self.locals.insert(name.to_owned(), node);
        Ok(output(node))
    }

    /// Adds an image and returns its config; empty where it was assumed.
    ///
    /// BUG if the image was not asked for.
    pub(super) fn image(
        &mut self,
        question: &Question,
        label: &Label,
    ) -> Step<(Input, Option<&'a ImageConfig>)> {
        let reference = question.reference();
        let Some(answer) = self.answers.get(question) else {
            unreachable!("BUG: `{reference}` was never asked for");
        };
        let (config, digest) = match answer {
            ImageAnswer::Resolved { config, digest } => (Some(&**config), Some(digest)),
            ImageAnswer::Assumed => (None, None),
            ImageAnswer::Unavailable { reason, help } => {
                let message = format!("image `{reference}` cannot be had: {reason}");
                let mut error = Diagnostic::error("image-unavailable", label.span, message);
                error.help.clone_from(help);
                return Err(Box::new(error));
            }
        };
        let op = Op::Source(match question {
            Question::ImageConfig { reference, .. } => SourceOp::Image(ImageSource {
                reference: reference.clone(),
                resolve_mode: self.input.resolve_mode,
                ..ImageSource::default()
            }),
            Question::LayoutConfig { reference, .. } => SourceOp::OciLayout(OciLayoutSource {
                reference: reference.clone(),
                ..OciLayoutSource::default()
            }),
            Question::SourceTime { .. } => unreachable!("BUG: a time is no image"),
        });
        let node = self.add(op, Vec::new(), Some(question.platform()), label)?;
        match digest {
            Some(digest) => {
                let pin = Pin::Manifest(digest.clone());
                self.plan.pins.insert(node, pin);
            }
            None => {
                self.assumed.insert(node);
            }
        }
        Ok((output(node), config))
    }

    /// Adds a git repository.
    pub(super) fn git(&mut self, source: GitSource, label: &Label) -> Step<Input> {
        let op = Op::Source(SourceOp::Git(source));
        Ok(output(self.add(op, Vec::new(), None, label)?))
    }

    /// Adds a file from the network.
    pub(super) fn http(&mut self, source: HttpSource, label: &Label) -> Step<Input> {
        let op = Op::Source(SourceOp::Http(source));
        Ok(output(self.add(op, Vec::new(), None, label)?))
    }
}

/// Returns the first output of a node.
pub(super) fn output(node: NodeId) -> Input {
    Input { node, output: 0 }
}

/// The inputs of a node in the making, each once.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    list: Vec<Input>,
}

impl Inputs {
    /// Returns the index of `input`, which is added if it is new.
    pub(super) fn index(&mut self, input: Input) -> u32 {
        let place = self.list.iter().position(|known| *known == input);
        let place = place.unwrap_or_else(|| {
            self.list.push(input);
            self.list.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Returns the inputs in order.
    pub(super) fn into_list(self) -> Vec<Input> {
        self.list
    }
}
