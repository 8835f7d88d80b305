//! Text in the views: what others wrote in one line of so many columns.

pub(crate) use kiln::words::{bytes, duration};

/// The text without control characters and escape sequences, so that output cannot draw over a view.
pub(crate) fn plain(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let text = console::strip_ansi_codes(text);
    // What a carriage return overwrote is gone on a terminal too.
    let last = text
        .trim_end_matches('\r')
        .rsplit('\r')
        .next()
        .unwrap_or_default();
    last.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect()
}

/// The text in at most `width` columns, with two dots where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let dots = if width > 2 { ".." } else { "" };
    console::truncate_str(text, width, dots).into_owned()
}

/// The text in one line, with control characters written out: names of files may hold them.
pub(crate) fn visible(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_draw_over_the_view() {
        assert_eq!(plain("\x1b[31mred\x1b[0m\ttext\x07"), "red text");
        assert_eq!(plain("10%\r20%\r"), "20%");
        assert_eq!(visible("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
    }
}
