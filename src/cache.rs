//! Caches that travel, as a build asks for them and as it leaves them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_executor::{
    BuildWorker, CacheContent, CachePlace, CachePublished, CacheTarget, Error as ExecutorError,
    TransferObserver, words,
};
use kiln_ir::pattern::PatternList;
use kiln_solver::{Cancel, Content, ContentId, DefinitionKey};
use serde::{Deserialize, Serialize};

use crate::delivery::Place;
use crate::ignore::IgnoreFile;
use crate::record::{BuildRecord, Outcome};
use crate::{BuildRequest, Error, Event, Kiln};

/// The build argument that asks for a cache in the image's config, as in BuildKit.
pub(crate) const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";

/// Whether a build argument asks for a cache in the image's config.
pub(crate) fn asks_inline(arguments: &BTreeMap<String, Option<String>>) -> bool {
    let value = arguments.get(INLINE_ARGUMENT).and_then(Option::as_deref);
    matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// What is remembered of a build so that its results can be exported later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RememberedCache {
    /// The definition keys of its steps, in hex.
    pub definitions: Vec<String>,
    /// The layers of its results, lowest first.
    pub results: Vec<Vec<String>>,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
}

impl RememberedCache {
    pub(crate) fn of(content: &CacheContent) -> RememberedCache {
        RememberedCache {
            definitions: content
                .definitions
                .iter()
                .map(ToString::to_string)
                .collect(),
            results: content
                .results
                .iter()
                .map(|layers| layers.iter().map(ToString::to_string).collect())
                .collect(),
            epoch: content.epoch,
        }
    }

    /// What is remembered, without what another version wrote otherwise.
    fn content(&self) -> CacheContent {
        let layers = |layers: &Vec<String>| -> Content {
            layers.iter().filter_map(|text| content_id(text)).collect()
        };
        CacheContent {
            definitions: self.definitions().into_iter().collect(),
            results: self.results.iter().map(layers).collect(),
            epoch: self.epoch,
            ended: None,
        }
    }

    /// The definition keys of its steps.
    pub(crate) fn definitions(&self) -> Vec<DefinitionKey> {
        let keys = self.definitions.iter();
        keys.filter_map(|text| hex(text).map(DefinitionKey))
            .collect()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.definitions.is_empty()
    }
}

