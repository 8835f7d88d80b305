//! Answers what a front end asks: from its contexts, from store and registries, by carrying out plans.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_executor::{Locals, Peek, PeekedKind, Unseen, words};
use kiln_frontend::lower::{NoCache, normalize_reference};
use kiln_frontend::outside::{
    AnswerBody, Entry, EntryKind, Fault, FaultCode, MESSAGE_LIMIT_BYTES, PlanForm, Request,
};
use kiln_ir::{Platform, ResolveMode, ResourceLimits};

use super::failure::{FrontendFailure, FrontendProblem};
use super::findings::Notes;
use crate::delivery::{Asker, Place};
use crate::dockerfile::{CONTEXT, says_no_such_image};
use crate::{Error, SourceRequest};

/// A file of more bytes does not fit into an answer, as base64.
const FILE_LIMIT_BYTES: u64 = (MESSAGE_LIMIT_BYTES as u64 - 1024) / 4 * 3;
/// A directory of more entries is not for front ends to go through.
const ENTRY_LIMIT: usize = 50_000;

/// What a front end has learnt of an image: its name, its platform.
pub(super) type Image = (String, Platform);

/// Everything that a front end may ask of.
pub(super) struct Desk<'a> {
    pub(super) asker: Option<&'a Asker>,
    pub(super) locals: &'a Locals,
    /// Of the build; never empty.
    platforms: Vec<Platform>,
    sources: BTreeMap<String, Peek>,
    /// What its plans are to be built from, since it was told of it.
    pub(super) pins: BTreeMap<Image, String>,
    pub(super) assumed: BTreeSet<Image>,
    pub(super) notes: Notes,
    pub(super) shown: String,
    pub(super) lineage: String,
    pub(super) no_cache: NoCache,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) limits: ResourceLimits,
    pub(super) declared_args: BTreeSet<String>,
    pub(super) solved: usize,
    resolve_mode: ResolveMode,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        place: &Place,
        locals: &'a Locals,
        asker: Option<&'a Asker>,
        notes: Notes,
        platforms: Vec<Platform>,
        lineage: String,
    ) -> Result<Desk<'a>, Error> {
        let mut sources = BTreeMap::new();
        for (name, path) in &locals.directories {
            let peek = match &place.delivered {
                Some(delivered) if name == CONTEXT => delivered.peek()?,
                _ => Peek::directory(path)?,
            };
            sources.insert(name.clone(), peek);
        }
        Ok(Desk {
            asker,
            locals,
            platforms,
            sources,
            pins: BTreeMap::new(),
            assumed: BTreeSet::new(),
            notes,
            shown: String::new(),
            lineage,
            no_cache: NoCache::No,
            labels: BTreeMap::new(),
            limits: ResourceLimits::default(),
            declared_args: BTreeSet::new(),
            solved: 0,
            resolve_mode: ResolveMode::Default,
        })
    }

    /// Takes in what the caller wants of every plan.
    pub(super) fn for_request(self, request: &SourceRequest, shown: &str) -> Desk<'a> {
        Desk {
            shown: shown.to_owned(),
            no_cache: request.no_cache.clone(),
            labels: request.labels.clone(),
            limits: request.limits.clone(),
            declared_args: request.build_args.keys().cloned().collect(),
            resolve_mode: request.resolve_mode,
            ..self
        }
    }

    /// The names of what can be read.
    pub(super) fn sources(&self) -> Vec<String> {
        self.sources.keys().cloned().collect()
    }

    /// Answers; a name of a new source comes with it.
    pub(super) async fn answer(&mut self, request: Request) -> Result<AnswerBody, Error> {
        match request {
            Request::Read { source, path } => self.read(&source, &path),
            Request::List { source, path } => self.list(&source, &path),
            Request::Resolve { image, platform } => self.resolve(&image, platform).await,
            Request::Solve { plan } => self.solve(plan).await,
        }
    }

    fn source(&self, name: &str) -> &Peek {
        match self.sources.get(name) {
            Some(peek) => peek,
            None => unreachable!("BUG: the dialogue lets no unknown source pass"),
        }
    }

    fn read(&mut self, source: &str, path: &str) -> Result<AnswerBody, Error> {
        let bytes = match self.source(source).read(path, FILE_LIMIT_BYTES)? {
            Ok(bytes) => bytes,
            Err(unseen) => return Ok(unseen_answer(unseen, "a file", source, path)),
        };
        if source == CONTEXT {
            self.notes.read(path, &bytes);
        }
        Ok(AnswerBody::Content {
            content: STANDARD.encode(bytes),
        })
    }

    fn list(&self, source: &str, path: &str) -> Result<AnswerBody, Error> {
        let entries = match self.source(source).list(path, ENTRY_LIMIT)? {
            Ok(entries) => entries,
            Err(unseen) => return Ok(unseen_answer(unseen, "a directory", source, path)),
        };
        let entry = |entry: kiln_executor::PeekedEntry| {
            let (kind, size) = match entry.kind {
                PeekedKind::File(size) => (EntryKind::File, Some(size)),
                PeekedKind::Directory => (EntryKind::Directory, None),
                PeekedKind::Link => (EntryKind::Link, None),
                PeekedKind::Other => (EntryKind::Other, None),
            };
            Entry {
                name: entry.name,
                kind,
                size,
            }
        };
        Ok(AnswerBody::Entries {
            entries: entries.into_iter().map(entry).collect(),
        })
    }

    async fn resolve(
        &mut self,
        image: &str,
        platform: Option<String>,
    ) -> Result<AnswerBody, Error> {
        let reference = match normalize_reference(image) {
            Ok(reference) => reference,
            Err(reason) => {
                let message = format!("`{image}`: {reason}");
                return Ok(fault(FaultCode::Unavailable, message));
            }
        };
        let platform = match platform.map(|text| Platform::parse(&text)).transpose() {
            Ok(platform) => platform.unwrap_or_else(|| self.platforms[0].clone()),
            Err(error) => return Ok(fault(FaultCode::Unavailable, words(&error))),
        };
        let key = (reference.clone(), platform.clone());
        let Some(asker) = self.asker else {
            self.assumed.insert(key);
            return Ok(AnswerBody::Image {
                reference,
                digest: None,
                config: kiln_ir::json::config_to_value(&kiln_ir::ImageConfig::default()),
            });
        };
        let found = asker
            .resolver
            .image(&reference, &platform, self.resolve_mode);
        match found.await {
            Ok(found) => {
                self.pins.insert(key, found.manifest_digest.clone());
                Ok(AnswerBody::Image {
                    reference,
                    digest: Some(found.manifest_digest),
                    config: kiln_ir::json::config_to_value(&found.config),
                })
            }
            Err(error) if says_no_such_image(&error) => {
                Ok(fault(FaultCode::Unavailable, words(&error)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn solve(&mut self, plan: PlanForm) -> Result<AnswerBody, Error> {
        let Some(asker) = self.asker.filter(|asker| asker.may_run) else {
            return Err(self.failure(FrontendProblem::Runs));
        };
        let peek = self.carry_out(asker, plan).await?;
        let source = format!("solved-{}", self.solved);
        self.sources.insert(source.clone(), peek);
        Ok(AnswerBody::Solved { source })
    }

    pub(super) fn failure(&self, problem: FrontendProblem) -> Error {
        FrontendFailure::error(&self.shown, problem)
    }
}

fn fault(code: FaultCode, message: String) -> AnswerBody {
    AnswerBody::Error {
        error: Fault { code, message },
    }
}

fn unseen_answer(unseen: Unseen, wanted: &str, source: &str, path: &str) -> AnswerBody {
    let (code, reason) = match unseen {
        Unseen::NotFound => (FaultCode::NotFound, "is not there".to_owned()),
        Unseen::WrongKind => (FaultCode::WrongKind, format!("is not {wanted}")),
        Unseen::TooBig => (FaultCode::TooBig, "is more than an answer holds".to_owned()),
        Unseen::NotUtf8 => (
            FaultCode::NotUtf8,
            "has a name that is not UTF-8".to_owned(),
        ),
    };
    fault(code, format!("`{path}` of `{source}` {reason}"))
}
