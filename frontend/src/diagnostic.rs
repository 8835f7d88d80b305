//! What a frontend has to say about its input, as data; the command draws it.

use serde::Serialize;

use crate::dockerfile::lint::Rule;
use crate::dockerfile::span::Span;
use crate::remedy;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The input works, but probably not as meant.
    Warning,
    /// There is nothing to build.
    Error,
}

/// One finding, with its place in the source text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the build can go on.
    pub severity: Severity,
    /// A lint rule's name (`StageNameCasing`), or a kebab-case name of the error.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
    /// What the message is about.
    pub span: Span,
    /// Other places that explain it.
    pub labels: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
    /// Where the rule is described.
    pub url: Option<String>,
}

impl Diagnostic {
    /// Returns an error, with the way out that its code has.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            labels: Vec::new(),
            help: remedy::of_error(code).map(str::to_owned),
            url: None,
        }
    }

    /// Returns a warning of a lint rule, with the rule's way out and its page.
    pub fn lint(rule: Rule, span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Warning,
            code: rule.name(),
            message: message.into(),
            span,
            labels: Vec::new(),
            help: Some(remedy::of_rule(rule).to_owned()),
            url: rule.url(),
        }
    }

    /// Adds a place that explains the finding.
    #[must_use]
    pub fn with_label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    /// Says better what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says whether the build cannot go on.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
