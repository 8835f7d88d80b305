//! An [`ImageConfig`] as the JSON document that images carry, read and written as BuildKit does.
//!
//! BuildKit marshals the config from Go structs and then merges layers and history into a sorted
//! map: top-level keys are sorted, those of `config` are in the order of the Go struct, empty
//! values are omitted, and `<`, `>` and `&` are escaped.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Config, Healthcheck, History, ImageConfig};

/// Why a document is no image config, or the other way round.
#[derive(Debug, thiserror::Error)]
pub enum ImageConfigError {
    /// It is no JSON.
    #[error("image config of {bytes} bytes is not JSON")]
    Json {
        /// Its size.
        bytes: usize,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A value has another type than the specification says.
    #[error("`{key}` in the image config is {found}, expected {expected}")]
    Type {
        /// Its key, with those above it.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A key that kiln keeps as it was has a value that is no JSON.
    #[error("extra key `{key}` of the image config has the value `{value}`, which is not JSON")]
    ExtraValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A key that is kept as it was is one that kiln knows.
    #[error("extra key `{key}` of the image config is a key of its own")]
    ExtraKey {
        /// The key.
        key: String,
    },
}

const TOP_KEYS: &[&str] = &[
    "architecture",
    "author",
    "config",
    "created",
    "history",
    "os",
    "os.features",
    "os.version",
    "rootfs",
    "variant",
];

const CONFIG_KEYS: &[&str] = &[
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

impl ImageConfig {
    /// Reads an image config; null and absent are the same, `rootfs` is skipped, unknown keys are kept.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ImageConfigError> {
        let document = serde_json::from_slice(bytes).map_err(|source| ImageConfigError::Json {
            bytes: bytes.len(),
            source,
        })?;
        let mut top = Fields::new("", document)?;
        let mut config = Self {
            created: top.take("created", optional_string)?,
            author: top.take("author", string)?,
            architecture: top.take("architecture", string)?,
            os: top.take("os", string)?,
            os_version: top.take("os.version", string)?,
            os_features: top.take("os.features", strings)?,
            variant: top.take("variant", string)?,
            history: top.take("history", |key, value| list(key, value, history))?,
            config: top.take("config", run_config)?,
            extra: BTreeMap::new(),
        };
        top.take("rootfs", |_, _| Ok(()))?;
        config.extra = top.rest();
        Ok(config)
    }

    /// Writes the image config of an image with these layers, compactly.
    ///
    /// Errors if an extra key holds no JSON or is one that the document has anyway.
    pub fn to_json(&self, rootfs_diff_ids: &[String]) -> Result<String, ImageConfigError> {
        let mut top = BTreeMap::new();
        for (key, value) in extra(&self.extra, TOP_KEYS)? {
            top.insert(key, value);
        }
        let mut set = |key: &str, value: Value| {
            top.insert(key.to_owned(), value);
        };
        set("architecture", json!(self.architecture));
        set("os", json!(self.os));
        set("config", self.config.to_value()?);
        set(
            "rootfs",
            json!({"type": "layers", "diff_ids": rootfs_diff_ids}),
        );
        if let Some(created) = &self.created {
            set("created", json!(created));
        }
        for (key, text) in [
            ("author", &self.author),
            ("os.version", &self.os_version),
            ("variant", &self.variant),
        ] {
            if !text.is_empty() {
                set(key, json!(text));
            }
        }
        if !self.os_features.is_empty() {
            set("os.features", json!(self.os_features));
        }
        if !self.history.is_empty() {
            set(
                "history",
                self.history.iter().map(History::to_value).collect(),
            );
        }
        Ok(escape_html(
            &Value::Object(top.into_iter().collect()).to_string(),
        ))
    }

    /// Checks what [`ImageConfig::to_json`] would refuse.
    pub fn check_extra(&self) -> Result<(), ImageConfigError> {
        extra(&self.extra, TOP_KEYS)?;
        extra(&self.config.extra, CONFIG_KEYS)?;
        Ok(())
    }
}

impl Config {
    fn to_value(&self) -> Result<Value, ImageConfigError> {
        let mut fields = Map::new();
        let mut set = |key: &str, present: bool, value: Value| {
            if present {
                fields.insert(key.to_owned(), value);
            }
        };
        let keys = |names: &[String]| -> Value {
            let sorted: BTreeMap<&str, Value> = names
                .iter()
                .map(|name| (name.as_str(), json!({})))
                .collect();
            json!(sorted)
        };
        let filled =
            |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        set("User", !self.user.is_empty(), json!(self.user));
        set(
            "ExposedPorts",
            !self.exposed_ports.is_empty(),
            keys(&self.exposed_ports),
        );
        set("Env", !self.env.is_empty(), json!(self.env));
        set(
            "Entrypoint",
            filled(&self.entrypoint),
            json!(self.entrypoint),
        );
        set("Cmd", filled(&self.cmd), json!(self.cmd));
        set("Volumes", !self.volumes.is_empty(), keys(&self.volumes));
        set(
            "WorkingDir",
            !self.working_dir.is_empty(),
            json!(self.working_dir),
        );
        set("Labels", !self.labels.is_empty(), json!(self.labels));
        set(
            "StopSignal",
            !self.stop_signal.is_empty(),
            json!(self.stop_signal),
        );
        set("ArgsEscaped", self.args_escaped, json!(true));
        if let Some(check) = &self.healthcheck {
            set("Healthcheck", true, check.to_value());
        }
        set("OnBuild", !self.on_build.is_empty(), json!(self.on_build));
        set("Shell", filled(&self.shell), json!(self.shell));
        for (key, value) in extra(&self.extra, CONFIG_KEYS)? {
            set(&key, true, value);
        }
        Ok(Value::Object(fields))
    }
}

impl Healthcheck {
    fn to_value(&self) -> Value {
        let mut fields = Map::new();
        if !self.test.is_empty() {
            fields.insert("Test".to_owned(), json!(self.test));
        }
        for (key, number) in [
            ("Interval", self.interval_ns),
            ("Timeout", self.timeout_ns),
            ("StartPeriod", self.start_period_ns),
            ("StartInterval", self.start_interval_ns),
            ("Retries", self.retries),
        ] {
            if number != 0 {
                fields.insert(key.to_owned(), json!(number));
            }
        }
        Value::Object(fields)
    }
}

impl History {
    fn to_value(&self) -> Value {
        let mut fields = Map::new();
        let texts = [
            ("created", self.created.as_deref().unwrap_or_default()),
            ("created_by", &self.created_by),
            ("author", &self.author),
            ("comment", &self.comment),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                fields.insert(key.to_owned(), json!(text));
            }
        }
        if self.empty_layer {
            fields.insert("empty_layer".to_owned(), json!(true));
        }
        Value::Object(fields)
    }
}

fn extra(
    extra: &BTreeMap<String, String>,
    own: &[&str],
) -> Result<Vec<(String, Value)>, ImageConfigError> {
    let entries = extra.iter().map(|(key, text)| {
        if own.contains(&key.as_str()) {
            return Err(ImageConfigError::ExtraKey { key: key.clone() });
        }
        let value = serde_json::from_str(text).map_err(|source| ImageConfigError::ExtraValue {
            key: key.clone(),
            value: text.clone(),
            source,
        })?;
        Ok((key.clone(), value))
    });
    entries.collect()
}

/// Go's encoder writes these so that a document can stand within HTML; outside strings they don't occur.
fn escape_html(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)))
            }
            character => escaped.push(character),
        }
    }
    escaped
}