fn content_id(text: &str) -> Option<ContentId> {
    match text.split_once(':')? {
        ("sha256", digits) => hex(digits).map(ContentId::DiffId),
        ("layer", digits) => hex(digits).map(ContentId::Layer),
        _ => None,
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// A line for each directory of a cache that is part of a context: it changes with each export, and holds
/// what was made of itself.
pub(crate) fn in_context(
    request: &BuildRequest,
    place: &Place,
    ignore: Option<&IgnoreFile>,
) -> Vec<String> {
    let from = request.cache_from.iter().map(|source| &source.place);
    let to = request.cache_to.iter().map(|target| &target.place);
    let mut directories: Vec<&PathBuf> = from
        .chain(to)
        .filter_map(|place| match place {
            CachePlace::Local { directory, .. } => Some(directory),
            _ => None,
        })
        .collect();
    directories.sort();
    directories.dedup();
    let (Ok(context), Ok(ignored), None) = (
        place.context.canonicalize(),
        PatternList::new(&IgnoreFile::patterns(ignore)),
        &place.delivered,
    ) else {
        return Vec::new();
    };
    let is_part = |directory: &&PathBuf| {
        let within = directory.canonicalize().ok();
        let within = within
            .as_deref()
            .and_then(|at| at.strip_prefix(&context).ok());
        let within = within.and_then(|within| {
            within
                .join("index.json")
                .into_os_string()
                .into_string()
                .ok()
        });
        within.is_some_and(|within| !ignored.matches(&within))
    };
    let parts = directories.into_iter().filter(is_part);
    parts
        .map(|directory| {
            format!(
                "the cache in `{}` is part of the context, which changes with each export; name it in .dockerignore",
                directory.display()
            )
        })
        .collect()
}

impl Kiln {
    /// Exports the results of a build that has its own result already; returns the first failure that is
    /// not to be ignored.
    pub(crate) async fn export_caches(
        &self,
        worker: &BuildWorker,
        content: &CacheContent,
        targets: &[CacheTarget],
        tell: &(dyn Fn(Event) + Send + Sync),
        cancel: &Cancel,
    ) -> Result<Option<ExecutorError>, Error> {
        let mut failure = None;
        for target in targets {
            let what = format!("cache to {}", target.place);
            let clock = std::time::Instant::now();
            tell(Event::Exporting(what.clone()));
            let exporting = self.executor.export_cache(
                worker.lease(),
                content,
                worker.elsewhere(),
                target,
                worker.transfers(),
                cancel.cancelled(),
            );
            match exporting.await {
                Err(ExecutorError::Cancelled) => return Err(Error::Cancelled),
                Ok(published) => {
                    tell(Event::Exported {
                        what,
                        took: clock.elapsed(),
                    });
                    tell(Event::Notice(published_words(target, published)));
                }
                Err(error) if target.ignore_error => {
                    let why = words(&error);
                    tell(Event::Notice(format!("the {what} was not exported: {why}")));
                }
                Err(error) => {
                    failure = failure.or(Some(ExecutorError::CacheExport {
                        place: target.place.to_string(),
                        source: Box::new(error),
                    }));
                }
            }
        }
        Ok(failure)
    }

    /// Exports the results of an earlier build: of the latest that came to an image, or to that image.
    /// Says what came of each target, in words.
    pub async fn push_cache(
        &self,
        image: Option<&str>,
        targets: &[CacheTarget],
        observer: &TransferObserver,
        cancel: &Cancel,
    ) -> Result<Vec<String>, Error> {
        let build = self.build_of(image)?;
        let content = CacheContent {
            ended: Some(build.started + build.duration),
            ..build.details.cache.content()
        };
        let lease = self.executor.build_lease();
        let mut lines = Vec::with_capacity(targets.len());
        for target in targets {
            let exporting = self.executor.export_cache(
                &lease,
                &content,
                None,
                target,
                observer,
                cancel.cancelled(),
            );
            match exporting.await {
                Err(ExecutorError::Cancelled) => return Err(Error::Cancelled),
                exported => lines.push(published_words(target, exported?)),
            }
        }
        Ok(lines)
    }

    fn build_of(&self, image: Option<&str>) -> Result<BuildRecord, Error> {
        let id = match image {
            Some(name) => Some(self.executor.image_details(name)?.id),
            None => None,
        };
        let fits = |build: &BuildRecord| {
            let done = build.details.outcome == Some(Outcome::Done);
            done && !build.details.cache.is_empty()
                && id.as_ref().is_none_or(|id| build.result == *id)
        };
        self.builds(usize::MAX)?
            .into_iter()
            .find(fits)
            .ok_or_else(|| Error::Usage {
                message: match image {
                    Some(name) => format!("no build that came to `{name}` is remembered"),
                    None => "no build that came to its end is remembered".to_owned(),
                },
                hint: Some("`kiln builds ls` lists those that are".to_owned()),
            })
    }
}

/// What came of an export, in a line.
fn published_words(target: &CacheTarget, published: CachePublished) -> String {
    let CachePublished {
        records,
        records_there,
        replaced,
        was_there,
        alone,
        anew,
    } = published;
    let place = &target.place;
    let words = match (was_there, alone) {
        (true, _) => format!("the cache {place} has all {records} results already"),
        (false, false) => {
            format!("cached {records} results in {place}, which has {records_there} now")
        }
        (false, true) => format!(
            "cached {records} results in {place}, which has {records_there} now; it takes no copies, so that \
             of builds that export there at one moment some results may be lost"
        ),
    };
    let words = match anew {
        true => format!("{words}; what lay there was damaged, and is replaced"),
        false => words,
    };
    match replaced {
        0 => words,
        count => format!(
            "{words}; {count} of the build are gone, since later builds replaced them by others"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back() {
        let content = CacheContent {
            definitions: vec![DefinitionKey([7; 32]), DefinitionKey([0xab; 32])],
            results: vec![vec![ContentId::DiffId([1; 32]), ContentId::Layer([2; 32])]],
            epoch: Some(5),
            ended: None,
        };
        let remembered = RememberedCache::of(&content);
        let text = serde_json::to_string(&remembered).unwrap();
        let read: RememberedCache = serde_json::from_str(&text).unwrap();
        assert_eq!(read.content(), content);
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let remembered = RememberedCache {
            definitions: vec!["zz".to_owned(), "é".repeat(32)],
            results: vec![vec!["md5:00".to_owned(), "sha256:1".to_owned()]],
            epoch: None,
        };
        let content = remembered.content();
        assert!(content.definitions.is_empty());
        assert_eq!(content.results, [Vec::new()]);
    }

    #[test]
    fn the_argument_is_read_as_buildkit_does() {
        let with = |value: Option<&str>| {
            let value = value.map(str::to_owned);
            asks_inline(&[(INLINE_ARGUMENT.to_owned(), value)].into())
        };
        assert!(with(Some("1")) && with(Some("true")));
        assert!(!with(Some("0")) && !with(None));
    }
}
