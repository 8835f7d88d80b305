//! Why a step ran again or did not, as data and as people read it.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::{StepName, TreeRef};

/// So many changed files are named in one line.
const SHOWN_FILES: usize = 3;
/// So many causes are named in one line.
const SHOWN_CAUSES: usize = 2;

/// Why a step ran again or did not. Its `Display` is what people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No step like it was ever run here.
    New,
    /// It was told to run, as by `--no-cache`.
    Forced,
    /// It did not run: what is above it ran and wrote the same bytes as before.
    SameBytes,
    /// It did not run: it is defined otherwise than before, but reads the same bytes.
    SameInput,
    /// Its record was evicted.
    Evicted {
        /// By what, such as `prune`.
        rule: String,
        /// When, such as `3 minutes ago`.
        when: String,
    },
    /// Its record was there, and the layer that it names was not.
    ContentGone,
    /// What changed, the most telling first; never empty.
    Changed(Vec<Cause>),
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Files of a local source.
    Files {
        /// The source's name, such as `context`.
        source: String,
        /// The first few; empty if the worker can't tell.
        changes: Vec<FileChange>,
        /// How many there are beyond those.
        more: usize,
        /// Where the old files are listed.
        old: Option<TreeRef>,
        /// Where the new ones are.
        new: Option<TreeRef>,
    },
    /// A build argument; none is unset.
    BuildArg {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// An environment variable; none is unset.
    Env {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// A base image or another source has another identity.
    Source {
        /// What is asked for.
        reference: String,
        /// An image or oci-layout source.
        base: bool,
        /// The digest or commit that it was.
        old: String,
        /// The digest or commit that it is.
        new: String,
    },
    /// Another base image or source than before.
    OtherSource {
        /// An image or oci-layout source.
        base: bool,
        /// What was asked for.
        old: String,
        /// What is asked for.
        new: String,
    },
    /// The instruction itself.
    Instruction {
        /// The line that it is on now.
        line: Option<u32>,
        /// What it was.
        was: String,
    },
    /// One field of the op, where the instruction reads the same.
    Field {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// The platform.
    Platform {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// Something else comes before it.
    Order {
        /// What it comes after now.
        now: StepName,
        /// What it came after.
        was: StepName,
    },
    /// A step that it reads from ran, and wrote other bytes.
    ParentRan {
        /// Which.
        parent: StepName,
    },
    /// A step that it reads from changed, and was found in the cache.
    ParentChanged {
        /// Which.
        parent: StepName,
    },
    /// kiln does this kind of step otherwise than when it was recorded.
    Revision {
        /// The kind of op.
        kind: String,
    },
}

/// One file that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileChange {
    /// Relative to the source's root.
    pub path: String,
    /// How.
    pub what: FileChangeKind,
}

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its bytes.
    Content {
        /// Its size before, in bytes.
        old_size: u64,
        /// Its size now, in bytes.
        new_size: u64,
    },
    /// Its permission bits or its owner.
    Mode,
    /// It is another type of file.
    Type,
    /// What a link points to.
    Target,
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new"),
            Reason::Forced => f.write_str("--no-cache"),
            Reason::SameBytes => f.write_str("the step above wrote the same bytes"),
            Reason::SameInput => f.write_str("reads the same bytes as before"),
            Reason::Evicted { rule, when } => write!(f, "evicted by {rule} {when}"),
            Reason::ContentGone => f.write_str("its result is no longer in the store"),
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
            Cause::Instruction {
                line: Some(line),
                was,
            } => write!(f, "instruction changed (line {line}: was `{}`)", Line(was)),
            Cause::Instruction { line: None, was } => {
                write!(f, "instruction changed (was `{}`)", Line(was))
            }
            Cause::Field { name, old, new } => match name.as_str() {
                "args" => write!(f, "command {}", Values(old, new)),
                "cwd" => write!(f, "working directory {}", Values(old, new)),
                "user" => write!(f, "user {}", Values(old, new)),
                "network" => {
                    let (old, new) = (words_of_network(old), words_of_network(new));
                    write!(f, "network changed ({old} -> {new})")
                }
                name => write!(f, "`{name}` {}", Values(old, new)),
            },
            Cause::Platform { old, new } => write!(f, "platform changed ({old} -> {new})"),
            Cause::Order { now, was } => write!(f, "comes after {now} now, was after {was}"),
            Cause::ParentRan { parent } => write!(f, "{parent} ran and wrote other bytes"),
            Cause::ParentChanged { parent } => write!(f, "{parent} holds other bytes"),
            Cause::Revision { kind } => {
                write!(f, "this version of kiln does {kind} steps otherwise")
            }
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
        match self.what {
            FileChangeKind::Added => write!(f, "{path} added"),
            FileChangeKind::Removed => write!(f, "{path} removed"),
            FileChangeKind::Content { old_size, new_size } if old_size == new_size => {
                write!(f, "{path} changed")
            }
            FileChangeKind::Content { old_size, new_size } => write!(
                f,
                "{path} changed ({} -> {} bytes)",
                Thousands(old_size),
                Thousands(new_size)
            ),
            FileChangeKind::Mode => write!(f, "mode of {path} changed"),
            FileChangeKind::Type => write!(f, "type of {path} changed"),
            FileChangeKind::Target => write!(f, "target of link {path} changed"),
        }
    }
}

/// The network of a step; the default is not part of its key.
fn words_of_network(mode: &Option<String>) -> &str {
    mode.as_deref().unwrap_or("default")
}

/// An old and a new value as people read them.
struct Values<'a>(&'a Option<String>, &'a Option<String>);

impl Display for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longer values say nothing in a line.
        const LONGEST: usize = 40;
        match (self.0, self.1) {
            (None, Some(_)) => f.write_str("added"),
            (Some(_), None) => f.write_str("removed"),
            (Some(old), Some(new)) if old.len() <= LONGEST && new.len() <= LONGEST => {
                write!(f, "changed ({old:?} -> {new:?})")
            }
            _ => f.write_str("changed"),
        }
    }
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
                .map(|&(path, what)| FileChange {
                    path: path.into(),
                    what,
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
            ("a", added),
            ("b", FileChangeKind::Removed),
            ("c", FileChangeKind::Mode),
            ("d", added),
        ];
        let expected = "a added, b removed, mode of c changed and 1,001 more files";
        check(files(&changes, 1000), expected);
        let expected = "a added, b removed, mode of c changed and 1 more file";
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
    fn long_values_are_left_out() {
        let cause = Cause::Env {
            name: "X".into(),
            old: Some("a".repeat(50)),
            new: Some("b".into()),
        };
        check(cause, "ENV X changed");
        check(env("Y"), "ENV Y removed");
    }

    #[test]
    fn two_causes_are_named_and_the_rest_counted() {
        let reason = Reason::Changed(vec![env("A"), env("B"), env("C"), env("D")]);
        let expected = "ENV A removed; ENV B removed; and 2 more";
        assert_eq!(reason.to_string(), expected);
    }

    #[test]
    fn a_heredoc_is_cut_to_its_first_line() {
        let cause = Cause::Instruction {
            line: Some(4),
            was: "RUN <<EOF\nmake\nEOF".into(),
        };
        check(cause, "instruction changed (line 4: was `RUN <<EOF …`)");
    }
}
