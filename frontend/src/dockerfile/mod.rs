//! The Dockerfile language: parsing, word expansion, lint rules, and the ignore file.
//!
//! Parsing never fails and never panics: it gives a tree of what could be understood, and every
//! error at once, each with its place.

use serde::Serialize;

pub mod ast;
pub mod expand;
pub mod ignorefile;
pub mod lint;
pub mod span;

mod csv;
mod directive;
mod duration;
mod flags;
mod heredoc;
mod instruction;
mod json;
mod lines;
mod mount;
mod parser;
mod size;
mod split;

pub use arcstr::ArcStr as Source;
pub use kiln_ir::suggest;

use crate::diagnostic::Diagnostic;
use ast::{Dockerfile, Instruction};
use span::Span;

/// What stands for bytes that are not UTF-8.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// A tree, and all that is wrong with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parsed {
    /// What could be understood; an instruction with an error is left out.
    pub dockerfile: Dockerfile,
    /// Errors and warnings in source order, not filtered by `# check=`: see [`lint::filter`].
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Says whether there is an error, so that the tree must not be built.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Finds the front end that a file asks for, whatever else is in it: `# syntax=` or `// syntax=` at
/// its top, or a member `syntax` of a JSON object.
pub fn syntax(text: &str) -> Option<ast::Word> {
    let start = text.len() - text.trim_start_matches('\u{feff}').len();
    directive::syntax(text, start)
}

/// Parses a Dockerfile.
pub fn parse(text: &str) -> Parsed {
    parse_source(&Source::from(text))
}

/// Parses a Dockerfile whose text the tree shares.
pub fn parse_source(text: &Source) -> Parsed {
    parser::parse(text)
}

/// Parses a Dockerfile from bytes; what is not UTF-8 becomes U+FFFD, with an error unless it stands
/// in a comment.
///
/// Returns the text that the spans belong to.
pub fn parse_bytes(bytes: &[u8]) -> (Source, Parsed) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let text = Source::from(text);
        let parsed = parse_source(&text);
        return (text, parsed);
    }
    let text = Source::from(String::from_utf8_lossy(bytes));
    let mut parsed = parse_source(&text);
    if let Some((at, span)) = outside_comments(bytes, &text, &parsed.dockerfile) {
        let message = format!("the file is not UTF-8 at byte {at}");
        let place = parsed
            .diagnostics
            .partition_point(|other| other.span <= span);
        let diagnostic = Diagnostic::error("not-utf8", span, message);
        parsed.diagnostics.insert(place, diagnostic);
    }
    (text, parsed)
}

/// Finds the first byte that is not UTF-8 and no part of a comment, and what `text` has for it.
fn outside_comments(bytes: &[u8], text: &str, dockerfile: &Dockerfile) -> Option<(usize, Span)> {
    let (mut at, mut shown) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        at += chunk.valid().len();
        shown += chunk.valid().len();
        if chunk.invalid().is_empty() {
            continue;
        }
        let line = text[..shown].rfind('\n').map_or(0, |end| end + 1);
        let span = Span::new(shown as u32, (shown + REPLACEMENT.len_utf8()) as u32);
        let is_comment = text[line..].trim_start().starts_with('#');
        if !is_comment || in_heredoc(dockerfile, span) {
            return Some((at, span));
        }
        at += chunk.invalid().len();
        shown += REPLACEMENT.len_utf8();
    }
    None
}

/// Says whether a place is in the body of a heredoc, where nothing is a comment.
fn in_heredoc(dockerfile: &Dockerfile, span: Span) -> bool {
    let instructions = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions);
    instructions
        .flat_map(|instruction| instruction.kind.heredocs())
        .any(|heredoc| heredoc.body_span.start <= span.start && span.end <= heredoc.body_span.end)
}

/// Parses one trigger as an image config stores it, with the default escape character.
///
/// Spans belong to `trigger`. Errors if it is not exactly one instruction that may be a trigger.
pub fn parse_trigger(trigger: &str) -> Result<Instruction, Vec<Diagnostic>> {
    parser::trigger(trigger)
}
