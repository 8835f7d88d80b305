//! The ignore file: its lines as patterns, in order; matching them is the business of whoever
//! walks the context.

/// Parses a `.dockerignore` into patterns, the last match of which decides.
///
/// A pattern begins with `!` if it takes paths back in. Patterns are relative, cleaned paths with
/// wildcards; whether the wildcards are well formed shows when they are matched.
pub fn parse(text: &str) -> Vec<String> {
    parse_numbered(text)
        .into_iter()
        .map(|(_, pattern)| pattern)
        .collect()
}

/// As [`parse`], each pattern with the number of its line, from 1.
pub fn parse_numbered(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| Some((index + 1, pattern(line)?)))
        .collect()
}

/// Parses an ignore file from bytes; what is not UTF-8 becomes U+FFFD.
pub fn parse_bytes(bytes: &[u8]) -> Vec<String> {
    parse(&String::from_utf8_lossy(bytes))
}

fn pattern(line: &str) -> Option<String> {
    // Only a `#` in the first column begins a comment.
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (mark, path) = match line.strip_prefix('!') {
        Some(path) => ("!", path.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        // A lone `!` is kept: the matcher refuses it by name.
        return (!mark.is_empty()).then(|| mark.to_owned());
    }
    let cleaned = clean(path);
    let relative = match cleaned.strip_prefix('/') {
        Some(relative) if !relative.is_empty() => relative,
        _ => &cleaned,
    };
    Some(format!("{mark}{relative}"))
}

/// Cleans a path by its text alone, as Go's `path.Clean` does.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(parse(text), expected, "{text:?}");
    }

    #[test]
    fn lines() {
        check("", &[]);
        check("a\nb\n", &["a", "b"]);
        check("a\r\nb\r\n", &["a", "b"]);
        check("\u{feff}a", &["a"]);
        check("# a\nb", &["b"]);
        check(" # a", &["# a"]);
        check("a # b", &["a # b"]);
        check("\n \n\t\n", &[]);
        check("  a  ", &["a"]);
    }

    #[test]
    fn paths() {
        check("/a", &["a"]);
        check("/", &["/"]);
        check("./a", &["a"]);
        check("a/", &["a"]);
        check("a//b", &["a/b"]);
        check("a/../b", &["b"]);
        check("../a", &["../a"]);
        check("/../a", &["a"]);
        check(".", &["."]);
        check("a/..", &["."]);
        check("**/*.o", &["**/*.o"]);
        check("a\\ b", &["a\\ b"]);
    }

    #[test]
    fn numbers() {
        let found = parse_numbered("\u{feff}# a\n\nb\n  \n!c\n");
        assert_eq!(found, [(3, "b".to_owned()), (5, "!c".to_owned())]);
    }

    #[test]
    fn negations() {
        check("!a", &["!a"]);
        check("! a ", &["!a"]);
        check("!/a/", &["!a"]);
        check("!", &["!"]);
        check("!!a", &["!!a"]);
    }
}
