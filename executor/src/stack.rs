//! Layer lists in the store's words and in the solver's.

use kiln_solver::ContentId;
use kiln_store::{Content, DiffId};
use kiln_tree::LayerId;

/// The solver's name of a layer.
pub(crate) fn to_solver(layers: &[Content]) -> Vec<ContentId> {
    let name = |layer: &Content| match layer {
        Content::DiffId(id) => ContentId::DiffId(id.0),
        Content::Layer(id) => ContentId::Layer(id.0),
    };
    layers.iter().map(name).collect()
}

/// The store's name of a layer.
pub(crate) fn to_store(layers: &[ContentId]) -> Vec<Content> {
    let name = |layer: &ContentId| match layer {
        ContentId::DiffId(bytes) => Content::DiffId(DiffId(*bytes)),
        ContentId::Layer(bytes) => Content::Layer(LayerId(*bytes)),
    };
    layers.iter().map(name).collect()
}
