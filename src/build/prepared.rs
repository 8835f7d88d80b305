//! What is to be solved, wherever it came from: a Dockerfile, another front end, or a plan.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kiln_executor::Locals;
use kiln_frontend::lower::Scan;
use kiln_ir::Plan;

use crate::cache::in_context;
use crate::delivery::{Asker, Place};
use crate::dockerfile::lower_resolving;
use crate::ignore::IgnoreFile;
use crate::lock::LockFile;
use crate::plan::read_plan;
use crate::{BuildRequest, ContextRequest, Error, Kiln, Warnings};

/// What is to be solved, wherever it came from.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) locals: Locals,
    pub(super) lineage: String,
    pub(super) declared_args: BTreeSet<String>,
    pub(super) shown_file: String,
    pub(super) warnings: Warnings,
    /// The context as people know it.
    pub(super) context: String,
    pub(super) source_date_epoch: Option<i64>,
    /// What was brought here is kept until the build is done.
    pub(super) place: Option<Place>,
    pub(super) ignore: Option<IgnoreFile>,
    pub(super) lock: LockFile,
    /// What is scanned for software beside the results; none is known of what is no Dockerfile.
    pub(super) scans: Option<Vec<Scan>>,
}

impl Kiln {
    pub(super) async fn prepare(
        &self,
        request: &BuildRequest,
        asker: &Asker,
    ) -> Result<Prepared, Error> {
        match &request.plan {
            None => {
                let source = lower_resolving(&request.source, asker).await?;
                // Other front ends say nothing of stages.
                let is_dockerfile = !source.lowered.stages.is_empty();
                let mut notices = source.notices;
                notices.extend(in_context(request, &source.place, source.ignore.as_ref()));
                Ok(Prepared {
                    scans: is_dockerfile.then_some(source.lowered.scans),
                    plan: source.lowered.plan,
                    locals: source.locals,
                    lineage: source.lineage,
                    declared_args: source.declared_args,
                    shown_file: source.shown_file,
                    warnings: Warnings {
                        findings: Some(source.findings),
                        notices,
                        unused_build_args: source.lowered.unused_build_args,
                    },
                    context: source.place.shown.clone(),
                    source_date_epoch: source.lowered.source_date_epoch,
                    place: Some(source.place),
                    ignore: source.ignore,
                    lock: source.lock,
                })
            }
            Some(text) => prepare_plan(text, request),
        }
    }
}

/// Reads a plan in text or JSON form; its local sources are the contexts that were given.
fn prepare_plan(text: &str, request: &BuildRequest) -> Result<Prepared, Error> {
    if request.source.delivery.is_some() {
        return Err(Error::Usage {
            message: "a plan takes a directory as its context".to_owned(),
            hint: Some("a plan names its repositories itself".to_owned()),
        });
    }
    let plan = read_plan(text)?;
    let mut locals = Locals::default();
    locals
        .directories
        .insert("context".to_owned(), request.source.context.clone());
    for (name, context) in &request.source.contexts {
        match context {
            ContextRequest::Directory(path) => {
                locals.directories.insert(name.clone(), path.clone());
            }
            ContextRequest::OciLayout { path, .. } => {
                locals.layouts.insert(name.clone(), path.clone());
            }
            ContextRequest::Image(reference) | ContextRequest::Url(reference) => {
                return Err(Error::Usage {
                    message: format!(
                        "the context `{name}` is no directory (`{reference}`), and a plan names its images and repositories itself"
                    ),
                    hint: None,
                });
            }
        }
    }
    let canonical = request
        .source
        .context
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from("."));
    Ok(Prepared {
        plan,
        locals,
        lineage: format!("{}\nplan", canonical.display()),
        declared_args: BTreeSet::new(),
        shown_file: "plan".to_owned(),
        warnings: Warnings::default(),
        context: request.source.context.display().to_string(),
        source_date_epoch: request.source.source_date_epoch,
        place: None,
        ignore: None,
        lock: LockFile::default(),
        scans: None,
    })
}
