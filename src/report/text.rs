//! Text of others in a page: nothing of it is markup, and nothing of it draws over the rest.

use std::fmt::Write as _;

use kiln_executor::StepLog;

use crate::words::bytes;

/// The text as HTML, in one piece, for elements and quoted attributes.
///
/// Controls and what turns the direction of writing are shown by their numbers.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(c),
            c if c.is_control() || turns(c) => {
                let _ = write!(html, "<u>U+{:04X}</u>", u32::from(c));
            }
            c => html.push(c),
        }
    }
    html
}

/// Characters that change in which order others are shown, or are not seen at all.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// What is kept of a log, as the content of a `pre`.
pub(super) fn log_lines(log: &StepLog) -> String {
    let mut html = lines(&log.head);
    match log.left_out_bytes() {
        0 => {}
        left_out => {
            let _ = writeln!(html, "<mark>{} left out</mark>", bytes(left_out));
        }
    }
    html.push_str(&lines(&log.tail));
    html
}

fn lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut html = String::with_capacity(text.len());
    for line in text.lines() {
        let line = without_sequences(line);
        // What a carriage return overwrote is gone on a terminal too.
        let last = line.trim_end_matches('\r').rsplit('\r').next();
        html.push_str(&escaped(last.unwrap_or_default()));
        html.push('\n');
    }
    html
}

/// The text without the escape sequences of terminals: colours, moves of the cursor, titles.
fn without_sequences(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            shown.push(c);
            continue;
        }
        match chars.next() {
            // Parameters, then one letter.
            Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            // A string that a bell or a backslash ends.
            Some(']' | 'P' | 'X' | '^' | '_') => {
                while chars.next().is_some_and(|c| c != '\u{7}' && c != '\\') {}
            }
            // Intermediates, then one letter.
            Some(' '..='/') => while chars.next().is_some_and(|c| (' '..='/').contains(&c)) {},
            _ => {}
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(lines(bytes), expected);
    }

    #[test]
    fn markup_is_text() {
        check(
            b"</pre><script>alert('\"1\"&2')</script>",
            "&lt;/pre&gt;&lt;script&gt;alert(&#39;&quot;1&quot;&amp;2&#39;)&lt;/script&gt;\n",
        );
    }

    #[test]
    fn sequences_go_and_controls_are_shown() {
        check(
            b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b(B\x07",
            "red x<u>U+0007</u>\n",
        );
        check(b"10%\r20%\r\n", "20%\n");
        check(b"\x1b", "\n");
        check(b"\x1b[", "\n");
    }

    #[test]
    fn directions_are_shown_by_their_numbers() {
        check(
            "if \u{202e}admin\u{2066}".as_bytes(),
            "if <u>U+202E</u>admin<u>U+2066</u>\n",
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        check(b"\xff<\xc3", "\u{fffd}&lt;\u{fffd}\n");
    }
}
