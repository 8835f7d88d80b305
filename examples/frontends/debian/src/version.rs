//! Versions in the order that dpkg has them (deb-version(7)).

use std::cmp::Ordering;
use std::fmt;

/// A version as written, compared as `dpkg --compare-versions` compares.
///
/// Equal versions may be written differently: `1.0` and `0:1.0-0` are one version.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a>(&'a str);

/// What is wrong with a version that somebody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Nothing is there, or nothing but an epoch or a revision.
    #[error("it is empty")]
    Empty,
    /// What stands before the colon is no number, or one that dpkg does not take.
    #[error("its epoch, before the `:`, is no number up to 2147483647")]
    Epoch,
    /// A character that no version has.
    #[error("`{0}` does not occur in versions")]
    Character(char),
}

impl<'a> Version<'a> {
    /// Takes a version of an archive, which is compared whatever it holds.
    pub fn of(text: &'a str) -> Self {
        Version(text)
    }

    /// Takes a version that somebody wrote, if dpkg takes it.
    pub fn parse(text: &'a str) -> Result<Self, VersionError> {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (Some(epoch), rest),
            None => (None, text),
        };
        if epoch.is_some_and(|epoch| {
            !epoch.bytes().all(|c| c.is_ascii_digit()) || epoch.parse::<i32>().is_err()
        }) {
            return Err(VersionError::Epoch);
        }
        let (upstream, revision) = match rest.rsplit_once('-') {
            Some((upstream, revision)) => (upstream, Some(revision)),
            None => (rest, None),
        };
        if upstream.is_empty() || revision == Some("") {
            return Err(VersionError::Empty);
        }
        let wrong =
            |more: &'static str| move |c: &char| !c.is_ascii_alphanumeric() && !more.contains(*c);
        let revision = revision.unwrap_or_default();
        let found = upstream.chars().find(wrong(".-+~:"));
        match found.or_else(|| revision.chars().find(wrong(".+~"))) {
            Some(character) => Err(VersionError::Character(character)),
            None => Ok(Version(text)),
        }
    }

    /// As it was written.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Epoch, upstream version, revision.
    fn parts(self) -> (&'a str, &'a str, &'a str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("", self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (epoch, upstream, revision) = self.parts();
        let (other_epoch, other_upstream, other_revision) = other.parts();
        compare(epoch, other_epoch)
            .then_with(|| compare(upstream, other_upstream))
            .then_with(|| compare(revision, other_revision))
    }
}

/// Compares runs of other characters and runs of digits in turn.
fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let is_run = |text: &[u8]| text.first().is_some_and(|c| !c.is_ascii_digit());
        while is_run(left) || is_run(right) {
            match weight(left.first()).cmp(&weight(right.first())) {
                Ordering::Equal => (left, right) = (skip_one(left), skip_one(right)),
                unequal => return unequal,
            }
        }
        let (left_number, right_number);
        (left_number, left) = number(left);
        (right_number, right) = number(right);
        // Without zeroes in front, the longer number is the greater one.
        let order = left_number
            .len()
            .cmp(&right_number.len())
            .then_with(|| left_number.cmp(right_number));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// `~` is before the end, the end and digits before letters, letters before all else.
fn weight(character: Option<&u8>) -> i32 {
    match character {
        None => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

fn skip_one(text: &[u8]) -> &[u8] {
    text.get(1..).unwrap_or_default()
}

/// Splits the number off that a text begins with, without zeroes in front.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !c.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    let zeroes = digits.iter().take_while(|c| **c == b'0').count();
    (&digits[zeroes..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain in ascending order; each pair of it is compared both ways.
    fn check(ascending: &[&str]) {
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                let found = Version::of(left).cmp(&Version::of(right));
                assert_eq!(found, at.cmp(&other), "{left} {right}");
            }
        }
    }

    fn same(left: &str, right: &str) {
        assert_eq!(Version::of(left), Version::of(right));
    }

    #[test]
    fn numbers_are_numbers() {
        check(&["1.2", "1.10", "1.10.1", "2", "10"]);
        check(&["0.00000000000000000000001", "0.99999999999999999999999999"]);
        same("1.02", "1.2");
        same("1.0", "1.000");
    }

    #[test]
    fn tildes_come_before_the_end() {
        check(&["1~~", "1~~a", "1~", "1", "1a"]);
        check(&[
            "1.0~rc1-1",
            "1.0-1~bpo12+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
        ]);
    }

    #[test]
    fn letters_come_before_other_signs() {
        check(&["1", "1a", "1z", "1+", "1."]);
        check(&["1A", "1Z", "1a"]);
    }

    #[test]
    fn epochs_and_revisions() {
        check(&["9-9", "1:1-1", "1:1-2", "1:1-2-1", "2:0"]);
        same("0:1", "1");
        same("1-0", "1");
        same("00:1.0", "1.0-0");
        check(&["1.2-3-4", "1.2-3-5"]);
    }

    #[test]
    fn what_nobody_should_write() {
        let check = |text, expected| assert_eq!(Version::parse(text).err(), expected, "{text}");
        check("5:7.0.15-1~deb12u5", None);
        check("1.0-1-2", None);
        check("", Some(VersionError::Empty));
        check("1:", Some(VersionError::Empty));
        check("1-", Some(VersionError::Empty));
        check("a:1", Some(VersionError::Epoch));
        check("-1:1", Some(VersionError::Epoch));
        check("2147483648:1", Some(VersionError::Epoch));
        check("1 0", Some(VersionError::Character(' ')));
        check("1-1é", Some(VersionError::Character('é')));
    }
}
