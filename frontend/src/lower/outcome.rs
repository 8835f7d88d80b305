//! What a lowering ends in.

use kiln_ir::{NodeId, Plan, Platform, SourceOp};

use super::answer::Question;
use super::outline::Outline;
use super::scan::Scan;
use crate::diagnostic::Diagnostic;

/// The end of one round of lowering.
#[derive(Clone, Debug)]
pub enum Lowering {
    /// There is a plan.
    Lowered(Box<Lowered>),
    /// These must be answered first; sorted, none of them answered yet, never empty.
    Needs(Vec<Question>),
    /// There is nothing to build: at least one of the diagnostics is an error.
    Failed(Vec<Diagnostic>),
}

/// A plan, and what is worth knowing about it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The plan; its results are keyed by platform, or "" if one was asked for.
    pub plan: Plan,
    /// Warnings in source order, filtered by the file's `check` settings.
    pub diagnostics: Vec<Diagnostic>,
    /// The stages in source order.
    pub stages: Vec<StageSummary>,
    /// Index of the stage that is built.
    pub target: usize,
    /// What the build can be given, for the first platform.
    pub outline: Outline,
    /// What is scanned beside the results, where an SBOM is made; it is no goal of the plan.
    pub scans: Vec<Scan>,
    /// What the lowered stages take from git and over http, whether the result needs it or not.
    pub remotes: Vec<SourceOp>,
    /// Image nodes whose config was assumed.
    pub assumed: Vec<NodeId>,
    /// Build arguments that nothing declares, sorted.
    pub unused_build_args: Vec<String>,
    /// The one time of everything made, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

/// One stage, as lists of targets show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSummary {
    /// The name as written, or `stage-N`.
    pub name: String,
    /// The base with arguments expanded: an image, a stage or `scratch`.
    pub base: String,
    /// The platform, where `--platform` names one.
    pub platform: Option<Platform>,
    /// The text of the comment above FROM.
    pub description: Option<String>,
    /// Whether the plan holds it.
    pub reachable: bool,
}
