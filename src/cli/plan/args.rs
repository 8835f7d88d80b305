//! What can be said after `kiln plan`.

use clap::{Args, ValueEnum};

use crate::cli::args::SourceArgs;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// One op a line; `kiln build --plan` reads it
    Text,
    /// The documented interchange form
    Json,
    /// For graphviz
    Dot,
    /// A flowchart that forges show in Markdown
    Mermaid,
    /// A picture for a browser, stages in frames and the critical path marked
    Svg,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to write it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: PlanFormat,
    /// Ask store and registry for base images instead of assuming empty configs
    #[arg(long)]
    pub(crate) resolve: bool,
}
