//! What a lock says to a build: answers while it is lowered, and pins of its plan.

use std::collections::{BTreeMap, BTreeSet};

use kiln_executor::lock_name;
use kiln_frontend::lower::{ImageAnswer, Question, TimeAnswer};
use kiln_ir::{NodeId, Op, Pin, Plan, Platform, SourceOp};

use super::{LockError, LockFile, LockedImage};
use crate::request::ASSUMED_PLATFORM;
use crate::{ContextRequest, Delivery, DockerfileRequest, Error, SourceRequest};

impl LockFile {
    fn locked_image(&self, reference: &str, platform: &Platform) -> Option<&LockedImage> {
        let platforms = self.lock.as_ref()?.images.get(reference)?;
        platforms.get(&platform.to_string())
    }

    /// Answers a question about an image.
    pub(crate) fn image(&self, question: &Question) -> Option<ImageAnswer> {
        let Question::ImageConfig {
            reference,
            platform,
        } = question
        else {
            return None;
        };
        let image = self.locked_image(reference, platform)?;
        Some(ImageAnswer::Resolved {
            config: Box::new(image.config.clone()),
            digest: image.manifest.clone(),
        })
    }

    /// Answers a question about a time.
    pub(crate) fn time(&self, url: Option<&str>) -> Option<TimeAnswer> {
        let seconds = self.lock.as_ref()?.times.get(url?)?;
        Some(TimeAnswer::Known(*seconds))
    }

    /// Pins what a plan takes from repositories and over http.
    pub(crate) fn pin(&self, plan: &mut Plan) {
        let Some(lock) = &self.lock else { return };
        let mut pins = BTreeMap::new();
        for node in plan.graph.ids() {
            let Op::Source(source) = &plan.graph.node(node).op else {
                continue;
            };
            let Some(name) = lock_name(source) else {
                continue;
            };
            let pin = match source {
                SourceOp::Git(source) => {
                    let expected = source.checksum.as_deref().unwrap_or_default();
                    // The Dockerfile may ask for another commit by now.
                    let commit = lock.git.get(&name);
                    let commit = commit.filter(|commit| commit.starts_with(expected));
                    commit.cloned().map(Pin::Commit)
                }
                _ => lock.http.get(&name).cloned().map(Pin::Checksum),
            };
            pins.extend(pin.map(|pin| (node, pin)));
        }
        plan.pins.extend(pins);
    }

    /// What of a plan goes by this lock: by node, the name of the entry.
    pub(crate) fn names(&self, plan: &Plan) -> BTreeMap<NodeId, String> {
        let Some(lock) = &self.lock else {
            return BTreeMap::new();
        };
        let name = |(node, pin): (&NodeId, &Pin)| {
            let this = plan.graph.node(*node);
            let Op::Source(source) = &this.op else {
                return None;
            };
            let name = match source {
                SourceOp::Image(image) => Some(image.reference.clone()),
                source => lock_name(source),
            }?;
            let locked = match pin {
                Pin::Manifest(_) => {
                    let image = self.locked_image(&name, this.platform.as_ref()?);
                    image.map(|image| &image.manifest)
                }
                Pin::Commit(_) => lock.git.get(&name),
                Pin::Checksum(_) => lock.http.get(&name),
            };
            (locked.map(String::as_str) == Some(pin.value())).then_some((*node, name))
        };
        plan.pins.iter().filter_map(name).collect()
    }

    /// The configs that images of a plan have by this lock.
    pub(crate) fn configs(&self, plan: &Plan) -> BTreeMap<NodeId, kiln_ir::ImageConfig> {
        let names = self.names(plan).into_iter();
        let config = |(node, name): (NodeId, String)| {
            let platform = plan.graph.node(node).platform.as_ref()?;
            Some((node, self.locked_image(&name, platform)?.config.clone()))
        };
        names.filter_map(config).collect()
    }

    /// Refuses a build that may use only what is locked and needs more; `images` lack already.
    pub(crate) fn require(
        &self,
        plan: &Plan,
        mut missing: BTreeSet<String>,
        request: &SourceRequest,
    ) -> Result<(), Error> {
        if !request.lock.locked {
            return Ok(());
        }
        for node in plan.order() {
            if let Op::Source(source) = &plan.graph.node(node).op
                && !plan.pins.contains_key(&node)
            {
                missing.extend(lock_name(source));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let exists = self.lock.is_some();
        let known = self.path.is_some() || exists;
        Err(LockError::Missing {
            exists,
            path: known.then(|| self.shown.clone()),
            missing: missing.into_iter().collect(),
            command: command(request, self.lock.is_some()),
        }
        .into())
    }

    /// What plans that ask nobody are for, and built on, unless the request says so: what the lock
    /// was made for.
    pub(crate) fn assumed(&self) -> (Platform, Platform) {
        let choose = |set: Option<&BTreeSet<String>>| {
            let first = set.and_then(|set| set.get(ASSUMED_PLATFORM).or(set.first()));
            let name = first.map_or(ASSUMED_PLATFORM, String::as_str);
            match Platform::parse(name) {
                Ok(platform) => platform,
                Err(error) => unreachable!("BUG: `{name}` is no platform: {error}"),
            }
        };
        let lock = self.lock.as_ref();
        (
            choose(lock.map(|lock| &lock.platforms)),
            choose(lock.map(|lock| &lock.builders)),
        )
    }
}

/// The command that locks what a request names.
pub(crate) fn command(request: &SourceRequest, keep: bool) -> String {
    let mut words = vec!["kiln".to_owned(), "lock".to_owned()];
    if keep {
        words.push("--keep".to_owned());
    }
    if let Some(file) = &request.lock.file {
        words.extend(["--lock-file".to_owned(), file.display().to_string()]);
    }
    match &request.dockerfile {
        None => {}
        Some(DockerfileRequest::Path(path)) => {
            words.extend(["-f".to_owned(), path.display().to_string()]);
        }
        Some(DockerfileRequest::Stream(_)) => words.extend(["-f", "-"].map(str::to_owned)),
        Some(DockerfileRequest::Url(url)) => words.extend(["-f".to_owned(), url.clone()]),
    }
    for (name, value) in &request.build_args {
        if let Some(value) = value {
            words.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
        }
    }
    for (name, context) in &request.contexts {
        let value = match context {
            ContextRequest::Directory(path) => path.display().to_string(),
            ContextRequest::Image(reference) => format!("docker-image://{reference}"),
            ContextRequest::Url(url) => url.clone(),
            ContextRequest::OciLayout { path, reference } => {
                let end = match reference {
                    None => String::new(),
                    Some(digest) if digest.contains(':') => format!("@{digest}"),
                    Some(tag) => format!(":{tag}"),
                };
                format!("oci-layout://{}{end}", path.display())
            }
        };
        words.extend(["--build-context".to_owned(), format!("{name}={value}")]);
    }
    if !request.platforms.is_empty() {
        let names: Vec<String> = request.platforms.iter().map(Platform::to_string).collect();
        words.extend(["--platform".to_owned(), names.join(",")]);
    }
    words.push(match &request.delivery {
        None => request.context.display().to_string(),
        Some(Delivery::Url(url)) => url.clone(),
        Some(Delivery::Stream(_)) => "-".to_owned(),
    });
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
