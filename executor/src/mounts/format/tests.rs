//! Golden bytes of an export's documents, and documents that are refused.

use kiln_oci::digest::Sha256Digest;
use kiln_tree::{Entry, Meta, Mtime, TreePath};

use super::*;

fn digest(bytes: &[u8]) -> FileDigest {
    FileDigest(*blake3::hash(bytes).as_bytes())
}

fn entry(path: &str, kind: Kind) -> Entry {
    let meta = Meta {
        mtime: Mtime {
            seconds: 1_700_000_000,
            nanos: 123_456_789,
        },
        ..Meta::new(0o644)
    };
    Entry::new(TreePath::new(path).unwrap(), kind, meta)
}

fn file(path: &str, bytes: &[u8]) -> Entry {
    let (size, digest) = (bytes.len() as u64, digest(bytes));
    entry(path, Kind::File { size, digest })
}

const ONE: &[u8] = b"one";
const TWO: &[u8] = b"two, a little longer";

fn packs() -> Vec<Pack> {
    vec![Pack {
        digest: Sha256Digest::of(b"pack"),
        size: 30,
        bytes: (ONE.len() + TWO.len()) as u64,
    }]
}

/// A mount of one file of one chunk, one of two with a hole, and a link of each kind.
fn tree() -> Tree {
    let both = [ONE, &[0; 1000], TWO].concat();
    let chunk = |bytes: &[u8], offset| Chunk {
        digest: digest(bytes),
        pack: 0,
        offset,
        length: bytes.len() as u32,
    };
    let symlink = Kind::Symlink {
        target: b"../elsewhere".to_vec(),
    };
    let hardlink = Kind::Hardlink {
        to: TreePath::new("a").unwrap(),
    };
    let manifest = Manifest::new(vec![
        entry("", Kind::DIRECTORY),
        file("a", ONE),
        file("b", &both),
        entry(
            "empty",
            Kind::File {
                size: 0,
                digest: digest(b""),
            },
        ),
        entry("link", symlink),
        Entry::new(TreePath::new("same").unwrap(), hardlink, Meta::default()),
    ])
    .unwrap();
    Tree {
        manifest,
        chunks: vec![chunk(ONE, 0), chunk(TWO, ONE.len() as u32)],
        files: vec![
            vec![Part::Chunk(0)],
            vec![Part::Chunk(0), Part::Zeros(1000), Part::Chunk(1)],
            vec![],
        ],
    }
}

fn config() -> Config {
    let bytes = tree().encode().unwrap();
    Config {
        version: VERSION,
        mounts: vec![ExportedTree {
            id: "/root/.cache".to_owned(),
            taken: 1_700_000_000_123,
            files: 5,
            bytes: 1026,
            tree: Descriptor::new(TREE, Sha256Digest::of(b"tree"), bytes.len() as u64),
            packs: packs(),
        }],
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let text: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{text}\n")
    });
    lines.collect()
}

#[test]
fn the_bytes_of_a_tree_stay() {
    insta::assert_snapshot!("tree_v0", hex(&tree().encode_plain()));
}

#[test]
fn the_words_of_a_config_stay() {
    let mut config = config();
    // What compressing makes of a tree is the compressor's.
    config.mounts[0].tree.size = 400;
    let text = String::from_utf8(config.encode()).unwrap();
    let manifest = config.manifest(Descriptor::new(CONFIG, Sha256Digest::of(b"config"), 100));
    let manifest = String::from_utf8(manifest.to_bytes()).unwrap();
    insta::assert_snapshot!("documents_v0", format!("{text}\n{manifest}"));
}

#[test]
fn trees_and_configs_read_back() {
    assert_eq!(
        Tree::decode(&tree().encode().unwrap(), &packs()).unwrap(),
        tree()
    );
    assert_eq!(Config::decode(&config().encode()).unwrap(), config());
    assert_eq!(tree().data_bytes(), 26);
}

/// Changes a tree, and checks why it is refused.
#[track_caller]
fn check_refused(change: impl FnOnce(&mut Tree), reason: &str) {
    let mut tree = tree();
    change(&mut tree);
    let bytes = tree.encode_plain();
    let refused = Tree::decode_plain(&bytes, &packs()).unwrap_err();
    assert!(refused.contains(reason), "{refused}");
}

