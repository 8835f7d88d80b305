//! Layers as the kernel can stack them: none empty, none twice, not too many.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use kiln_tree::Stop;
use kiln_tree::materialised::{Names, materialise};
use rusqlite::OptionalExtension;

use crate::store::Store;
use crate::{Content, Lease, StoreError};

/// The most layers that are stacked, or opened at once.
const MOST: usize = 400;

/// How many of the oldest are folded first, and how many more at a time. These are fixed, so that
/// a longer list finds the folds of a shorter one.
const FIRST: usize = 300;
const MORE: usize = 200;

/// Returns at most [`MOST`] layers, each once, that show what `layers` show.
///
/// If there are more, the oldest become one layer with their merged tree, which is kept for the
/// next time.
pub(crate) fn fold(
    store: &Store,
    lease: &Lease,
    layers: &[Content],
    stop: &Stop,
) -> Result<Vec<Content>, StoreError> {
    let mut folded = without_repeats(store, layers)?;
    let mut count = FIRST;
    while folded.len() > MOST {
        let (oldest, rest) = folded.split_at(count.min(folded.len()));
        let mut next = vec![fold_all(store, lease, oldest, stop)?];
        next.extend_from_slice(rest);
        folded = next;
        count = MORE + 1;
    }
    Ok(folded)
}

/// Leaves out empty layers, and all but the highest of equal ones.
///
/// The kernel refuses the same directory twice, and steps that change nothing all have the same
/// layer. What a lower one shows, its twin above shows too, and what it deletes stays deleted.
fn without_repeats(store: &Store, layers: &[Content]) -> Result<Vec<Content>, StoreError> {
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(layers.len());
    for content in layers.iter().rev() {
        if seen.insert(*content) && !store.layer_manifest(content)?.is_empty() {
            kept.push(*content);
        }
    }
    kept.reverse();
    Ok(kept)
}

fn fold_all(
    store: &Store,
    lease: &Lease,
    layers: &[Content],
    stop: &Stop,
) -> Result<Content, StoreError> {
    let mut hasher = blake3::Hasher::new_derive_key("kiln 2026 folded layers v0");
    for content in layers {
        hasher.update(&content.to_bytes());
    }
    let key = *hasher.finalize().as_bytes();
    if let Some(known) = folded_before(store, &key)?
        && store.lease_layers(lease, &[known])?.is_empty()
    {
        return Ok(known);
    }
    let view = store.layers_view(layers)?;
    let directories: Vec<OwnedFd> = layers
        .iter()
        .map(|content| store.open_layer(content))
        .collect::<Result<_, _>>()?;
    let draft = store.begin_layer()?;
    let ownership = &store.options().ownership;
    materialise(
        &view,
        &directories,
        draft.fs(),
        ownership,
        Names::Linked,
        stop,
    )
    .map_err(|source| StoreError::Tree {
        action: "fold layers into",
        path: draft.fs_path(),
        source: Box::new(source),
    })?;
    let manifest = view.flatten().manifest;
    let content = Content::Layer(manifest.id());
    store.commit_layer(lease, draft, &manifest, content)?;
    store.database().write("remember a fold", |t| {
        t.prepare_cached("INSERT OR REPLACE INTO fold (layers, content) VALUES (?1, ?2)")?
            .execute((key, content.to_bytes()))?;
        Ok(())
    })?;
    Ok(content)
}

fn folded_before(store: &Store, key: &[u8; 32]) -> Result<Option<Content>, StoreError> {
    let bytes: Option<Vec<u8>> = store.database().read("look for a fold", |c| {
        c.prepare_cached("SELECT content FROM fold WHERE layers = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()
    })?;
    Ok(bytes.as_deref().and_then(Content::from_bytes))
}
