//! What the target needs: stages, images, and the triggers that bases bring along.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::Platform;

use super::answer::{Answers, ImageAnswer, Question};
use super::input::NamedContext;
use super::reference;
use super::stages::{Base, Stages};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Instruction, Kind, MountKey, Onbuild, RunMount};
use crate::dockerfile::parse_trigger;
use crate::dockerfile::span::Span;

/// How many triggers one build may run: each child runs all of its base's.
const MOST_TRIGGERS: usize = 1 << 16;

/// An instruction that a base left for its children.
#[derive(Clone, Debug)]
pub(super) struct Trigger {
    /// What to do.
    pub(super) instruction: Instruction,
    /// The escape character of its words.
    pub(super) escape: char,
}

/// What a target needs.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// The stages, by index.
    pub(super) stages: BTreeSet<usize>,
    /// What runs right after FROM, by stage.
    pub(super) triggers: BTreeMap<usize, Vec<Trigger>>,
    /// What must be known before anything can be said.
    pub(super) missing: BTreeSet<Question>,
}

/// A `--from` or `from=`.
struct Reference<'i> {
    name: &'i str,
    span: Span,
    by_number: bool,
}

/// Returns where an instruction takes files from, apart from the context.
fn references(instruction: &Instruction) -> Vec<Reference<'_>> {
    match &instruction.kind {
        Kind::Copy(copy) => copy
            .from
            .iter()
            .map(|from| Reference {
                name: &from.text,
                span: from.span,
                by_number: true,
            })
            .collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .filter(|mount| may_have_files(mount))
            .flat_map(|mount| &mount.fields)
            .filter(|field| field.key == MountKey::From)
            .filter_map(|field| field.value.as_ref())
            .filter(|value| !value.text.is_empty())
            .map(|value| Reference {
                name: &value.text,
                span: value.span,
                by_number: false,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Says whether a mount can have a source at all.
fn may_have_files(mount: &RunMount) -> bool {
    let mut kinds = mount
        .fields
        .iter()
        .filter(|field| field.key == MountKey::Type)
        .filter_map(|field| field.value.as_ref());
    !kinds.any(|kind| matches!(kind.text.as_str(), "tmpfs" | "secret" | "ssh"))
}

/// Returns the triggers that a stage leaves for its children.
fn onbuild<'s>(stages: &'s Stages<'_>, stage: usize) -> impl Iterator<Item = &'s Onbuild> {
    let stage = &stages.list[stage];
    let instructions: &[Instruction] = if stage.replaced {
        &[]
    } else {
        &stage.ast.instructions
    };
    instructions
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            Kind::Onbuild(onbuild) => Some(onbuild),
            _ => None,
        })
}

/// Appends an error for each reference that means nothing, and for each circle of stages.
pub(super) fn check(stages: &Stages<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let count = stages.list.len();
    // Node `i` is stage `i`, node `count + i` is what its triggers do to each child.
    let mut edges: Vec<Vec<(usize, Span)>> = vec![Vec::new(); 2 * count];
    for (index, stage) in stages.list.iter().enumerate() {
        if stage.replaced {
            continue;
        }
        if let Base::Stage(base) = stage.base {
            let span = stage.ast.from.span;
            edges[index].extend([(base, span), (count + base, span)]);
        }
        for reference in stage.ast.instructions.iter().flat_map(references) {
            match stages.lookup(reference.name, reference.by_number) {
                // A stage that names itself is told so where it does.
                Ok(Base::Stage(other)) if other == index => {}
                Ok(Base::Stage(other)) => edges[index].push((other, reference.span)),
                Ok(_) => {}
                Err(message) => {
                    let error = Diagnostic::error("invalid-reference", reference.span, message);
                    diagnostics.push(error);
                }
            }
        }
        let triggers = onbuild(stages, index).filter_map(|onbuild| onbuild.instruction.as_deref());
        for reference in triggers.flat_map(references) {
            let base = stages.lookup(reference.name, reference.by_number);
            if let Ok(Base::Stage(other)) = base {
                edges[count + index].push((other, reference.span));
            }
        }
    }
    if let Some((circle, span)) = find_circle(&edges) {
        let first = circle.into_iter().filter(|node| *node < count).min();
        let title = first.map_or("", |stage| &stages.list[stage].title);
        let message = format!("circular dependency detected on stage: {title}");
        diagnostics.push(Diagnostic::error("circular-dependency", span, message));
    }
}

/// Returns a circle and the reference that closes it, if there is one.
fn find_circle(edges: &[Vec<(usize, Span)>]) -> Option<(Vec<usize>, Span)> {
    let mut done = vec![false; edges.len()];
    let mut on_path = vec![false; edges.len()];
    for start in 0..edges.len() {
        // Each entry is a stage with the number of its edges that were followed.
        let mut path = vec![(start, 0)];
        while let Some((stage, followed)) = path.last_mut() {
            let stage = *stage;
            on_path[stage] = true;
            let next = edges[stage].get(*followed).copied();
            *followed += 1;
            match next {
                _ if done[stage] => {
                    on_path[stage] = false;
                    path.pop();
                }
                None => {
                    done[stage] = true;
                    on_path[stage] = false;
                    path.pop();
                }
                Some((other, span)) if on_path[other] => {
                    let path = path.iter().map(|(stage, _)| *stage);
                    return Some((path.skip_while(|stage| *stage != other).collect(), span));
                }
                Some((other, _)) => path.push((other, 0)),
            }
        }
    }
    None
}

impl Reach {
    /// Finds what `targets` need, as far as the answers tell.
    ///
    /// Errors about triggers are appended to `diagnostics`.
    pub(super) fn new(
        stages: &Stages<'_>,
        targets: Vec<usize>,
        answers: &Answers,
        escape: char,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Reach {
        let mut reach = Reach::default();
        let mut waiting = targets;
        let mut fired = 0;
        while let Some(index) = waiting.pop() {
            if !reach.stages.insert(index) {
                continue;
            }
            let stage = &stages.list[index];
            reach.need(&stage.base, &stage.platform, answers, &mut waiting);
            if stage.replaced {
                continue;
            }
            let span = stage.ast.from.span;
            let triggers: Vec<Trigger> = match &stage.base {
                Base::Stage(base) => onbuild(stages, *base)
                    .filter_map(|onbuild| match &onbuild.instruction {
                        Some(instruction) => Some(Trigger {
                            instruction: (**instruction).clone(),
                            escape,
                        }),
                        None => Trigger::parse(&onbuild.trigger, span, diagnostics),
                    })
                    .collect(),
                base => image_triggers(base, &stage.platform, answers)
                    .iter()
                    .filter_map(|text| Trigger::parse(text, span, diagnostics))
                    .collect(),
            };
            fired += triggers.len();
            if fired > MOST_TRIGGERS {
                let message = format!("more than {MOST_TRIGGERS} ONBUILD triggers would run");
                diagnostics.push(Diagnostic::error("too-many-triggers", span, message));
                return reach;
            }
            let own = &stage.ast.instructions;
            let all = triggers
                .iter()
                .map(|trigger| &trigger.instruction)
                .chain(own);
            for reference in all.flat_map(references) {
                // What cannot be looked up was reported, or is where the trigger runs.
                if let Ok(base) = stages.lookup(reference.name, reference.by_number) {
                    reach.need(&base, stages.target_platform(), answers, &mut waiting);
                }
            }
            if !triggers.is_empty() {
                reach.triggers.insert(index, triggers);
            }
        }
        reach
    }

    fn need(
        &mut self,
        base: &Base<'_>,
        platform: &Platform,
        answers: &Answers,
        waiting: &mut Vec<usize>,
    ) {
        if let Base::Stage(index) = base {
            waiting.push(*index);
        }
        if let Some(question) = question(base, platform)
            && answers.get(&question).is_none()
        {
            self.missing.insert(question);
        }
    }
}

/// Returns what must be asked about a base: only images have something to tell.
pub(super) fn question(base: &Base<'_>, platform: &Platform) -> Option<Question> {
    let platform = platform.clone();
    Some(match base {
        Base::Image(reference) => Question::ImageConfig {
            reference: reference.clone(),
            platform,
        },
        Base::Context(NamedContext::Image(name)) => Question::ImageConfig {
            reference: reference::normalize(name).ok()?,
            platform,
        },
        Base::Context(NamedContext::OciLayout(reference)) => Question::LayoutConfig {
            reference: reference.clone(),
            platform,
        },
        Base::Context(NamedContext::Local { .. } | NamedContext::Url(_))
        | Base::Scratch
        | Base::Stage(_) => return None,
    })
}

/// Returns the triggers of an image, as far as it is known.
fn image_triggers<'a>(base: &Base<'_>, platform: &Platform, answers: &'a Answers) -> &'a [String] {
    match question(base, platform).and_then(|question| answers.get(&question)) {
        Some(ImageAnswer::Resolved { config, .. }) => &config.config.on_build,
        _ => &[],
    }
}

impl Trigger {
    /// Parses a trigger as an image holds it; what is wrong with it is wrong at `from`.
    fn parse(text: &str, from: Span, diagnostics: &mut Vec<Diagnostic>) -> Option<Trigger> {
        match parse_trigger(text) {
            Ok(instruction) => Some(Trigger {
                instruction,
                escape: '\\',
            }),
            Err(errors) => {
                for error in errors.into_iter().filter(Diagnostic::is_error) {
                    let message = format!("invalid ONBUILD trigger `{text}`: {}", error.message);
                    diagnostics.push(Diagnostic::error(error.code, from, message));
                }
                None
            }
        }
    }
}
