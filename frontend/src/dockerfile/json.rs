//! The JSON form of arguments: an array of strings, with the place of each.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

use super::ast::{Text, Word};
use super::lines::Logical;

/// What arguments that may be JSON turned out to be.
#[derive(Debug)]
pub(super) enum Form {
    /// An array of strings.
    Strings(Vec<Word>),
    /// A JSON array with something else in it.
    NotStrings,
    /// No JSON: the arguments are text.
    Text,
}

/// Reads `range` of `line`.
pub(super) fn form(line: &Logical, range: Range<usize>) -> Form {
    let text = &line.text[range.clone()];
    if !text.starts_with('[') {
        return Form::Text;
    }
    match strings(text) {
        Some(strings) => Form::Strings(
            strings
                .into_iter()
                .map(|(text, place)| {
                    let place = range.start + place.start..range.start + place.end;
                    match text {
                        Cow::Borrowed(_) => line.word(place),
                        Cow::Owned(text) => Word {
                            text: Text::from(text),
                            span: line.span(place),
                        },
                    }
                })
                .collect(),
        ),
        None if serde_json::from_str::<Vec<IgnoredAny>>(text).is_ok() => Form::NotStrings,
        None => Form::Text,
    }
}

/// Decodes an array of strings; each comes with the range between its quotes.
fn strings(text: &str) -> Option<Vec<(Cow<'_, str>, Range<usize>)>> {
    let mut strings = Vec::new();
    let mut at = skip_blank(text, 1);
    if text[at..].starts_with(']') {
        return text[at + 1..].trim().is_empty().then_some(strings);
    }
    loop {
        let start = at + 1;
        let (string, end) = string(text, at)?;
        strings.push((string, start..end - 1));
        at = skip_blank(text, end);
        match text.as_bytes().get(at)? {
            b',' => at = skip_blank(text, at + 1),
            b']' => return text[at + 1..].trim().is_empty().then_some(strings),
            _ => return None,
        }
    }
}

fn skip_blank(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start_matches([' ', '\t', '\r', '\n']).len()
}

/// Decodes the string whose quote is at `at`, and returns the offset after it.
fn string(text: &str, at: usize) -> Option<(Cow<'_, str>, usize)> {
    let after = text[at..].strip_prefix('"')?;
    let plain = after.find(|letter| matches!(letter, '"' | '\\' | '\0'..' '))?;
    if after[plain..].starts_with('"') {
        return Some((Cow::Borrowed(&after[..plain]), at + 1 + plain + 1));
    }
    let mut out = String::new();
    let mut letters = after.char_indices();
    while let Some((offset, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(out), at + 1 + offset + 1)),
            '\\' => match letters.next()?.1 {
                'u' => {
                    let unit = hex(&mut letters)?;
                    push_unit(&mut out, unit, &mut letters);
                }
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                plain @ ('"' | '\\' | '/') => out.push(plain),
                _ => return None,
            },
            control if control < ' ' => return None,
            plain => out.push(plain),
        }
    }
    None
}

fn hex(letters: &mut std::str::CharIndices<'_>) -> Option<u32> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit * 16 + letters.next()?.1.to_digit(16)?;
    }
    Some(unit)
}

/// Adds a UTF-16 unit, with its other half if that follows; a lone half is U+FFFD.
fn push_unit(out: &mut String, unit: u32, letters: &mut std::str::CharIndices<'_>) {
    let mut ahead = letters.clone();
    let low = (0xD800..0xDC00)
        .contains(&unit)
        .then(|| {
            let escape = ahead.next()?.1 == '\\' && ahead.next()?.1 == 'u';
            escape.then(|| hex(&mut ahead)).flatten()
        })
        .flatten()
        .filter(|low| (0xDC00..0xE000).contains(low));
    let point = match low {
        Some(low) => {
            *letters = ahead;
            0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
        }
        None => unit,
    };
    out.push(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[&str]>) {
        let found = strings(text);
        let words = found
            .as_ref()
            .map(|found| found.iter().map(|(word, _)| &**word).collect::<Vec<_>>());
        assert_eq!(words.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn arrays_of_strings() {
        check(r#"[]"#, Some(&[]));
        check(r#"[ ]  "#, Some(&[]));
        check(r#"["a"]"#, Some(&["a"]));
        check(r#"[ "a" , "b c" ]"#, Some(&["a", "b c"]));
        check(r#"["\"\\\/\n\t\r\b\f"]"#, Some(&["\"\\/\n\t\r\u{8}\u{c}"]));
        check(r#"["\u00e9"]"#, Some(&["é"]));
        check(r#"["\ud83d\ude00"]"#, Some(&["😀"]));
        check(r#"["\ud83dx"]"#, Some(&["\u{fffd}x"]));
        check(r#"["\ude00"]"#, Some(&["\u{fffd}"]));
        check(r#"["\ud83d\u0041"]"#, Some(&["\u{fffd}A"]));
    }

    #[test]
    fn other_text() {
        check(r#"['a']"#, None);
        check(r#"["a""#, None);
        check(r#"["a",]"#, None);
        check(r#"["a"] x"#, None);
        check(r#"["a" "b"]"#, None);
        check(r#"["\x"]"#, None);
        check(r#"["\u12"]"#, None);
        check(r#"["a", 1]"#, None);
        check("[\"\u{1}\"]", None);
        check("[", None);
        check("[,", None);
        check("[\"\\", None);
    }
}
