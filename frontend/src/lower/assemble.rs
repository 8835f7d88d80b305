//! The walk of one lowering: parse, look up stages, ask, lower, and put the result together.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{Op, PatternList, Plan, Platform, ResultEntry, SourceOp};

use super::answer::{Answers, Question};
use super::check;
use super::dating::{self, Dated};
use super::epoch::Epoch;
use super::input::LowerInput;
use super::outcome::{Lowered, Lowering, StageSummary};
use super::outline::{self, Outline};
use super::reach::{self, Reach};
use super::round::{Round, Step};
use super::scan::{self, Scan, Scanned};
use super::scope::Globals;
use super::settings::{self, Settings};
use super::stage::{self, State};
use super::stages::{self, Stages};
use crate::diagnostic::Diagnostic;
use crate::dockerfile;
use crate::dockerfile::ast::{Arg, Dockerfile, Kind};
use crate::dockerfile::expand::Expander;
use crate::dockerfile::lint::CheckConfig;
use crate::dockerfile::span::Span;
use crate::dockerfile::suggest::with_suggestion;
use crate::outside::{Asked, Reader, asked};

/// The build argument that stands for `# check=`.
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// One platform that the build is for, everything looked up.
struct Target<'a> {
    platform: Platform,
    globals: Globals,
    stages: Stages<'a>,
    index: usize,
    reach: Reach,
}

/// Lowers a Dockerfile to a plan, or says what must be known or mended first.
///
/// All questions that are known at once come together; no round repeats a question that
/// `answers` holds. Errors come together as far as one does not hide another.
pub fn lower(input: &LowerInput, answers: &Answers) -> Lowering {
    let parsed = dockerfile::parse_source(&input.text);
    let dockerfile = parsed.dockerfile;
    let mut findings = parsed.diagnostics;
    findings.extend(foreign_syntax(&input.text, &input.build_args));
    let has_errors = findings.iter().any(Diagnostic::is_error);
    let given = input.build_args.get(CHECK).and_then(Option::as_deref);
    let check = check::config(given, &dockerfile).unwrap_or_else(|message| {
        findings.push(whole("invalid-build-arg", message));
        CheckConfig::default()
    });
    let outcome = match has_errors {
        true => None,
        false => attempt(input, answers, &dockerfile, &mut findings),
    };
    let (lowered, unreached) = match outcome {
        Some(Attempt::Needs(questions)) => return Lowering::Needs(questions),
        Some(Attempt::Lowered(lowered)) => {
            let unreached = unreached(&lowered, &dockerfile);
            (Some(lowered), unreached)
        }
        None => (None, Vec::new()),
    };
    let findings = check::settle(findings, &check, &dockerfile, &unreached);
    match lowered {
        Some(mut lowered) if !findings.iter().any(Diagnostic::is_error) => {
            lowered.diagnostics = findings;
            Lowering::Lowered(lowered)
        }
        _ => Lowering::Failed(findings),
    }
}

/// Refuses a front end other than this one, which the build argument or else the file may ask for:
/// whoever lowers has given the file to that one before.
pub fn foreign_syntax(
    text: &str,
    build_args: &BTreeMap<String, Option<String>>,
) -> Option<Diagnostic> {
    let Asked { reader, span } = asked(text, build_args)?;
    let named = match reader {
        Reader::Image(image) => image,
        Reader::Program(program) => format!("exec:{program}"),
    };
    let message = format!("the file is for the front end `{named}`, and is no Dockerfile");
    let help = match span {
        None => "`docker/dockerfile` is built in; leave the build argument `BUILDKIT_SYNTAX` out",
        Some(_) => "`docker/dockerfile` is built in; leave the line out to have it",
    };
    let span = span.unwrap_or_default();
    Some(Diagnostic::error("unsupported-syntax", span, message).with_help(help))
}

/// How far a parsed Dockerfile got.
enum Attempt {
    Needs(Vec<Question>),
    Lowered(Box<Lowered>),
}

