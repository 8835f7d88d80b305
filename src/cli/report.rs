//! Errors and diagnostics on standard error, drawn like a good compiler's.

use std::error::Error as _;
use std::io::{IsTerminal, Write};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use kiln::diagnostic::{Diagnostic, Severity};
use kiln::span::{LineIndex, Span};
use kiln::{Error, FailedStep, Findings, LockError};

use super::progress::{colours, words_plain, words_visible};

/// Findings that are drawn with their lines.
const MOST_FINDINGS: usize = 100;

/// Writes an error with its causes and its way out.
pub(crate) fn error(error: &Error) {
    let text = match error {
        Error::Dockerfile(findings) => draw_findings(findings, paint()),
        Error::Files(files) => files
            .iter()
            .map(|file| draw_findings(file, paint()))
            .collect(),
        Error::Frontend(failure) => {
            let output = draw_output(&failure.output);
            format!("{}{output}", draw_causes(error))
        }
        Error::Steps(steps) | Error::StepsLack(steps) => {
            steps.iter().map(|step| draw_step(step, paint())).collect()
        }
        Error::Lock(LockError::Missing { missing, .. }) => {
            let names = missing
                .iter()
                .map(|name| format!("  {}\n", words_visible(name)));
            draw_causes(error) + &names.collect::<String>()
        }
        other => draw_causes(other),
    };
    let hint = error
        .hint()
        .map(|hint| format!("hint: {hint}\n"))
        .unwrap_or_default();
    say(&format!("{text}{hint}"));
}

/// What there is to say about an error, without colours.
pub(crate) fn text(error: &Error) -> String {
    match error {
        Error::Dockerfile(findings) => draw_findings(findings, false),
        other => {
            let mut text = other.to_string();
            let mut cause = other.source();
            while let Some(error) = cause {
                text.push_str(&format!("\n  because: {error}"));
                cause = error.source();
            }
            text.split('\n')
                .map(words_visible)
                .collect::<Vec<_>>()
                .join("\n")
        }
    }
}

/// Writes what was done, where standard output has something else.
pub(crate) fn note(message: &str) {
    say(&format!("{}\n", words_visible(message)));
}

/// Writes warnings.
pub(crate) fn findings(findings: &Findings) {
    if !findings.diagnostics.is_empty() {
        say(&draw_findings(findings, paint()));
    }
}

/// Writes an error that only the command line knows.
pub(crate) fn usage(message: &str, hint: Option<&str>) {
    let hint = hint
        .map(|hint| format!("hint: {hint}\n"))
        .unwrap_or_default();
    say(&format!("{} {message}\n{hint}", label("error:")));
}

/// Writes a warning that has no place in a file.
pub(crate) fn warning(message: &str) {
    say(&format!("{} {message}\n", label("warning:")));
}

fn paint() -> bool {
    colours(std::io::stderr().is_terminal())
}

