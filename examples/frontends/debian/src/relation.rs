//! What packages say of each other (Debian policy, section 7.1).

use std::cmp::Ordering;
use std::fmt;

use crate::version::Version;

/// One package, or several versions of it: `libc6 (>= 2.36)`, `python3:any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The package, or what others provide.
    pub name: &'a str,
    /// What stands after the colon.
    pub architecture: Option<&'a str>,
    /// Which versions; none is all.
    pub versions: Option<(Operator, Version<'a>)>,
}

/// How a version stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// Alternatives, the preferred one first.
pub type Group<'a> = Vec<Relation<'a>>;

/// A part of a field that is no relation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no relation between packages")]
pub struct RelationError(pub String);

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Earlier,
            // The old forms of these two mean what one would not think.
            "<=" | "<" => Self::EarlierOrEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::LaterOrEqual,
            ">>" => Self::Later,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }
}

impl<'a> Relation<'a> {
    /// Reads one relation, without alternatives.
    pub fn parse(text: &'a str) -> Result<Self, RelationError> {
        let wrong = || RelationError(text.trim().to_owned());
        let end = text.find(['(', '[', '<']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let name = name.trim();
        let (name, architecture) = match name.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (name, None),
        };
        if !is_name(name) || architecture.is_some_and(|name| !is_word(name)) {
            return Err(wrong());
        }
        let versions = match rest.trim() {
            "" => None,
            rest => {
                let inner = rest
                    .strip_prefix('(')
                    .and_then(|rest| rest.strip_suffix(')'));
                let inner = inner.ok_or_else(wrong)?.trim();
                let end = inner
                    .find(|c: char| !"<=>".contains(c))
                    .unwrap_or(inner.len());
                let (operator, version) = inner.split_at(end);
                let version = version.trim();
                let operator = Operator::parse(operator).ok_or_else(wrong)?;
                if version.is_empty() || version.contains(char::is_whitespace) {
                    return Err(wrong());
                }
                Some((operator, Version::of(version)))
            }
        };
        Ok(Relation {
            name,
            architecture,
            versions,
        })
    }

    /// Whether a version is among those that are meant.
    pub fn admits(&self, version: Version<'_>) -> bool {
        let Some((operator, bound)) = self.versions else {
            return true;
        };
        let order = version.cmp(&bound);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(architecture) = self.architecture {
            write!(f, ":{architecture}")?;
        }
        match self.versions {
            Some((operator, version)) => write!(f, " ({} {version})", operator.as_str()),
            None => Ok(()),
        }
    }
}

/// Reads a field: groups between commas, alternatives between bars.
pub fn parse_field(text: &str) -> Result<Vec<Group<'_>>, RelationError> {
    let groups = text.split(',').filter(|group| !group.trim().is_empty());
    groups
        .map(|group| group.split('|').map(Relation::parse).collect())
        .collect()
}

/// Writes alternatives as they stand in a field.
pub fn show(group: &[Relation<'_>]) -> String {
    let shown: Vec<String> = group.iter().map(ToString::to_string).collect();
    shown.join(" | ")
}

/// Whether a package may have this name.
pub fn is_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    // Virtual packages of perl and others have capitals and `_`.
    starts
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match parse_field(text) {
            Ok(groups) => {
                let groups: Vec<String> = groups.iter().map(|group| show(group)).collect();
                groups.join(", ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn fields() {
        check("", "");
        check("libc6", "libc6");
        check(" libc6(>=2.36) ,", "libc6 (>= 2.36)");
        check(
            "debconf (>= 0.5) | debconf-2.0, python3:any",
            "debconf (>= 0.5) | debconf-2.0, python3:any",
        );
        check("a (= 1:2-3),b(<<2)", "a (= 1:2-3), b (<< 2)");
        check("a (< 1), b (> 1)", "a (<= 1), b (>= 1)");
    }

    #[test]
    fn what_is_no_relation() {
        check("a (>= )", "`a (>= )` is no relation between packages");
        check("a (~ 1)", "`a (~ 1)` is no relation between packages");
        check("a b", "`a b` is no relation between packages");
        check("a | , b", "`` is no relation between packages");
        check("a:", "`a:` is no relation between packages");
        check("a [amd64]", "`a [amd64]` is no relation between packages");
        check("../a", "`../a` is no relation between packages");
    }

    #[test]
    fn versions_that_are_meant() {
        let check = |relation: &str, admitted: &str, refused: &str| {
            let relation = Relation::parse(relation).unwrap();
            for version in admitted.split_whitespace() {
                assert!(
                    relation.admits(Version::of(version)),
                    "{relation} {version}"
                );
            }
            for version in refused.split_whitespace() {
                assert!(
                    !relation.admits(Version::of(version)),
                    "{relation} {version}"
                );
            }
        };
        check("a", "1 2", "");
        check("a (<< 2)", "1 2~", "2 3");
        check("a (<= 2)", "1 2 2-0", "2-1");
        check("a (= 2)", "2 0:2-0", "1 3 1:2");
        check("a (>= 2)", "2 3", "2~");
        check("a (>> 2)", "2-1", "2");
    }
}