/// Lowers what was parsed; none if there are errors among the findings.
fn attempt(
    input: &LowerInput,
    answers: &Answers,
    dockerfile: &Dockerfile,
    findings: &mut Vec<Diagnostic>,
) -> Option<Attempt> {
    let settings = keep(Settings::new(input), findings)?;
    let ignore = PatternList::new(&input.ignore).map_err(|error| {
        let message = format!("invalid ignore file: {error}");
        Box::new(whole("invalid-ignore-pattern", message))
    });
    let ignore = keep(ignore, findings)?;
    let platforms = platforms(input);
    if platforms.is_empty() {
        findings.push(whole("no-platform", "there is no platform to build for"));
        return None;
    }
    let targets: Vec<Target<'_>> = platforms
        .iter()
        .filter_map(|platform| prepare(input, &settings, answers, dockerfile, platform, findings))
        .collect();
    let dated = dated(
        input,
        &settings,
        dockerfile,
        answers,
        targets.first(),
        findings,
    );
    if findings.iter().any(Diagnostic::is_error) {
        return None;
    }
    let mut missing: BTreeSet<Question> = targets
        .iter()
        .flat_map(|target| target.reach.missing.iter().cloned())
        .collect();
    let epoch = match dated {
        Dated::At(epoch) => epoch,
        Dated::Ask(question) => {
            missing.insert(question);
            None
        }
    };
    if !missing.is_empty() {
        return Some(Attempt::Needs(missing.into_iter().collect()));
    }
    let mut round = Round::new(input, &settings, answers, epoch, ignore);
    round.is_multi_platform |= targets.len() > 1;
    let mut outline = None;
    let mut scans = Vec::new();
    for target in &targets {
        let Built {
            entry,
            outline: taken,
            scans: found,
        } = build(&mut round, target, dockerfile);
        outline.get_or_insert(taken);
        let key = match round.is_multi_platform {
            true => target.platform.to_string(),
            false => String::new(),
        };
        scans.extend(found.into_iter().map(|(name, what)| Scan {
            result: key.clone(),
            name,
            what,
        }));
        round.plan.results.insert(key, entry);
    }
    let Round {
        mut plan,
        diagnostics,
        mut assumed,
        ..
    } = round;
    findings.extend(diagnostics);
    let remotes = remotes(&plan);
    plan.prune();
    assumed.retain(|node| plan.graph.contains(*node));
    // A stage that was lowered only to be checked is not built.
    scans.retain(|scan| match scan.what {
        Scanned::Stage(Some(output)) => plan.graph.has_output(output),
        Scanned::Stage(None) | Scanned::Context => true,
    });
    let mut outline = outline.unwrap_or_default();
    outline.add_mounts(&plan);
    Some(Attempt::Lowered(Box::new(Lowered {
        plan,
        diagnostics: Vec::new(),
        stages: summaries(dockerfile, &targets),
        target: targets.first().map_or(0, |target| target.index),
        outline,
        scans,
        remotes,
        assumed: assumed.into_iter().collect(),
        unused_build_args: unused_build_args(&settings, dockerfile, &targets),
        source_date_epoch: epoch.map(Epoch::seconds),
    })))
}

fn remotes(plan: &Plan) -> Vec<SourceOp> {
    let sources = plan
        .graph
        .ids()
        .filter_map(|id| match &plan.graph.node(id).op {
            Op::Source(source @ (SourceOp::Git(_) | SourceOp::Http(_))) => Some(source.clone()),
            _ => None,
        });
    sources.collect()
}

fn keep<T>(result: Step<T>, findings: &mut Vec<Diagnostic>) -> Option<T> {
    result.map_err(|error| findings.push(*error)).ok()
}

/// Returns where the bodies of the stages are that the build does not need.
fn unreached(lowered: &Lowered, dockerfile: &Dockerfile) -> Vec<Span> {
    let stages = lowered.stages.iter().zip(&dockerfile.stages);
    stages
        .filter(|(stage, _)| !stage.reachable)
        .map(|(_, ast)| check::body_span(ast))
        .collect()
}

