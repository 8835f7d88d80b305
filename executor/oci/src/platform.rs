//! Platforms as containerd reads, normalises and matches them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{Descriptor, Index, nullable};

/// An operating system and a processor, as an index or an image config names them.
///
/// Field order is that of OCI's Go structs, so that written documents equal theirs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// The processor in Go's words (`amd64`, `arm64`, `arm`).
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// The operating system in Go's words (`linux`, `windows`).
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// The least version of the operating system; only Windows images have it.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features that the operating system must have (`win32k`).
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The kind of the processor (`v7`); empty where the architecture has a default one.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// Why a platform specifier is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// The specifier has no part or more than three.
    #[error("platform `{0}` is not of the form `os/architecture[/variant]`")]
    Shape(String),
    /// A part holds a character that no platform has.
    #[error(
        "platform `{specifier}` has the invalid part `{part}`; use letters, digits, `_`, `.` and `-`"
    )]
    Part {
        /// The whole specifier.
        specifier: String,
        /// The part at fault.
        part: String,
    },
    /// A single word is neither a known operating system nor a known architecture.
    #[error(
        "platform `{0}` is neither a known operating system nor a known architecture; write `os/architecture`"
    )]
    Unknown(String),
}

impl Platform {
    /// Makes a platform of the three words that most have, as they are; `variant` may be empty.
    pub fn new(
        os: impl Into<String>,
        architecture: impl Into<String>,
        variant: impl Into<String>,
    ) -> Self {
        let (os, architecture, variant) = (os.into(), architecture.into(), variant.into());
        Self {
            architecture,
            os,
            variant,
            ..Self::default()
        }
    }

    /// Returns the platform that this program runs on.
    ///
    /// A 32-bit ARM program counts as `v7`.
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, "").normalized()
    }

    /// Parses `os`, `architecture`, `os/architecture` or `os/architecture/variant`, in any of the
    /// field's spellings; what is left out is the host's.
    pub fn parse(specifier: &str) -> Result<Self, PlatformError> {
        let shown = || specifier.chars().take(100).collect::<String>();
        let parts: Vec<&str> = specifier.split('/').take(4).collect();
        let valid = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-()".contains(&byte))
        };
        if specifier.is_empty() || parts.len() > 3 {
            return Err(PlatformError::Shape(shown()));
        }
        // containerd's form for Windows versions: windows(10.0.17763)/amd64.
        let (os, os_version) = match parts[0].split_once('(') {
            Some((os, version)) if parts.len() > 1 => {
                (os, version.strip_suffix(')').unwrap_or("("))
            }
            _ => (parts[0], ""),
        };
        let checked = parts[1..].iter().copied().chain([os]);
        let bad = checked.chain(Some(os_version).filter(|version| !version.is_empty()));
        if let Some(part) = bad
            .into_iter()
            .find(|part| !valid(part) || part.contains(['(', ')']))
        {
            return Err(PlatformError::Part {
                specifier: shown(),
                part: part.chars().take(100).collect(),
            });
        }
        let platform = match parts[..] {
            [word] => {
                let alone = Self::new(word, "", "").normalized();
                let host = Self::host();
                if KNOWN_OS.contains(&alone.os.as_str()) {
                    Self {
                        os: alone.os,
                        ..host
                    }
                } else {
                    let named = Self::new(host.os, word, "").normalized();
                    if !KNOWN_ARCHITECTURES.contains(&named.architecture.as_str()) {
                        return Err(PlatformError::Unknown(shown()));
                    }
                    named
                }
            }
            [_, architecture] => Self::new(os, architecture, ""),
            [_, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(PlatformError::Shape(shown())),
        };
        Ok(Self {
            os_version: os_version.to_owned(),
            ..platform
        }
        .normalized())
    }

    /// Returns the same platform in the one spelling that documents use: `linux/x86_64` becomes
    /// `linux/amd64`, `arm64/v8` becomes `arm64`, `armhf` becomes `arm/v7`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = self.os.to_ascii_lowercase();
        let os = if os == "macos" {
            "darwin".to_owned()
        } else {
            os
        };
        let (architecture, variant) = (
            self.architecture.to_ascii_lowercase(),
            self.variant.to_ascii_lowercase(),
        );
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("aarch64" | "arm64", "" | "8" | "v8" | "8.0" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("arm64v8", _) => ("arm64", ""),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("arm32v5", _) => ("arm", "v5"),
            ("arm32v6", _) => ("arm", "v6"),
            ("arm32v7", _) => ("arm", "v7"),
            ("powerpc64le" | "ppc64el", _) => ("ppc64le", ""),
            ("mips64el", _) => ("mips64le", ""),
            ("mipsel", _) => ("mipsle", ""),
            ("loongarch64", _) => ("loong64", ""),
            (architecture, variant) => (architecture, variant),
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        Self {
            os,
            architecture,
            variant,
            ..self.clone()
        }
    }

    /// Tells whether an image for `candidate` runs where this platform is wanted.
    pub fn accepts(&self, candidate: &Self) -> bool {
        self.rank(candidate).is_some()
    }

    /// Tells whether this is the platform of attestations: `unknown/unknown`.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// Returns how well `candidate` fits, 0 being best; `None` if it does not run there.
    pub fn rank(&self, candidate: &Self) -> Option<usize> {
        let (wanted, candidate) = (self.normalized(), candidate.normalized());
        if wanted.os != candidate.os || candidate.is_unknown() {
            return None;
        }
        if wanted.os == "windows" && !windows_build_fits(&wanted.os_version, &candidate.os_version)
        {
            return None;
        }
        let fits = |(architecture, variant): &(String, String)| {
            *architecture == candidate.architecture && *variant == candidate.variant
        };
        wanted.runnable().iter().position(fits)
    }

    /// Returns the (architecture, variant) pairs that run on this normalised platform, best first.
    fn runnable(&self) -> Vec<(String, String)> {
        let pair =
            |architecture: &str, variant: &str| (architecture.to_owned(), variant.to_owned());
        let down = |architecture: &str, from: u32, to: u32| {
            (to..=from)
                .rev()
                .map(|level| pair(architecture, &format!("v{level}")))
                .collect::<Vec<_>>()
        };
        let level = |text: &str| {
            text.strip_prefix('v')
                .and_then(|level| level.parse::<u32>().ok())
        };
        let mut pairs = vec![pair(&self.architecture, &self.variant)];
        match (self.architecture.as_str(), level(&self.variant)) {
            ("amd64", level) => {
                if let Some(level) = level.filter(|&level| (2..=4).contains(&level)) {
                    pairs.extend(down("amd64", level - 1, 2));
                    pairs.push(pair("amd64", ""));
                }
                pairs.push(pair("386", ""));
            }
            ("arm", Some(level)) if (6..=8).contains(&level) => {
                pairs.extend(down("arm", level - 1, 5))
            }
            ("arm64", _) => {
                pairs.extend(
                    arm64_below(&self.variant)
                        .iter()
                        .map(|variant| pair("arm64", variant)),
                );
                pairs.extend(down("arm", 8, 5));
            }
            _ => {}
        }
        pairs
    }
}

