//! `Release` files: what a suite has, by digest, and how long that holds.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::control::paragraphs;

/// A suite of an archive at some time.
#[derive(Clone, Debug)]
pub struct Release {
    suite: String,
    codename: String,
    date: Timestamp,
    valid_until: Option<Timestamp>,
    architectures: Vec<String>,
    components: Vec<String>,
    by_hash: bool,
    /// Packages for all architectures are in the index of each.
    all_in_each: bool,
    digests: BTreeMap<String, String>,
}

/// An index that a release names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Where it is, below the suite's directory.
    pub path: String,
    /// Its sha256.
    pub sha256: String,
    /// How it is packed.
    pub packing: Packing,
}

/// How an index is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// `.xz`
    Xz,
    /// `.gz`
    Gzip,
    /// Not at all.
    Plain,
}

/// Why a release cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// A field that every release has.
    #[error("its Release file has no valid `{0}`")]
    Field(&'static str),
    /// It is another one's.
    #[error("it says that it is `{suite}` (`{codename}`)")]
    OtherSuite {
        /// Its suite.
        suite: String,
        /// Its codename.
        codename: String,
    },
    /// It is too old.
    #[error("its Release file has expired at {until}, and it is {now}")]
    Expired {
        /// When.
        until: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// It is too new.
    #[error("its Release file is of {date}, and it is {now}")]
    Future {
        /// When it was made.
        date: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// It has nothing for the machine.
    #[error("it has nothing for `{architecture}`, only for {}", .known.join(", "))]
    NoArchitecture {
        /// By Debian's name.
        architecture: String,
        /// What it has.
        known: Vec<String>,
    },
    /// It has no such part.
    #[error("it has no component `{component}`, only {}", .known.join(", "))]
    NoComponent {
        /// What was asked for.
        component: String,
        /// What it has.
        known: Vec<String>,
    },
}

impl Release {
    /// Reads the text that was signed.
    pub fn parse(text: &str) -> Result<Release, ReleaseError> {
        let paragraph = paragraphs(text).next().ok_or(ReleaseError::Field("Date"))?;
        let field = |name| paragraph.field(name).unwrap_or_default();
        let words = |name| field(name).split_whitespace().map(str::to_owned).collect();
        let date = |name| match field(name) {
            "" => Ok(None),
            text => self::date(text).map(Some).ok_or(ReleaseError::Field(name)),
        };
        let mut digests = BTreeMap::new();
        for line in field("SHA256")
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            let mut words = line.split_whitespace();
            let (Some(digest), Some(_size), Some(path)) =
                (words.next(), words.next(), words.next())
            else {
                return Err(ReleaseError::Field("SHA256"));
            };
            if digest.len() != 64 || !digest.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(ReleaseError::Field("SHA256"));
            }
            digests.insert(path.to_owned(), digest.to_ascii_lowercase());
        }
        Ok(Release {
            suite: field("Suite").to_owned(),
            codename: field("Codename").to_owned(),
            date: date("Date")?.ok_or(ReleaseError::Field("Date"))?,
            valid_until: date("Valid-Until")?,
            architectures: words("Architectures"),
            components: words("Components"),
            by_hash: field("Acquire-By-Hash") == "yes",
            all_in_each: field("No-Support-for-Architecture-all") == "Packages",
            digests,
        })
    }

    /// Checks that it is the suite's, and now.
    pub fn check(&self, suite: &str, now: Timestamp, expires: bool) -> Result<(), ReleaseError> {
        let suite = suite.trim_end_matches('/');
        if suite != self.suite && suite != self.codename {
            return Err(ReleaseError::OtherSuite {
                suite: self.suite.clone(),
                codename: self.codename.clone(),
            });
        }
        match self.valid_until {
            Some(until) if expires && until < now => {
                return Err(ReleaseError::Expired { until, now });
            }
            _ => {}
        }
        // Clocks differ.
        let latest = now.as_second().saturating_add(24 * 60 * 60);
        if expires && self.date.as_second() > latest {
            let date = self.date;
            return Err(ReleaseError::Future { date, now });
        }
        Ok(())
    }

    /// The indexes of a component for an architecture; of one that is empty there may be none.
    pub fn indexes(
        &self,
        component: &str,
        architecture: &str,
    ) -> Result<Vec<IndexFile>, ReleaseError> {
        let is_there = |list: &[String], name| list.iter().any(|known| known == name);
        if !is_there(&self.architectures, architecture) {
            return Err(ReleaseError::NoArchitecture {
                architecture: architecture.to_owned(),
                known: self.architectures.clone(),
            });
        }
        // A security archive calls its components `updates/main`.
        let ends = format!("/{component}");
        if !self
            .components
            .iter()
            .any(|known| known == component || known.ends_with(&ends))
        {
            return Err(ReleaseError::NoComponent {
                component: component.to_owned(),
                known: self.components.clone(),
            });
        }
        let mut architectures = vec![architecture];
        if is_there(&self.architectures, "all") && !self.all_in_each {
            architectures.push("all");
        }
        let found = architectures
            .into_iter()
            .filter_map(|name| self.index(&format!("{component}/binary-{name}")));
        Ok(found.collect())
    }

    fn index(&self, directory: &str) -> Option<IndexFile> {
        let packings = [
            (Packing::Xz, ".xz"),
            (Packing::Gzip, ".gz"),
            (Packing::Plain, ""),
        ];
        packings.into_iter().find_map(|(packing, ending)| {
            let name = format!("{directory}/Packages{ending}");
            let sha256 = self.digests.get(&name)?.clone();
            let path = match self.by_hash {
                true => format!("{directory}/by-hash/SHA256/{sha256}"),
                false => name,
            };
            Some(IndexFile {
                path,
                sha256,
                packing,
            })
        })
    }
}

