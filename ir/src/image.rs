//! The image config that a result carries: the OCI image config plus the fields Docker added to it.
//!
//! `rootfs` is not here: what the layers are is known only when the plan has run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image config without its layers.
///
/// Source: OCI image spec, "Image Configuration", and Docker's image spec v1.2 for the extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// RFC 3339 with nanoseconds; set only when fixed by the build's inputs.
    pub created: Option<String>,
    /// Who made it.
    pub author: String,
    /// Architecture, as in [`crate::Platform`].
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Windows only.
    pub os_version: String,
    /// Windows only.
    pub os_features: Vec<String>,
    /// Architecture variant.
    pub variant: String,
    /// How it runs.
    pub config: Config,
    /// How it was made, oldest first.
    pub history: Vec<History>,
    /// Keys that kiln does not know, with their JSON text.
    pub extra: BTreeMap<String, String>,
}

/// How an image runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `user[:group]`.
    pub user: String,
    /// `80/tcp`, sorted.
    pub exposed_ports: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// The entry point; none is unset.
    pub entrypoint: Option<Vec<String>>,
    /// The command; none is unset.
    pub cmd: Option<Vec<String>>,
    /// Paths, sorted.
    pub volumes: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that stops it, as written.
    pub stop_signal: String,
    /// The shell of shell-form instructions; none is the default.
    pub shell: Option<Vec<String>>,
    /// The health check.
    pub healthcheck: Option<Healthcheck>,
    /// Docker's mark that the command is escaped already.
    pub args_escaped: bool,
    /// Triggers for images built from this one.
    pub on_build: Vec<String>,
    /// Keys that kiln does not know, with their JSON text.
    pub extra: BTreeMap<String, String>,
}

/// A health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`.
    pub test: Vec<String>,
    /// Nanoseconds; 0 is the default.
    pub interval_ns: i64,
    /// Nanoseconds; 0 is the default.
    pub timeout_ns: i64,
    /// Nanoseconds; 0 is the default.
    pub start_period_ns: i64,
    /// Nanoseconds; 0 is the default.
    pub start_interval_ns: i64,
    /// 0 is the default.
    pub retries: i64,
}

/// One line of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// RFC 3339 with nanoseconds; none until the step's time is known.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Who.
    pub author: String,
    /// Which builder.
    pub comment: String,
    /// The step made no layer.
    pub empty_layer: bool,
}

/// Says whether a variable of that name looks like a secret.
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    has(&[
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ]) && !has(&["public", "file", "version"])
}
