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
}

impl Question {
    /// Returns the name of the image.
    pub fn reference(&self) -> &str {
        match self {
            Question::ImageConfig { reference, .. } | Question::LayoutConfig { reference, .. } => {
                reference
            }
        }
    }

    /// Returns the platform that it is needed for.
    pub fn platform(&self) -> &Platform {
        match self {
            Question::ImageConfig { platform, .. } | Question::LayoutConfig { platform, .. } => {
                platform
            }
        }
    }
}

/// The answer to a [`Question`], all of which are about images.
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

/// The answers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    images: BTreeMap<Question, ImageAnswer>,
}

impl Answers {
    /// Adds the answer to an image question.
    pub fn image(&mut self, question: Question, answer: ImageAnswer) {
        self.images.insert(question, answer);
    }

    /// Answers with assumptions, so that a plan can be shown without any registry.
    pub fn assume(&mut self, questions: Vec<Question>) {
        for question in questions {
            self.images.insert(question, ImageAnswer::Assumed);
        }
    }

    /// Returns the answer, if there is one yet.
    pub fn get(&self, question: &Question) -> Option<&ImageAnswer> {
        self.images.get(question)
    }
}
