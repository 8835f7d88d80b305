//! "Did you mean": the closest of some names by edit distance.

/// Differences of this many edits are no typing mistake.
const FAR: usize = 3;

/// Nobody has more names than this in mind; others are not looked at.
const MOST_OPTIONS: usize = 1000;

/// Returns the option closest to `name`, if it is fewer than three edits away and not equal.
pub fn closest<'a>(name: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut least = FAR;
    for option in options.into_iter().take(MOST_OPTIONS) {
        if option == name {
            return None;
        }
        if let Some(edits) = distance(name, option, least) {
            least = edits;
            best = Some(option);
        }
    }
    best
}

/// Adds ` (did you mean X?)` to `message` if one of `options` is close to `name`.
pub fn with_suggestion<'a>(
    message: String,
    name: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> String {
    match closest(name, options) {
        Some(option) => format!("{message} (did you mean {option}?)"),
        None => message,
    }
}

/// Returns the edit distance if it is below `limit`.
fn distance(left: &str, right: &str, limit: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) >= limit * 4 {
        return None;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        let mut least = row[0];
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
            least = least.min(row[column + 1]);
        }
        if least >= limit {
            return None;
        }
    }
    row.last().copied().filter(|edits| *edits < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, options: &[&str], expected: Option<&str>) {
        assert_eq!(closest(name, options.iter().copied()), expected, "{name}");
    }

    #[test]
    fn close_names() {
        check("form", &["from", "chown"], Some("from"));
        check("COPPY", &["COPY", "RUN"], Some("COPY"));
        check("chmd", &["chmod", "chown"], Some("chmod"));
        check("abc", &["abc", "abd"], None);
        check("elephant", &["from"], None);
        check("", &["id"], Some("id"));
        check("x", &[], None);
        check("héllo", &["hello"], Some("hello"));
    }
}
