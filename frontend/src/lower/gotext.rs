//! Texts as Go prints them: histories of images hold them, so they must be the same here.

use std::fmt::Write;

/// Quotes one string as Go's `%q` does.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            control if (control as u32) < 0x20 || control == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", control as u32);
            }
            odd if is_unprintable(odd) => {
                let code = odd as u32;
                let _ = if code > 0xffff {
                    write!(out, "\\U{code:08x}")
                } else {
                    write!(out, "\\u{code:04x}")
                };
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

/// The characters beyond ASCII that Go escapes: controls, separators that are not a space, formats,
/// private use, and noncharacters.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || (letter.is_whitespace() && letter != ' ')
        || matches!(letter as u32,
            0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff
            | 0xe000..=0xf8ff | 0xfff9..=0xfffb | 0xfffe | 0xffff | 0xe0000..=0x10ffff)
}

/// Prints a list as Go's `%q` does: `["a" "b"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Prints a list as Go's `%v` does: `[a b]`.
pub(super) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Prints nanoseconds as Go's `time.Duration` does: `1m30s`, `1.5s`, `20ms`, `0s`.
pub(super) fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let (unit, name) = match total {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    if name != "s" {
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let minutes = total / (60 * unit);
    let seconds = decimal(total % (60 * unit), unit);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// Prints `value / unit` exactly; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{duration, quote, quoted_list};

    #[track_caller]
    fn check_duration(nanoseconds: i64, expected: &str) {
        assert_eq!(duration(nanoseconds), expected);
    }

    #[test]
    fn durations() {
        check_duration(0, "0s");
        check_duration(1, "1ns");
        check_duration(1_500, "1.5µs");
        check_duration(20_000_000, "20ms");
        check_duration(5_000_000_000, "5s");
        check_duration(90_000_000_000, "1m30s");
        check_duration(3_600_000_000_000, "1h0m0s");
        check_duration(61_500_000_000, "1m1.5s");
    }

    #[test]
    fn quotes() {
        assert_eq!(quote("a\"b\\c\n"), r#""a\"b\\c\n""#);
        assert_eq!(quote("\u{1}é\u{200b}"), "\"\\x01é\\u200b\"");
        assert_eq!(quoted_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
        assert_eq!(quoted_list(&[]), "[]");
    }
}
