//! What a key was made of, in words.

use serde::{Deserialize, Serialize};

use crate::{SelectionDigest, StepName};

/// One part of a key as the explainer keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The kind of op, and the revision of what kiln does for it.
    Kind {
        /// Such as `exec`.
        kind: String,
        /// Its revision.
        revision: u32,
    },
    /// The platform, such as `linux/amd64`.
    Platform(String),
    /// One field of the op. Long values are cut, and end in their digest.
    Field {
        /// Its name, such as `args` or `mounts[1].target`; a list is one part.
        name: String,
        /// Its values.
        value: Vec<String>,
    },
    /// One environment variable.
    Env {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// A build argument, not an `ENV`; not in the key.
        build_arg: bool,
    },
    /// The identity of a pinned source.
    Source {
        /// What was asked for and got.
        source: PinnedSource,
        /// BLAKE3 of the identity's bytes; all that is in the key.
        identity: [u8; 32],
    },
    /// What an input is.
    Input {
        /// Its index.
        index: u32,
        /// The number of its output.
        output: u32,
        /// Its definition key.
        definition: [u8; 32],
        /// Who made it; not in the key.
        from: Origin,
    },
    /// What is read of a local source.
    Files {
        /// Index of the input.
        index: u32,
        /// The source's name, such as `context`; not in the key.
        source: String,
        /// The digest, and where its files are listed; only the digest is in the key.
        selected: SelectionDigest,
    },
    /// What an input holds, or what is seen of it: on the content road only.
    Content {
        /// Index of the input.
        index: u32,
        /// BLAKE3 of its layer list, or the digest of the selection.
        digest: [u8; 32],
    },
}

/// Who made an input, in words; in no key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A step.
    Step(StepName),
    /// A pinned source, such as a base image.
    Source(PinnedSource),
}

/// A pinned source in words; in no key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedSource {
    /// What was asked for, such as `alpine:latest`.
    pub reference: String,
    /// What it was pinned to: a digest or a commit.
    pub pin: String,
    /// An image or oci-layout source.
    pub base: bool,
}