#[test]
fn chunks_that_lie_are_refused() {
    check_refused(|tree| tree.chunks[1].pack = 1, "lies in no pack");
    check_refused(|tree| tree.chunks[1].offset = 4, "lies in no pack");
    check_refused(|tree| tree.chunks[1].length = u32::MAX, "lies in no pack");
    check_refused(|tree| tree.chunks[0].length = 0, "lies in no pack");
    check_refused(|tree| tree.chunks[0].length = 4, "another size");
    check_refused(|tree| tree.files[0] = vec![Part::Chunk(7)], "has not");
    check_refused(|tree| tree.files[0] = vec![], "another size");
    check_refused(
        |tree| tree.files[1].push(Part::Zeros(u32::MAX)),
        "another size",
    );
    check_refused(
        |tree| tree.chunks[0].digest = digest(b"lie"),
        "another digest",
    );
}

/// Adds an entry to a tree that is otherwise right.
fn with(entry: Entry) -> impl FnOnce(&mut Tree) {
    move |tree| {
        let mut entries = tree.manifest.entries().to_vec();
        entries.push(entry);
        tree.manifest = Manifest::new(entries).unwrap();
    }
}

#[test]
fn what_no_cache_has_is_refused() {
    let device = Kind::BlockDevice { major: 8, minor: 0 };
    check_refused(with(entry("sda", device)), "a device at `/sda`");
    let path = TreePath::new("gone").unwrap();
    check_refused(with(Entry::whiteout(path)), "a deletion at `/gone`");
    let mut marked = entry("dir", Kind::DIRECTORY);
    let name = b"trusted.overlay.opaque".to_vec();
    marked.meta.xattrs.insert(name, b"y".to_vec());
    check_refused(with(marked), "not content at `/dir`");
    let rootless = |tree: &mut Tree| {
        let entries = tree.manifest.entries()[1..].to_vec();
        tree.manifest = Manifest::new(entries).unwrap();
    };
    check_refused(rootless, "no root");
    let mut huge = file("huge", ONE);
    huge.kind = Kind::File {
        size: u64::MAX / 2,
        digest: digest(ONE),
    };
    check_refused(with(huge), "more than 1 TiB");
}

#[test]
fn bytes_that_are_cut_or_changed_are_refused_or_read() {
    let bytes = tree().encode_plain();
    for end in 0..bytes.len() {
        assert!(
            Tree::decode_plain(&bytes[..end], &packs()).is_err(),
            "{end}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Tree::decode_plain(&longer, &packs()).is_err());
    // Whatever is in them, nothing panics and nothing large is made.
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = Tree::decode_plain(&changed, &packs());
        }
    }
}

#[test]
fn bombs_end_early() {
    let bomb = zstd::bulk::compress(&vec![0; 8 << 20], 19).unwrap();
    assert!(bomb.len() < 4096);
    let refused = decompress(&bomb, 1 << 20).unwrap_err();
    assert!(refused.contains("more than 1048576 bytes"), "{refused}");
    assert!(decompress(b"nothing of the kind", 1 << 20).is_err());
}

#[track_caller]
fn check_config(change: impl FnOnce(&mut Config), reason: &str) {
    let mut config = config();
    change(&mut config);
    let refused = Config::decode(&config.encode()).unwrap_err();
    assert!(refused.contains(reason), "{refused}");
}

#[test]
fn configs_that_lie_are_refused() {
    check_config(
        |config| config.mounts[0].id = String::new(),
        "impossible id",
    );
    check_config(
        |config| config.mounts[0].id = "a".repeat(5000),
        "impossible id",
    );
    check_config(
        |config| config.mounts[0].id = "a\0b".to_owned(),
        "impossible id",
    );
    check_config(
        |config| config.mounts.push(config.mounts[0].clone()),
        "out of order",
    );
    check_config(
        |config| config.mounts[0].packs[0].bytes = u64::MAX,
        "too large",
    );
    check_config(|config| config.mounts[0].tree.size = u64::MAX, "too large");
    assert!(Config::decode(b"{}").is_err());
    assert!(Config::decode(b"[[[[").is_err());
}

fn mount(id: &str, taken: u64) -> ExportedTree {
    ExportedTree {
        id: id.to_owned(),
        taken,
        ..config().mounts.remove(0)
    }
}

#[test]
fn of_each_id_the_younger_picture_counts() {
    let there = Config {
        version: VERSION,
        mounts: vec![mount("a", 5), mount("c", 5)],
    };
    let new = [mount("a", 4), mount("b", 1), mount("c", 6)];
    let merged = there.clone().with(&new);
    let found: Vec<_> = merged
        .mounts
        .iter()
        .map(|mount| (mount.id.as_str(), mount.taken))
        .collect();
    assert_eq!(found, [("a", 5), ("b", 1), ("c", 6)]);
    assert!(merged.covers(&new));
    assert!(!there.covers(&new));
}
