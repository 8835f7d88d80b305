//! Splits a logical line: the instruction's name, its flags, and the words of what is left.

use std::ops::Range;

use super::ast::{Text, Word};
use super::lines::Logical;
use super::span::Span;

/// Says whether a byte is white space that separates an instruction's words; other white space is
/// part of a word.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | 0xb | 0xc | b'\r' | b' ')
}

/// Returns the length of the word that `text` begins with.
fn word_length(text: &str) -> usize {
    text.bytes().position(is_blank).unwrap_or(text.len())
}

/// Returns the length of the white space that `text` begins with.
fn blank_length(text: &str) -> usize {
    let mut bytes = text.bytes();
    bytes.position(|byte| !is_blank(byte)).unwrap_or(text.len())
}

/// A logical line taken apart.
#[derive(Debug)]
pub(super) struct Split {
    /// The instruction's name.
    pub(super) keyword: Word,
    /// The flags, in order.
    pub(super) flags: Vec<FlagText>,
    /// All after the flags, trimmed.
    pub(super) rest: Range<usize>,
    /// All after the name, trimmed, with the flags.
    pub(super) arguments: Range<usize>,
}

/// One flag with quotes and escapes resolved.
#[derive(Debug)]
pub(super) struct FlagText {
    /// The text, such as `--mount=type=bind`.
    pub(super) text: Text,
    places: Places,
}

/// Where the bytes of a text are in the logical line.
#[derive(Debug)]
enum Places {
    /// From here on as they are.
    AsWritten(usize),
    /// Each where its character is; then the end.
    Each(Vec<usize>),
}

impl FlagText {
    /// Returns the place in the source of a part of the text.
    pub(super) fn span(&self, line: &Logical, part: Range<usize>) -> Span {
        let (start, end) = match &self.places {
            Places::AsWritten(at) => (at + part.start, at + part.end),
            Places::Each(places) => (places[part.start], places[part.end]),
        };
        line.span(start..end.max(start))
    }

    /// Returns a part of the text as a word.
    pub(super) fn word(&self, line: &Logical, part: Range<usize>) -> Word {
        Word {
            text: self.text.substr(part.clone()),
            span: self.span(line, part),
        }
    }
}

/// Splits `range` of `line`, which has something but white space.
pub(super) fn split(line: &Logical, range: Range<usize>) -> Split {
    let range = line.trim(range);
    let text = &line.text[range.clone()];
    let after = range.start + word_length(text);
    let arguments = line.trim(after..range.end);
    let (flags, rest) = flags(line, arguments.clone());
    Split {
        keyword: line.word(range.start..after),
        flags,
        rest: line.trim(rest..range.end),
        arguments,
    }
}

/// Reads flags from the start of `range`, and returns the offset after them.
///
/// In a flag a backslash escapes whatever the escape character of the file is.
fn flags(line: &Logical, range: Range<usize>) -> (Vec<FlagText>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let text = &line.text[at..range.end];
        at += text.len() - text.trim_start().len();
        if !line.text[at..range.end].starts_with("--") {
            return (flags, at);
        }
        let (flag, end) = flag(line, at..range.end);
        at = end;
        if flag.text == "--" {
            return (flags, at);
        }
        flags.push(flag);
    }
}

fn flag(line: &Logical, range: Range<usize>) -> (FlagText, usize) {
    let written = &line.text[range.clone()];
    let plain = written
        .find(|letter: char| letter.is_whitespace() || matches!(letter, '\'' | '"' | '\\'))
        .unwrap_or(written.len());
    if !written[plain..].starts_with(['\'', '"', '\\']) {
        let flag = FlagText {
            text: line.text.substr(range.start..range.start + plain),
            places: Places::AsWritten(range.start),
        };
        return (flag, range.start + plain);
    }
    let (mut text, mut places) = (String::new(), Vec::new());
    let mut push = |letter: char, place| {
        text.push(letter);
        places.extend(std::iter::repeat_n(place, letter.len_utf8()));
    };
    let mut quote = None;
    let mut end = range.end;
    let mut letters = written.char_indices();
    while let Some((offset, letter)) = letters.next() {
        let place = range.start + offset;
        match letter {
            _ if quote == Some(letter) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            '\\' => {
                if let Some((_, escaped)) = letters.next() {
                    push(escaped, place);
                }
            }
            _ if quote.is_none() && letter.is_whitespace() => {
                end = place;
                break;
            }
            _ => push(letter, place),
        }
    }
    places.push(end);
    let places = Places::Each(places);
    (
        FlagText {
            text: Text::from(text),
            places,
        },
        end,
    )
}

/// Splits at white space; quotes and escapes mean nothing.
pub(super) fn fields(line: &Logical, range: Range<usize>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = range.start;
    loop {
        at += blank_length(&line.text[at..range.end]);
        if at == range.end {
            return words;
        }
        let end = at + word_length(&line.text[at..range.end]);
        words.push(line.word(at..end));
        at = end;
    }
}

/// Splits at the first run of white space: what is before it, and what is after.
pub(super) fn first_field(
    line: &Logical,
    range: Range<usize>,
) -> (Range<usize>, Option<Range<usize>>) {
    let end = range.start + word_length(&line.text[range.clone()]);
    if end == range.end {
        return (range, None);
    }
    let after = end + blank_length(&line.text[end..range.end]);
    (range.start..end, Some(after..range.end))
}

/// Splits at white space that is neither quoted nor escaped; quotes and escapes stay.
pub(super) fn shell_words(line: &Logical, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut quote = None;
    let mut letters = line.text[range.clone()].char_indices();
    let mut end = range.end;
    while let Some((offset, letter)) = letters.next() {
        let place = range.start + offset;
        if letter == escape && quote != Some('\'') {
            start.get_or_insert(place);
            if letters.next().is_none() {
                end = place;
            }
            continue;
        }
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter.is_whitespace() => {
                if let Some(start) = start.take() {
                    words.push(start..place);
                }
                continue;
            }
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None => {}
        }
        start.get_or_insert(place);
    }
    if let Some(start) = start.filter(|start| *start < end) {
        words.push(start..end);
    }
    words
}