/// The members of an object that are not yet read.
struct Fields {
    /// The object's key with a `.`, or nothing.
    prefix: String,
    members: Map<String, Value>,
}

impl Fields {
    fn new(key: &str, value: Value) -> Result<Self, ImageConfigError> {
        let prefix = if key.is_empty() {
            String::new()
        } else {
            format!("{key}.")
        };
        match value {
            Value::Null => Ok(Self {
                prefix,
                members: Map::new(),
            }),
            Value::Object(members) => Ok(Self { prefix, members }),
            other => Err(mismatch(
                if key.is_empty() { "." } else { key },
                "an object",
                &other,
            )),
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str, Value) -> Result<T, ImageConfigError>,
    ) -> Result<T, ImageConfigError> {
        let value = self.members.shift_remove(key).unwrap_or(Value::Null);
        read(&format!("{}{key}", self.prefix), value)
    }

    fn rest(self) -> BTreeMap<String, String> {
        self.members
            .into_iter()
            .map(|(key, value)| (key, value.to_string()))
            .collect()
    }
}

fn run_config(key: &str, value: Value) -> Result<Config, ImageConfigError> {
    let mut fields = Fields::new(key, value)?;
    let mut config = Config {
        user: fields.take("User", string)?,
        exposed_ports: fields.take("ExposedPorts", names)?,
        env: fields.take("Env", strings)?,
        entrypoint: fields.take("Entrypoint", optional_strings)?,
        cmd: fields.take("Cmd", optional_strings)?,
        volumes: fields.take("Volumes", names)?,
        working_dir: fields.take("WorkingDir", string)?,
        labels: fields.take("Labels", |key, value| {
            let labels = Fields::new(key, value)?.members;
            labels
                .into_iter()
                .map(|(name, value)| Ok((name.clone(), string(&format!("{key}.{name}"), value)?)))
                .collect()
        })?,
        stop_signal: fields.take("StopSignal", string)?,
        args_escaped: fields.take("ArgsEscaped", boolean)?,
        healthcheck: fields.take("Healthcheck", |key, value| match value {
            Value::Null => Ok(None),
            value => healthcheck(key, value).map(Some),
        })?,
        on_build: fields.take("OnBuild", strings)?,
        shell: fields.take("Shell", optional_strings)?,
        extra: BTreeMap::new(),
    };
    config.extra = fields.rest();
    Ok(config)
}

