//! One build: from a description, by way of the archives, to a plan.

use std::io::{BufRead, Write};
use std::ops::Range;

use jiff::Timestamp;
use kiln_ir::build::{Builder, Tree, copy};
use kiln_ir::{HttpSource, Platform, SourceOp};

use crate::description::{Content, Description, Problem, Source};
use crate::packed::{self, PackedError};
use crate::protocol::{Build, ProtocolError, Talk};
use crate::recipe::{Recipe, Variant, fetch};
use crate::release::{IndexFile, Release};
use crate::selection::{download, select};
use crate::signature::{Keyring, Signed, verify};
use crate::universe::Universe;

/// Where a host has the keys of Debian's archives.
const DEBIAN_KEYS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// What kept a build from being planned.
#[derive(Debug)]
enum Stop {
    /// To be said to people.
    Problems(Vec<Problem>),
    /// There is nobody to say it to.
    Protocol(ProtocolError),
}

impl From<ProtocolError> for Stop {
    fn from(error: ProtocolError) -> Self {
        Stop::Protocol(error)
    }
}

fn stop(span: &Range<usize>, message: String, help: Option<&str>) -> Stop {
    Stop::Problems(vec![Problem {
        message,
        span: span.clone(),
        help: help.map(str::to_owned),
    }])
}

/// An index as it was read.
struct Index {
    source: usize,
    text: String,
}

/// Plans one build and says so.
pub fn serve(from: impl BufRead, to: impl Write) -> Result<(), ProtocolError> {
    let (mut talk, build) = Talk::begin(from, to)?;
    let text = build.file.as_ref().map(|file| file.text());
    let text = match text {
        Some(Some(text)) => text,
        Some(None) => {
            talk.diagnostic("the file is not UTF-8", None, None)?;
            return talk.fail();
        }
        None => {
            let help = "name a `debian.toml` by `-f`";
            talk.diagnostic(
                "there is no file that describes the image",
                None,
                Some(help),
            )?;
            return talk.fail();
        }
    };
    match prepare(&mut talk, &build, &text) {
        Ok(plan) => {
            let unused = build.args.keys().map(String::as_str);
            // kiln takes it for every time in the result.
            let unused = unused.filter(|name| *name != "SOURCE_DATE_EPOCH").collect();
            talk.plan(&plan, &unused)
        }
        Err(Stop::Protocol(error)) => Err(error),
        Err(Stop::Problems(problems)) => {
            for problem in problems {
                let place = place(&text, problem.span);
                talk.diagnostic(&problem.message, place, problem.help.as_deref())?;
            }
            talk.fail()
        }
    }
}

/// Lines and columns of a part of a text, from 1; an empty part is none.
fn place(text: &str, span: Range<usize>) -> Option<[usize; 4]> {
    if span.is_empty() {
        return None;
    }
    let at = |offset: usize| {
        let before = &text[..text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        [line, before[begin..].chars().count() + 1]
    };
    let ([line, column], [end_line, end_column]) = (at(span.start), at(span.end));
    Some([line, column, end_line, end_column])
}

fn prepare<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    build: &Build,
    text: &str,
) -> Result<kiln_ir::Plan, Stop> {
    let description = Description::parse(text).map_err(Stop::Problems)?;
    if !build.target.is_empty() {
        let message = format!(
            "there is no target `{}`: the file describes one image",
            build.target
        );
        return Err(stop(&(0..0), message, None));
    }
    if build.assuming {
        let message = "packages are not known without asking the archives".to_owned();
        return Err(stop(&(0..0), message, Some("plan with `--resolve`")));
    }
    let directory = build
        .contexts
        .get("context")
        .and_then(|context| context.get("directory"));
    let takes_files = description
        .files
        .values()
        .find_map(|file| match &file.content {
            Content::From(from) => Some(from),
            Content::Inline(_) => None,
        });
    if let (Some(from), None) = (takes_files, directory) {
        let message = format!(
            "`{}` is to come from a context that is no directory",
            from.text
        );
        return Err(stop(&from.span, message, None));
    }
    let ignore = directory.and_then(|directory| directory.get("ignore"));
    let ignore = ignore.and_then(|ignore| serde_json::from_value(ignore.clone()).ok());
    let releases = releases(talk, &description)?;
    let mut variants = Vec::new();
    for name in &build.platforms {
        let platform = Platform::parse(name);
        let platform = platform.map_err(|error| stop(&(0..0), error.to_string(), None))?;
        variants.push(variant(talk, &description, &releases, platform)?);
    }
    let recipe = Recipe {
        description: &description,
        ignore: ignore.unwrap_or_default(),
        epoch: build.source_date_epoch,
        variants,
    };
    recipe.plan().map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        stop(
            &(0..0),
            format!("{error}{}", cause.unwrap_or_default()),
            None,
        )
    })
}

