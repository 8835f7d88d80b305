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
    #[serde(rename = "os.version", default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features that the operating system must have (`win32k`).
    #[serde(rename = "os.features", default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The kind of the processor (`v7`); empty where the architecture has a default one.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
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
    #[error("platform `{specifier}` has the invalid part `{part}`; use letters, digits, `_`, `.` and `-`")]
    Part {
        /// The whole specifier.
        specifier: String,
        /// The part at fault.
        part: String,
    },
    /// A single word is neither a known operating system nor a known architecture.
    #[error("platform `{0}` is neither a known operating system nor a known architecture; write `os/architecture`")]
    Unknown(String),
}

impl Platform {
    /// Makes a platform of the three words that most have; `variant` may be empty.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>, variant: impl Into<String>) -> Self {
        let (os, architecture, variant) = (os.into(), architecture.into(), variant.into());
        Self { architecture, os, variant, ..Self::default() }
    }
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}
