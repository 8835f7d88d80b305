//! Two images of the store compared: configs by key, layers by file, files by what they hold.

mod config;
mod content;
mod files;
mod inside;

use kiln_ir::ImageConfig;
use kiln_solver::Cancel;
use kiln_store::{Content, Lease};
use kiln_tree::Stop;
use serde::Serialize;

use crate::error::Error;
use crate::executor::Executor;
use crate::source::diff_ids;
use crate::worker::stop_of;

/// So much of a file, or of what is packed in one, is held to look inside.
const MOST_INSIDE_BYTES: u64 = 16 << 20;

/// What differs between two images for one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageDifferences {
    /// Such as `linux/amd64`.
    pub platform: String,
    /// How many layers each has.
    pub layer_counts: [usize; 2],
    /// Keys of the config, but for the digests of layers.
    pub config: Vec<ConfigDifference>,
    /// The layers that differ, lowest first.
    pub layers: Vec<LayerDifferences>,
}

/// A value of the config, as JSON; none where there is no such key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigDifference {
    /// Such as `config.Env[2]`.
    pub key: String,
    /// Of the first image.
    pub one: Option<String>,
    /// Of the second.
    pub two: Option<String>,
}

/// What differs in one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerDifferences {
    /// Which, from 0.
    pub index: usize,
    /// What the history says of it.
    pub created_by: String,
    /// The files, in the order of the tree.
    pub files: Vec<FileDifference>,
    /// So many more differ.
    pub more: usize,
}

/// What differs of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// From the root, such as `/etc/passwd`.
    pub path: String,
    /// Everything.
    pub differences: Vec<Difference>,
}

/// One thing that two files of a name have differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Difference {
    /// Only the first image has it.
    OnlyInFirst,
    /// Only the second image has it.
    OnlyInSecond,
    /// File, directory and so on.
    Type {
        /// Of the first.
        one: &'static str,
        /// Of the second.
        two: &'static str,
    },
    /// Permissions, in octal.
    Mode {
        /// Of the first.
        one: String,
        /// Of the second.
        two: String,
    },
    /// User and group.
    Owner {
        /// Of the first.
        one: String,
        /// Of the second.
        two: String,
    },
    /// Bytes.
    Size {
        /// Of the first.
        one: u64,
        /// Of the second.
        two: u64,
    },
    /// Seconds since 1970; only where the archives have it.
    Mtime {
        /// Of the first.
        one: i64,
        /// Of the second.
        two: i64,
    },
    /// Where a link leads, or which device it is.
    Target {
        /// Of the first.
        one: String,
        /// Of the second.
        two: String,
    },
    /// An extended attribute.
    Attribute {
        /// Its name.
        name: String,
    },
    /// What a file holds.
    Content(ContentDifference),
}

/// Where the contents of two files part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ContentDifference {
    /// The first byte that differs.
    pub offset: u64,
    /// In archives, what leads to the difference: `gzip`, `tar entry a/b`.
    pub within: Vec<String>,
    /// What it is, where that is more than bytes.
    pub said: String,
    /// The first line that differs, of texts.
    pub line: Option<LineDifference>,
}

/// A line of two texts; none where a text has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineDifference {
    /// From 1.
    pub number: usize,
    /// Of the first.
    pub one: Option<String>,
    /// Of the second.
    pub two: Option<String>,
}

impl ImageDifferences {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.config.is_empty() && self.layers.is_empty()
    }
}

impl Executor {
    /// Compares two images of the store, by name or id; of several platforms those that both have.
    pub fn compare_images(
        &self,
        one: &str,
        two: &str,
        cancel: &Cancel,
    ) -> Result<Vec<ImageDifferences>, Error> {
        let stop = &stop_of(cancel);
        let lease = self.store().lease();
        let (one, two) = (
            self.platforms_of(&lease, one)?,
            self.platforms_of(&lease, two)?,
        );
        let name = |image: &Part| image.platform.clone();
        if let ([one], [two]) = (&one[..], &two[..]) {
            return Ok(vec![self.compare_parts(one, two, stop)?]);
        }
        let mut found = Vec::new();
        for first in &one {
            match two.iter().find(|second| name(second) == name(first)) {
                Some(second) => found.push(self.compare_parts(first, second, stop)?),
                None => found.push(missing(name(first), [first.layers.len(), 0])),
            }
        }
        for second in &two {
            if !one.iter().any(|first| name(first) == name(second)) {
                found.push(missing(name(second), [0, second.layers.len()]));
            }
        }
        Ok(found)
    }

    fn platforms_of(&self, lease: &Lease, name: &str) -> Result<Vec<Part>, Error> {
        let image = self.find_image(lease, name)?;
        if image.members.is_empty() {
            return Ok(vec![Part::of(image, name)?]);
        }
        let mut parts = Vec::with_capacity(image.members.len());
        for member in &image.members {
            let image = self.find_image(lease, &member.id.to_string())?;
            parts.push(Part::of(image, name)?);
        }
        Ok(parts)
    }

    fn compare_parts(
        &self,
        one: &Part,
        two: &Part,
        stop: &Stop,
    ) -> Result<ImageDifferences, Error> {
        let mut layers = Vec::new();
        for index in 0..one.layers.len().max(two.layers.len()) {
            if one.diff_ids.get(index) == two.diff_ids.get(index) {
                continue;
            }
            let side = |part: &Part| -> Option<files::Side> {
                let stack = part.layers.get(..=index)?.to_vec();
                let diff_id = *part.diff_ids.get(index)?;
                Some(files::Side { stack, diff_id })
            };
            let (files, more) = files::compare(self.store(), side(one), side(two), stop)?;
            let part = if index < one.layers.len() { one } else { two };
            layers.push(LayerDifferences {
                index,
                created_by: created_by(&part.parsed, index),
                files,
                more,
            });
        }
        Ok(ImageDifferences {
            platform: one.platform.clone(),
            layer_counts: [one.layers.len(), two.layers.len()],
            config: config::compare(&one.config, &two.config),
            layers,
        })
    }
}

/// An image for one platform.
struct Part {
    platform: String,
    config: serde_json::Value,
    parsed: ImageConfig,
    layers: Vec<Content>,
    diff_ids: Vec<kiln_store::DiffId>,
}

impl Part {
    fn of(image: kiln_store::Image, name: &str) -> Result<Part, Error> {
        let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Document {
            what: "config",
            reference: name.to_owned(),
            source,
        };
        let parsed =
            ImageConfig::from_json(&image.config).map_err(|error| unreadable(error.into()))?;
        let config =
            serde_json::from_slice(&image.config).map_err(|error| unreadable(error.into()))?;
        Ok(Part {
            platform: crate::images::platform_of(&parsed).to_string(),
            diff_ids: diff_ids(&image.config, name)?,
            config,
            parsed,
            layers: image.layers,
        })
    }
}

fn missing(platform: String, layer_counts: [usize; 2]) -> ImageDifferences {
    let has = |count: usize| (count > 0).then(|| format!("\"{platform}\""));
    ImageDifferences {
        config: vec![ConfigDifference {
            key: "platform".to_owned(),
            one: has(layer_counts[0]),
            two: has(layer_counts[1]),
        }],
        platform,
        layer_counts,
        layers: Vec::new(),
    }
}

/// What the history says of a layer.
fn created_by(config: &ImageConfig, layer: usize) -> String {
    let mut entries = config.history.iter().filter(|entry| !entry.empty_layer);
    entries
        .nth(layer)
        .map(|entry| entry.created_by.clone())
        .unwrap_or_default()
}