/// How a source is called when something is wrong with it.
fn called(source: &Source) -> String {
    format!("`{}` of {}", source.suite, source.url)
}

/// Fetches files, as one plan, into a source with a file for each, by number.
fn fetch_all<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    files: Vec<(SourceOp, String)>,
) -> Result<String, Stop> {
    let b = Builder::new();
    let mut actions = Vec::new();
    for (number, (source, title)) in files.into_iter().enumerate() {
        let tree: Tree<'_> = b.source(source, None).named(title);
        actions.push(copy(tree.at("/file"), format!("/{number}")));
    }
    b.result("", b.scratch().file(actions), None);
    let plan = b
        .finish()
        .map_err(|error| stop(&(0..0), error.to_string(), None))?;
    let solved = talk.solve(&plan)?;
    solved.map_err(|fault| stop(&(0..0), fault.message, None))
}

fn http(url: String, sha256: Option<&str>) -> SourceOp {
    SourceOp::Http(HttpSource {
        url,
        checksum: sha256.map(|digest| format!("sha256:{digest}")),
        filename: Some("file".to_owned()),
        ..HttpSource::default()
    })
}

/// Fetches the releases of all sources, and trusts none that is not signed, or not of now.
fn releases<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    description: &Description,
) -> Result<Vec<Release>, Stop> {
    let files = description.sources.iter().map(|source| {
        let url = format!("{}/dists/{}/InRelease", source.url, source.suite);
        (
            http(url, None),
            format!("fetch the release of {}", source.suite),
        )
    });
    let fetched = fetch_all(talk, files.collect())?;
    let mut releases = Vec::new();
    for (number, source) in description.sources.iter().enumerate() {
        let fail = |reason: String, help| {
            stop(&source.span, format!("{}: {reason}", called(source)), help)
        };
        let keys = keys(talk, source)?;
        let bytes = talk.read(&fetched, &number.to_string())?;
        let bytes = bytes.map_err(|fault| fail(fault.message, None))?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| fail("its InRelease file is not UTF-8".to_owned(), None))?;
        let signed = Signed::parse(&text).map_err(|error| fail(error.to_string(), None))?;
        verify(&signed, &keys).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            fail(format!("{error}{}", cause.unwrap_or_default()), None)
        })?;
        let release =
            Release::parse(&signed.text).map_err(|error| fail(error.to_string(), None))?;
        let checked = release.check(&source.suite, Timestamp::now(), source.expires);
        checked.map_err(|error| {
            let help = "see to the clock and the mirror, or set `check-valid-until = false` for it";
            fail(error.to_string(), Some(help).filter(|_| source.expires))
        })?;
        releases.push(release);
    }
    Ok(releases)
}

/// The keys that a source may be signed with.
fn keys<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    source: &Source,
) -> Result<Vec<Keyring>, Stop> {
    let mut keys = Vec::new();
    for named in &source.keys {
        let bytes = talk.read("context", &named.text)?;
        let bytes = bytes.map_err(|fault| stop(&named.span, fault.message, None))?;
        let keyring = Keyring::new(&named.text, bytes);
        keys.push(keyring.map_err(|error| stop(&named.span, error.to_string(), None))?);
    }
    if !keys.is_empty() {
        return Ok(keys);
    }
    for path in DEBIAN_KEYS {
        if let Ok(bytes) = std::fs::read(path) {
            let keyring = Keyring::new(path, bytes);
            keys.push(keyring.map_err(|error| stop(&source.span, error.to_string(), None))?);
            return Ok(keys);
        }
    }
    let message = format!(
        "there are no keys for {}: this host has no {}",
        called(source),
        DEBIAN_KEYS[1]
    );
    let help = "install `debian-archive-keyring`, or give the source `keys` from the context";
    Err(stop(&source.span, message, Some(help)))
}

