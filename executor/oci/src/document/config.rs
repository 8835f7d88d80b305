//! The image config: what a container of the image runs, and which layers it has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::descriptor::nullable;
use super::{CONFIG_LIMIT_BYTES, DocumentError, json};
use crate::digest::Sha256Digest;
use crate::platform::Platform;

/// An image config (OCI image-spec, config.md, and docker's additions to it).
///
/// The keys at the top are written in alphabetical order with the unknown ones among them, because
/// BuildKit writes them from a map; the ones below in the order of its structs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ImageConfig {
    /// The processor in Go's words.
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// Who made the image.
    #[serde(default, deserialize_with = "nullable")]
    pub author: String,
    /// How to run a container.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// When the image was made, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// How each layer came to be, lowest first; entries without a layer lie between.
    #[serde(default, deserialize_with = "nullable")]
    pub history: Vec<History>,
    /// The operating system in Go's words.
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// Features that the operating system must have.
    #[serde(rename = "os.features", default, deserialize_with = "nullable")]
    pub os_features: Vec<String>,
    /// The least version of the operating system.
    #[serde(rename = "os.version", default, deserialize_with = "nullable")]
    pub os_version: String,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// The kind of the processor.
    #[serde(default, deserialize_with = "nullable")]
    pub variant: String,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// The value of a set's member in Go's JSON: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// How to run a container, and what a build on top of the image begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// User or id, with `:` group if wanted.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Ports such as `80/tcp`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Variables as `NAME=value`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    /// The arguments that a user may replace; the program if there is no entrypoint.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    /// Directories whose data outlives the container.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Empty>,
    /// The directory where the program starts.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// What the maker says of the image.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Whether the command is already escaped; of Windows images only.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub args_escaped: bool,
    /// How docker asks whether the container is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// Instructions for a build on top of the image.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// The seconds between the stop signal and the kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of the shell forms of `RUN`, `CMD` and `ENTRYPOINT`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub shell: Vec<String>,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A health check; times are nanoseconds, and 0 means docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthCheck {
    /// Empty to inherit, `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", command]`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// The time between two checks.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "is_zero"
    )]
    pub interval: i64,
    /// The time after which a check has failed.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "is_zero"
    )]
    pub timeout: i64,
    /// The time in which failures do not count.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "is_zero"
    )]
    pub start_period: i64,
    /// The time between two checks within the start period.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "is_zero"
    )]
    pub start_interval: i64,
    /// How many failures in a row make the container unhealthy.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "is_zero"
    )]
    pub retries: i64,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// The layers of an image by the digests of their uncompressed tars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "nullable")]
    pub kind: String,
    /// The digests, lowest layer first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Sha256Digest>,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
            unknown: BTreeMap::new(),
        }
    }
}

/// How one layer, or one change of the config, came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// Who.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// With which tool.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl ImageConfig {
    /// Parses at most [`CONFIG_LIMIT_BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DocumentError> {
        json::read("image config", bytes, CONFIG_LIMIT_BYTES)
    }

    /// Writes it without spaces, as Go does.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::compact(self)
    }

    /// Returns what the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
            unknown: BTreeMap::new(),
        }
    }
}

impl Serialize for ImageConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde_json::to_value;
        let error = serde::ser::Error::custom;
        // Value's maps keep the order of insertion, so the structs below keep theirs.
        let mut keys: BTreeMap<&str, Value> = self
            .unknown
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        keys.insert("architecture", self.architecture.as_str().into());
        keys.insert("config", to_value(&self.config).map_err(error)?);
        keys.insert("os", self.os.as_str().into());
        keys.insert("rootfs", to_value(&self.rootfs).map_err(error)?);
        if let Some(created) = &self.created {
            keys.insert("created", created.as_str().into());
        }
        if !self.history.is_empty() {
            keys.insert("history", to_value(&self.history).map_err(error)?);
        }
        if !self.os_features.is_empty() {
            keys.insert("os.features", to_value(&self.os_features).map_err(error)?);
        }
        for (key, text) in [
            ("author", &self.author),
            ("os.version", &self.os_version),
            ("variant", &self.variant),
        ] {
            if !text.is_empty() {
                keys.insert(key, text.as_str().into());
            }
        }
        keys.serialize(serializer)
    }
}
