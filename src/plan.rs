//! Plans shown, without running anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_executor::{Resolver, Secrets};
use kiln_ir::{Op, Plan, PrintOptions, SourceOp};

use crate::delivery::Asker;
use crate::dockerfile::{Source, lower_assuming, lower_resolving};
use crate::{Error, Findings, Kiln, SourceRequest};

/// A plan that was made.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Warnings about the Dockerfile.
    pub findings: Findings,
    /// Base images whose config was taken to be empty.
    pub assumed: Vec<String>,
    /// Build arguments that nothing declares.
    pub unused_build_args: Vec<String>,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanForm {
    /// One op a line.
    Text,
    /// The documented interchange form.
    Json,
    /// For graphviz.
    Dot,
    /// A Mermaid flowchart.
    Mermaid,
    /// A picture.
    Svg,
}

impl Planned {
    fn of(source: Source) -> Planned {
        let Source {
            lowered, findings, ..
        } = source;
        let image = |node| match &lowered.plan.graph.node(node).op {
            Op::Source(SourceOp::Image(image)) => Some(image.reference.clone()),
            _ => None,
        };
        let mut assumed: Vec<String> = lowered
            .assumed
            .iter()
            .filter_map(|node| image(*node))
            .collect();
        // One image may be there for several platforms.
        let mut seen = BTreeSet::new();
        assumed.retain(|reference| seen.insert(reference.clone()));
        Planned {
            plan: lowered.plan,
            findings,
            assumed,
            unused_build_args: lowered.unused_build_args,
        }
    }

    /// Plans a Dockerfile without asking anybody: a function of the file, the arguments and the
    /// platform alone.
    pub fn assuming(request: &SourceRequest) -> Result<Planned, Error> {
        lower_assuming(request).map(Planned::of)
    }

    /// Writes the plan.
    pub fn write(&self, form: PlanForm) -> String {
        match form {
            PlanForm::Text => {
                let options = PrintOptions {
                    display: true,
                    pins: true,
                };
                let mut text = kiln_ir::print(&self.plan, options);
                for reference in &self.assumed {
                    text.push_str(&format!("# {reference}: config=assumed\n"));
                }
                text
            }
            PlanForm::Json => kiln_ir::json::to_json(&self.plan),
            PlanForm::Dot => kiln_ir::picture::to_dot(&self.plan),
            PlanForm::Mermaid => kiln_ir::picture::to_mermaid(&self.plan),
            PlanForm::Svg => kiln_ir::picture::to_svg(&self.plan),
        }
    }
}

impl Kiln {
    /// Plans a Dockerfile with what store and registries say of its base images, and pins what it
    /// takes from elsewhere.
    pub async fn plan_resolved(&self, request: &SourceRequest) -> Result<Planned, Error> {
        let asker = Asker {
            resolver: Arc::new(Resolver::new(&self.executor)),
            secrets: Secrets::default(),
        };
        let mut planned = Planned::of(lower_resolving(request, &asker).await?);
        asker.pin_remotes(&mut planned.plan).await?;
        Ok(planned)
    }
}
