//! Heredocs: markers such as `<<-"EOF"` in a line, and the bodies below it.

use arcstr::ArcStr;

use super::ast::{Heredoc, Text, Word};
use super::expand::{Expander, Expansion};
use super::lines::{Lines, Logical};
use super::span::Span;

/// What a marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The delimiter without quotes.
    pub(super) name: String,
    descriptor: u32,
    expand: bool,
    strip_tabs: bool,
}

/// Reads a word as a marker: digits, `<<`, perhaps a dash, and one word without `<`.
pub(super) fn marker(word: &str) -> Option<Marker> {
    let digits = word.len()
        - word
            .trim_start_matches(|letter: char| letter.is_ascii_digit())
            .len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let (name, expand) = match Expander::new('\\').is_plain(rest) {
        true => (rest.to_owned(), true),
        false => {
            let name = sole(lex(rest, false))?;
            let quoted = sole(lex(rest, true))?;
            let expand = quotes(&name) == quotes(&quoted);
            (name, expand)
        }
    };
    Some(Marker {
        expand,
        name,
        descriptor: word[..digits].parse().unwrap_or(0),
        strip_tabs,
    })
}

/// Splits into words, whatever the escape character of the file is; a broken quote has no words.
fn lex(text: &str, keep_quotes: bool) -> Vec<String> {
    expansion(text, keep_quotes, false).words
}

fn expansion(text: &str, keep_quotes: bool, keep_escapes: bool) -> Expansion {
    let expander = Expander {
        keep_quotes,
        keep_escapes,
        keep_unset: true,
        ..Expander::new('\\')
    };
    expander.expand(text, &()).unwrap_or_default()
}

fn sole(words: Vec<String>) -> Option<String> {
    <[String; 1]>::try_from(words).ok().map(|[word]| word)
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

/// Finds the markers of a line and reads their bodies, in order; `source` is the text of `lines`.
///
/// The error is the marker whose delimiter never comes.
pub(super) fn read(
    line: &Logical,
    lines: &mut Lines<'_>,
    source: &ArcStr,
) -> Result<Vec<Heredoc>, Word> {
    if !line.text.contains("<<") {
        return Ok(Vec::new());
    }
    // Most lines that have one have no other.
    let mut heredocs = Vec::with_capacity(1);
    let mut searched = 0;
    for word in expansion(&line.text, true, true).words {
        let Some(marker) = marker(&word) else {
            continue;
        };
        let written = match line.text[searched..].find(&word) {
            Some(offset) => {
                let start = searched + offset;
                searched = start + word.len();
                line.word(start..searched)
            }
            None => {
                searched = line.text.trim_end().len();
                Word {
                    text: word.into(),
                    span: line.span(0..searched),
                }
            }
        };
        let heredoc = body(marker, written, lines, source)?;
        heredocs.push(heredoc);
    }
    Ok(heredocs)
}

fn body(
    marker: Marker,
    written: Word,
    lines: &mut Lines<'_>,
    source: &ArcStr,
) -> Result<Heredoc, Word> {
    let start = lines.offset();
    while let Some(line) = lines.next() {
        let text = match marker.strip_tabs {
            true => line.text.trim_start_matches('\t'),
            false => line.text,
        };
        if text == marker.name {
            let body = source.substr(start..line.start);
            return Ok(heredoc(marker, written, body, start as u32));
        }
    }
    Err(written)
}

fn heredoc(marker: Marker, written: Word, body: Text, start: u32) -> Heredoc {
    Heredoc {
        marker: written,
        name: marker.name,
        descriptor: marker.descriptor,
        expand: marker.expand,
        strip_tabs: marker.strip_tabs,
        body_span: Span::new(start, start + body.len() as u32),
        body,
    }
}

/// Returns the heredoc that a source of COPY or ADD stands for.
///
/// A marker without a body, as in the JSON form, is an empty file.
pub(super) fn source(word: &Word, heredocs: &[Heredoc]) -> Option<Heredoc> {
    let marker = marker(&word.text)?;
    let body = heredocs.iter().rfind(|heredoc| heredoc.name == marker.name);
    let mut heredoc = heredoc(marker, word.clone(), Text::new(), word.span.end);
    if let Some(found) = body {
        heredoc.body.clone_from(&found.body);
        heredoc.body_span = found.body_span;
    }
    Some(heredoc)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is the name, then `e` if it expands, then `t` if tabs go, then the descriptor.
    fn check(word: &str, expected: Option<(&str, &str, u32)>) {
        let found = marker(word);
        let found = found.as_ref().map(|marker| {
            let flags = match (marker.expand, marker.strip_tabs) {
                (true, true) => "et",
                (true, false) => "e",
                (false, true) => "t",
                (false, false) => "",
            };
            (marker.name.as_str(), flags, marker.descriptor)
        });
        assert_eq!(found, expected, "{word:?}");
    }

    #[test]
    fn markers() {
        check("<<EOF", Some(("EOF", "e", 0)));
        check("<<-EOF", Some(("EOF", "et", 0)));
        check("<<'EOF'", Some(("EOF", "", 0)));
        check("<<-\"EOF\"", Some(("EOF", "t", 0)));
        check("<<E'O'F", Some(("EOF", "", 0)));
        check("3<<EOF", Some(("EOF", "e", 3)));
        check("<<$EOF", Some(("$EOF", "e", 0)));
        check("<<'$EOF'", Some(("$EOF", "", 0)));
        check("<<E\\ F", Some(("E F", "e", 0)));
        check("<<'a b'", Some(("a b", "", 0)));
        check("<<file.txt", Some(("file.txt", "e", 0)));
        check("99999999999<<EOF", Some(("EOF", "e", 0)));
    }

    #[test]
    fn no_markers() {
        check("<<", None);
        check("<<-", None);
        check("<<<EOF", None);
        check("<EOF", None);
        check("a<<EOF", None);
        check("<<a<b", None);
        check("<<\"EOF", None);
        check("<<''", None);
        check("EOF", None);
        check("", None);
        check("<<EOF bash", None);
    }
}
