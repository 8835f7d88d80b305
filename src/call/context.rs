//! What a build sees of its context, and which line of which ignore file says so.

use kiln_frontend::dockerfile::suggest;
use kiln_ir::pattern::{PatternList, PatternState};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Component, Path};

use super::location::pretty;
use super::look::asker;
use crate::delivery::Place;
use crate::dockerfile::find_dockerfile;
use crate::ignore::{IgnoreFile, IgnoreRule};
use crate::{Error, Kiln, SourceRequest};

/// How many names near a missing one are told.
const MOST_NAMES: usize = 3;

/// What a build sees of its context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextListing {
    /// The directory, as it was given.
    pub directory: String,
    /// The ignore file, if there is one.
    pub ignore_file: Option<String>,
    /// What a COPY can take, sorted; directories only where they are empty.
    pub entries: Vec<ContextEntry>,
    /// The sum of the files' sizes.
    pub total_bytes: u64,
    /// How many files and directories the ignore file leaves out; what is within such a directory is
    /// not counted.
    pub left_out: u64,
}

/// One thing in a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextEntry {
    /// Relative to the context.
    pub path: String,
    /// `file`, `directory`, `symlink` or what else it is.
    pub kind: &'static str,
    /// Its size; 0 for what is no file.
    pub bytes: u64,
}

/// Why a path is in the context or is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Sight {
    /// It is in.
    #[serde(rename_all = "camelCase")]
    Included {
        /// Relative to the context.
        path: String,
        /// What it is.
        kind: &'static str,
        /// The `!` line that takes it back; none where no line is about it.
        rule: Option<IgnoreRule>,
    },
    /// It is left out.
    #[serde(rename_all = "camelCase")]
    Excluded {
        /// Relative to the context.
        path: String,
        /// What it is.
        kind: &'static str,
        /// The line that decided.
        rule: IgnoreRule,
        /// The directory above it that the line is about, where it is not the path itself.
        above: Option<String>,
        /// Something below it may be taken back by a later line.
        partly: bool,
    },
    /// There is nothing of that name.
    #[serde(rename_all = "camelCase")]
    Missing {
        /// Relative to the context.
        path: String,
        /// What is there and has a name like it.
        near: Vec<String>,
        /// The line that would leave it out if it were there.
        rule: Option<IgnoreRule>,
    },
    /// It lies outside, where no COPY reaches.
    Outside {
        /// As given.
        path: String,
    },
}

/// A build context with its rules; what was brought here for it stays as long as this.
pub struct SeenContext {
    place: Place,
    ignore: Option<IgnoreFile>,
    patterns: PatternList,
}

impl ContextListing {
    /// Returns the listing as JSON.
    pub fn json(&self) -> String {
        pretty(self)
    }
}

impl Sight {
    /// Returns several answers as JSON.
    pub fn json(sights: &[Sight]) -> String {
        pretty(&sights)
    }
}

/// What is found while walking down, with the decision about the directory above.
struct Open {
    path: String,
    state: PatternState,
    /// The directory itself counts.
    included: bool,
}

impl Kiln {
    /// Brings a context here, if it is not, and finds its rules.
    pub async fn context(&self, request: &SourceRequest) -> Result<SeenContext, Error> {
        let asker = asker(self);
        SeenContext::new(request, Place::arrive(request, &asker).await?)
    }
}

impl SeenContext {
    /// Finds the rules of a context that is a directory here.
    pub fn local(request: &SourceRequest) -> Result<SeenContext, Error> {
        SeenContext::new(request, Place::local(request)?)
    }

    fn new(request: &SourceRequest, place: Place) -> Result<SeenContext, Error> {
        let ignore = match find_dockerfile(request, &place) {
            Ok(written) => IgnoreFile::of(&place, &written.path)?,
            Err(error) if !place.context.is_dir() => return Err(error),
            // Without a Dockerfile the context's own rules can be asked about all the same.
            Err(_) => IgnoreFile::find(&place.context, None)?,
        };
        let patterns = PatternList::new(&IgnoreFile::patterns(ignore.as_ref()));
        let patterns = patterns.map_err(|error| Error::Usage {
            message: format!("the ignore file cannot be used: {error}"),
            hint: None,
        })?;
        Ok(SeenContext {
            place,
            ignore,
            patterns,
        })
    }

    fn directory(&self) -> &Path {
        &self.place.context
    }

    /// Lists what a build sees; nothing is read but directories and sizes.
    pub fn list(&self) -> Result<ContextListing, Error> {
        let mut listing = ContextListing {
            directory: self.place.shown.clone(),
            ignore_file: self.ignore.as_ref().map(|file| file.name.clone()),
            entries: Vec::new(),
            total_bytes: 0,
            left_out: 0,
        };
        self.walk(&mut listing)?;
        listing.entries.sort_by(|one, two| one.path.cmp(&two.path));
        listing.total_bytes = listing.entries.iter().map(|entry| entry.bytes).sum();
        Ok(listing)
    }

