//! Making and moving a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_executor::{Resolver, Secrets, full_name, host_platform, lock_name};
use kiln_frontend::lower::{Answers, ImageAnswer, Lowering, Question, TimeAnswer, lower};
use kiln_ir::{Pin, Platform, ResolveMode, SourceOp};

use super::{Lock, LockError, LockFile, LockedImage};
use crate::delivery::{Asker, Place};
use crate::dockerfile::{answer, load, refused_image};
use crate::{Delivery, DockerfileRequest, Error, Findings, Kiln, SourceRequest};

/// How a lock is made.
#[derive(Debug, Clone, Default)]
pub struct LockOptions {
    /// Entries that are asked for again, by name.
    pub update: Vec<String>,
    /// All are.
    pub update_all: bool,
    /// Entries that this build does not name stay.
    pub keep: bool,
    /// Nothing is written, and nobody is asked.
    pub check: bool,
    /// What registries and hosts are asked with.
    pub secrets: Secrets,
}

/// What became of a lock.
#[derive(Debug, Clone)]
pub struct LockOutcome {
    /// The file.
    pub path: PathBuf,
    /// What changed, or would have, by name.
    pub changes: Vec<LockChange>,
    /// How many entries it has now.
    pub entries: usize,
    /// Nothing of the file had to change.
    pub is_up_to_date: bool,
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockChange {
    /// Its name; that of an image with its platform.
    pub name: String,
    /// What it was pinned to; none if it is new.
    pub from: Option<String>,
    /// What it is pinned to; none if nothing names it any more, or if nobody was asked.
    pub to: Option<String>,
}

impl Kiln {
    /// Writes what a Dockerfile takes from elsewhere, in all its stages or in those that the target
    /// needs, to its lock. What is locked already stays as it is.
    pub async fn lock(
        &self,
        request: &SourceRequest,
        options: &LockOptions,
    ) -> Result<LockOutcome, Error> {
        if let Some(what) = nowhere(request) {
            return Err(LockError::NoPlace { what }.into());
        }
        let asker = Asker::new(
            // A lock holds for everybody: what this host happens to have is not what a name means.
            Arc::new(Resolver::new(&self.executor).without_engines()),
            options.secrets.clone(),
        );
        let place = Place::arrive(request, &asker).await?;
        let loaded = load(request, place)?;
        let file = loaded.lock.clone();
        let Some(path) = file.path.clone() else {
            let what = loaded.input.file_name;
            return Err(LockError::NoPlace { what }.into());
        };
        let old = file.lock.clone().unwrap_or_default();
        let mut maker = Maker {
            asker: &asker,
            mode: request.resolve_mode,
            known: old.clone(),
            moved: BTreeSet::new(),
            made: Lock::default(),
            lacks: options.check.then(BTreeSet::new),
        };
        maker.forget(&file, options)?;
        let host = request.build_platform.clone().unwrap_or_else(host_platform);
        let parse = |names: &BTreeSet<String>| -> Vec<Platform> {
            let platforms = names.iter().map(|name| Platform::parse(name));
            platforms.filter_map(Result::ok).collect()
        };
        let platforms = match (request.platforms.as_slice(), options.keep) {
            ([], _) if old.platforms.is_empty() => vec![host.clone()],
            ([], _) => parse(&old.platforms),
            (given, false) => given.to_vec(),
            (given, true) => [parse(&old.platforms), given.to_vec()].concat(),
        };
        let mut builders = parse(&old.builders);
        // To check a lock is not to make it for this host too.
        if !builders.contains(&host) && (!options.check || builders.is_empty()) {
            builders.push(host);
        }
        let names = |platforms: &[Platform]| platforms.iter().map(Platform::to_string).collect();
        maker.made.platforms = names(&platforms);
        maker.made.builders = names(&builders);
        let mut input = loaded.input.clone();
        input.every_stage = request.target.is_none();
        input.platforms = platforms;
        for builder in builders {
            input.build_platform = builder;
            let failed = |diagnostics| {
                Error::Dockerfile(Box::new(Findings {
                    file_name: input.file_name.clone(),
                    text: input.text.clone(),
                    diagnostics,
                }))
            };
            let mut answers = Answers::default();
            let lowered = loop {
                match lower(&input, &answers) {
                    Lowering::Needs(questions) => {
                        let locals = Arc::new(loaded.locals.clone());
                        let answered = maker.answer(questions, &locals, &loaded.place).await?;
                        answered.give(&mut answers);
                    }
                    Lowering::Lowered(lowered) => break lowered,
                    Lowering::Failed(diagnostics) => return Err(failed(diagnostics)),
                }
            };
            for source in &lowered.remotes {
                maker.remote(source).await?;
            }
        }
        let lacks = maker.lacks.unwrap_or_default();
        let mut made = maker.made;
        if options.keep {
            made.keep(&old);
        }
        let mut changes = changes(&old, &made);
        let is_other = file.lock.as_ref() != Some(&made) || !lacks.is_empty();
        changes.extend(lacks.into_iter().map(|name| LockChange {
            name,
            from: None,
            to: None,
        }));
        changes.sort();
        if is_other && !options.check {
            made.write(&path)?;
        }
        Ok(LockOutcome {
            path,
            changes,
            entries: made.entries().len(),
            is_up_to_date: !is_other,
        })
    }
}

/// What a Dockerfile comes from that has no place beside it.
fn nowhere(request: &SourceRequest) -> Option<String> {
    if request.lock.file.is_some() {
        return None;
    }
    match (&request.delivery, &request.dockerfile) {
        (Some(Delivery::Url(url)), _) => Some(format!("the context `{url}`")),
        (Some(Delivery::Stream(_)), _) => Some("a context on standard input".to_owned()),
        (None, Some(DockerfileRequest::Url(url))) => Some(format!("the Dockerfile `{url}`")),
        (None, Some(DockerfileRequest::Stream(_))) => {
            Some("a Dockerfile on standard input".to_owned())
        }
        (None, None | Some(DockerfileRequest::Path(_))) => None,
    }
}

/// A lock in the making.
struct Maker<'a> {
    asker: &'a Asker,
    mode: ResolveMode,
    /// What is locked already and stays so.
    known: Lock,
    /// References of images that are asked for again.
    moved: BTreeSet<String>,
    made: Lock,
    /// The names of what is not locked, where nobody is asked.
    lacks: Option<BTreeSet<String>>,
}

