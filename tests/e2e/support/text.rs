//! Text in and out of cases.

/// Removes the indentation that all lines share, and a first line that is empty.
pub(crate) fn dedent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let indent = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start_matches(' ').len())
        .min()
        .unwrap_or(0);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.get(indent..).unwrap_or("").trim_end_matches(' '))
        .collect();
    let mut text = lines.join("\n").trim_end().to_owned();
    text.push('\n');
    text
}

/// The lines of `stderr` from the first step of the ending table to its summary.
pub(crate) fn table(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().collect();
    let summary = lines.iter().rposition(|line| steps(line).is_some());
    let Some(summary) = summary else {
        panic!("no table of steps in:\n{stderr}");
    };
    let count = steps(lines[summary]).unwrap_or(0);
    let mut text = lines[summary.saturating_sub(count)..=summary].join("\n");
    text.push('\n');
    text
}

/// The number of steps that a summary line tells.
fn steps(line: &str) -> Option<usize> {
    let (count, rest) = line.split_once(' ')?;
    let is_summary = rest.starts_with("step: ") || rest.starts_with("steps: ");
    count.parse().ok().filter(|_| is_summary)
}

/// An argument as a shell would take it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
