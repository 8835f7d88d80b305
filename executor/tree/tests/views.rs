//! Merged views against the plainest model of stacked layers, and layers made of differences.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_tree::view::diff;
use kiln_tree::{Entry, FileDigest, Kind, Manifest, Meta, TreePath, View};
use proptest::prelude::*;

/// What a view shows, as a map: path to kind and mode.
type Model = BTreeMap<TreePath, (Kind, u32)>;

/// Applies a layer to a model the way a person would.
fn stack(model: &mut Model, layer: &Manifest) {
    for entry in layer.entries() {
        let below =
            |path: &TreePath| path.starts_with(entry.path.as_bytes()) && *path != entry.path;
        let resolved = layer.resolve(entry);
        match &entry.kind {
            Kind::Whiteout => model.retain(|path, _| !path.starts_with(entry.path.as_bytes())),
            Kind::Directory { opaque, passing } => {
                let was_directory = model
                    .get(&entry.path)
                    .is_some_and(|(kind, _)| kind.is_directory());
                if *opaque || !was_directory {
                    model.retain(|path, _| !below(path));
                }
                if !(*passing && was_directory) {
                    model.insert(entry.path.clone(), (Kind::DIRECTORY, entry.meta.mode));
                }
            }
            _ => {
                model.retain(|path, _| !below(path));
                model.insert(
                    entry.path.clone(),
                    (resolved.kind.clone(), resolved.meta.mode),
                );
            }
        }
    }
}

fn shown(view: &View) -> Model {
    let plain = |kind: &Kind| {
        if kind.is_directory() {
            Kind::DIRECTORY
        } else {
            kind.clone()
        }
    };
    view.iter()
        .map(|found| {
            (
                found.entry.path.clone(),
                (plain(found.kind()), found.meta().mode),
            )
        })
        .collect()
}

fn layer() -> impl Strategy<Value = Manifest> {
    let path = prop::collection::vec("[ab]", 1..4).prop_map(|names| names.join("/"));
    let entry = (path, 0..9_u8, 0..3_u32).prop_map(|(path, kind, mode)| {
        let path = TreePath::new(path).unwrap();
        let kind = match kind {
            0..=2 => Kind::File {
                size: 1,
                digest: FileDigest([mode as u8; 32]),
            },
            3 => Kind::Directory {
                opaque: true,
                passing: false,
            },
            4 | 5 => Kind::DIRECTORY,
            6 => Kind::Directory {
                opaque: false,
                passing: true,
            },
            _ => return Entry::whiteout(path),
        };
        Entry::new(path, kind, Meta::new(mode))
    });
    let links = prop::collection::vec("[cd]", 0..2);
    (prop::collection::vec(entry, 0..6), links).prop_map(|(entries, links)| {
        let mut kept: Vec<Entry> = Vec::new();
        for entry in entries {
            let clashes = |other: &Entry| {
                other.path == entry.path
                    || (other.path.starts_with(entry.path.as_bytes()) && !entry.kind.is_directory())
                    || (entry.path.starts_with(other.path.as_bytes()) && !other.kind.is_directory())
            };
            if !kept.iter().any(clashes) {
                kept.push(entry);
            }
        }
        let file = kept
            .iter()
            .find(|entry| matches!(entry.kind, Kind::File { .. }))
            .cloned();
        if let (Some(file), Some(link)) = (file, links.first()) {
            let kind = Kind::Hardlink { to: file.path };
            kept.push(Entry::new(
                TreePath::new(link.as_str()).unwrap(),
                kind,
                Meta::default(),
            ));
        }
        Manifest::new(kept).unwrap()
    })
}

fn view(layers: &[Manifest]) -> View {
    View::new(layers.iter().cloned().map(Arc::new).collect())
}

