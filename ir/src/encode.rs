//! Canonical bytes and the digests over them; the only file that names bincode.
//!
//! The layout is docs/formats/node-encoding.md. Whatever changes here changes every digest.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Graph, GraphError, ImageConfig, Input, Node, NodeDigest, Op, Plan, Platform};

/// The version that every encoded node begins with.
pub const NODE_FORMAT_VERSION: u8 = 0;

/// The most bytes that one encoded node may take.
pub const NODE_SIZE_LIMIT: usize = 64 << 20;

const NODE_CONTEXT: &str = "kiln ir node v0";
const PLAN_CONTEXT: &str = "kiln ir plan v0";

/// A node that stands alone: its inputs are named by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedNode {
    /// What it does.
    pub op: Op,
    /// What it reads: a node and the number of its output.
    pub inputs: Vec<(NodeDigest, u32)>,
    /// Where it runs.
    pub platform: Option<Platform>,
}

/// Why bytes are no canonical encoding.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are more bytes than a node may take.
    #[error("an encoded node of {bytes} bytes is larger than the limit of {NODE_SIZE_LIMIT}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// The version is another one.
    #[error("node format version `{found}` is not `{NODE_FORMAT_VERSION}`, the only one known")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The bytes do not have the format's structure.
    #[error("cannot decode a node from {bytes} bytes")]
    Malformed {
        /// How many there are.
        bytes: usize,
        /// What the codec says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Bytes follow the node.
    #[error("{count} bytes follow the encoded node")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The bytes mean a node, but are not the ones that encode it.
    #[error("the bytes are not the canonical encoding of the node that they decode to")]
    NotCanonical,
}

#[derive(Serialize)]
struct WireNode<'a> {
    version: u8,
    op: &'a Op,
    inputs: Vec<([u8; 32], u32)>,
    platform: &'a Option<Platform>,
}

#[derive(Deserialize)]
struct OwnedWireNode {
    #[allow(dead_code)]
    version: u8,
    op: Op,
    inputs: Vec<([u8; 32], u32)>,
    platform: Option<Platform>,
}

#[derive(Serialize)]
struct WireResult<'a> {
    output: Option<([u8; 32], u32)>,
    config: &'a Option<ImageConfig>,
    attestations: BTreeMap<&'a str, ([u8; 32], u32)>,
    metadata: &'a BTreeMap<String, String>,
}

/// Returns the canonical bytes of a node, whose inputs have to be in `graph`.
pub fn encode_node(graph: &Graph, node: &Node) -> Result<Vec<u8>, GraphError> {
    let inputs = node
        .inputs
        .iter()
        .map(|input| wire_input(graph, *input))
        .collect();
    limited(to_bytes(&WireNode {
        version: NODE_FORMAT_VERSION,
        op: &node.op,
        inputs,
        platform: &node.platform,
    }))
}

impl EncodedNode {
    /// Returns the canonical bytes, the same as [`encode_node`] for the same node in a graph.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        let inputs = self
            .inputs
            .iter()
            .map(|(digest, output)| (digest.0, *output))
            .collect();
        limited(to_bytes(&WireNode {
            version: NODE_FORMAT_VERSION,
            op: &self.op,
            inputs,
            platform: &self.platform,
        }))
    }
}

fn limited(bytes: Vec<u8>) -> Result<Vec<u8>, GraphError> {
    match bytes.len() {
        len if len > NODE_SIZE_LIMIT => Err(GraphError::TooLarge {
            bytes: len,
            limit: NODE_SIZE_LIMIT,
        }),
        _ => Ok(bytes),
    }
}

/// Decodes what [`encode_node`] returned; errors on any other bytes.
pub fn decode_node(bytes: &[u8]) -> Result<EncodedNode, DecodeError> {
    if bytes.len() > NODE_SIZE_LIMIT {
        return Err(DecodeError::TooLarge { bytes: bytes.len() });
    }
    if let Some(&found) = bytes
        .first()
        .filter(|&&version| version != NODE_FORMAT_VERSION)
    {
        return Err(DecodeError::Version { found });
    }
    let (wire, used): (OwnedWireNode, usize) =
        from_bytes(bytes).map_err(|source| DecodeError::Malformed {
            bytes: bytes.len(),
            source,
        })?;
    if used < bytes.len() {
        return Err(DecodeError::TrailingBytes {
            count: bytes.len() - used,
        });
    }
    let inputs = wire
        .inputs
        .into_iter()
        .map(|(digest, output)| (NodeDigest(digest), output))
        .collect();
    let node = EncodedNode {
        op: wire.op,
        inputs,
        platform: wire.platform,
    };
    match node.to_bytes() {
        Ok(again) if again == bytes => Ok(node),
        _ => Err(DecodeError::NotCanonical),
    }
}

/// Returns the digest of canonical bytes.
pub fn digest_bytes(bytes: &[u8]) -> NodeDigest {
    derive(NODE_CONTEXT, bytes)
}

pub(crate) fn node_digest(graph: &Graph, node: &Node) -> Result<NodeDigest, GraphError> {
    encode_node(graph, node).map(|bytes| digest_bytes(&bytes))
}

/// Returns the digest of what a plan ends in, and so of all that this needs.
///
/// Covers names, outputs, configs, attestations and metadata of the results. Nodes that no result
/// needs, pins and display data are not in it.
pub fn plan_digest(plan: &Plan) -> NodeDigest {
    let results: BTreeMap<&str, WireResult<'_>> = plan
        .results
        .iter()
        .map(|(name, entry)| {
            let attestations = entry.attestations.iter();
            let wire = WireResult {
                output: entry.output.map(|output| wire_input(&plan.graph, output)),
                config: &entry.config,
                attestations: attestations
                    .map(|(name, input)| (name.as_str(), wire_input(&plan.graph, *input)))
                    .collect(),
                metadata: &entry.metadata,
            };
            (name.as_str(), wire)
        })
        .collect();
    derive(PLAN_CONTEXT, &to_bytes(&(NODE_FORMAT_VERSION, results)))
}

fn wire_input(graph: &Graph, input: Input) -> ([u8; 32], u32) {
    (graph.digest(input.node).0, input.output)
}

fn derive(context: &str, bytes: &[u8]) -> NodeDigest {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(bytes);
    NodeDigest(*hasher.finalize().as_bytes())
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_big_endian()
        .with_fixed_int_encoding()
        .with_limit::<NODE_SIZE_LIMIT>()
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    match bincode::serde::encode_to_vec(value, config()) {
        Ok(bytes) => bytes,
        Err(error) => panic!("BUG: a node's types always encode: {error}"),
    }
}

fn from_bytes<T: DeserializeOwned>(
    bytes: &[u8],
) -> Result<(T, usize), Box<dyn std::error::Error + Send + Sync>> {
    Ok(bincode::serde::decode_from_slice(bytes, config())?)
}
