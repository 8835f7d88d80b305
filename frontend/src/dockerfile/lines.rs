//! Physical lines, and logical lines: continuations joined, comments inside removed, and a map
//! back to the source.

use std::borrow::Cow;
use std::ops::Range;

use arcstr::ArcStr;

use super::ast::{Text, Word};
use super::span::{LineRange, Span};

/// Walks over the physical lines of a text.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
}

/// One physical line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical<'a> {
    /// Where it starts in the source.
    pub(super) start: usize,
    /// The line without its line break.
    pub(super) text: &'a str,
}

impl Physical<'_> {
    /// Returns the span of the line without its line break.
    pub(super) fn span(&self) -> Span {
        Span::new(self.start as u32, (self.start + self.text.len()) as u32)
    }

    /// Says whether the line is a comment, white space before it allowed.
    pub(super) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    /// Says whether the line has nothing but white space.
    pub(super) fn is_blank(&self) -> bool {
        self.text.trim_start().is_empty()
    }
}

impl<'a> Lines<'a> {
    /// Starts at `at`, a line's start.
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Lines { text, at }
    }

    /// Returns the offset of the next line.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// Returns the next line, and moves on.
    pub(super) fn next(&mut self) -> Option<Physical<'a>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest.as_bytes());
        let start = self.at;
        self.at += end.map_or(rest.len(), |at| at + 1);
        let mut text = &rest[..end.unwrap_or(rest.len())];
        while let Some(shorter) = text.strip_suffix('\r') {
            text = shorter;
        }
        Some(Physical { start, text })
    }
}

/// Counts the lines of spans whose starts come in order.
#[derive(Debug)]
pub(super) struct LineCounter<'a> {
    text: &'a str,
    /// The start of the last span.
    at: usize,
    /// Its line, from 1.
    line: u32,
}

impl<'a> LineCounter<'a> {
    /// Starts at the start of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        LineCounter {
            text,
            at: 0,
            line: 1,
        }
    }

    /// Returns the lines that `span` touches, as [`LineIndex::lines`](super::span::LineIndex::lines)
    /// does.
    pub(super) fn lines(&mut self, span: Span) -> LineRange {
        let (start, end) = (span.start as usize, span.end as usize);
        let last = end.saturating_sub(1).max(start);
        self.line += self.breaks(self.at..start);
        self.at = start;
        LineRange {
            first: self.line,
            last: self.line + self.breaks(start..last),
        }
    }

    fn breaks(&self, range: Range<usize>) -> u32 {
        memchr::memchr_iter(b'\n', &self.text.as_bytes()[range]).count() as u32
    }
}

/// One logical line, and where each part of it comes from.
///
/// Its text lies in the source, or is its own while lines are joined; [`Logical::share`] makes it one
/// that words can be parts of.
#[derive(Debug)]
pub(super) struct Logical<T = Text> {
    /// The text.
    pub(super) text: T,
    /// Where the first physical line's text is in the source.
    first: usize,
    /// What the others gave, in order.
    pieces: Vec<Piece>,
    /// The end of the last physical line, without its line break.
    pub(super) end: usize,
    /// The first empty line that was skipped.
    pub(super) empty_line: Option<Span>,
}

/// A run of bytes that the logical line took over unchanged.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: usize,
    source: usize,
}

impl<'a> Logical<Cow<'a, str>> {
    /// Reads the rest of the logical line that `first` begins.
    pub(super) fn read(first: Physical<'a>, lines: &mut Lines<'a>, escape: char) -> Self {
        let trimmed = first.text.trim_start();
        let end = first.start + first.text.len();
        let kept = without_continuation(trimmed, escape);
        let mut logical = Logical {
            text: Cow::Borrowed(kept.unwrap_or(trimmed)),
            first: end - trimmed.len(),
            pieces: Vec::new(),
            end,
            empty_line: None,
        };
        let mut more = kept.is_some();
        while more {
            let Some(line) = lines.next() else { break };
            logical.end = line.start + line.text.len();
            if line.is_comment() {
                continue;
            }
            if line.is_blank() {
                logical.empty_line.get_or_insert(line.span());
                continue;
            }
            more = logical.push(line.text, line.start, escape);
        }
        logical
    }

    /// Adds a physical line without its continuation mark, and says whether it had one.
    fn push(&mut self, line: &str, source: usize, escape: char) -> bool {
        let kept = without_continuation(line, escape);
        self.pieces.push(Piece {
            at: self.text.len(),
            source,
        });
        self.text.to_mut().push_str(kept.unwrap_or(line));
        kept.is_some()
    }

    /// Shares the text with `source`, which the lines were read from.
    pub(super) fn share(self, source: &ArcStr) -> Logical {
        Logical {
            text: match self.text {
                Cow::Borrowed(text) => source.substr_from(text),
                Cow::Owned(text) => Text::from(text),
            },
            first: self.first,
            pieces: self.pieces,
            end: self.end,
            empty_line: self.empty_line,
        }
    }
}

impl Logical {
    /// Returns the place in the source of the byte at `at`.
    fn source(&self, at: usize) -> usize {
        match self.pieces.partition_point(|piece| piece.at <= at) {
            0 => self.first + at,
            after => {
                let piece = self.pieces[after - 1];
                piece.source + (at - piece.at)
            }
        }
    }

    /// Returns the place in the source of `range`; an empty range is a point.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let start = self.source(range.start);
        let end = if range.is_empty() {
            start
        } else {
            self.source(range.end - 1) + 1
        };
        Span::new(start as u32, end as u32)
    }

    /// Returns `range` as a word.
    pub(super) fn word(&self, range: Range<usize>) -> Word {
        Word {
            text: self.text.substr(range.clone()),
            span: self.span(range),
        }
    }

    /// Returns `range` without the white space at its ends.
    pub(super) fn trim(&self, range: Range<usize>) -> Range<usize> {
        let text = self.text[range.clone()].trim_start();
        let start = range.end - text.len();
        start..start + text.trim_end().len()
    }
}

/// Returns the line without the continuation mark at its end, if it has one.
///
/// An escape character right before the mark makes it an escaped escape character.
fn without_continuation(line: &str, escape: char) -> Option<&str> {
    let kept = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!kept.ends_with(escape)).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        let source = &ArcStr::from(source);
        let mut lines = Lines::new(source, 0);
        let first = lines.next().unwrap();
        let logical = Logical::read(first, &mut lines, '\\').share(source);
        assert_eq!(logical.text, expected, "{source:?}");
        for (at, letter) in logical.text.char_indices() {
            let span = logical.span(at..at + letter.len_utf8());
            assert_eq!(span.of(source), letter.to_string(), "{source:?} at {at}");
        }
    }

    #[test]
    fn joins_continuations() {
        check("RUN a \\\n b", "RUN a  b");
        check("RUN a \\\r\n b\r\n", "RUN a  b");
        check("RUN a \\ \t\n b", "RUN a  b");
        check("RUN a \\\n# no\n  # no\n b", "RUN a  b");
        check("RUN a \\\n\n\n b", "RUN a  b");
        check("\\\nRUN a", "RUN a");
        check("RUN a \\", "RUN a ");
        check("RUN é \\\n ü\n", "RUN é  ü");
    }

    #[test]
    fn an_escaped_escape_ends_the_line() {
        check("RUN a \\\\\nb", "RUN a \\\\");
        check("RUN a \\x\nb", "RUN a \\x");
    }
}
