//! What a lowering asks, and what it is told.

use std::collections::BTreeMap;

use kiln_ir::{ImageConfig, Platform};

/// Something that lowering must know and cannot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The config of an image, and the manifest that the name stands for.
    ImageConfig {
        /// Normalised: registry, repository, and tag or digest.
        reference: String,
        /// The platform to choose from an index.
        platform: Platform,
    },
    /// The same of an image in an OCI layout directory.
    LayoutConfig {
        /// The name that the client gave the layout, with a tag or digest where it gave one.
        reference: String,
        /// The platform to choose from an index.
        platform: Platform,
    },
    /// When a source was last changed, for SOURCE_DATE_EPOCH.
    SourceTime {
        /// A git repository or a file over http; none is the build context.
        url: Option<String>,
    },
}

impl Question {
    /// Returns the name of what it is about.
    pub fn reference(&self) -> &str {
        match self {
            Question::ImageConfig { reference, .. } | Question::LayoutConfig { reference, .. } => {
                reference
            }
            Question::SourceTime { url } => url.as_deref().unwrap_or("context"),
        }
    }

    /// Returns the platform that an image is needed for.
    ///
    /// BUG for what is about no image.
    pub fn platform(&self) -> &Platform {
        match self {
            Question::ImageConfig { platform, .. } | Question::LayoutConfig { platform, .. } => {
                platform
            }
            Question::SourceTime { .. } => unreachable!("BUG: a time is of no platform"),
        }
    }
}

/// The answer to a question about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageAnswer {
    /// The image is known.
    Resolved {
        /// Its config.
        config: Box<ImageConfig>,
        /// The digest of its manifest for the platform; becomes the node's pin.
        digest: String,
    },
    /// Nobody was asked: the config is taken to be empty, and the plan has no pin for it.
    Assumed,
    /// It cannot be had, which becomes a diagnostic at the instruction.
    Unavailable {
        /// Why not.
        reason: String,
        /// A way out.
        help: Option<String>,
    },
}

/// The answer to a question about a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeAnswer {
    /// Seconds since 1970.
    Known(i64),
    /// Nobody was asked: the build is taken to have no such time.
    Assumed,
    /// There is no telling, which becomes a diagnostic.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// The answers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    images: BTreeMap<Question, ImageAnswer>,
    times: BTreeMap<Question, TimeAnswer>,
}

impl Answers {
    /// Adds the answer to an image question.
    pub fn image(&mut self, question: Question, answer: ImageAnswer) {
        self.images.insert(question, answer);
    }

    /// Answers with assumptions, so that a plan can be shown without any registry.
    pub fn assume(&mut self, questions: Vec<Question>) {
        for question in questions {
            match question {
                Question::SourceTime { .. } => self.time(question, TimeAnswer::Assumed),
                _ => self.image(question, ImageAnswer::Assumed),
            }
        }
    }

    /// Adds the answer to a question about a time.
    pub fn time(&mut self, question: Question, answer: TimeAnswer) {
        self.times.insert(question, answer);
    }

    /// Returns the answer to a question about a time, if there is one yet.
    pub(super) fn time_of(&self, question: &Question) -> Option<&TimeAnswer> {
        self.times.get(question)
    }

    /// Returns the answer to a question about an image, if there is one yet.
    pub fn get(&self, question: &Question) -> Option<&ImageAnswer> {
        self.images.get(question)
    }
}
