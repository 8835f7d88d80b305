//! Reasons as people read them.

use std::borrow::Cow;
use std::fmt::{self, Display};

use super::{Cause, FileChange, FileChangeKind, Reason};

/// So many changed files are named in one line.
const SHOWN_FILES: usize = 3;
/// So many causes are named in one line.
const SHOWN_CAUSES: usize = 2;
/// Of a longer instruction only what differs is shown.
const WHOLE_INSTRUCTION: usize = 60;
/// At most so many characters around what differs.
const AROUND: usize = 24;
/// At most so many characters of a text that differs.
const LONGEST_PART: usize = 72;

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new"),
            Reason::Forgotten { rule, when } => {
                write!(f, "no record of what it was is left: ")?;
                fmt_evicted(rule, when, f)
            }
            Reason::Forced { by } => f.write_str(by),
            Reason::SameBytes => f.write_str("the step above wrote the same bytes"),
            Reason::SameInput => f.write_str("reads the same bytes as before"),
            Reason::Imported { from } => write!(f, "from {from}"),
            Reason::Evicted { rule, when } => fmt_evicted(rule, when, f),
            Reason::ContentGone => f.write_str("its result is no longer in the store"),
            Reason::LostElsewhere { from, own: true } => {
                write!(f, "the cache {from} could not give its layer")
            }
            Reason::LostElsewhere { from, own: false } => {
                write!(f, "the cache {from} could not give a layer below it")
            }
            Reason::Changed(causes) => {
                for (i, cause) in causes.iter().take(SHOWN_CAUSES).enumerate() {
                    if i > 0 {
                        f.write_str("; ")?;
                    }
                    cause.fmt(f)?;
                }
                match causes.len().saturating_sub(SHOWN_CAUSES) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Files {
                source,
                changes,
                more,
                ..
            } => fmt_files(source, changes, *more, f),
            Cause::BuildArg { name, old, new } => {
                write!(f, "build argument {name} {}", Values(old, new))
            }
            Cause::Env { name, old, new } => write!(f, "ENV {name} {}", Values(old, new)),
            Cause::Source {
                reference,
                base,
                old,
                new,
            } => {
                let what = if *base { "base" } else { "source" };
                let (old, new) = (short_pin(old), short_pin(new));
                if !base && !new.contains(':') {
                    // A commit: what changed is where a branch or a tag points.
                    match reference.rsplit_once('#') {
                        Some((remote, name)) => write!(f, "ref {name} of {remote} moved")?,
                        None => write!(f, "the default branch of {reference} moved")?,
                    }
                    write!(f, " ({old} -> {new})")
                } else if old == new {
                    write!(f, "{what} {reference} changed")
                } else {
                    write!(f, "{what} {reference} changed ({old} -> {new})")
                }
            }
            Cause::OtherSource { base, old, new } => {
                let what = if *base { "base" } else { "source" };
                write!(f, "{what} changed ({old} -> {new})")
            }
            Cause::Instruction { line, was, now } => {
                f.write_str("instruction changed (")?;
                if let Some(line) = line {
                    write!(f, "line {line}: ")?;
                }
                if was.chars().count() <= WHOLE_INSTRUCTION && !was.contains('\n') {
                    return write!(f, "was `{}`)", Line(was));
                }
                let (was, now) = differing(was, now);
                write!(f, "`{}` -> `{}`)", Line(&was), Line(&now))
            }
            Cause::Mount {
                target,
                option,
                old,
                new,
            } => write!(
                f,
                "{option} of the mount at {} {}",
                Line(target),
                Values(old, new)
            ),
            Cause::Field { name, old, new } => match name.as_str() {
                "network" => {
                    let (old, new) = (words_of_network(old), words_of_network(new));
                    write!(f, "network changed ({old} -> {new})")
                }
                name => write!(f, "{} {}", field_words(name), Values(old, new)),
            },
            Cause::Platform { old, new } => write!(f, "platform changed ({old} -> {new})"),
            Cause::Order { now, was } => write!(f, "comes after {now} now, was after {was}"),
            Cause::ParentRan { parent } => write!(f, "{parent} ran, and its result differs"),
            Cause::ParentChanged { parent } => write!(f, "{parent} holds other bytes"),
            Cause::Revision { kind, old, new } => write!(
                f,
                "this version of kiln does {kind} steps otherwise (revision {old} -> {new})"
            ),
        }
    }
}

