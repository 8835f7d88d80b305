//! Plans shown, without running anything.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_executor::{Resolver, Secrets, words};
use kiln_ir::{NodeId, Op, Plan, PrintOptions, SourceOp};

use crate::delivery::Asker;
use crate::dockerfile::{Source, lower_assuming, lower_resolving};
use crate::{Error, Findings, Kiln, SourceRequest};

/// What is said of an image in its description, and in the text form, where nobody looked at it.
const ASSUMED: (&str, &str) = ("config", "assumed");

/// A plan that was made.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Warnings about the Dockerfile.
    pub findings: Findings,
    /// What a front end from outside says beside that, a line each.
    pub notices: Vec<String>,
    /// The lock, where something of the plan goes by it.
    pub lock: Option<PathBuf>,
    /// Base images whose config was taken to be empty.
    pub assumed: Vec<String>,
    /// Build arguments that nothing declares.
    pub unused_build_args: Vec<String>,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanForm {
    /// One op a line, and nothing that changes no result: comments, stage names and places.
    Text,
    /// The same, with the names of steps and stages as comments.
    NamedText,
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
    pub(crate) fn of(source: Source) -> Planned {
        let Source {
            lowered,
            findings,
            notices,
            lock,
            ..
        } = source;
        let is_locked = !lock.names(&lowered.plan).is_empty();
        let mut plan = lowered.plan;
        let image = |node: &NodeId| match &plan.graph.node(*node).op {
            Op::Source(SourceOp::Image(image)) => Some(image.reference.clone()),
            Op::Source(SourceOp::OciLayout(layout)) => Some(layout.reference.clone()),
            _ => None,
        };
        let mut assumed: Vec<String> = lowered.assumed.iter().filter_map(image).collect();
        for node in &lowered.assumed {
            let (key, value) = ASSUMED;
            let said = &mut plan.display_mut(*node).description;
            said.insert(key.to_owned(), value.to_owned());
        }
        // One image may be there for several platforms.
        let mut seen = BTreeSet::new();
        assumed.retain(|reference| seen.insert(reference.clone()));
        Planned {
            plan,
            findings,
            notices,
            lock: is_locked.then_some(lock.shown),
            assumed,
            unused_build_args: lowered.unused_build_args,
        }
    }

    /// Plans a Dockerfile without asking anybody: a function of the file, its ignore file and the
    /// request alone, so that it is the same on every host.
    ///
    /// So a plan can be tested: its text as a snapshot, and what must hold of it in words.
    ///
    /// ```
    /// use kiln::{Planned, Snapshot, SourceRequest, compare, expect};
    ///
    /// let source = SourceRequest { context: "examples/demo".into(), ..SourceRequest::default() };
    /// let planned = Planned::assuming(&source)?;
    /// // With insta: `insta::assert_snapshot!(planned.write(PlanForm::NamedText))`.
    /// let kept = Snapshot::parse(&std::fs::read_to_string("examples/demo/kiln.plan")?)?;
    /// assert_eq!(compare(&kept.plan, &planned.plan).to_text(), "");
    /// expect::hold(&planned.plan, &["no-whole-context", "at-most-layers 2", "no-runs in final"])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn assuming(request: &SourceRequest) -> Result<Planned, Error> {
        lower_assuming(request).map(Planned::of)
    }

    /// Writes the plan.
    pub fn write(&self, form: PlanForm) -> String {
        match form {
            PlanForm::Text | PlanForm::NamedText => {
                let options = PrintOptions {
                    display: form == PlanForm::NamedText,
                    pins: true,
                };
                let mut text = kiln_ir::print(&self.plan, options);
                let (key, value) = ASSUMED;
                for reference in &self.assumed {
                    text.push_str(&format!("# {reference}: {key}={value}\n"));
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
            cancel: request.frontends.cancel.clone(),
            ..Asker::new(
                Arc::new(Resolver::new(&self.executor).without_layers()),
                Secrets::default(),
            )
        };
        let source = tokio::select! {
            source = lower_resolving(request, &asker) => source?,
            () = asker.stopped() => return Err(Error::Cancelled),
        };
        let mut planned = Planned::of(source);
        asker.pin_remotes(&mut planned.plan).await?;
        Ok(planned)
    }
}

/// Reads a plan in its text or JSON form.
pub fn read_plan(text: &str) -> Result<Plan, Error> {
    let refused = |message: String| Error::Plan { message };
    let plan = if text.trim_start().starts_with('{') {
        kiln_ir::json::from_json(text).map_err(|error| refused(words(&error)))?
    } else {
        kiln_ir::parse(text).map_err(|error| refused(words(&error)))?
    };
    plan.validate().map_err(|error| refused(words(&error)))?;
    Ok(plan)
}