/// A date of RFC 2822; Debian's are in UTC, which that calls by a number.
fn date(text: &str) -> Option<Timestamp> {
    let text = text.replace(" UTC", " +0000").replace(" GMT", " +0000");
    let zoned = jiff::fmt::rfc2822::parse(&text).ok()?;
    Some(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(more: &str) -> Result<Release, ReleaseError> {
        let digest = "a".repeat(64);
        Release::parse(&format!(
            "Suite: stable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
             Architectures: all amd64\nComponents: main contrib\n{more}\
             SHA256:\n {digest} 12 main/binary-amd64/Packages\n \
             {digest} 9 main/binary-amd64/Packages.xz\n {digest} 9 main/binary-all/Packages.gz\n"
        ))
    }

    fn now() -> Timestamp {
        "2026-07-12T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn indexes_in_the_best_packing() {
        let paths = |more: &str| {
            let found = release(more).unwrap().indexes("main", "amd64").unwrap();
            found
                .into_iter()
                .map(|index| index.path)
                .collect::<Vec<_>>()
        };
        let both = [
            "main/binary-amd64/Packages.xz",
            "main/binary-all/Packages.gz",
        ];
        assert_eq!(paths(""), both);
        assert_eq!(
            paths("No-Support-for-Architecture-all: Packages\n"),
            both[..1]
        );
        let hash = format!("main/binary-amd64/by-hash/SHA256/{}", "a".repeat(64));
        assert_eq!(paths("Acquire-By-Hash: yes\n")[0], hash);
        let none = release("").unwrap().indexes("contrib", "amd64").unwrap();
        assert_eq!(none, []);
    }

    #[test]
    fn what_it_does_not_have() {
        let release = release("").unwrap();
        let error = release.indexes("main", "arm64").unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has nothing for `arm64`, only for all, amd64"
        );
        let error = release.indexes("universe", "amd64").unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has no component `universe`, only main, contrib"
        );
    }

    #[test]
    fn whose_and_when() {
        let check = |more: &str, suite: &str, expires: bool| {
            let checked = release(more).and_then(|release| release.check(suite, now(), expires));
            checked.err().map(|error| error.to_string())
        };
        assert_eq!(check("", "bookworm", true), None);
        assert_eq!(check("", "stable", true), None);
        let other = "it says that it is `stable` (`bookworm`)".to_owned();
        assert_eq!(check("", "trixie", true), Some(other));
        let old = "Valid-Until: Sat, 11 Jul 2026 20:00:00 UTC\n";
        let expired =
            "its Release file has expired at 2026-07-11T20:00:00Z, and it is 2026-07-12T00:00:00Z";
        assert_eq!(check(old, "stable", true), Some(expired.to_owned()));
        assert_eq!(check(old, "stable", false), None);
        assert_eq!(
            check(
                "Valid-Until: Sat, 18 Jul 2026 20:00:00 UTC\n",
                "stable",
                true
            ),
            None
        );
        let invalid = "its Release file has no valid `Valid-Until`".to_owned();
        assert_eq!(check("Valid-Until: soon\n", "stable", true), Some(invalid));
    }

    #[test]
    fn what_is_no_release() {
        let refused = |text: &str| Release::parse(text).unwrap_err();
        assert_eq!(refused(""), ReleaseError::Field("Date"));
        assert_eq!(refused("Suite: x\n"), ReleaseError::Field("Date"));
        let dated = "Date: Sat, 11 Jul 2026 10:16:37 UTC\n";
        assert_eq!(
            refused(&format!("{dated}SHA256:\n zz 1 x\n")),
            ReleaseError::Field("SHA256")
        );
        assert_eq!(
            refused(&format!("{dated}SHA256:\n aa\n")),
            ReleaseError::Field("SHA256")
        );
    }
}
