//! A package, however it was found.

use std::collections::BTreeSet;

use super::purl::Purl;

/// The longest name, version or license that is taken over.
const LONGEST: usize = 4096;

/// A package of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// What it is.
    pub purl: Purl,
    /// Its license as its maker wrote it; empty where none is stated.
    pub license: String,
    /// Who made or maintains it; empty where nobody is named.
    pub supplier: String,
    /// Its home page; empty where none is stated.
    pub homepage: String,
    /// The files that say that it is there, without a leading `/`.
    pub found_in: BTreeSet<String>,
    /// The index of the layer that brought it.
    pub layer: usize,
}

impl Package {
    pub(super) fn new(purl: Purl) -> Package {
        Package {
            purl,
            license: String::new(),
            supplier: String::new(),
            homepage: String::new(),
            found_in: BTreeSet::new(),
            layer: 0,
        }
    }

    pub(super) fn licensed(mut self, license: impl AsRef<str>) -> Package {
        self.license = clean(license.as_ref());
        self
    }
}

/// Why a file that should list packages cannot be read, or not as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Flaw(pub(super) String);

impl From<&str> for Flaw {
    fn from(reason: &str) -> Flaw {
        Flaw(reason.to_owned())
    }
}

impl From<serde_json::Error> for Flaw {
    fn from(error: serde_json::Error) -> Flaw {
        Flaw(format!("not the JSON that it should be: {error}"))
    }
}

impl From<toml::de::Error> for Flaw {
    fn from(error: toml::de::Error) -> Flaw {
        Flaw(format!(
            "not the TOML that it should be: {}",
            error.message()
        ))
    }
}

impl From<std::io::Error> for Flaw {
    fn from(error: std::io::Error) -> Flaw {
        Flaw(error.to_string())
    }
}

/// What one file lists.
pub(super) type Listed = Result<Vec<Package>, Flaw>;

/// Takes a text over: one line, trimmed, of bounded length.
pub(super) fn clean(text: &str) -> String {
    let text = text.trim();
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = |c: char| if c.is_control() { ' ' } else { c };
    text[..end].chars().map(kept).collect()
}
