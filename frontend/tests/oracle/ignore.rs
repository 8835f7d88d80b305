//! What holds of every ignore file: a plain matcher, written from the description of the language,
//! decides the same.

use kiln_frontend::dockerfile::ignorefile;
use kiln_ir::pattern::PatternList;

/// Parses an ignore file and compares what it means for a path and for all above it.
pub(crate) fn check(file: &str, path: &str) {
    let patterns = ignorefile::parse(file);
    assert_eq!(patterns, ignorefile::parse(file));
    for (line, pattern) in ignorefile::parse_numbered(file) {
        let written = file.split('\n').nth(line - 1);
        assert!(written.is_some(), "{pattern:?} is on no line {line}");
    }
    let Ok(list) = PatternList::new(&patterns) else {
        return;
    };
    let path = kiln_ir::pattern::clean(path.trim_start_matches('/'));
    if path == "." || path.starts_with("..") || path.starts_with('/') {
        return;
    }
    let expected = plain(&patterns, &path);
    assert_eq!(list.matches(&path), expected, "{patterns:?} on {path:?}");
    let decided = list.decide(&path);
    if let Some(index) = decided.decided_by() {
        assert_eq!(patterns[index].trim().starts_with('!'), !expected);
    }
    // What is taken back is never below a directory that need not be looked at.
    if !expected {
        for (at, _) in path.match_indices('/') {
            let above = &path[..at];
            let state = list.decide(above);
            assert!(
                !state.is_excluded() || list.below_possible(state, above),
                "{patterns:?} on {path:?} within {above:?}"
            );
        }
    }
}

/// The last pattern that matches the path or a directory above it decides.
fn plain(patterns: &[String], path: &str) -> bool {
    let mut excluded = false;
    for pattern in patterns {
        // A path that was cleaned may end in blanks that stood before a `/`.
        let pattern = pattern.trim();
        if pattern.is_empty() {
            continue;
        }
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        let pattern = kiln_ir::pattern::clean(pattern);
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if above.chain([path]).any(|path| matches(&pattern, path)) {
            excluded = !negated;
        }
    }
    excluded
}

fn matches(pattern: &str, path: &str) -> bool {
    let is_plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
    // These forms are compared as text, whatever the directories.
    if is_plain(pattern) {
        return pattern == path;
    }
    if let Some(suffix) = pattern.strip_prefix("**").filter(|suffix| is_plain(suffix)) {
        return path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path);
    }
    if let Some(prefix) = pattern.strip_suffix("**").filter(|prefix| is_plain(prefix)) {
        return path.starts_with(prefix);
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let path: Vec<char> = path.chars().collect();
    let mut steps = 0;
    here(&pattern, &path, &mut steps).unwrap_or_else(|| {
        // Trying everything takes too long for some patterns: these are not compared.
        let (pattern, path): (String, String) = (pattern.iter().collect(), path.iter().collect());
        let list = PatternList::new(&[pattern]).unwrap();
        list.enter(kiln_ir::pattern::PatternState::default(), &path)
            .is_excluded()
    })
}

/// Tries every way to match; none if there are too many.
fn here(pattern: &[char], path: &[char], steps: &mut usize) -> Option<bool> {
    *steps += 1;
    if *steps > 100_000 {
        return None;
    }
    Some(match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            if rest.is_empty() {
                return Some(true);
            }
            if here(rest, path, steps)? {
                return Some(true);
            }
            for (at, letter) in path.iter().enumerate() {
                if *letter == '/' && here(rest, &path[at + 1..], steps)? {
                    return Some(true);
                }
            }
            false
        }
        ['*', rest @ ..] => {
            if here(rest, path, steps)? {
                return Some(true);
            }
            match path {
                [letter, path @ ..] if *letter != '/' => here(pattern, path, steps)?,
                _ => false,
            }
        }
        ['?', rest @ ..] => match path {
            [letter, path @ ..] if *letter != '/' => here(rest, path, steps)?,
            _ => false,
        },
        ['[', rest @ ..] => match path {
            [letter, path @ ..] => {
                let (contains, rest) = class(rest, *letter);
                contains && here(rest, path, steps)?
            }
            [] => false,
        },
        ['\\', letter, rest @ ..] | [letter, rest @ ..] => match path {
            [found, path @ ..] if found == letter => here(rest, path, steps)?,
            _ => false,
        },
    })
}

/// Reads a class after its `[`: whether it has the letter, and what is after it.
fn class(mut rest: &[char], letter: char) -> (bool, &[char]) {
    let negated = rest.first() == Some(&'^');
    rest = &rest[usize::from(negated)..];
    let mut found = false;
    let mut first = true;
    loop {
        if let [']', after @ ..] = rest
            && !first
        {
            return (found != negated, after);
        }
        first = false;
        let (low, after) = one(rest);
        let (high, after) = match after {
            ['-', after @ ..] => one(after),
            after => (low, after),
        };
        found |= low <= letter && letter <= high;
        rest = after;
    }
}

fn one(rest: &[char]) -> (char, &[char]) {
    match rest {
        ['\\', letter, after @ ..] | [letter, after @ ..] => (*letter, after),
        [] => unreachable!("a class that is not closed was refused"),
    }
}
