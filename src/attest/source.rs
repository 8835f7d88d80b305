//! What a build depends on, as SLSA's resource descriptors.

use std::collections::{BTreeMap, BTreeSet};

use kiln_executor::image_purl;
use kiln_ir::{NodeId, Op, Pin, Plan, SourceOp};
use serde_json::{Value, json};

use crate::arguments::without_credentials;

/// What a plan takes from elsewhere, by the identities that it had, sorted; and whether that is all.
pub(super) fn dependencies(plan: &Plan, pins: &BTreeMap<NodeId, Pin>) -> (Vec<Value>, bool) {
    let mut found: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut complete = true;
    for id in plan.order() {
        let node = plan.graph.node(id);
        let Op::Source(source) = &node.op else {
            continue;
        };
        let pin = pins.get(&id).or_else(|| plan.pins.get(&id));
        let platform = node.platform.as_ref().map(ToString::to_string);
        let uri = match source {
            SourceOp::Image(image) => image_purl("docker", &image.reference, platform.as_deref()),
            SourceOp::OciLayout(layout) => {
                image_purl("oci", &layout.reference, platform.as_deref())
            }
            // A directory of the caller has no identity elsewhere.
            SourceOp::Local(_) => {
                complete = false;
                continue;
            }
            source => uri(source),
        };
        match pin {
            Some(pin) => {
                let (algorithm, digest) = digest(pin);
                found.insert((uri, algorithm, digest));
            }
            // A stage that nothing needed was never asked for.
            None => complete = false,
        }
    }
    let described = found.into_iter().map(|(uri, algorithm, digest)| {
        let digest = BTreeMap::from([(algorithm, digest)]);
        json!({ "uri": uri, "digest": digest })
    });
    (described.collect(), complete)
}

/// The address of a source.
pub(super) fn uri(source: &SourceOp) -> String {
    let uri = match source {
        SourceOp::Git(git) => {
            let remote = git.full_url.as_deref().unwrap_or(&git.remote);
            let mut fragment = git.reference.clone();
            if !git.subdir.is_empty() {
                fragment = format!("{fragment}:{}", git.subdir);
            }
            match fragment.is_empty() {
                true => remote.to_owned(),
                false => format!("{remote}#{fragment}"),
            }
        }
        // A query may be a signature or a token, and the checksum says what it led to.
        SourceOp::Http(http) => http.url.split('?').next().unwrap_or_default().to_owned(),
        SourceOp::Blob(blob) => blob.reference.clone(),
        SourceOp::Image(image) => image.reference.clone(),
        SourceOp::OciLayout(layout) => layout.reference.clone(),
        SourceOp::Local(local) => local.name.clone(),
    };
    without_credentials(&uri)
}

/// A pin as a set of digests names it.
pub(super) fn digest(pin: &Pin) -> (String, String) {
    let value = pin.value();
    match pin {
        Pin::Commit(commit) if commit.len() == 64 => ("sha256".to_owned(), commit.clone()),
        Pin::Commit(commit) => ("sha1".to_owned(), commit.clone()),
        Pin::Manifest(_) | Pin::Checksum(_) => {
            let (algorithm, digits) = value.split_once(':').unwrap_or(("sha256", value));
            (algorithm.to_owned(), digits.to_owned())
        }
    }
}
