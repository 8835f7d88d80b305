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

mod mount;

use crate::diagnostic::Diagnostic;
use ast::{Directives, Dockerfile};

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
pub fn parse(_text: &str) -> Parsed {
    Parsed {
        dockerfile: Dockerfile {
            directives: Directives {
                syntax: None,
                escape: '\\',
                check: None,
            },
            global_args: Vec::new(),
            stages: Vec::new(),
        },
        diagnostics: Vec::new(),
    }
}

/// Parses a Dockerfile from bytes; what is not UTF-8 becomes U+FFFD, with an error.
///
/// Returns the text that the spans belong to.
pub fn parse_bytes(bytes: &[u8]) -> (String, Parsed) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let parsed = parse(&text);
    (text, parsed)
}

/// Parses one trigger as an image config stores it, with the default escape character.
///
/// Spans belong to `trigger`.
pub fn parse_trigger(_trigger: &str) -> Result<ast::Instruction, Vec<Diagnostic>> {
    Err(Vec::new())
}