/// Looks everything up that one platform needs; none if there is no stage to build.
fn prepare<'a>(
    input: &'a LowerInput,
    settings: &Settings,
    answers: &Answers,
    dockerfile: &'a Dockerfile,
    platform: &Platform,
    findings: &mut Vec<Diagnostic>,
) -> Option<Target<'a>> {
    let globals = globals(input, settings, dockerfile, platform, findings);
    let stages = Stages::new(input, dockerfile, &globals, platform, findings);
    reach::check(&stages, findings);
    let Some(index) = stages.target(input.target.as_deref()) else {
        let (code, message) = match &input.target {
            Some(name) => {
                let message = format!("target stage {name:?} could not be found");
                let names = stages.names();
                ("unknown-target", with_suggestion(message, name, names))
            }
            None => (
                "no-stages",
                "dockerfile contains no stages to build".to_owned(),
            ),
        };
        let mut error = whole(code, message);
        if let Some(names) = listed(stages.names()) {
            error = error.with_help(names);
        }
        findings.push(error);
        return None;
    };
    let escape = dockerfile.directives.escape;
    let mut needed = vec![index];
    if input.every_stage {
        needed.extend(0..stages.list.len());
    }
    let reach = Reach::new(&stages, needed, answers, escape, findings);
    Some(Target {
        platform: platform.clone(),
        globals,
        stages,
        index,
        reach,
    })
}

/// So many stages are named; more would say less.
const MOST_LISTED: usize = 20;

/// Says which stages have a name, if any has.
fn listed<'s>(names: impl Iterator<Item = &'s str>) -> Option<String> {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let shown = names.len().min(MOST_LISTED);
    let more = match names.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| format!("the stages are {}{more}", names[..shown].join(", ")))
}

fn globals(
    input: &LowerInput,
    settings: &Settings,
    dockerfile: &Dockerfile,
    platform: &Platform,
    findings: &mut Vec<Diagnostic>,
) -> Globals {
    // A name in the file counts in lower case, that of `--target` as it was given.
    let last = dockerfile.stages.last().and_then(|stage| stage.name());
    let stage = match (&input.target, &last) {
        (Some(target), _) => target,
        (None, Some(last)) => last,
        (None, None) => "default",
    };
    let build = match input.build_platform.architecture.as_str() {
        "" => platform,
        _ => &input.build_platform,
    };
    let predefined = Globals::predefined(build, platform, stage, &settings.build_args);
    let expander = Expander::new(dockerfile.directives.escape);
    let mut globals = predefined.clone();
    let mut defaults = predefined;
    let mut defaults_are_good = true;
    for arg in &dockerfile.global_args {
        if let Err(error) = globals.declare(arg, &expander, &settings.build_args) {
            findings.push(*error);
        }
        defaults_are_good &= defaults.declare(arg, &expander, &BTreeMap::new()).is_ok();
    }
    if defaults_are_good {
        stages::lint_default_bases(dockerfile, &defaults, findings);
    }
    globals
}

/// What the stages of a target come to.
struct Built {
    entry: ResultEntry,
    outline: Outline,
    scans: BTreeMap<String, Scanned>,
}

/// Lowers all stages that a target needs; each refers only to those before it.
fn build<'a>(round: &mut Round<'a>, target: &Target<'a>, dockerfile: &Dockerfile) -> Built {
    let mut done: Vec<Option<State>> = vec![None; target.stages.list.len()];
    for index in &target.reach.stages {
        let triggers = match target.reach.triggers.get(index) {
            Some(triggers) => triggers.as_slice(),
            None => &[],
        };
        let state = stage::lower(
            round,
            &target.stages,
            &target.globals,
            triggers,
            dockerfile.directives.escape,
            &done,
            *index,
        );
        done[*index] = Some(state);
    }
    let outline = Outline::new(&outline::Lowered {
        dockerfile,
        settings: round.settings,
        globals: &target.globals,
        stages: &target.stages,
        reach: &target.reach,
        target: target.index,
        done: &done,
    });
    let scans = scan::scans(&target.stages, &target.globals, target.index, &done);
    let Some(state) = done.swap_remove(target.index) else {
        unreachable!("BUG: the target does not need itself");
    };
    Built {
        entry: result(round, target, state),
        outline,
        scans,
    }
}