fn fmt_files(
    source: &str,
    changes: &[FileChange],
    more: usize,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if changes.is_empty() {
        return write!(f, "files of {source} changed");
    }
    let shown = changes.len().min(SHOWN_FILES);
    for (i, change) in changes[..shown].iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        change.fmt(f)?;
    }
    match changes.len() - shown + more {
        0 => Ok(()),
        1 => f.write_str(" and 1 more file"),
        more => write!(f, " and {} more files", Thousands(more as u64)),
    }
}

impl Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Line(&self.path);
        match &self.what {
            FileChangeKind::Added => write!(f, "{path} added"),
            FileChangeKind::Removed => write!(f, "{path} removed"),
            FileChangeKind::Renamed { from } => write!(f, "{} renamed to {path}", Line(from)),
            FileChangeKind::Content { old_size, new_size } if old_size == new_size => {
                write!(f, "{path} changed")
            }
            FileChangeKind::Content { old_size, new_size } => write!(
                f,
                "{path} changed ({} -> {} bytes)",
                Thousands(*old_size),
                Thousands(*new_size)
            ),
            FileChangeKind::Mode { old, new } => {
                write!(f, "mode of {path} changed ({old:04o} -> {new:04o})")
            }
            FileChangeKind::Type => write!(f, "type of {path} changed"),
            FileChangeKind::Target => write!(f, "target of link {path} changed"),
        }
    }
}

/// The network of a step; the default is not part of its key.
fn words_of_network(mode: &Option<String>) -> &str {
    mode.as_deref().unwrap_or("default")
}

/// How a record was lost: a rule that took it, or a mishap.
fn fmt_evicted(rule: &str, when: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match rule.starts_with("prune") {
        true => write!(f, "evicted by {rule} {when}"),
        false => write!(f, "its record was lost {when}: {rule}"),
    }
}

/// A field of an op as people call it.
pub(crate) fn field_words(name: &str) -> Cow<'_, str> {
    let action = name.strip_prefix("actions[");
    let known = match action.and_then(|rest| rest.split_once("].")) {
        Some((_, field)) => match field {
            "src" => "source path",
            "dest" => "destination",
            "path" => "path",
            "data" => "text of the file",
            "owner.user" => "owner (--chown)",
            "owner.group" => "group (--chown)",
            "mode" | "mode_str" => "mode (--chmod)",
            "include_patterns" => "included patterns",
            "exclude_patterns" => "excluded patterns (--exclude)",
            _ => "",
        },
        None => match name {
            "args" => "command",
            "cwd" => "working directory",
            "user" => "user",
            "hostname" => "host name",
            "extra_hosts" => "names of --add-host",
            "ulimits" => "--ulimit",
            "security" => "security mode",
            _ if name.starts_with("secret_env[") => "secret in a variable",
            _ => "",
        },
    };
    match known {
        "" => format!("`{name}`").into(),
        known => known.into(),
    }
}

/// An old and a new value as people read them.
struct Values<'a>(&'a Option<String>, &'a Option<String>);

impl Display for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Of longer values the part that differs is shown.
        const LONGEST: usize = 40;
        match (self.0, self.1) {
            (None, Some(new)) if new.len() <= LONGEST => write!(f, "added ({new:?})"),
            (None, _) => f.write_str("added"),
            (Some(old), None) if old.len() <= LONGEST => write!(f, "removed (was {old:?})"),
            (Some(_), None) => f.write_str("removed"),
            (Some(old), Some(new)) if old.len() <= LONGEST && new.len() <= LONGEST => {
                write!(f, "changed ({old:?} -> {new:?})")
            }
            (Some(old), Some(new)) => {
                let (old, new) = differing(old, new);
                write!(f, "changed ({old:?} -> {new:?})")
            }
        }
    }
}

