//! Which warnings are wanted, and whether they fail the build.

use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Dockerfile, Stage};
use crate::dockerfile::lint::{self, CheckConfig, Rule};
use crate::dockerfile::span::Span;

/// Returns the settings: the file's, with what the build argument names in their place. The error
/// is a whole message.
pub(super) fn config(given: Option<&str>, dockerfile: &Dockerfile) -> Result<CheckConfig, String> {
    let own = dockerfile.directives.check.as_ref();
    let own = own.map_or_else(CheckConfig::default, |check| check.config.clone());
    match given {
        None => Ok(own),
        Some(text) => own.changed(text).map_err(|reason| {
            format!("build argument `BUILDKIT_DOCKERFILE_CHECK` is `{text}`: {reason}")
        }),
    }
}

/// Drops what is not wanted, puts the rest in source order, each finding once, and adds an error
/// where warnings are not let pass.
///
/// `unreached` are the bodies of stages that the build does not need, in source order: these are not
/// checked.
pub(super) fn settle(
    mut findings: Vec<Diagnostic>,
    config: &CheckConfig,
    dockerfile: &Dockerfile,
    unreached: &[Span],
) -> Vec<Diagnostic> {
    let in_unreached = |finding: &Diagnostic| {
        let at = finding.span.start;
        let after = unreached.partition_point(|stage| stage.start <= at);
        after > 0 && at < unreached[after - 1].end
    };
    let about_body =
        |finding: &Diagnostic| Rule::named(finding.code).is_some_and(Rule::is_about_bodies);
    findings.retain(|finding| finding.is_error() || !about_body(finding) || !in_unreached(finding));
    let mut findings = lint::filter(findings, config, dockerfile);
    sort(&mut findings);
    if config.error {
        let violations = || {
            let is_lint =
                |finding: &&Diagnostic| !finding.is_error() && Rule::named(finding.code).is_some();
            findings.iter().filter(is_lint)
        };
        let mut rules: Vec<&str> = violations().map(|finding| finding.code).collect();
        rules.sort_unstable();
        rules.dedup();
        if let Some(first) = violations().next() {
            let message = format!("lint violation found for rules: {}", rules.join(", "));
            let mut error = Diagnostic::error("lint-violation", first.span, message);
            if let Some(check) = &dockerfile.directives.check
                && check.config.error
            {
                error = error.with_label(check.span, "warnings fail the build because of this");
            }
            findings.push(error);
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
