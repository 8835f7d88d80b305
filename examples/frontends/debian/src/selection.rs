//! The packages of an image: those of the base, and in which batches the others are installed.

use std::collections::BTreeSet;
use std::ops::Range;

use kiln_ir::Platform;

use crate::description::{Base, Description, Problem};
use crate::order::batches;
use crate::recipe::{Download, Variant};
use crate::relation::{Operator, Relation};
use crate::resolve::{ResolveError, Wishes, essential, resolve};
use crate::universe::{Id, Universe};
use crate::version::Version;

/// What is to be fetched and installed.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What is there before anything is wished for, by name.
    pub base: Vec<Download>,
    /// What comes beyond it, batch by batch, each by name.
    pub batches: Vec<Vec<Download>>,
}

impl Selection {
    /// Makes the part of a recipe that is for one platform.
    pub fn variant(self, platform: Platform, busybox: Vec<u8>) -> Variant {
        Variant {
            platform,
            busybox,
            base: self.base,
            batches: self.batches,
        }
    }
}

fn problem(span: &Range<usize>, message: String) -> Problem {
    Problem {
        message,
        span: span.clone(),
        help: None,
    }
}

/// Finds the packages of an image.
pub fn select(universe: &Universe<'_>, description: &Description) -> Result<Selection, Problem> {
    let nowhere = |error: ResolveError| problem(&(0..0), error.to_string());
    let mut wished: Vec<(Relation<'_>, &Range<usize>)> = Vec::new();
    for wish in &description.packages {
        // The name was checked when the description was read.
        let Ok(mut relation) = Relation::parse(&wish.name) else {
            continue;
        };
        if let Some(version) = &wish.version {
            relation.versions = Some((Operator::Equal, Version::of(version)));
        }
        wished.push((relation, &wish.span));
    }
    let excluded: BTreeSet<&str> = description.excluded.iter().map(String::as_str).collect();
    let core = essential(universe, description.base == Base::Required);
    if core.is_empty() {
        let message = "no source has an essential package, so that there is nothing to begin with";
        return Err(problem(&(0..0), message.to_owned()));
    }
    let mut names: Vec<&str> = core.iter().map(|id| universe.package(*id).name).collect();
    // The root is merged from the beginning; nothing has to be brought in to merge it.
    names.extend(
        ["usr-is-merged"]
            .into_iter()
            .filter(|name| !universe.versions(name).is_empty()),
    );
    let pin = |name: &str| {
        let mut wishes = wished.iter();
        wishes.find(|(wish, _)| wish.name == name && wish.versions.is_some())
    };
    let packages = names.iter().filter_map(|name| match pin(name) {
        Some((wish, _)) => Some(*wish),
        None => Relation::parse(name).ok(),
    });
    let wishes = Wishes {
        packages: packages.collect(),
        excluded,
        ..Wishes::default()
    };
    let base = resolve(universe, &wishes).map_err(nowhere)?;
    let wishes = Wishes {
        base,
        packages: wished.iter().map(|(wish, _)| *wish).collect(),
        excluded: wishes.excluded,
        recommends: description.recommends,
    };
    let more = resolve(universe, &wishes).map_err(|error| {
        let message = error.to_string();
        let meant = wished.iter().find(|(wish, _)| {
            message.contains(&format!("`{}`", wish.name)) || message.contains(&format!("`{wish}`"))
        });
        problem(meant.map_or(&(0..0), |(_, span)| span), message)
    })?;
    let ordered = batches(universe, &more);
    let ordered = ordered.map_err(|error| problem(&(0..0), error.to_string()))?;
    let names: BTreeSet<&str> = wished.iter().map(|(wish, _)| wish.name).collect();
    let found = |id: &Id| Download {
        is_wished: names.contains(universe.package(*id).name),
        ..download(universe, description, *id)
    };
    Ok(Selection {
        base: wishes.base.iter().map(found).collect(),
        batches: ordered
            .iter()
            .map(|batch| batch.iter().map(found).collect())
            .collect(),
    })
}

/// Where a package is fetched from.
pub fn download(universe: &Universe<'_>, description: &Description, id: Id) -> Download {
    let package = universe.package(id);
    let version = package.version();
    let file = format!("{}_{version}_{}.deb", package.name, package.architecture);
    let url = &description.sources[package.source].url;
    Download {
        title: format!("{} {version}", package.name),
        is_wished: false,
        file: file.replace(':', "%3a"),
        url: format!("{url}/{}", package.filename),
        sha256: package.sha256.to_ascii_lowercase(),
    }
}