/// What differs between two texts, with a little of what stands around it.
fn differing(old: &str, new: &str) -> (String, String) {
    let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    let least = old.len().min(new.len());
    let same = |pair: &(&char, &char)| pair.0 == pair.1;
    let before = old.iter().zip(&new).take_while(same).count();
    let after = old.iter().rev().zip(new.iter().rev());
    let after = after.take(least - before).take_while(same).count();
    let part = |text: &[char]| {
        let (start, end) = (before, text.len() - after);
        // Whole words, if they are not too long.
        let grown = |mut steps: Vec<usize>, at: usize| {
            steps.truncate(AROUND);
            let blank = steps.iter().position(|&i| text[i].is_whitespace());
            match blank {
                Some(words) => words,
                None if steps.len() < AROUND => steps.len(),
                None => at.min(AROUND),
            }
        };
        let start = start - grown((0..start).rev().collect(), start);
        let end = end + grown((end..text.len()).collect(), text.len() - end);
        let mut shown = String::new();
        if start > 0 {
            shown.push('…');
        }
        shown.extend(
            text[start..end]
                .iter()
                .take(LONGEST_PART)
                .map(|&c| match c {
                    '\n' => ' ',
                    c => c,
                }),
        );
        if end < text.len() || end - start > LONGEST_PART {
            shown.push('…');
        }
        shown
    };
    (part(&old), part(&new))
}

/// A text of one line: what follows the first is cut, and control characters are shown.
struct Line<'a>(&'a str);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.lines();
        for char in lines.next().unwrap_or_default().chars() {
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                write!(f, "{char}")?;
            }
        }
        if lines.next().is_some() {
            f.write_str(" …")?;
        }
        Ok(())
    }
}

struct Thousands(u64);