    fn walk(&self, listing: &mut ContextListing) -> Result<(), Error> {
        let mut open = vec![Open {
            path: String::new(),
            state: PatternState::default(),
            included: true,
        }];
        while let Some(above) = open.pop() {
            let failed = |source| Error::File {
                attempt: "list",
                path: self.directory().join(&above.path),
                source,
            };
            let mut is_empty = true;
            for entry in fs::read_dir(self.directory().join(&above.path)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                is_empty = false;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = match above.path.as_str() {
                    "" => name,
                    above => format!("{above}/{name}"),
                };
                let state = self.patterns.enter(above.state, &path);
                let included = !state.is_excluded();
                let file_type = entry.file_type().map_err(failed)?;
                if file_type.is_dir() {
                    listing.left_out += u64::from(!included);
                    if included || self.patterns.below_possible(state, &path) {
                        open.push(Open {
                            path,
                            state,
                            included,
                        });
                    }
                    continue;
                }
                if !included {
                    listing.left_out += 1;
                    continue;
                }
                let meta = entry.metadata().map_err(failed)?;
                let kind = kind(&meta);
                if kind == "socket" {
                    continue;
                }
                listing.entries.push(ContextEntry {
                    path,
                    kind,
                    bytes: if meta.is_file() { meta.len() } else { 0 },
                });
            }
            if is_empty && above.included && !above.path.is_empty() {
                listing.entries.push(ContextEntry {
                    path: above.path,
                    kind: "directory",
                    bytes: 0,
                });
            }
        }
        Ok(())
    }

    /// Says why a path is in the context or is not.
    ///
    /// It is relative to the context, as in COPY; a path that is only there relative to the working
    /// directory is understood too, if it leads into the context.
    pub fn look(&self, given: &str) -> Result<Sight, Error> {
        let Some(path) = self.within(given) else {
            return Ok(Sight::Outside {
                path: given.to_owned(),
            });
        };
        let state = self.patterns.decide(&path);
        let ignore = self.ignore.as_ref();
        let rule = state
            .decided_by()
            .and_then(|index| ignore.and_then(|file| file.rule(index)));
        let meta = match fs::symlink_metadata(self.directory().join(&path)) {
            Ok(meta) => meta,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Sight::Missing {
                    near: near(self.directory(), &path),
                    rule: rule.filter(|_| state.is_excluded()),
                    path,
                });
            }
            Err(source) => {
                return Err(Error::File {
                    attempt: "look at",
                    path: self.directory().join(&path),
                    source,
                });
            }
        };
        let kind = kind(&meta);
        match rule.clone().filter(|_| state.is_excluded()) {
            None => Ok(Sight::Included { path, kind, rule }),
            Some(rule) => Ok(Sight::Excluded {
                above: self.decided_above(&path, state),
                partly: meta.is_dir() && self.patterns.below_possible(state, &path),
                path,
                kind,
                rule,
            }),
        }
    }

    /// Finds the outermost directory above `path` that was decided about by the same pattern.
    fn decided_above(&self, path: &str, state: PatternState) -> Option<String> {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let mut same = parents.filter(|parent| self.patterns.decide(parent) == state);
        same.next().map(str::to_owned)
    }

    /// Returns a path relative to the context; none if it leads out of it.
    fn within(&self, given: &str) -> Option<String> {
        let own = clean(Path::new(given.trim_start_matches('/')));
        if let Some(own) = &own
            && self.directory().join(own).symlink_metadata().is_ok()
        {
            return Some(own.clone());
        }
        let elsewhere = || {
            let given = Path::new(given);
            let parent = match given.parent()? {
                parent if parent.as_os_str().is_empty() => Path::new("."),
                parent => parent,
            };
            given.symlink_metadata().ok()?;
            let full = parent.canonicalize().ok()?.join(given.file_name()?);
            let directory = self.directory().canonicalize().ok()?;
            clean(full.strip_prefix(directory).ok()?)
        };
        elsewhere().or(own)
    }
}

/// Cleans a relative path by its text; none if it leads out or is nothing.
fn clean(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(match parts.is_empty() {
        true => ".".to_owned(),
        false => parts.join("/"),
    })
}

fn kind(meta: &fs::Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match meta.file_type() {
        kind if kind.is_file() => "file",
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "symlink",
        kind if kind.is_socket() => "socket",
        kind if kind.is_fifo() => "fifo",
        _ => "device",
    }
}

/// Returns paths below `directory` that `path`, which is not there, was probably meant to be.
///
/// The first part that is not there is compared with what is in its place.
pub(crate) fn near(directory: &Path, path: &str) -> Vec<String> {
    let mut above = String::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let here = format!("{above}{part}");
        if directory.join(&here).is_dir() && parts.peek().is_some() {
            above = format!("{here}/");
            continue;
        }
        let Ok(entries) = fs::read_dir(directory.join(&above)) else {
            return Vec::new();
        };
        let names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let mut found: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| name.eq_ignore_ascii_case(part) || same_stem(name, part))
            .collect();
        found.sort_unstable();
        found.extend(suggest::closest(part, names.iter().map(String::as_str)));
        let rest: String = parts.map(|part| format!("/{part}")).collect();
        let mut told: Vec<String> = Vec::new();
        for name in found {
            let mut name = format!("{above}{name}");
            if directory.join(format!("{name}{rest}")).exists() {
                name.push_str(&rest);
            }
            if !told.contains(&name) && told.len() < MOST_NAMES {
                told.push(name);
            }
        }
        return told;
    }
    Vec::new()
}

/// Says whether two names differ in what is after the first dot only.
fn same_stem(one: &str, two: &str) -> bool {
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    !stem(one).is_empty() && stem(one) == stem(two) && one != two
}
