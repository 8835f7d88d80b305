//! Directives: `# name=value` lines at the top of the file.

use super::ast::{Check, Directives, Word};
use super::lines::{Lines, Physical};
use super::lint::CheckConfig;
use super::span::Span;
use crate::diagnostic::Diagnostic;

/// Reads directives line by line until something else comes.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) directives: Directives,
    seen: Vec<&'static str>,
    done: bool,
}

/// The names that are directives.
const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

impl Reader {
    pub(super) fn new() -> Self {
        Reader {
            directives: Directives {
                syntax: None,
                escape: '\\',
                check: None,
            },
            seen: Vec::new(),
            done: false,
        }
    }

    /// Takes the next physical line, and says whether it is a directive.
    pub(super) fn line(&mut self, line: Physical<'_>, diagnostics: &mut Vec<Diagnostic>) -> bool {
        if self.done {
            return false;
        }
        let Some((name, value)) = directive(line, "#") else {
            self.done = true;
            return false;
        };
        if self.seen.contains(&name) {
            diagnostics.push(Diagnostic::error(
                "duplicate-directive",
                line.span(),
                format!("only one {name} parser directive can be used"),
            ));
            return true;
        }
        self.seen.push(name);
        match name {
            "escape" => match value.text.as_str() {
                "\\" => self.directives.escape = '\\',
                "`" => self.directives.escape = '`',
                other => diagnostics.push(Diagnostic::error(
                    "invalid-escape",
                    value.span,
                    format!("invalid escape token '{other}' does not match ` or \\"),
                )),
            },
            "check" => match CheckConfig::parse(&value.text) {
                Ok(config) => {
                    self.directives.check = Some(Check {
                        config,
                        span: value.span,
                    });
                }
                Err(message) => {
                    diagnostics.push(Diagnostic::error("invalid-check", value.span, message));
                }
            },
            _ => {}
        }
        true
    }
}

/// Reads a line as a directive in comments that begin with `mark`.
fn directive(line: Physical<'_>, mark: &str) -> Option<(&'static str, Word)> {
    let text = line.text.trim_start().strip_prefix(mark)?.trim_start();
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric())?;
    let (name, rest) = text.split_at(end);
    let value = rest.trim_start().strip_prefix('=')?.trim();
    let name = KNOWN
        .into_iter()
        .find(|known| name.eq_ignore_ascii_case(known))?;
    if value.is_empty() {
        return None;
    }
    let end = line.start + line.text.trim_end().len();
    Some((
        name,
        Word {
            text: value.into(),
            span: Span::new((end - value.len()) as u32, end as u32),
        },
    ))
}

/// Finds the frontend that `text` asks for: in a directive, in a directive after `//`, or in a
/// JSON object; a `#!` line before it is skipped. `at` is where the text begins after its mark.
pub(super) fn syntax(text: &str, at: usize) -> Option<Word> {
    let mut lines = Lines::new(text, at);
    let start = match lines.next() {
        Some(line) if line.text.starts_with("#!") => lines.offset(),
        _ => at,
    };
    marked_syntax(text, start, "#")
        .or_else(|| marked_syntax(text, start, "//"))
        .or_else(|| json_syntax(text, start))
}

fn marked_syntax(text: &str, start: usize, mark: &str) -> Option<Word> {
    let mut lines = Lines::new(text, start);
    loop {
        let line = lines.next()?;
        // Only a mark in the first column asks for another frontend.
        let (name, mut value) = directive(line, mark).filter(|_| line.text.starts_with(mark))?;
        if name == "syntax" {
            let length = value.text.find(' ').unwrap_or(value.text.len());
            value.text = value.text.substr(..length);
            value.span.end = value.span.start + length as u32;
            return Some(value);
        }
    }
}

fn json_syntax(text: &str, start: usize) -> Option<Word> {
    let text = &text[start..];
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    Some(Word {
        text: object.get("syntax")?.as_str()?.into(),
        span: Span::new(start as u32, (start + text.len()) as u32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = syntax(text, 0).map(|word| word.text);
        assert_eq!(found.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn detects_syntax() {
        check("# syntax=a/b:1\nFROM x", Some("a/b:1"));
        check("#syntax = a\n", Some("a"));
        check("# SYNTAX=a\n", Some("a"));
        check("# syntax=a b c\n", Some("a"));
        check("# escape=`\n# syntax=a\n", Some("a"));
        check("#!/bin/x\n# syntax=a\n", Some("a"));
        check("// syntax=a\n", Some("a"));
        check("#!/bin/x\n// syntax=a\n", Some("a"));
        check("{\"syntax\": \"a\"}", Some("a"));
        check("{\"syntax\": 1}", None);
        check("{\"other\": \"a\"}", None);
        check("{", None);
        check("\n# syntax=a\n", None);
        check("# comment\n# syntax=a\n", None);
        check("FROM x\n# syntax=a\n", None);
        check("# syntax=\n", None);
        check(" # syntax=a\n", None);
        check("", None);
    }
}