fn model(layers: &[Manifest]) -> Model {
    let mut model = Model::new();
    layers.iter().for_each(|layer| stack(&mut model, layer));
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shows_what_the_model_shows(layers in prop::collection::vec(layer(), 0..5)) {
        let expected = model(&layers);
        prop_assert_eq!(shown(&view(&layers)), expected.clone());
        // Single look-ups, before anything was merged.
        let lazy = view(&layers);
        for path in ["a", "b", "c", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "a/b/a", "b/a/b"] {
            let found = lazy.get(path.as_bytes());
            let expected = expected.get(&TreePath::new(path).unwrap());
            let plain = |kind: &Kind| if kind.is_directory() { Kind::DIRECTORY } else { kind.clone() };
            prop_assert_eq!(found.map(|found| (plain(found.kind()), found.meta().mode)), expected.cloned());
        }
        let expected_names: Vec<&[u8]> = expected.keys()
            .filter(|path| path.parent().is_some_and(|dir| dir.as_bytes() == b"a")).map(|path| path.name()).collect();
        let is_directory = expected.get(&TreePath::new("a").unwrap()).is_some_and(|(kind, _)| kind.is_directory());
        let names = lazy.list(b"a").map(|list| list.into_iter().map(|(name, _)| name.to_vec()).collect::<Vec<_>>());
        prop_assert_eq!(names, is_directory.then(|| expected_names.iter().map(|name| name.to_vec()).collect()));
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other(
        lower in prop::collection::vec(layer(), 0..4), upper in prop::collection::vec(layer(), 0..4),
    ) {
        let changes = diff(&view(&lower), &view(&upper));
        prop_assert_eq!(changes.origins.len(), changes.manifest.entries().len());
        let mut stacked = lower;
        stacked.push(changes.manifest);
        prop_assert_eq!(shown(&view(&stacked)), model(&upper));
        prop_assert!(diff(&view(&upper), &view(&upper)).manifest.is_empty());
        let flat = view(&upper).flatten();
        prop_assert_eq!(shown(&view(&[flat.manifest])), model(&upper));
    }

    #[test]
    fn manifests_decode_strictly(layer in layer(), at: usize, value: u8) {
        let bytes = layer.encode();
        prop_assert_eq!(Manifest::decode(&bytes).unwrap(), layer);
        let mut damaged = bytes.clone();
        let at = at % damaged.len();
        damaged[at] = value;
        if let Ok(decoded) = Manifest::decode(&damaged) {
            prop_assert_eq!(decoded.encode(), damaged);
        }
        prop_assert!(Manifest::decode(&bytes[..at]).is_err());
    }
}

#[test]
fn merging_keeps_what_was_only_passed_through() {
    let entry =
        |path: &str, kind, mode| Entry::new(TreePath::new(path).unwrap(), kind, Meta::new(mode));
    let passing = Kind::Directory {
        opaque: false,
        passing: true,
    };
    let base = Manifest::new(vec![entry("tmp", Kind::DIRECTORY, 0o1777)]).unwrap();
    let other = vec![
        entry("tmp", passing, 0o755),
        entry("tmp/x", Kind::Fifo, 0o644),
    ];
    let merged = view(&[base, Manifest::new(other).unwrap()]);
    assert_eq!(merged.get(b"tmp").unwrap().meta().mode, 0o1777);
    let masked = merged.masked_directories();
    assert_eq!(masked.len(), 1);
    assert_eq!(masked[0].meta().mode, 0o1777);
}

#[test]
fn the_id_leaves_times_out() {
    let layer = |seconds, mode| {
        let mut meta = Meta::new(mode);
        meta.mtime.seconds = seconds;
        Manifest::new(vec![Entry::new(
            TreePath::new("f").unwrap(),
            Kind::Fifo,
            meta,
        )])
        .unwrap()
    };
    assert_eq!(layer(1, 0o644).id(), layer(2, 0o644).id());
    assert_ne!(layer(1, 0o644).encode(), layer(2, 0o644).encode());
    assert_ne!(layer(1, 0o644).id(), layer(1, 0o600).id());
}

fn check_refused(entries: Vec<Entry>, expected: &str) {
    let message = Manifest::new(entries).unwrap_err().to_string();
    assert!(
        message.contains(expected),
        "`{message}` does not say `{expected}`"
    );
}

#[test]
fn contradictions_are_refused() {
    let at = |path: &str, kind| Entry::new(TreePath::new(path).unwrap(), kind, Meta::new(0o644));
    let link = |to: &str| Kind::Hardlink {
        to: TreePath::new(to).unwrap(),
    };
    check_refused(vec![at("a", Kind::Fifo), at("a", Kind::Fifo)], "twice");
    check_refused(
        vec![at("a", Kind::Fifo), at("a/b", Kind::Fifo)],
        "not a directory",
    );
    check_refused(vec![at("", Kind::Fifo)], "root");
    check_refused(vec![at("a", link("b"))], "no such path");
    check_refused(vec![at("a", link("d")), at("d", Kind::DIRECTORY)], "a");
    check_refused(vec![at("a", Kind::Whiteout)], "deletion");
    check_refused(
        vec![at("a", Kind::CharDevice { major: 0, minor: 0 })],
        "0:0",
    );
    check_refused(
        vec![at(
            "a",
            Kind::Directory {
                opaque: true,
                passing: true,
            },
        )],
        "both",
    );
}