/// Answers of one round.
#[derive(Default)]
struct Answered {
    images: Vec<(Question, ImageAnswer)>,
    times: Vec<(Question, TimeAnswer)>,
}

impl Answered {
    fn give(self, answers: &mut Answers) {
        for (question, image) in self.images {
            answers.image(question, image);
        }
        for (question, time) in self.times {
            answers.time(question, time);
        }
    }
}

impl Maker<'_> {
    /// Forgets what is to be asked for again.
    fn forget(&mut self, file: &LockFile, options: &LockOptions) -> Result<(), Error> {
        let names = match options.update_all {
            true => self.known.names(),
            false => options.update.clone(),
        };
        if options.update_all {
            self.known.times.clear();
        }
        for name in names {
            let full = full_name(&name);
            let is_image =
                |reference: &String| *reference == name || Some(reference) == full.as_ref();
            let is_address = |entry: &String| {
                *entry == name || entry.split(['#', '?']).next() == Some(name.as_str())
            };
            let images: Vec<String> = self.known.images.keys().cloned().collect();
            let images: Vec<String> = images.into_iter().filter(is_image).collect();
            for reference in &images {
                self.known.images.remove(reference);
            }
            let before = self.known.git.len() + self.known.http.len() + self.known.times.len();
            self.known.git.retain(|entry, _| !is_address(entry));
            self.known.http.retain(|entry, _| *entry != name);
            self.known.times.retain(|entry, _| !is_address(entry));
            let after = self.known.git.len() + self.known.http.len() + self.known.times.len();
            let again = images.is_empty() && before == after && !self.moved.contains(&name);
            if again && !options.update_all {
                let old = file.lock.clone().unwrap_or_default();
                return Err(LockError::UnknownName {
                    path: file.shown.clone(),
                    name,
                    names: old.names(),
                }
                .into());
            }
            self.moved.extend(images);
        }
        Ok(())
    }

    /// Answers from the lock, or else from store and registries, and locks it.
    async fn answer(
        &mut self,
        questions: Vec<Question>,
        locals: &Arc<kiln_executor::Locals>,
        place: &Place,
    ) -> Result<Answered, Error> {
        let known = LockFile {
            lock: Some(self.known.clone()),
            ..LockFile::default()
        };
        let mut answered = Answered::default();
        let (mut moved, mut new) = (Vec::new(), Vec::new());
        for question in questions {
            match &question {
                Question::SourceTime { url } => {
                    let time = match (known.time(url.as_deref()), &mut self.lacks, url) {
                        (Some(time), ..) => time,
                        (None, Some(lacks), Some(url)) => {
                            lacks.insert(format!("time of {url}"));
                            TimeAnswer::Assumed
                        }
                        (None, ..) => place.time_of(url.as_deref(), self.asker).await?,
                    };
                    if let (Some(url), TimeAnswer::Known(seconds)) = (url, &time) {
                        self.made.times.insert(url.clone(), *seconds);
                    }
                    answered.times.push((question, time));
                }
                _ => match (known.image(&question), &mut self.lacks, &question) {
                    (Some(image), ..) => answered.images.push((question, image)),
                    (
                        None,
                        Some(lacks),
                        Question::ImageConfig {
                            reference,
                            platform,
                        },
                    ) => {
                        lacks.insert(format!("{reference} {platform}"));
                        answered.images.push((question, ImageAnswer::Assumed));
                    }
                    (None, ..) if self.moved.contains(question.reference()) => moved.push(question),
                    (None, ..) => new.push(question),
                },
            }
        }
        for (questions, mode) in [(moved, ResolveMode::Pull), (new, self.mode)] {
            for (question, found) in answer(questions, &self.asker.resolver, locals, mode).await {
                let found = match found {
                    // No registry has it, so that it moves with the store.
                    Err(error) if mode == ResolveMode::Pull && error.is_refusal() => {
                        let (reference, platform) = (question.reference(), question.platform());
                        let mode = ResolveMode::Local;
                        let resolver = &self.asker.resolver;
                        let local = resolver.image(reference, platform, mode).await;
                        local.map_err(|_| error)
                    }
                    found => found,
                };
                let image = match found {
                    Ok(image) => ImageAnswer::Resolved {
                        config: Box::new(image.config),
                        digest: image.manifest_digest,
                    },
                    Err(error) => refused_image(error)?,
                };
                answered.images.push((question, image));
            }
        }
        for (question, image) in &answered.images {
            if let (
                Question::ImageConfig {
                    reference,
                    platform,
                },
                ImageAnswer::Resolved { config, digest },
            ) = (question, image)
            {
                let platforms = self.made.images.entry(reference.clone()).or_default();
                let image = LockedImage {
                    manifest: digest.clone(),
                    config: (**config).clone(),
                };
                platforms.insert(platform.to_string(), image);
            }
        }
        Ok(answered)
    }

    /// Locks what a source means.
    async fn remote(&mut self, source: &SourceOp) -> Result<(), Error> {
        let Some(name) = lock_name(source) else {
            return Ok(());
        };
        let (known, made) = match source {
            SourceOp::Git(_) => (&self.known.git, &mut self.made.git),
            _ => (&self.known.http, &mut self.made.http),
        };
        if made.contains_key(&name) {
            return Ok(());
        }
        let expected = match source {
            SourceOp::Git(source) => source.checksum.as_deref().unwrap_or_default(),
            _ => "",
        };
        let known = known.get(&name).filter(|pin| pin.starts_with(expected));
        let pin = match known {
            Some(known) => known.clone(),
            None if self.lacks.is_some() => {
                self.lacks.get_or_insert_default().insert(name);
                return Ok(());
            }
            None => match self.asker.pin(source).await? {
                Pin::Commit(value) | Pin::Checksum(value) | Pin::Manifest(value) => value,
            },
        };
        made.insert(name, pin);
        Ok(())
    }
}

