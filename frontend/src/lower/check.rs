//! Which warnings are wanted, and whether they fail the build.

use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Dockerfile, Stage};
use crate::dockerfile::lint::{self, CheckConfig, Rule};
use crate::dockerfile::span::Span;

/// Returns the settings: the build argument's, or else the file's. The error is a whole message.
pub(super) fn config(given: Option<&str>, dockerfile: &Dockerfile) -> Result<CheckConfig, String> {
    match (given, &dockerfile.directives.check) {
        (Some(text), _) => CheckConfig::parse(text).map_err(|reason| {
            format!("build argument `BUILDKIT_DOCKERFILE_CHECK` is `{text}`: {reason}")
        }),
        (None, Some(check)) => Ok(check.config.clone()),
        (None, None) => Ok(CheckConfig::default()),
    }
}

/// Drops what is not wanted, puts the rest in source order, each finding once, and adds an error
/// where warnings are not let pass.
///
/// `unreached` are the bodies of stages that the build does not need: these are not checked.
pub(super) fn settle(
    mut findings: Vec<Diagnostic>,
    config: &CheckConfig,
    dockerfile: &Dockerfile,
    unreached: &[Span],
) -> Vec<Diagnostic> {
    let in_unreached = |finding: &Diagnostic| {
        unreached
            .iter()
            .any(|stage| stage.start <= finding.span.start && finding.span.start < stage.end)
    };
    let about_body =
        |finding: &Diagnostic| Rule::named(finding.code).is_some_and(Rule::is_about_bodies);
    findings.retain(|finding| finding.is_error() || !about_body(finding) || !in_unreached(finding));
    let mut findings = lint::filter(findings, config, dockerfile);
    sort(&mut findings);
    if config.error {
        let mut rules: Vec<&str> = findings
            .iter()
            .filter(|finding| !finding.is_error() && Rule::named(finding.code).is_some())
            .map(|finding| finding.code)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        if !rules.is_empty() {
            let message = format!("lint violation found for rules: {}", rules.join(", "));
            findings.push(Diagnostic::error(
                "lint-violation",
                Span::default(),
                message,
            ));
        }
    }
    findings
}

/// Source order, each finding once: several platforms find the same things.
fn sort(findings: &mut Vec<Diagnostic>) {
    fn key(finding: &Diagnostic) -> (Span, bool, &str, &str) {
        (
            finding.span,
            !finding.is_error(),
            finding.code,
            &finding.message,
        )
    }
    findings.sort_by(|one, two| key(one).cmp(&key(two)));
    findings.dedup_by(|one, two| key(one) == key(two));
}

/// Returns where the instructions after a stage's FROM are.
pub(super) fn body_span(stage: &Stage) -> Span {
    let start = stage.from.span.end;
    let end = stage
        .instructions
        .last()
        .map_or(start, |last| last.span.end);
    Span::new(start, end.max(start))
}