/// A word in bold: `error:` in red, anything else in yellow, as in findings.
fn label(text: &str) -> String {
    if paint() {
        let colour = if text == "error:" { 31 } else { 33 };
        format!("\x1b[1;{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes());
}

fn draw_causes(error: &Error) -> String {
    let mut text = format!(
        "{} {}\n",
        label("error:"),
        words_visible(&error.to_string())
    );
    let mut last = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if words != last {
            text.push_str(&format!("  because: {}\n", words_visible(&words)));
        }
        last = words;
        cause = error.source();
    }
    text
}

fn renderer(colours: bool) -> Renderer {
    let renderer = if colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.decor_style(DecorStyle::Ascii)
}

fn draw_findings(findings: &Findings, colours: bool) -> String {
    draw(findings, colours, |_| None)
}

/// Draws findings, each with the page that describes it.
pub(crate) fn findings_with_links(findings: &Findings, colours: bool) -> String {
    draw(findings, colours, |diagnostic| diagnostic.url.as_deref())
}

/// Draws findings, each with its note; of very many the first, and how many more there are.
fn draw(findings: &Findings, colours: bool, note: impl Fn(&Diagnostic) -> Option<&str>) -> String {
    let renderer = renderer(colours);
    let index = LineIndex::new(&findings.text);
    let mut text = String::new();
    let shown = worth_showing(&findings.diagnostics);
    for diagnostic in &shown {
        let mut group = group(findings, &index, diagnostic);
        if let Some(note) = note(diagnostic) {
            group = group.element(Level::NOTE.message(note));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    let more = findings.diagnostics.len() - shown.len();
    if more > 0 {
        let all = "`kiln build --check --format sarif` lists all";
        text.push_str(&format!("and {more} more; {all}\n\n"));
    }
    text
}

/// As many findings as somebody reads, in their order: errors before warnings.
fn worth_showing(all: &[Diagnostic]) -> Vec<&Diagnostic> {
    let errors = all.iter().filter(|finding| finding.is_error()).count();
    let (mut errors, mut warnings) = (MOST_FINDINGS, MOST_FINDINGS.saturating_sub(errors));
    let fits = |finding: &&Diagnostic| {
        let left = match finding.is_error() {
            true => &mut errors,
            false => &mut warnings,
        };
        let fits = *left > 0;
        *left -= usize::from(fits);
        fits
    };
    all.iter().filter(fits).collect()
}

fn group<'a>(findings: &'a Findings, index: &LineIndex, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    // Only the lines that are shown: a renderer looks at all that it is given, for each finding.
    let labels = diagnostic.labels.iter().map(|(span, _)| *span);
    let all = labels.fold(diagnostic.span, Span::join);
    let (from, lines) = lines_of(&findings.text, all);
    let place = |span: Span| {
        let within = |offset: u32| (offset as usize).saturating_sub(from).min(lines.len());
        within(span.start)..within(span.end)
    };
    let primary: Annotation<'a> = AnnotationKind::Primary.span(place(diagnostic.span));
    let title = level
        .primary_title(diagnostic.message.as_str())
        .id(diagnostic.code);
    let mut snippet = Snippet::source(lines)
        .line_start(index.line(from as u32) as usize)
        .path(findings.file_name.as_str())
        .annotation(primary);
    for (span, words) in &diagnostic.labels {
        let context = AnnotationKind::Context.span(place(*span));
        snippet = snippet.annotation(context.label(words.as_str()));
    }
    // What is about no file has no place to show.
    let mut group = match findings.file_name.is_empty() {
        true => Group::with_title(title),
        false => title.element(snippet),
    };
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// Returns the whole lines that a span touches, and where they begin.
fn lines_of(text: &str, span: Span) -> (usize, &str) {
    let start = (span.start as usize).min(text.len());
    let end = (span.end as usize).clamp(start, text.len());
    let (before, after) = (&text.as_bytes()[..start], &text.as_bytes()[end..]);
    let is_break = |byte: &u8| *byte == b'\n';
    let from = before.iter().rposition(is_break).map_or(0, |at| at + 1);
    let to = after.iter().position(is_break);
    (from, &text[from..to.map_or(text.len(), |at| end + at + 1)])
}

fn draw_output(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines
        .iter()
        .map(|line| format!("  | {}\n", words_plain(line)))
        .collect();
    format!("the end of its output:\n{lines}")
}

fn draw_step(step: &FailedStep, colours: bool) -> String {
    let title = words_visible(&format!("`{}` failed: {}", step.text, step.failure));
    let mut text = match &step.written {
        Some((file, line, lines)) => {
            let source = lines.join("\n");
            let snippet = Snippet::source(source.as_str())
                .line_start(*line as usize)
                .path(file.as_str())
                .annotation(AnnotationKind::Primary.span(0..source.len()));
            let group = Level::ERROR.primary_title(title.as_str()).element(snippet);
            format!("{}\n", renderer(colours).render(&[group]))
        }
        None => format!("{} {title}\n", label("error:")),
    };
    for cause in &step.causes {
        text.push_str(&format!("  because: {}\n", words_visible(cause)));
    }
    text.push_str(&draw_output(&step.output));
    if let Some(hint) = &step.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, start: u32, end: u32, expected: (usize, &str)) {
        let found = lines_of(text, Span::new(start, end));
        assert_eq!(found, expected, "{start}..{end} of {text:?}");
    }

    #[test]
    fn lines_that_are_shown() {
        check("a\nbc\nd\n", 2, 3, (2, "bc\n"));
        check("a\nbc\nd\n", 3, 6, (2, "bc\nd\n"));
        check("a\nbc\nd\n", 0, 0, (0, "a\n"));
        check("a\nbc", 4, 4, (2, "bc"));
        check("a\n", 2, 2, (2, ""));
        check("é\nü", 1, 9, (0, "é\nü"));
        check("", 3, 5, (0, ""));
    }
}
