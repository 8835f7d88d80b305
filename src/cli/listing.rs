//! `kiln images`: which images are listed, and how.

use clap::Args;
use kiln::{ImageSummary, full_name, wildcard_match};

use super::host::{self, Needs};
use super::images::columns;
use super::progress::words_bytes;
use super::{Done, print, spec};

/// Digits of an id that people see.
const SHOWN_DIGITS: usize = 12;
#[derive(Debug, Args)]
#[command(after_help = "\
Filters, several of which go together:
  dangling=true|false    without a name, or with one
  label=KEY[=VALUE]      with this label
  reference=PATTERN      with a name such as app, app:1 or registry.example/*/app; * is no slash

Examples:
  kiln images app                            all tags of app
  kiln images -q --filter dangling=true
  kiln images --format json | jq -r .names[]")]
pub(crate) struct ImagesArgs {
    /// Only the images of this name, or of this repository
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only some of them
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print as JSON, one image a line
    #[arg(long)]
    pub(crate) json: bool,
    /// How to print: table or json
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show by which digest registries know each
    #[arg(long)]
    pub(crate) digests: bool,
}

/// Which images are listed.
#[derive(Default)]
struct Filter<'a> {
    dangling: Option<bool>,
    labels: Vec<(&'a str, Option<&'a str>)>,
    /// A name that is listed fits the first one, and one of the others.
    name: Option<&'a str>,
    references: Vec<&'a str>,
}

impl Filter<'_> {
    fn of(args: &ImagesArgs) -> spec::Result<Filter<'_>> {
        let mut filter = Filter {
            name: args.name.as_deref(),
            ..Filter::default()
        };
        for given in &args.filter {
            let (key, value) = given.split_once('=').unwrap_or((given, ""));
            match (key, value) {
                ("dangling", "true" | "1") => filter.dangling = Some(true),
                ("dangling", "false" | "0") => filter.dangling = Some(false),
                ("label", label) if !label.is_empty() => {
                    let (key, value) = match label.split_once('=') {
                        Some((key, value)) => (key, Some(value)),
                        None => (label, None),
                    };
                    filter.labels.push((key, value));
                }
                ("reference", pattern) if !pattern.is_empty() => filter.references.push(pattern),
                _ => {
                    return spec::refuse(
                        format!("`--filter {given}` is not known"),
                        "there is dangling=true, dangling=false, label=KEY, label=KEY=VALUE and reference=PATTERN",
                    );
                }
            }
        }
        for pattern in filter.name.iter().chain(&filter.references) {
            if let Err(error) = wildcard_match(pattern, "") {
                return spec::refuse(error.to_string(), "");
            }
        }
        Ok(filter)
    }

    /// Whether an image is listed; the names by which it is not are taken from it.
    fn keeps(&self, image: &mut ImageSummary) -> bool {
        let has = |(key, wanted): &(&str, Option<&str>)| {
            let value = image.labels.get(*key);
            value.is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
        };
        if self
            .dangling
            .is_some_and(|wanted| wanted != image.names.is_empty())
            || !self.labels.iter().all(has)
        {
            return false;
        }
        if self.name.is_none() && self.references.is_empty() {
            return true;
        }
        let any = self.references.is_empty();
        image.names.retain(|name| {
            self.name.is_none_or(|pattern| fits(pattern, name))
                && (any || self.references.iter().any(|pattern| fits(pattern, name)))
        });
        let kept = &image.names;
        image.digests.retain(|digest| {
            let mut kept = kept.iter();
            kept.any(|name| repository(name) == repository(digest))
        });
        !image.names.is_empty()
    }
}

/// Whether a name, or its repository, fits a pattern, in the short form or whole.
fn fits(pattern: &str, name: &str) -> bool {
    let whole = full_name(name).unwrap_or_default();
    let mut forms = [name, repository(name), &whole, repository(&whole)].into_iter();
    forms.any(|form| wildcard_match(pattern, form).unwrap_or(false))
}

/// A name without its tag or digest.
fn repository(name: &str) -> &str {
    let (repository, _) = name
        .split_once('@')
        .or_else(|| name.rsplit_once(':'))
        .unwrap_or((name, ""));
    repository
}

fn short(id: &str) -> String {
    id.strip_prefix("sha256:")
        .unwrap_or(id)
        .chars()
        .take(SHOWN_DIGITS)
        .collect()
}

pub(crate) fn images(args: &ImagesArgs) -> Done {
    let filter = Filter::of(args)?;
    let json = args.json
        || match args.format.as_deref() {
            None | Some("table") => false,
            Some("json") => true,
            Some(other) => {
                return Ok(spec::refuse(
                    format!("`--format {other}` is not known; there is table, and json"),
                    "templates are not read: `--format json` prints one image a line, with names, id, digests and labels",
                )?);
            }
        };
    let kiln = host::open(Needs::Records, true)?;
    let mut images = kiln.images()?;
    images.retain_mut(|image| filter.keeps(image));
    if args.quiet {
        let id = |id: &str| {
            if args.no_trunc {
                id.to_owned()
            } else {
                short(id)
            }
        };
        return print(
            &images
                .iter()
                .map(|image| format!("{}\n", id(&image.id)))
                .collect::<String>(),
        );
    }
    if json {
        let line = |image: &ImageSummary| {
            let json = serde_json::json!({
                "id": image.id,
                "names": image.names,
                "digests": image.digests,
                "platforms": image.platforms,
                "labels": image.labels,
                "size": image.size_bytes,
            });
            format!("{json}\n")
        };
        return print(&images.iter().map(line).collect::<String>());
    }
    let mut rows = vec![["NAME", "DIGEST", "ID", "PLATFORM", "ADDED", "SIZE"].map(str::to_owned)];
    for image in &images {
        let id = if args.no_trunc {
            image.id.clone()
        } else {
            short(&image.id)
        };
        for (name, digest) in names_and_digests(image, args.digests) {
            rows.push([
                name,
                digest,
                id.clone(),
                image.platforms.join(", "),
                image.added.clone(),
                words_bytes(image.size_bytes),
            ]);
        }
    }
    if args.digests {
        return print(&columns(&rows));
    }
    let rows = rows
        .into_iter()
        .map(|[name, _, id, platform, added, size]| [name, id, platform, added, size]);
    print(&columns(&rows.collect::<Vec<_>>()))
}

/// The names of an image, each with each digest that a registry knows it by, if these are to be shown.
fn names_and_digests(image: &ImageSummary, with_digests: bool) -> Vec<(String, String)> {
    const NONE: &str = "<none>";
    let mut rows = Vec::new();
    let digests: Vec<(&str, &str)> = image
        .digests
        .iter()
        .filter(|_| with_digests)
        .filter_map(|digest| digest.split_once('@'))
        .collect();
    let of_name = |of: &str, name: &str| {
        let repository = name.rsplit_once(':').map(|(repository, _)| repository);
        repository == Some(of) || of == name
    };
    let mut names: Vec<&String> = image.names.iter().collect();
    if !digests.is_empty() {
        names.retain(|name| !name.contains('@'));
    }
    for name in &names {
        let of_it = digests.iter().filter(|(of, _)| of_name(of, name));
        let shown: Vec<_> = of_it
            .map(|(_, digest)| ((*name).clone(), (*digest).to_owned()))
            .collect();
        match shown.is_empty() {
            true => rows.push(((*name).clone(), NONE.to_owned())),
            false => rows.extend(shown),
        }
    }
    let others = digests
        .iter()
        .filter(|(of, _)| !names.iter().any(|name| of_name(of, name)));
    rows.extend(others.map(|(of, digest)| ((*of).to_owned(), (*digest).to_owned())));
    if rows.is_empty() {
        rows.push((NONE.to_owned(), NONE.to_owned()));
    }
    rows
}
