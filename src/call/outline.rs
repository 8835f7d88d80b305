//! What a target of a build takes: arguments, secrets, agents, caches.

use kiln_frontend::dockerfile::Source;
use kiln_frontend::lower::{Lowering, Outline, OutlineMount};
use serde::Serialize;

use super::location::{Location, base64, pretty};
use super::look::{Looked, asker, assume, look};
use crate::delivery::Place;
use crate::dockerfile::{Loaded, load};
use crate::{Error, Findings, Kiln, SourceRequest};

/// What a target takes.
#[derive(Debug, Clone)]
pub struct Outlined {
    /// The parts.
    pub outline: Outline,
    /// Base images that nobody could look at, with why; their triggers are not seen.
    pub unseen: Vec<(String, String)>,
    text: Source,
}

#[derive(Serialize)]
struct Document<'o> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'o str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'o>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Mount<'o>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Mount<'o>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<Cache<'o>>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Arg<'o> {
    name: &'o str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'o str>,
    location: Location,
}

#[derive(Serialize)]
struct Mount<'o> {
    name: &'o str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct Cache<'o> {
    #[serde(rename = "ID")]
    id: &'o str,
    location: Location,
}

impl Outlined {
    fn of(looked: Looked, loaded: Loaded) -> Result<Outlined, Error> {
        match looked.lowering {
            Lowering::Lowered(lowered) => Ok(Outlined {
                outline: lowered.outline,
                unseen: looked.unseen,
                text: loaded.input.text,
            }),
            Lowering::Failed(diagnostics) => Err(Error::Dockerfile(Box::new(Findings {
                file_name: loaded.input.file_name,
                text: loaded.input.text,
                diagnostics,
            }))),
            Lowering::Needs(_) => unreachable!("BUG: questions are answered before"),
        }
    }

    /// Outlines without asking anybody: triggers of base images are not seen.
    pub fn assuming(request: &SourceRequest) -> Result<Outlined, Error> {
        let loaded = load(request, Place::local(request)?)?;
        Outlined::of(assume(&loaded), loaded)
    }

    /// Returns the result of BuildKit's `frontend.outline`.
    pub fn json(&self) -> String {
        let outline = &self.outline;
        let args = outline.args.iter().map(|arg| Arg {
            name: &arg.name,
            description: arg.description.as_deref(),
            value: arg.value.as_deref().filter(|value| !value.is_empty()),
            location: Location::new(arg.lines),
        });
        pretty(&Document {
            name: outline.name.as_deref(),
            description: outline.description.as_deref(),
            args: args.collect(),
            secrets: mounts(&outline.secrets),
            ssh: mounts(&outline.ssh),
            cache: outline
                .caches
                .iter()
                .map(|cache| Cache {
                    id: &cache.id,
                    location: Location::new(cache.lines),
                })
                .collect(),
            sources: vec![base64(&self.text)],
        })
    }
}

fn mounts(list: &[OutlineMount]) -> Vec<Mount<'_>> {
    list.iter()
        .map(|mount| Mount {
            name: &mount.id,
            required: mount.required,
            location: Location::new(mount.lines),
        })
        .collect()
}

impl Kiln {
    /// Outlines a target with what store and registries say of its base images.
    ///
    /// An image that cannot be looked at now is no error.
    pub async fn outline(&self, request: &SourceRequest) -> Result<Outlined, Error> {
        let asker = asker(self);
        let loaded = load(request, Place::arrive(request, &asker).await?)?;
        let looked = look(&asker.resolver, &loaded, request.resolve_mode).await;
        Outlined::of(looked, loaded)
    }
}