/// Returns the variants of arm64 that run on one with this variant: v9 is v8.5 and more.
fn arm64_below(variant: &str) -> Vec<String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|&minor| minor <= 9);
    let parsed = match variant
        .strip_prefix('v')
        .map(|text| text.split_once('.').unwrap_or((text, "0")))
    {
        Some(("8", minor)) => number(minor).map(|minor| (8, minor)),
        Some(("9", minor)) => number(minor).map(|minor| (9, minor)),
        _ => None,
    };
    let Some((major, minor)) = parsed else {
        return Vec::new();
    };
    let spelled = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => String::new(),
        (9, 0) => "v9".to_owned(),
        _ => format!("v{major}.{minor}"),
    };
    let mut below = Vec::new();
    let eights = if major == 9 {
        below.extend((0..minor).rev().map(|minor| spelled(9, minor)));
        (minor + 5).min(9) + 1
    } else {
        minor
    };
    below.extend((0..eights).rev().map(|minor| spelled(8, minor)));
    below
}

/// A Windows image runs on the build that it was made for; an empty version leaves it open.
fn windows_build_fits(wanted: &str, candidate: &str) -> bool {
    let build = |version: &str| {
        version
            .split('.')
            .take(3)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    wanted.is_empty() || candidate.is_empty() || build(wanted) == build(candidate)
}

/// Returns the manifest of an index that fits a wanted platform best; the first one of equals.
///
/// Attestations are never chosen. An entry without a platform fits only if it stands alone.
pub fn select<'a>(index: &'a Index, wanted: &Platform) -> Option<&'a Descriptor> {
    let images = || {
        index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation())
    };
    let ranked = images().filter_map(|entry| Some((wanted.rank(entry.platform.as_ref()?)?, entry)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
    best.or_else(|| {
        let mut open = images().filter(|entry| entry.platform.is_none());
        open.next().filter(|_| images().count() == 1)
    })
}

/// Lists the platforms of an index for people, `none` if there is none.
pub fn list(index: &Index) -> String {
    let mut names: Vec<String> = Vec::new();
    for entry in index
        .manifests
        .iter()
        .filter(|entry| !entry.is_attestation())
    {
        let name = entry
            .platform
            .as_ref()
            .map_or_else(|| "one without a platform".to_owned(), Platform::to_string);
        if !names.contains(&name) && names.len() < 32 {
            names.push(name);
        }
    }
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.os.is_empty() {
            "unknown"
        } else {
            &self.os
        })?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        for part in [&self.architecture, &self.variant] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(specifier: &str) -> Result<Self, PlatformError> {
        Self::parse(specifier)
    }
}

const KNOWN_OS: [&str; 15] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];

