//! Lines and columns, as front ends say them, as bytes of a text.

use serde::{Deserialize, Serialize};

use crate::dockerfile::span::Span;

/// A place in a file: lines and columns in characters, both from 1. Without columns, whole lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    /// The first line; 0 is no place at all.
    pub line: u32,
    /// Where it begins in that line; 0 is where the line's text does.
    pub column: u32,
    /// The last line; 0 is the first one.
    pub end_line: u32,
    /// The column after its last character; 0 is where the last line's text ends.
    pub end_column: u32,
}

impl Place {
    /// Returns the span in `text`; what lies beyond it is drawn in.
    pub fn span(self, text: &str) -> Span {
        if self.line == 0 {
            return Span::default();
        }
        let last = self.end_line.max(self.line);
        let start = at(text, self.line, self.column, false);
        let end = match (self.column, self.end_column) {
            // A column alone is one character.
            (1.., 0) if self.end_line == 0 => {
                let length = text[start..].chars().next().filter(|c| *c != '\n');
                start + length.map_or(0, char::len_utf8)
            }
            (_, column) => at(text, last, column, true),
        };
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span::new(offset(start), offset(end.max(start)))
    }
}

/// The offset of a column; without one, of where the text of the line begins or ends.
fn at(text: &str, line: u32, column: u32, at_end: bool) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line as usize - 1)
        .map(str::len)
        .sum();
    let rest = text[before..].lines().next().unwrap_or_default();
    match column {
        0 if at_end => before + rest.trim_end().len(),
        0 => before + (rest.len() - rest.trim_start().len()),
        column => {
            let characters = rest.chars().take(column as usize - 1);
            before + characters.map(char::len_utf8).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = \"é\"\n  user = 1  \nlast";

    fn check(line: u32, column: u32, end_line: u32, end_column: u32, expected: &str) {
        let place = Place {
            line,
            column,
            end_line,
            end_column,
        };
        assert_eq!(place.span(TEXT).of(TEXT), expected, "{place:?}");
    }

    #[test]
    fn lines_and_columns() {
        check(1, 0, 0, 0, "name = \"é\"");
        check(2, 0, 0, 0, "user = 1");
        check(2, 3, 0, 7, "user");
        check(1, 8, 1, 11, "\"é\"");
        check(1, 9, 0, 0, "é");
        check(1, 8, 2, 7, "\"é\"\n  user");
        check(2, 0, 3, 0, "user = 1  \nlast");
    }

    #[test]
    fn what_is_beyond_is_drawn_in() {
        check(0, 5, 9, 9, "");
        check(9, 9, 9, 9, "");
        check(3, 4, 0, 99, "t");
        check(3, 99, 0, 0, "");
        check(3, 1, 1, 1, "");
        check(u32::MAX, u32::MAX, u32::MAX, u32::MAX, "");
    }
}