impl Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A digest or commit, cut to what tells it apart for people.
fn short_pin(pin: &str) -> String {
    match pin.split_once(':') {
        Some((algorithm, hex)) => {
            format!("{algorithm}:{}", hex.chars().take(8).collect::<String>())
        }
        None => pin.chars().take(12).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cause: Cause, expected: &str) {
        assert_eq!(Reason::Changed(vec![cause]).to_string(), expected);
    }

    fn files(changes: &[(&str, FileChangeKind)], more: usize) -> Cause {
        Cause::Files {
            source: "context".into(),
            changes: changes
                .iter()
                .map(|(path, what)| FileChange {
                    path: (*path).into(),
                    what: what.clone(),
                })
                .collect(),
            more,
            old: None,
            new: None,
        }
    }

    fn env(name: &str) -> Cause {
        Cause::Env {
            name: name.into(),
            old: Some("a".into()),
            new: None,
        }
    }

    #[test]
    fn sizes_are_grouped_by_thousands() {
        let what = FileChangeKind::Content {
            old_size: 4812,
            new_size: 1_004_815,
        };
        let expected = "big changed (4,812 -> 1,004,815 bytes)";
        check(files(&[("big", what)], 0), expected);
    }

    #[test]
    fn three_files_are_named_and_the_rest_counted() {
        let added = FileChangeKind::Added;
        let changes = [
            ("a", added.clone()),
            ("b", FileChangeKind::Removed),
            (
                "c",
                FileChangeKind::Mode {
                    old: 0o644,
                    new: 0o755,
                },
            ),
            ("d", added),
        ];
        let expected = "a added, b removed, mode of c changed (0644 -> 0755) and 1,001 more files";
        check(files(&changes, 1000), expected);
        let expected = "a added, b removed, mode of c changed (0644 -> 0755) and 1 more file";
        check(files(&changes, 0), expected);
    }

    #[test]
    fn files_that_can_not_be_named_are_told_of() {
        check(files(&[], 0), "files of context changed");
    }

    #[test]
    fn control_characters_of_a_path_are_shown() {
        let expected = "a\\u{1b}[2Jb added";
        check(
            files(&[("a\u{1b}[2Jb", FileChangeKind::Added)], 0),
            expected,
        );
    }

    #[test]
    fn references_move_and_files_change() {
        let source = |reference: &str, old: &str, new: &str| Cause::Source {
            reference: reference.into(),
            base: false,
            old: old.into(),
            new: new.into(),
        };
        let (old, new) = ("a".repeat(40), "b".repeat(40));
        check(
            source("x.org/a.git#main", &old, &new),
            "ref main of x.org/a.git moved (aaaaaaaaaaaa -> bbbbbbbbbbbb)",
        );
        check(
            source("x.org/a.git", &old, &new),
            "the default branch of x.org/a.git moved (aaaaaaaaaaaa -> bbbbbbbbbbbb)",
        );
        check(
            source("https://x.org/f", "sha256:0123456789", "sha256:9876543210"),
            "source https://x.org/f changed (sha256:01234567 -> sha256:98765432)",
        );
    }

    #[test]
    fn of_long_values_the_part_that_differs_is_shown() {
        let cause = |old: &str, new: &str| Cause::Env {
            name: "X".into(),
            old: Some(old.into()),
            new: Some(new.into()),
        };
        let flags =
            |level: &str| format!("-Wall -Wextra -pipe {level} -g -fstack-protector-strong");
        check(
            cause(&flags("-O2"), &flags("-O3")),
            "ENV X changed (\"…-O2…\" -> \"…-O3…\")",
        );
        let (all, other) = ("a".repeat(50), format!("{}b", "a".repeat(50)));
        let around = "a".repeat(24);
        check(
            cause(&all, &other),
            &format!("ENV X changed (\"…{around}\" -> \"…{around}b\")"),
        );
        check(env("Y"), "ENV Y removed (was \"a\")");
    }

    #[test]
    fn two_causes_are_named_and_the_rest_counted() {
        let reason = Reason::Changed(vec![env("A"), env("B"), env("C"), env("D")]);
        let expected = "ENV A removed (was \"a\"); ENV B removed (was \"a\"); and 2 more";
        assert_eq!(reason.to_string(), expected);
    }

    fn instruction(was: &str, now: &str) -> Cause {
        Cause::Instruction {
            line: Some(4),
            was: was.into(),
            now: now.into(),
        }
    }

    #[test]
    fn of_a_long_instruction_the_part_that_differs_is_shown() {
        let install = |version: &str| {
            format!(
                "RUN apt-get update && apt-get install -y --no-install-recommends curl={version} ca-certificates"
            )
        };
        check(
            instruction(&install("8.1"), &install("8.2")),
            "instruction changed (line 4: `…curl=8.1…` -> `…curl=8.2…`)",
        );
        check(
            instruction("RUN a", "RUN b"),
            "instruction changed (line 4: was `RUN a`)",
        );
    }

    #[test]
    fn of_a_heredoc_the_line_that_differs_is_shown() {
        check(
            instruction("RUN <<EOF\nmake\nEOF", "RUN <<EOF\nmake all\nEOF"),
            "instruction changed (line 4: `…make…` -> `…make all…`)",
        );
    }

    #[test]
    fn nothing_is_left_of_what_was_cut_away() {
        assert_eq!(differing("", ""), (String::new(), String::new()));
        assert_eq!(differing("a", "aa"), ("a".into(), "aa".into()));
        assert_eq!(differing("x y", "x"), ("x y".into(), "x".into()));
    }

    #[test]
    fn records_are_evicted_or_lost() {
        let evicted = |rule: &str| Reason::Evicted {
            rule: rule.into(),
            when: "just now".into(),
        };
        let words = evicted("prune --keep-storage 1 GB").to_string();
        assert_eq!(words, "evicted by prune --keep-storage 1 GB just now");
        let words = evicted("the loss of its layers").to_string();
        assert_eq!(
            words,
            "its record was lost just now: the loss of its layers"
        );
    }
}
