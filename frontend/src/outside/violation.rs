//! What a front end does that the protocol does not allow.

use crate::outside::message::VERSION;

/// A breach of the protocol; it ends the build, since nothing that follows can be trusted.
///
/// Each reads as the rest of a sentence that begins with the front end.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// The first line of BuildKit's own protocol.
    #[error("speaks gRPC, as BuildKit's front ends do, and not kiln's protocol")]
    Grpc,
    /// A line is no message.
    #[error("sent `{excerpt}` as line {number}, which is no message of the protocol")]
    NoMessage {
        /// Counted from 1.
        number: u64,
        /// Its beginning.
        excerpt: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The first message is not `hello`.
    #[error("did not begin with a `hello` that names its version of the protocol")]
    NoHello,
    /// A version that is not spoken here.
    #[error("speaks `{found}`, and this kiln speaks `{VERSION}`")]
    Version {
        /// What it said.
        found: String,
    },
    /// A second `hello`.
    #[error("sent `hello` twice")]
    HelloAgain,
    /// A line without end.
    #[error("sent a message of more than {limit} bytes")]
    TooLong {
        /// What is allowed.
        limit: usize,
    },
    /// A flood.
    #[error("sent more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// A path that is not below a source.
    #[error("asked for `{path}`, and {reason}")]
    Path {
        /// As asked for.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A source that it was not given.
    #[error("asked for files of `{name}`, which it was not given; it has {known}")]
    UnknownSource {
        /// As asked for.
        name: String,
        /// What there is, in words.
        known: String,
    },
    /// Something after the end.
    #[error("sent `{excerpt}` after its last message")]
    AfterEnd {
        /// Its beginning.
        excerpt: String,
    },
}
