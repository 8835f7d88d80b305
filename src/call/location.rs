//! Places and sources as BuildKit's JSON writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_frontend::dockerfile::span::LineRange;
use serde::Serialize;

use crate::Findings;

/// Places in the one source.
#[derive(Serialize)]
pub(super) struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

impl Location {
    /// One range for each line, as BuildKit has it.
    pub(super) fn new(lines: LineRange) -> Location {
        let range = |line| Range {
            start: Position { line },
            end: Position { line },
        };
        Location {
            ranges: (lines.first..=lines.last).map(range).collect(),
        }
    }
}

/// A file that places are in.
#[derive(Serialize)]
pub(super) struct SourceInfo {
    filename: String,
    data: String,
    language: &'static str,
}

impl SourceInfo {
    pub(super) fn new(findings: &Findings) -> SourceInfo {
        SourceInfo {
            filename: findings.file_name.clone(),
            data: base64(&findings.text),
            language: "Dockerfile",
        }
    }
}

/// Bytes as Go writes them in JSON.
pub(super) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// Writes a document with the indentation that BuildKit uses.
pub(super) fn pretty(document: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(document);
    text.expect("BUG: a document of strings and numbers cannot be written")
}