impl Lock {
    /// The names of its entries, each once.
    fn names(&self) -> Vec<String> {
        let images = self.images.keys();
        let names = images.chain(self.git.keys()).chain(self.http.keys());
        names.cloned().collect()
    }

    /// Every entry with what it is pinned to.
    fn entries(&self) -> BTreeMap<String, String> {
        let mut entries = BTreeMap::new();
        for (reference, platforms) in &self.images {
            for (platform, image) in platforms {
                entries.insert(format!("{reference} {platform}"), image.manifest.clone());
            }
        }
        let plain = self.git.iter().chain(&self.http);
        entries.extend(plain.map(|(name, pin)| (name.clone(), pin.clone())));
        let times = self.times.iter();
        entries.extend(times.map(|(url, time)| (format!("time of {url}"), time.to_string())));
        entries
    }

    /// Takes over what it lacks.
    fn keep(&mut self, old: &Lock) {
        for (reference, platforms) in &old.images {
            let kept = self.images.entry(reference.clone()).or_default();
            for (platform, image) in platforms {
                kept.entry(platform.clone())
                    .or_insert_with(|| image.clone());
            }
        }
        for (mine, others) in [(&mut self.git, &old.git), (&mut self.http, &old.http)] {
            for (name, pin) in others {
                mine.entry(name.clone()).or_insert_with(|| pin.clone());
            }
        }
        for (url, time) in &old.times {
            self.times.entry(url.clone()).or_insert(*time);
        }
    }
}

fn changes(old: &Lock, new: &Lock) -> Vec<LockChange> {
    let (old, new) = (old.entries(), new.entries());
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| LockChange {
        name: name.clone(),
        from: old.get(name).cloned(),
        to: new.get(name).cloned(),
    };
    let changes = names.into_iter().map(change);
    changes.filter(|change| change.from != change.to).collect()
}