fn result(round: &Round<'_>, target: &Target<'_>, state: State) -> ResultEntry {
    let mut image = state.image;
    image.config.labels.extend(round.input.labels.clone());
    image.created = round.epoch.map(Epoch::rfc3339);
    let platform = &target.platform;
    let stated = !round.input.platforms.is_empty();
    if stated || image.architecture.is_empty() || image.os.is_empty() {
        let same = (&image.os, &image.architecture) == (&platform.os, &platform.architecture);
        image.os.clone_from(&platform.os);
        image.architecture.clone_from(&platform.architecture);
        if !platform.variant.is_empty() || !same {
            image.variant.clone_from(&platform.variant);
        }
        if !platform.os_version.is_empty() || !same {
            image.os_version.clone_from(&platform.os_version);
        }
        if !platform.os_features.is_empty() {
            image.os_features.clone_from(&platform.os_features);
        }
    }
    ResultEntry {
        output: state.fs,
        config: Some(image),
        ..ResultEntry::default()
    }
}

/// Returns the platforms to build for, each once, in the order given.
fn platforms(input: &LowerInput) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::with_capacity(input.platforms.len());
    for platform in &input.platforms {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    if platforms.is_empty() && !input.build_platform.architecture.is_empty() {
        platforms.push(input.build_platform.clone());
    }
    platforms
}

fn dated(
    input: &LowerInput,
    settings: &Settings,
    dockerfile: &Dockerfile,
    answers: &Answers,
    target: Option<&Target<'_>>,
    findings: &mut Vec<Diagnostic>,
) -> Dated {
    let given = settings.build_args.get(settings::EPOCH).map(String::as_str);
    let (Some(target), Some(value)) = (
        target,
        given.or_else(|| target?.globals.value(settings::EPOCH)),
    ) else {
        return Dated::At(None);
    };
    let (stages, platform) = (&target.stages, &target.platform);
    let read = dating::read(value, input, dockerfile, stages, platform, answers);
    read.unwrap_or_else(|message| {
        findings.push(whole("invalid-epoch", message));
        Dated::At(None)
    })
}

fn summaries(dockerfile: &Dockerfile, targets: &[Target<'_>]) -> Vec<StageSummary> {
    let Some(first) = targets.first() else {
        return Vec::new();
    };
    let stages = first.stages.list.iter().zip(&dockerfile.stages).enumerate();
    stages
        .map(|(index, (stage, ast))| StageSummary {
            name: stage.title.clone(),
            base: stage.base_name.clone(),
            platform: stage.platform_given.then(|| stage.platform.clone()),
            description: ast.description.clone(),
            reachable: targets
                .iter()
                .any(|target| target.reach.stages.contains(&index)),
        })
        .collect()
}

fn unused_build_args(
    settings: &Settings,
    dockerfile: &Dockerfile,
    targets: &[Target<'_>],
) -> Vec<String> {
    let names = |arg: &Arg| -> Vec<String> {
        let words = arg.declarations.iter().map(|declaration| &declaration.name);
        words.map(|name| name.text.to_string()).collect()
    };
    let mut declared: BTreeSet<String> = BTreeSet::new();
    for arg in &dockerfile.global_args {
        declared.extend(names(&arg.kind));
    }
    let own = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions);
    let triggers = targets
        .iter()
        .flat_map(|target| target.reach.triggers.values().flatten())
        .map(|trigger| &trigger.instruction);
    for instruction in own.chain(triggers) {
        match &instruction.kind {
            Kind::Arg(arg) => declared.extend(names(arg)),
            Kind::Onbuild(onbuild) => {
                if let Some(instruction) = &onbuild.instruction
                    && let Kind::Arg(arg) = &instruction.kind
                {
                    declared.extend(names(arg));
                }
            }
            _ => {}
        }
    }
    let is_used = |name: &str| {
        let predefined = targets
            .iter()
            .any(|target| target.globals.value(name).is_some());
        predefined || declared.contains(name) || settings::is_built_in(name)
    };
    let unused = settings.build_args.keys().filter(|name| !is_used(name));
    unused.cloned().collect()
}

/// An error about the build as a whole.
fn whole(code: &'static str, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, Span::default(), message)
}