const KNOWN_ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256Digest;
    use crate::media_type::{Flavor, OCI_MANIFEST};

    fn check(specifier: &str, expected: &str) {
        assert_eq!(
            Platform::parse(specifier).unwrap().to_string(),
            expected,
            "{specifier}"
        );
    }

    #[test]
    fn spellings_are_normalised() {
        check("linux/amd64", "linux/amd64");
        check("linux/x86_64", "linux/amd64");
        check("Linux/X86-64/v1", "linux/amd64");
        check("linux/amd64/v3", "linux/amd64/v3");
        check("linux/aarch64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm64/8", "linux/arm64");
        check("linux/arm64v8", "linux/arm64");
        check("linux/arm64/v8.2", "linux/arm64/v8.2");
        check("linux/arm", "linux/arm/v7");
        check("linux/arm/6", "linux/arm/v6");
        check("linux/armhf", "linux/arm/v7");
        check("linux/armel", "linux/arm/v6");
        check("linux/i686", "linux/386");
        check("linux/ppc64el", "linux/ppc64le");
        check("macos/arm64", "darwin/arm64");
        check("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64");
        check("linux/new-arch", "linux/new-arch");
    }

    #[test]
    fn a_single_word_takes_the_rest_from_the_host() {
        let host = Platform::host();
        check(
            "linux",
            &Platform {
                os: "linux".into(),
                ..host.clone()
            }
            .to_string(),
        );
        check("arm64", &format!("{}/arm64", host.os));
        check("arm", &format!("{}/arm/v7", host.os));
        check("riscv64", &format!("{}/riscv64", host.os));
    }

    fn refuse(specifier: &str, message: &str) {
        let error = Platform::parse(specifier).unwrap_err().to_string();
        assert!(error.contains(message), "{specifier}: {error}");
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        refuse("", "not of the form");
        refuse("a/b/c/d", "not of the form");
        refuse("linux/", "invalid part ``");
        refuse("/amd64", "invalid part ``");
        refuse("linux/am d64", "invalid part `am d64`");
        refuse("windows(10/amd64", "invalid part `(`");
        refuse("vax", "neither a known operating system");
    }

    /// Returns which entry of the index is chosen; `?` entries are attestations, `-` have no platform.
    fn chosen(wanted: &str, entries: &[&str]) -> Option<String> {
        let entry = |(at, text): (usize, &&str)| {
            let mut entry = Descriptor::new(OCI_MANIFEST, Sha256Digest::of(&[at as u8]), at as u64);
            entry.platform = match *text {
                "?" => Some(Platform::new("unknown", "unknown", "")),
                "-" => None,
                text => {
                    let words: Vec<_> = text.split('/').chain([""]).collect();
                    Some(Platform::new(words[0], words[1], words[2]))
                }
            };
            entry
        };
        let index = Index::new(Flavor::Oci, entries.iter().enumerate().map(entry).collect());
        let size = select(&index, &Platform::parse(wanted).unwrap())?.size;
        Some(entries[size as usize].to_owned())
    }

    fn choose(wanted: &str, entries: &[&str], expected: Option<&str>) {
        assert_eq!(
            chosen(wanted, entries).as_deref(),
            expected,
            "{wanted} of {entries:?}"
        );
    }

    #[test]
    fn the_best_manifest_is_chosen() {
        choose(
            "linux/amd64",
            &["linux/arm64/v8", "linux/amd64", "?"],
            Some("linux/amd64"),
        );
        choose(
            "linux/arm64",
            &["linux/arm64/v8", "linux/amd64"],
            Some("linux/arm64/v8"),
        );
        choose(
            "linux/arm64",
            &["linux/arm/v7", "linux/arm/v6"],
            Some("linux/arm/v7"),
        );
        choose(
            "linux/arm64/v9",
            &["linux/arm64", "linux/arm64/v8.4"],
            Some("linux/arm64/v8.4"),
        );
        choose(
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"],
            Some("linux/arm/v6"),
        );
        choose("linux/arm/v6", &["linux/arm/v7", "linux/arm"], None);
        choose("linux/amd64", &["linux/386"], Some("linux/386"));
        choose(
            "linux/amd64",
            &["linux/386", "linux/amd64/v2"],
            Some("linux/386"),
        );
        choose(
            "linux/amd64/v3",
            &["linux/386", "linux/amd64", "linux/amd64/v2"],
            Some("linux/amd64/v2"),
        );
        choose("linux/amd64", &["windows/amd64", "linux/s390x"], None);
        choose(
            "linux/amd64",
            &["linux/x86_64", "linux/amd64"],
            Some("linux/x86_64"),
        );
    }

    #[test]
    fn attestations_and_entries_without_platform_are_not_chosen_by_chance() {
        choose("linux/amd64", &["?"], None);
        choose("linux/amd64", &["?", "-"], Some("-"));
        choose("linux/amd64", &["-", "-"], None);
        choose("linux/amd64", &[], None);
    }
}
