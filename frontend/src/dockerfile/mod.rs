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
pub mod suggest;

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

use crate::diagnostic::Diagnostic;
use ast::{Dockerfile, Instruction};
use span::Span;

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

/// Parses a Dockerfile.
pub fn parse(text: &str) -> Parsed {
    parser::parse(text)
}

/// Parses a Dockerfile from bytes; what is not UTF-8 becomes U+FFFD, with an error.
///
/// Returns the text that the spans belong to.
pub fn parse_bytes(bytes: &[u8]) -> (String, Parsed) {
    let Err(error) = std::str::from_utf8(bytes) else {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let parsed = parse(&text);
        return (text, parsed);
    };
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut parsed = parse(&text);
    let start = u32::try_from(error.valid_up_to()).unwrap_or(0);
    let span = Span::new(start, start + char::REPLACEMENT_CHARACTER.len_utf8() as u32);
    let message = format!("the file is not UTF-8 at byte {}", error.valid_up_to());
    let place = parsed
        .diagnostics
        .partition_point(|other| other.span <= span);
    let diagnostic = Diagnostic::error("not-utf8", span, message);
    parsed.diagnostics.insert(place, diagnostic);
    (text, parsed)
}

/// Parses one trigger as an image config stores it, with the default escape character.
///
/// Spans belong to `trigger`. Errors if it is not exactly one instruction that may be a trigger.
pub fn parse_trigger(trigger: &str) -> Result<Instruction, Vec<Diagnostic>> {
    parser::trigger(trigger)
}
