//! Everything behind the fate of a step: which road found it, or what was compared with what.

use std::time::{Duration, SystemTime};

use kiln_executor::ago;
use kiln_solver::{Cause, Comparison, Reason, Road};
use serde::{Deserialize, Serialize};

/// A longer value is cut to so many characters in the lines for people.
const LONGEST_VALUE: usize = 160;

/// Why a step ran or did not, with all that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// How a step that did not run was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub road: Option<FoundBy>,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What the reason goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The record that stands for the step: the one that was found, or that its run left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordRef>,
}

/// How it was known that a step need not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    /// Its definition: every part of its key is as it was.
    Definition,
    /// What it reads, which is what it was although its definition is not.
    Content,
    /// Its digest, which says what it holds.
    Pin,
    /// Something that is made of it was found.
    Covered,
}

/// A record of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRef {
    /// Which; never used again in the same store.
    pub id: i64,
    /// When it was filed, in milliseconds since the epoch.
    pub created_unix_millis: i64,
}

impl From<Road> for FoundBy {
    fn from(road: Road) -> FoundBy {
        match road {
            Road::Definition => FoundBy::Definition,
            Road::Content => FoundBy::Content,
            Road::Pin => FoundBy::Pin,
            Road::Covered => FoundBy::Covered,
        }
    }
}

impl RecordRef {
    /// How long ago it was filed, such as `3 minutes ago`.
    pub fn age(&self) -> String {
        age(self.created_unix_millis)
    }
}

fn age(unix_millis: i64) -> String {
    let since = Duration::from_millis(u64::try_from(unix_millis).unwrap_or(0));
    ago(SystemTime::UNIX_EPOCH + since)
}

impl Explanation {
    /// The whole of it, one fact a line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let age = self
            .record
            .map_or("earlier".to_owned(), |record| record.age());
        match self.road {
            Some(FoundBy::Definition) => lines.push(format!(
                "found by its definition: every part of its key is as it was recorded {age}"
            )),
            Some(FoundBy::Content) => lines.push(format!(
                "found by content: what it reads has the bytes of a record of {age}"
            )),
            Some(FoundBy::Pin) => {
                lines.push("found by its digest, which says what it holds".to_owned());
            }
            Some(FoundBy::Covered) => {
                lines.push("not looked up: what is made of it was found".to_owned());
            }
            None => {}
        }
        match &self.reason {
            Some(Reason::Changed(causes)) => causes.iter().for_each(|c| lines.extend(cause(c))),
            Some(reason) => lines.push(reason.to_string()),
            None => {}
        }
        if let Some(comparison) = &self.comparison {
            lines.extend(compared(comparison));
        }
        lines
    }
}

/// A cause; of changed files each has a line.
fn cause(cause: &Cause) -> Vec<String> {
    match cause {
        Cause::Files { changes, more, .. } if !changes.is_empty() => {
            let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
            if *more > 0 {
                lines.push(format!("and {more} more files"));
            }
            lines
        }
        cause => vec![cause.to_string()],
    }
}

fn compared(comparison: &Comparison) -> Vec<String> {
    let Some(with) = &comparison.with else {
        return vec!["compared with nothing: no record of such a step is here".to_owned()];
    };
    let place = match with.same_slot {
        true => "",
        false => ", which stood elsewhere",
    };
    let age = age(with.created_unix_nanos / 1_000_000);
    let mut lines = vec![format!("compared with {} of {age}{place}:", with.step)];
    for part in comparison.parts.iter().filter(|part| !part.same) {
        let value = |value: &Option<String>| match value {
            // What names a step has its own marks.
            Some(value) if value.contains('`') => shortened(value),
            Some(value) => format!("`{}`", shortened(value)),
            None => "nothing".to_owned(),
        };
        let (old, new) = (value(&part.old), value(&part.new));
        lines.push(format!("  differs: {}: {old} -> {new}", part.what));
    }
    let same = comparison.parts.iter().filter(|part| part.same);
    // Fields that have no name but in the op are options that nobody set.
    let (options, named): (Vec<&str>, Vec<&str>) = same
        .map(|part| part.what.as_str())
        .partition(|what| what.starts_with('`'));
    let mut same = named.join(", ");
    match options.len() {
        0 => {}
        1 => same.push_str(", 1 more option"),
        count => same.push_str(&format!(", {count} more options")),
    }
    if !same.is_empty() {
        lines.push(format!("  the same: {}", same.trim_start_matches(", ")));
    }
    lines
}

fn shortened(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(LONGEST_VALUE)
        .map(|c| if c == '\n' { ' ' } else { c })
        .collect();
    if text.chars().nth(LONGEST_VALUE).is_some() {
        shown.push('…');
    }
    shown
}