/// Debian's name of an architecture.
fn architecture(platform: &Platform) -> Option<&'static str> {
    if platform.os != "linux" {
        return None;
    }
    Some(
        match (platform.architecture.as_str(), platform.variant.as_str()) {
            ("amd64", _) => "amd64",
            ("386", _) => "i386",
            ("arm64", _) => "arm64",
            ("arm", "v5" | "v6") => "armel",
            ("arm", _) => "armhf",
            ("loong64", _) => "loong64",
            ("mips64le", _) => "mips64el",
            ("ppc64le", _) => "ppc64el",
            ("riscv64", _) => "riscv64",
            ("s390x", _) => "s390x",
            _ => return None,
        },
    )
}

fn variant<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    description: &Description,
    releases: &[Release],
    platform: Platform,
) -> Result<Variant, Stop> {
    let Some(architecture) = architecture(&platform) else {
        let message = format!("Debian has nothing for `{platform}`");
        return Err(stop(&(0..0), message, None));
    };
    let indexes = indexes(talk, description, releases, architecture)?;
    let mut universe = Universe::new(architecture);
    for index in &indexes {
        let source = &description.sources[index.source];
        let added = universe.add(index.source, &index.text);
        added.map_err(|error| stop(&source.span, format!("{}: {error}", called(source)), None))?;
    }
    let selection =
        select(&universe, description).map_err(|problem| Stop::Problems(vec![problem]))?;
    let busybox = busybox(talk, &universe, description)?;
    talk.log(&format!(
        "{} packages of {} for {platform}, {} of them the base",
        selection.base.len() + selection.batches.iter().map(Vec::len).sum::<usize>(),
        universe.len(),
        selection.base.len()
    ))?;
    Ok(selection.variant(platform, busybox))
}

/// Fetches and unpacks the indexes of all sources.
fn indexes<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    description: &Description,
    releases: &[Release],
    architecture: &str,
) -> Result<Vec<Index>, Stop> {
    let mut found: Vec<(usize, IndexFile)> = Vec::new();
    for (number, (source, release)) in description.sources.iter().zip(releases).enumerate() {
        for component in &source.components {
            let indexes = release.indexes(component, architecture).map_err(|error| {
                stop(&source.span, format!("{}: {error}", called(source)), None)
            })?;
            found.extend(indexes.into_iter().map(|index| (number, index)));
        }
    }
    if found.is_empty() {
        let message = format!("no source has packages for `{architecture}`");
        return Err(stop(&(0..0), message, None));
    }
    let files = found.iter().map(|(number, index)| {
        let source = &description.sources[*number];
        let url = format!("{}/dists/{}/{}", source.url, source.suite, index.path);
        let title = format!("fetch the packages of {}", source.suite);
        (http(url, Some(&index.sha256)), title)
    });
    let fetched = fetch_all(talk, files.collect())?;
    let mut indexes = Vec::new();
    for (at, (number, index)) in found.into_iter().enumerate() {
        let source = &description.sources[number];
        let fail = |reason: String| {
            stop(
                &source.span,
                format!("the packages of {}: {reason}", called(source)),
                None,
            )
        };
        let bytes = talk.read(&fetched, &at.to_string())?;
        let bytes = bytes.map_err(|fault| fail(fault.message))?;
        let text = packed::index(&bytes, index.packing).map_err(|error| fail(error.to_string()))?;
        indexes.push(Index {
            source: number,
            text,
        });
    }
    Ok(indexes)
}

/// Fetches the program that unpacks the first packages.
fn busybox<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    universe: &Universe<'_>,
    description: &Description,
) -> Result<Vec<u8>, Stop> {
    let Some(id) = universe.versions("busybox-static").first() else {
        let message = "no source has `busybox-static`, which unpacks the first packages";
        return Err(stop(&(0..0), message.to_owned(), None));
    };
    let package = download(universe, description, *id);
    let b = Builder::new();
    b.result("", fetch(&b, &package), None);
    let plan = b
        .finish()
        .map_err(|error| stop(&(0..0), error.to_string(), None))?;
    let fail = |reason: String| stop(&(0..0), format!("`{}`: {reason}", package.title), None);
    let source = talk.solve(&plan)?.map_err(|fault| fail(fault.message))?;
    let bytes = talk
        .read(&source, &package.file)?
        .map_err(|fault| fail(fault.message))?;
    packed::file(&bytes, "bin/busybox").map_err(|error| match error {
        PackedError::Read(cause) => fail(format!("it cannot be unpacked: {cause}")),
        error => fail(error.to_string()),
    })
}
