//! Places in the source text: byte spans, and the index that turns them into lines and columns.

use serde::{Deserialize, Serialize};

/// A half-open range of byte offsets into the source text.
///
/// Both ends lie on character boundaries of the text that was parsed, and `start <= end`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u32,
    /// The offset after the last byte.
    pub end: u32,
}

impl Span {
    /// Returns the span from `start` up to `end`.
    pub fn new(start: u32, end: u32) -> Self {
        debug_assert!(start <= end, "BUG: span {start}..{end} runs backwards");
        Span { start, end }
    }

    /// Returns the smallest span that holds both.
    pub fn join(self, other: Span) -> Span {
        Span {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    /// Returns the spanned part of `text`, or "" where the span does not belong to `text`.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or("")
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A run of lines, both ends included, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LineRange {
    /// The first line.
    pub first: u32,
    /// The last line.
    pub last: u32,
}

impl std::fmt::Debug for LineRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A position as people and editors count it, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column in characters.
    pub column: u32,
}

/// The starts of all lines of one text.
#[derive(Clone, Debug)]
pub struct LineIndex {
    starts: Vec<u32>,
}

impl LineIndex {
    /// Indexes `text`.
    pub fn new(text: &str) -> Self {
        let mut starts = vec![0];
        starts.extend(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at as u32 + 1));
        LineIndex { starts }
    }

    /// Returns the line that holds the byte at `offset`, from 1.
    pub fn line(&self, offset: u32) -> u32 {
        self.starts.partition_point(|start| *start <= offset) as u32
    }

    /// Returns line and column of the byte at `offset` of `text`, the text this index was made of.
    pub fn position(&self, text: &str, offset: u32) -> Position {
        let line = self.line(offset);
        let start = self.starts[line as usize - 1];
        let column = text
            .get(start as usize..offset as usize)
            .map_or(0, |before| before.chars().count());
        Position {
            line,
            column: column as u32 + 1,
        }
    }

    /// Returns the lines that `span` touches; an end right after a line break stays on its line.
    pub fn lines(&self, span: Span) -> LineRange {
        let last = span.end.saturating_sub(1).max(span.start);
        LineRange {
            first: self.line(span.start),
            last: self.line(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, offset: u32, line: u32, column: u32) {
        let position = LineIndex::new(text).position(text, offset);
        assert_eq!(position, Position { line, column }, "{text:?} at {offset}");
    }

    #[test]
    fn positions() {
        check("", 0, 1, 1);
        check("ab", 1, 1, 2);
        check("a\nb", 1, 1, 2);
        check("a\nb", 2, 2, 1);
        check("a\nb\n", 4, 3, 1);
        check("é\nüx", 5, 2, 2);
    }

    #[test]
    fn lines() {
        let index = LineIndex::new("a\nb\nc");
        let lines = |start, end| format!("{:?}", index.lines(Span::new(start, end)));
        assert_eq!(lines(0, 1), "1-1");
        assert_eq!(lines(0, 2), "1-1");
        assert_eq!(lines(0, 3), "1-2");
        assert_eq!(lines(2, 5), "2-3");
        assert_eq!(lines(2, 2), "2-2");
    }
}
