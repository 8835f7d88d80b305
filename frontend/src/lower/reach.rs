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
    if let Some(circle) = find_circle(&edges) {
        diagnostics.push(circular(stages, &circle));
    }
}

/// What is said of a circle: which stages it goes through, and where each needs the next.
fn circular(stages: &Stages<'_>, circle: &[(usize, Span)]) -> Diagnostic {
    let count = stages.list.len();
    let name = |node: usize| match node.checked_sub(count) {
        Some(base) => format!("an ONBUILD trigger of `{}`", stages.list[base].title),
        None => format!("`{}`", stages.list[node].title),
    };
    let first = circle
        .iter()
        .map(|(node, _)| *node)
        .filter(|node| *node < count)
        .min();
    let title = first.map_or("", |stage| &stages.list[stage].title);
    let message = format!("circular dependency detected on stage: {title}");
    // Told from the first stage of the file, whichever reference closes the circle.
    let turn = circle.iter().position(|(node, _)| Some(*node) == first);
    let (after, before) = circle.split_at(turn.unwrap_or(0));
    let nodes: Vec<usize> = before.iter().chain(after).map(|(node, _)| *node).collect();
    let mut path = nodes.first().map(|node| name(*node)).unwrap_or_default();
    for (index, node) in nodes.iter().skip(1).chain(nodes.first()).enumerate() {
        let needs = if index == 0 { "needs" } else { "which needs" };
        let comma = if index == 0 { "" } else { "," };
        path.push_str(&format!("{comma} {needs} {}", name(*node)));
    }
    let span = circle.last().map_or_else(Span::default, |(_, span)| *span);
    let mut error = Diagnostic::error("circular-dependency", span, message).with_help(path);
    for (node, here) in circle.split_last().map_or(&[][..], |(_, others)| others) {
        error = error.with_label(*here, format!("needed by {}", name(*node)));
    }
    error
}

/// Returns a circle, if there is one: each stage with the reference to the next, the reference that
/// closes it last.
fn find_circle(edges: &[Vec<(usize, Span)>]) -> Option<Vec<(usize, Span)>> {
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
                Some((other, _)) if on_path[other] => {
                    let circle = path.iter().skip_while(|(stage, _)| *stage != other);
                    let edge = |(stage, followed): &(usize, usize)| {
                        (*stage, edges[*stage][followed - 1].1)
                    };
                    return Some(circle.map(edge).collect());
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
