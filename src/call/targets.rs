//! The targets of a Dockerfile, as they are written.

use kiln_frontend::dockerfile::Source;
use kiln_frontend::dockerfile::span::LineRange;
use serde::Serialize;

use super::location::{Location, base64, pretty};
use super::look::asker;
use crate::delivery::Place;
use crate::dockerfile::{Loaded, load};
use crate::{Error, Findings, Kiln, SourceRequest};

/// The stages of a Dockerfile, each of which can be built.
#[derive(Debug, Clone)]
pub struct Targets {
    /// In source order.
    pub list: Vec<Target>,
    text: Source,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in lower case, if it has one.
    pub name: Option<String>,
    /// It is built where no target is named.
    pub is_default: bool,
    /// The text of the comment above FROM.
    pub description: Option<String>,
    /// The base as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    lines: LineRange,
}

#[derive(Serialize)]
struct Document<'t> {
    targets: Vec<Entry<'t>>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Entry<'t> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'t str>,
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    is_default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'t str>,
    base: &'t str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'t str>,
    location: Location,
}

impl Targets {
    /// Lists the targets of a Dockerfile that is here and can be parsed.
    pub fn local(request: &SourceRequest) -> Result<Targets, Error> {
        Targets::of(load(request, Place::local(request)?)?)
    }

    fn of(loaded: Loaded) -> Result<Targets, Error> {
        let parsed = loaded.parsed;
        if parsed.has_errors() {
            return Err(Error::Dockerfile(Box::new(Findings {
                file_name: loaded.input.file_name,
                text: loaded.input.text,
                diagnostics: parsed.diagnostics,
            })));
        }
        let stages = &parsed.dockerfile.stages;
        let list = stages.iter().enumerate().map(|(index, stage)| {
            let from = &stage.from;
            Target {
                name: stage.name(),
                is_default: index + 1 == stages.len(),
                description: stage.description.clone(),
                base: from.kind.image.text.to_string(),
                platform: from
                    .kind
                    .platform
                    .as_ref()
                    .map(|word| word.text.to_string()),
                lines: from.lines,
            }
        });
        Ok(Targets {
            list: list.collect(),
            text: loaded.input.text,
        })
    }

    /// Returns the result of BuildKit's `frontend.targets`.
    pub fn json(&self) -> String {
        let targets = self.list.iter().map(|target| Entry {
            name: target.name.as_deref(),
            is_default: target.is_default,
            description: target.description.as_deref(),
            base: &target.base,
            platform: target.platform.as_deref(),
            location: Location::new(target.lines),
        });
        pretty(&Document {
            targets: targets.collect(),
            sources: vec![base64(&self.text)],
        })
    }
}

impl Kiln {
    /// Lists the targets of a Dockerfile, wherever it is.
    pub async fn targets(&self, request: &SourceRequest) -> Result<Targets, Error> {
        let asker = asker(self);
        Targets::of(load(request, Place::arrive(request, &asker).await?)?)
    }
}
