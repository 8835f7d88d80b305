//! The bytes and digests of persisted formats, fixed by files: a change here is a new version.
#![allow(clippy::unwrap_used)]

use kiln_tree::context::{Child, Device, Directory, HashMemory, Node, Seen};
use kiln_tree::{Entry, FileDigest, Kind, Manifest, Meta, Mtime, TreeDigest, TreePath};

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        line.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    bytes.chunks(32).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Every kind of entry once.
fn manifest() -> Manifest {
    let meta = |mode| Meta {
        mode,
        uid: 1,
        gid: 2,
        mtime: Mtime {
            seconds: -3,
            nanos: 4,
        },
        ..Meta::default()
    };
    let entry = |path: &str, kind, meta| Entry::new(TreePath::new(path).unwrap(), kind, meta);
    let file = Kind::File {
        size: 4,
        digest: FileDigest::of(b"kiln"),
    };
    let mut marked = meta(0o4755);
    marked
        .xattrs
        .insert(b"security.capability".to_vec(), b"cap".to_vec());
    marked.xattrs.insert(b"user.a".to_vec(), Vec::new());
    Manifest::new(vec![
        entry("", Kind::DIRECTORY, meta(0o755)),
        entry(
            "block",
            Kind::BlockDevice { major: 8, minor: 1 },
            meta(0o660),
        ),
        entry("char", Kind::CharDevice { major: 1, minor: 3 }, meta(0o666)),
        entry(
            "dir",
            Kind::Directory {
                opaque: true,
                passing: false,
            },
            meta(0o1777),
        ),
        entry("dir/file", file, marked),
        entry("gone", Kind::Whiteout, Meta::default()),
        entry(
            "hard",
            Kind::Hardlink {
                to: TreePath::new("dir/file").unwrap(),
            },
            Meta::default(),
        ),
        entry(
            "link",
            Kind::Symlink {
                target: b"/dir".to_vec(),
            },
            meta(0o777),
        ),
        entry("made/pipe", Kind::Fifo, meta(0o600)),
    ])
    .unwrap()
}

#[test]
fn layer_manifest() {
    let manifest = manifest();
    insta::assert_snapshot!(
        "layer-manifest",
        format!("id {}\n{}", manifest.id(), hex(&manifest.encode()))
    );
    assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
}

#[test]
fn context_directory() {
    let child = |name: &str, node| Child {
        name: name.into(),
        node,
    };
    let directory = Directory::new(vec![
        child("pipe", Node::Fifo { mode: 0o600 }),
        child(
            "link",
            Node::Symlink {
                target: b"file".to_vec(),
            },
        ),
        child(
            "file",
            Node::File {
                mode: 0o644,
                size: 4,
                digest: FileDigest::of(b"kiln"),
            },
        ),
        child(
            "dir",
            Node::Directory {
                mode: 0o755,
                digest: Directory::default().digest(),
            },
        ),
    ])
    .unwrap();
    let text = format!(
        "digest {}\n{}",
        directory.digest(),
        hex(&directory.encode())
    );
    insta::assert_snapshot!("context-directory", text);
    assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
    let device = |is_block, major, minor| Node::Device {
        mode: 0o620,
        device: Device {
            is_block,
            major,
            minor,
        },
    };
    let devices = Directory::new(vec![
        child("null", device(false, 1, 3)),
        child("disk", device(true, 8, 0)),
    ])
    .unwrap();
    insta::assert_snapshot!(
        "context-devices",
        format!("digest {}\n{}", devices.digest(), hex(&devices.encode()))
    );
    assert_eq!(Directory::decode(&devices.encode()).unwrap(), devices);
}

#[test]
fn hash_memory() {
    let seen = Seen {
        device: 1 << 32 | 2,
        inode: 3,
        size: 4,
        mtime: (-5, 6),
        ctime: (7, 8),
    };
    let later = Seen {
        ctime: (7, 9),
        ..seen
    };
    let memory = HashMemory::new([(later, FileDigest([2; 32])), (seen, FileDigest([1; 32]))]);
    insta::assert_snapshot!("hash-memory", hex(&memory.encode()));
    let decoded = HashMemory::decode(&memory.encode()).unwrap();
    assert_eq!(decoded.get(&seen), Some(FileDigest([1; 32])));
    assert_eq!(decoded.get(&Seen { size: 5, ..seen }), None);
}

#[test]
fn decoding_is_strict() {
    let manifest = manifest().encode();
    let directory = Directory::default().encode();
    let memory = HashMemory::default().encode();
    for bytes in [&manifest, &directory, &memory] {
        let longer = [bytes.as_slice(), &[0]].concat();
        let shorter = &bytes[..bytes.len() - 1];
        let mut other = bytes.clone();
        other[7] = b'1';
        let mut many = bytes.clone();
        many[8..12].fill(0xff);
        for damaged in [longer.as_slice(), shorter, &other, &many, b""] {
            assert!(Manifest::decode(damaged).is_err());
            assert!(Directory::decode(damaged).is_err());
            assert!(HashMemory::decode(damaged).is_err());
        }
    }
    let named = |name: &str| Child {
        name: name.into(),
        node: Node::Directory {
            mode: 0,
            digest: TreeDigest([0; 32]),
        },
    };
    for name in ["", ".", "..", "a/b", "a\0"] {
        assert!(Directory::new(vec![named(name)]).is_err(), "{name}");
    }
    assert!(Directory::new(vec![named("a"), named("a")]).is_err());
}