fn healthcheck(key: &str, value: Value) -> Result<Healthcheck, ImageConfigError> {
    let mut fields = Fields::new(key, value)?;
    Ok(Healthcheck {
        test: fields.take("Test", strings)?,
        interval_ns: fields.take("Interval", integer)?,
        timeout_ns: fields.take("Timeout", integer)?,
        start_period_ns: fields.take("StartPeriod", integer)?,
        start_interval_ns: fields.take("StartInterval", integer)?,
        retries: fields.take("Retries", integer)?,
    })
}

fn history(key: &str, value: Value) -> Result<History, ImageConfigError> {
    let mut fields = Fields::new(key, value)?;
    Ok(History {
        created: fields.take("created", optional_string)?,
        created_by: fields.take("created_by", string)?,
        author: fields.take("author", string)?,
        comment: fields.take("comment", string)?,
        empty_layer: fields.take("empty_layer", boolean)?,
    })
}

fn string(key: &str, value: Value) -> Result<String, ImageConfigError> {
    Ok(optional_string(key, value)?.unwrap_or_default())
}

fn optional_string(key: &str, value: Value) -> Result<Option<String>, ImageConfigError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(mismatch(key, "a string", &other)),
    }
}

fn boolean(key: &str, value: Value) -> Result<bool, ImageConfigError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(value),
        other => Err(mismatch(key, "true or false", &other)),
    }
}

fn integer(key: &str, value: Value) -> Result<i64, ImageConfigError> {
    match value {
        Value::Null => Ok(0),
        other => other
            .as_i64()
            .ok_or_else(|| mismatch(key, "a 64-bit integer", &other)),
    }
}

fn strings(key: &str, value: Value) -> Result<Vec<String>, ImageConfigError> {
    list(key, value, string)
}

fn optional_strings(key: &str, value: Value) -> Result<Option<Vec<String>>, ImageConfigError> {
    match value {
        Value::Null => Ok(None),
        value => strings(key, value).map(Some),
    }
}

/// The keys of an object that stands for a set, sorted.
fn names(key: &str, value: Value) -> Result<Vec<String>, ImageConfigError> {
    let mut names: Vec<String> = Fields::new(key, value)?
        .members
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn list<T>(
    key: &str,
    value: Value,
    read: impl Fn(&str, Value) -> Result<T, ImageConfigError>,
) -> Result<Vec<T>, ImageConfigError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => {
            let items = values.into_iter().enumerate();
            items
                .map(|(index, value)| read(&format!("{key}[{index}]"), value))
                .collect()
        }
        other => Err(mismatch(key, "a list", &other)),
    }
}

fn mismatch(key: &str, expected: &'static str, found: &Value) -> ImageConfigError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ImageConfigError::Type {
        key: key.to_owned(),
        expected,
        found,
    }
}
