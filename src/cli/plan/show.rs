//! `kiln plan`: the plan of a Dockerfile, written in some form.

use std::process::ExitCode;

use kiln::{Entitlement, PlanForm, Planned, SourceRequest, pull_words};

use super::args::{PlanArgs, PlanFormat};
use crate::cli::build::{source_request, stated_request};
use crate::cli::host::{self, Needs};
use crate::cli::{Done, Failure, print, report, spec, trust};

pub(super) fn show(args: &PlanArgs) -> Done {
    if args.names && args.format != PlanFormat::Text {
        report::usage(
            "`--names` is for the text form",
            Some("the other forms have the names anyway"),
        );
        return Err(Failure::Told(2));
    }
    let looks = args.resolve || args.would_run;
    let mut request = match looks {
        true => source_request(&args.source)?,
        false => stated_request(&args.source)?,
    };
    complete(args, &mut request)?;
    if args.would_run {
        return would_run(args, &request);
    }
    let planned = if looks {
        let needs = match request.needs_layers() {
            true => Needs::Layers,
            false => Needs::Records,
        };
        let kiln = host::open(needs, &args.source)?;
        host::runtime()?.block_on(kiln.plan_resolved(&request))?
    } else {
        Planned::assuming(&request)?
    };
    warn(args, &planned);
    print(&planned.write(match args.format {
        PlanFormat::Text if args.names => PlanForm::NamedText,
        PlanFormat::Text => PlanForm::Text,
        PlanFormat::Json => PlanForm::Json,
        PlanFormat::Dot => PlanForm::Dot,
        PlanFormat::Mermaid => PlanForm::Mermaid,
        PlanFormat::Svg => PlanForm::Svg,
    }))
}

fn would_run(args: &PlanArgs, request: &SourceRequest) -> Done {
    if !matches!(args.format, PlanFormat::Text | PlanFormat::Json) {
        report::usage(
            "`--would-run` writes text and json only",
            Some("leave `--format` out"),
        );
        return Err(Failure::Told(2));
    }
    // Files of layers are looked into where keys need them.
    let kiln = host::open(Needs::Layers, &args.source)?;
    let foresight = host::runtime()?.block_on(kiln.would_run(request))?;
    warn(args, &foresight.planned);
    let done = print(&match args.format {
        PlanFormat::Json => foresight.json(),
        _ => foresight.text(args.names),
    })?;
    Ok(match foresight.would_run() {
        true => ExitCode::from(1),
        false => done,
    })
}

/// Adds what only planning is told.
pub(super) fn complete(args: &PlanArgs, request: &mut SourceRequest) -> Result<(), Failure> {
    request.build_platform = spec::platform("--build-platform", args.build_platform.as_deref())?;
    let allowed = trust::allow(&args.allow)?;
    request.frontends.allow_exec = allowed.contains(&Entitlement::FrontendExec);
    if request.has_outside_frontend() {
        host::stop_on_signals(request.frontends.cancel.clone())?;
    }
    Ok(())
}

/// Tells what is doubtful about a plan.
pub(super) fn warn(args: &PlanArgs, planned: &Planned) {
    report::findings(&planned.findings);
    for line in &planned.notices {
        report::warning(line);
    }
    if let Some(lock) = planned.lock.as_ref().filter(|_| args.source.pull) {
        report::warning(&pull_words(lock));
    }
    for name in &planned.unused_build_args {
        report::warning(&format!("no ARG declares the build argument `{name}`"));
    }
}
