//! `kiln plan`: the plan of a Dockerfile, written in some form.

use kiln::{DockerfileRequest, PlanForm, Planned};

use super::args::{PlanArgs, PlanFormat};
use crate::cli::build::source_request;
use crate::cli::host::{self, Needs};
use crate::cli::{Done, print, report};

pub(super) fn show(args: &PlanArgs) -> Done {
    let request = source_request(&args.source)?;
    let planned = if args.resolve {
        // What is brought here becomes a layer.
        let brings = request.delivery.is_some()
            || matches!(request.dockerfile, Some(DockerfileRequest::Url(_)));
        let needs = match brings {
            true => Needs::Layers,
            false => Needs::Records,
        };
        let kiln = host::open(needs, args.source.offline)?;
        host::runtime()?.block_on(kiln.plan_resolved(&request))?
    } else {
        Planned::assuming(&request)?
    };
    report::findings(&planned.findings);
    for name in &planned.unused_build_args {
        report::warning(&format!("no ARG declares the build argument `{name}`"));
    }
    print(&planned.write(match args.format {
        PlanFormat::Text => PlanForm::Text,
        PlanFormat::Json => PlanForm::Json,
        PlanFormat::Dot => PlanForm::Dot,
        PlanFormat::Mermaid => PlanForm::Mermaid,
        PlanFormat::Svg => PlanForm::Svg,
    }))
}
