//! Layer archives: what is written is read back, and what is hostile stays inside.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use kiln_tree::seal::{IdMap, SealOptions, seal};
use kiln_tree::tar::{
    ApplyError, ApplyOptions, DirectoryFiles, LowerFiles, MtimePolicy, WriteError, WriteOptions,
    apply, write_layer,
};
use kiln_tree::{
    Entry, FileDigest, Kind, Manifest, Meta, Mtime, OverlayXattrs, Ownership, TreePath, View,
};
use proptest::prelude::*;
use tar::{EntryType, Header};

/// An archive made by hand, because a proper writer would refuse.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(mut self, path: &str, entry_type: EntryType, link: &str, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(entry_type);
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        if entry_type == EntryType::Char {
            header.set_device_major(link.len() as u32).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.raw(body)
    }

    fn raw(mut self, body: &[u8]) -> Self {
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.add(path, EntryType::Regular, "", body.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.add(path, EntryType::Directory, "", b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.add(path, EntryType::Symlink, to, b"")
    }

    fn hardlink(self, path: &str, to: &str) -> Self {
        self.add(path, EntryType::Link, to, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut body = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body += &format!("{length} {key}={value}\n");
        }
        self.add("pax", EntryType::XHeader, "", body.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn options() -> ApplyOptions<'static> {
    match is_root() {
        true => ApplyOptions::new(Ownership::Apply(IdMap::identity()), OverlayXattrs::Trusted),
        false => ApplyOptions::new(Ownership::Record, OverlayXattrs::User),
    }
}

/// Applies below a directory whose neighbour must stay as it is.
fn run(
    archive: &[u8],
    options: &ApplyOptions<'_>,
) -> (tempfile::TempDir, Result<Manifest, ApplyError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("layer")).unwrap();
    fs::write(dir.path().join("outside"), "untouched").unwrap();
    let layer = open(&dir.path().join("layer"));
    let applied = apply(archive, layer.as_fd(), options).map(|applied| applied.manifest);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "something was made outside: {names:?}");
    let outside = dir.path().join("outside");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1);
    (dir, applied)
}

fn text(manifest: &Manifest) -> Vec<String> {
    let kind = |kind: &Kind| match kind {
        Kind::File { size, .. } => format!("file {size}"),
        Kind::Directory { opaque: true, .. } => "dir opaque".into(),
        Kind::Directory { passing: true, .. } => "dir passing".into(),
        Kind::Directory { .. } => "dir".into(),
        Kind::Hardlink { to } => format!("= {to}"),
        Kind::Symlink { target } => format!("-> {}", target.escape_ascii()),
        Kind::Whiteout => "deleted".into(),
        other => format!("{other:?}"),
    };
    manifest
        .entries()
        .iter()
        .map(|entry| format!("{} {}", entry.path, kind(&entry.kind)))
        .collect()
}

fn check(archive: Archive, expected: &[&str]) {
    let archive = archive.end();
    let (dir, manifest) = run(&archive, &options());
    let manifest = manifest.unwrap();
    assert_eq!(text(&manifest), expected);
    if is_root() {
        agrees_with_disk(&dir.path().join("layer"), &manifest);
    }
}

/// Sealing the directory over nothing finds what the manifest says, but for deletions.
fn agrees_with_disk(layer: &Path, manifest: &Manifest) {
    let options = SealOptions {
        root: false,
        ..SealOptions::default()
    };
    let sealed = seal(open(layer).as_fd(), &View::default(), &options)
        .unwrap()
        .manifest;
    let plain = |manifest: &Manifest| -> Vec<_> {
        let kept = manifest
            .entries()
            .iter()
            .filter(|entry| entry.kind != Kind::Whiteout && !entry.path.is_root());
        kept.map(|entry| match entry.kind {
            Kind::Directory { .. } => (entry.path.clone(), Kind::DIRECTORY, entry.meta.clone()),
            _ => (entry.path.clone(), entry.kind.clone(), entry.meta.clone()),
        })
        .collect()
    };
    assert_eq!(plain(&sealed), plain(manifest));
}

fn check_refused(archive: Archive, expected: &str) {
    let (_dir, refused) = run(&archive.end(), &options());
    let error = refused.unwrap_err();
    let cause = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let message = format!("{error}: {cause}");
    assert!(
        message.contains(expected),
        "`{message}` does not say `{expected}`"
    );
}

fn archive() -> Archive {
    Archive::default()
}

#[test]
fn plain_entries() {
    check(
        archive()
            .dir("a/")
            .file("a/f", "x")
            .symlink("a/l", "/etc/passwd")
            .hardlink("b", "a/f"),
        &["/a dir", "/a/f file 1", "/a/l -> /etc/passwd", "/b = /a/f"],
    );
    check(
        archive().dir("./").file("./f", "x"),
        &["/ dir", "/f file 1"],
    );
    check(
        archive().file("a/b/f", ""),
        &["/a dir passing", "/a/b dir passing", "/a/b/f file 0"],
    );
    check(archive(), &[]);
}

#[test]
fn absolute_paths_are_inside() {
    check(
        archive().file("/f", "x").file("//g", "y"),
        &["/f file 1", "/g file 1"],
    );
}

#[test]
fn dotdot_is_refused() {
    check_refused(archive().file("../outside", "x"), "..");
    check_refused(archive().file("a/../../outside", "x"), "..");
    check_refused(archive().hardlink("a", "../outside"), "..");
}

#[test]
fn links_are_not_followed() {
    check_refused(
        archive().symlink("up", "..").file("up/outside", "x"),
        "not a directory",
    );
    check_refused(
        archive().symlink("up", "/").file("up/tmp/x", "x"),
        "not a directory",
    );
    check_refused(
        archive().symlink("up", "..").dir("up/new/"),
        "not a directory",
    );
    check_refused(
        archive().symlink("s", "..").hardlink("h", "s/outside"),
        "does not have",
    );
    check(
        archive().symlink("f", "../outside").file("f", "x"),
        &["/f file 1"],
    );
    check(
        archive().symlink("s", "../outside").hardlink("h", "s"),
        &["/h -> ../outside", "/s = /h"],
    );
}

#[test]
fn hardlinks_stay_inside() {
    check_refused(archive().hardlink("h", "/outside"), "does not have");
    check_refused(archive().dir("d/").hardlink("h", "d"), "not a file");
    check_refused(archive().file("h", "").hardlink("h", "h"), "itself");
    check_refused(
        archive().dir("d/").file("d/f", "").hardlink("d", "d/f"),
        "replaces",
    );
    check(
        archive()
            .file("f", "old")
            .hardlink("g", "f")
            .hardlink("h", "g")
            .file("f", "newer"),
        &["/f file 5", "/g file 3", "/h = /g"],
    );
}

#[test]
fn hardlinks_into_lower_layers_copy_up() {
    struct Lower;
    impl LowerFiles for Lower {
        fn open(&self, path: &TreePath) -> io::Result<Option<(Entry, OwnedFd)>> {
            if path.as_bytes() != b"bin/low" {
                return Ok(None);
            }
            let dir = tempfile::tempdir()?;
            fs::write(dir.path().join("f"), "lower")?;
            let kind = Kind::File {
                size: 5,
                digest: FileDigest::of(b"lower"),
            };
            let entry = Entry::new(path.clone(), kind, Meta::new(0o755));
            Ok(Some((entry, fs::File::open(dir.path().join("f"))?.into())))
        }
    }
    let bytes = archive().hardlink("h", "bin/low").end();
    let (dir, manifest) = run(
        &bytes,
        &ApplyOptions {
            lower: Some(&Lower),
            ..options()
        },
    );
    assert_eq!(text(&manifest.unwrap()), ["/h file 5"]);
    assert_eq!(
        fs::read_to_string(dir.path().join("layer/h")).unwrap(),
        "lower"
    );
}

#[test]
fn devices() {
    let device = |major| archive().add("null", EntryType::Char, major, b"");
    check(device("1"), &["/null CharDevice { major: 1, minor: 3 }"]);
    let (dir, manifest) = run(&device("1").end(), &options());
    assert_eq!(
        text(&manifest.unwrap()),
        ["/null CharDevice { major: 1, minor: 3 }"]
    );
    if is_root() {
        let disk = fs::symlink_metadata(dir.path().join("layer/null")).unwrap();
        assert!(disk.file_type().is_char_device());
    }
}

#[test]
fn a_device_that_is_a_whiteout_is_refused() {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[0] = b'w';
    header.set_entry_type(EntryType::Char);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    header.set_size(0);
    header.set_cksum();
    check_refused(Archive(header.as_bytes().to_vec()), "0:0");
}

#[test]
fn marks() {
    check(
        archive().file("a/.wh.b", ""),
        &["/a dir passing", "/a/b deleted"],
    );
    check(
        archive()
            .dir("a/")
            .file("a/.wh..wh..opq", "")
            .file("a/f", ""),
        &["/a dir opaque", "/a/f file 0"],
    );
    check(
        archive().file("a/f", "").file("a/.wh..wh..opq", ""),
        &["/a dir opaque", "/a/f file 0"],
    );
    check(
        archive().file("a/.wh..wh..opq", "").dir("a/"),
        &["/a dir opaque"],
    );
    check(archive().file(".wh.f", "").file("f", "x"), &["/f file 1"]);
    check(archive().file("f", "x").file(".wh.f", ""), &["/f file 1"]);
    check(
        archive().file(".wh.d", "").file("d/f", "x"),
        &["/d dir opaque", "/d/f file 1"],
    );
    check(
        archive().file("d/f", "x").file(".wh.d", ""),
        &["/d dir opaque", "/d/f file 1"],
    );
    check(archive().file(".wh..wh.plnk", ""), &[]);
    let (dir, _) = run(&archive().file(".wh.x", "").end(), &options());
    let whiteout = fs::symlink_metadata(dir.path().join("layer/x")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
}

#[test]
fn tricky_marks_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..."] {
        check_refused(archive().file(name, ""), "deletes no name");
    }
    check_refused(archive().file(".wh.d/f", ""), "below a deletion");
    check_refused(
        archive().file("a", "").file("a/.wh..wh..opq", ""),
        "not a directory",
    );
    check_refused(
        archive().symlink("a", "..").file("a/.wh.outside", ""),
        "not a directory",
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    check(archive().file("f", "1").file("f", "22"), &["/f file 2"]);
    check(
        archive().file("f", "1").dir("f/").file("f/g", ""),
        &["/f dir", "/f/g file 0"],
    );
    check(
        archive().dir("d/").file("d/f", "").file("d", "x"),
        &["/d file 1"],
    );
    check(
        archive().dir("d/").file("d/f", "").dir("d/"),
        &["/d dir", "/d/f file 0"],
    );
    check(
        archive()
            .dir("d/")
            .file("d/f", "")
            .file("d", "x")
            .dir("d/")
            .file("d/g", ""),
        &["/d dir", "/d/g file 0"],
    );
}

#[test]
fn xattrs_of_overlays_are_dropped() {
    let records = [
        ("SCHILY.xattr.trusted.overlay.opaque", "y"),
        ("SCHILY.xattr.user.overlay.opaque", "y"),
        ("SCHILY.xattr.security.selinux", "x"),
        ("SCHILY.xattr.user.kept", "a\nb=c"),
    ];
    let (dir, manifest) = run(&archive().pax(&records).dir("d/").end(), &options());
    let manifest = manifest.unwrap();
    let xattrs = &manifest.get(b"d").unwrap().meta.xattrs;
    assert_eq!(xattrs.len(), 1);
    assert_eq!(xattrs[b"user.kept".as_slice()], b"a\nb=c");
    let on_disk = kiln_tree::handle::xattrs(open(&dir.path().join("layer")), b"d").unwrap();
    assert_eq!(&on_disk, xattrs);
}

#[test]
fn long_names() {
    let long = "n".repeat(200);
    let expected = [format!("/{long} file 1")];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(
        archive().pax(&[("path", &long)]).file("short", "x"),
        &expected,
    );
    let gnu = archive().add(
        "././@LongLink",
        EntryType::GNULongName,
        "",
        format!("{long}\0").as_bytes(),
    );
    check(gnu.file("short", "x"), &expected);
    check_refused(
        archive().pax(&[("path", &"n".repeat(300))]).file("s", "x"),
        "name",
    );
    check_refused(
        archive()
            .pax(&[("path", &"n/".repeat(10_000))])
            .file("s", "x"),
        "4096 bytes",
    );
    check_refused(archive().pax(&[("path", "a\0b")]).file("s", "x"), "NUL");
}

#[test]
fn deep_nesting_is_bounded_and_removable() {
    let deep = "d/".repeat(1000) + "f";
    let bytes = archive()
        .pax(&[("path", &deep)])
        .file("s", "x")
        .file("d", "instead")
        .end();
    let (_dir, manifest) = run(&bytes, &options());
    assert_eq!(text(&manifest.unwrap()), ["/d file 7"]);
}

/// Applies an archive as people unpack them.
fn unpack(archive: Archive) -> Result<Vec<String>, String> {
    let unpacks = ApplyOptions {
        unpacks: true,
        ..options()
    };
    let (_dir, applied) = run(&archive.end(), &unpacks);
    let manifest = applied.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    })?;
    Ok(text(&manifest))
}

#[test]
fn entries_below_links_of_an_archive_lie_where_they_lead() {
    let check = |archive: Archive, expected: &[&str]| {
        assert_eq!(unpack(archive).unwrap(), expected);
    };
    let merged = archive()
        .file("usr/lib/a", "1")
        .symlink("lib", "usr/lib")
        .file("lib/b", "22")
        .hardlink("c", "lib/b");
    let files = ["/c file 2", "/lib -> usr/lib", "/usr dir passing"];
    let below = [
        "/usr/lib dir passing",
        "/usr/lib/a file 1",
        "/usr/lib/b = /c",
    ];
    check(merged, &[&files[..], &below].concat());
    // An absolute target counts from where the archive is unpacked; what is above that is it.
    let absolute = archive()
        .symlink("var/run", "/../run")
        .file("var/run/x/f", "1");
    let expected = [
        "/run dir passing",
        "/run/x dir passing",
        "/run/x/f file 1",
        "/var dir passing",
        "/var/run -> /../run",
    ];
    check(absolute, &expected);
    check(archive().file("a/../b", "1"), &["/b file 1"]);
    let circle = archive()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/c", "");
    assert!(
        unpack(circle)
            .unwrap_err()
            .contains("too many symbolic links")
    );
    assert!(
        unpack(archive().file("../a", ""))
            .unwrap_err()
            .contains("leads out")
    );
    let deletion = unpack(archive().file("d/.wh.gone", "")).unwrap_err();
    assert!(deletion.contains("means a deletion"), "{deletion}");
    // A link whose place is taken by a file leads nowhere any more.
    let replaced = archive().symlink("l", "d").file("l", "1").file("l/x", "");
    assert!(unpack(replaced).unwrap_err().contains("is not a directory"));
}

#[test]
fn sparse_files_get_their_holes_back() {
    let check = |records: &[(&str, &str)], body: &[u8], expected: &[u8]| {
        let archive = archive()
            .pax(records)
            .add("GNUSparseFile.1/f", EntryType::Regular, "", body)
            .file("next", "n");
        let (dir, applied) = run(&archive.end(), &options());
        let manifest = applied.unwrap();
        let name = records.iter().find(|(key, _)| *key == "GNU.sparse.name");
        let path = name.map_or("GNUSparseFile.1/f", |(_, name)| name);
        assert_eq!(
            fs::read(dir.path().join("layer").join(path)).unwrap(),
            expected
        );
        let digest = FileDigest(*blake3::hash(expected).as_bytes());
        let size = expected.len() as u64;
        let found = manifest.get(path.as_bytes()).unwrap();
        assert_eq!(found.kind, Kind::File { size, digest });
    };
    let expected = b"ab\0\0\0cd\0";
    let old = [
        ("GNU.sparse.size", "8"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "2"),
        ("GNU.sparse.offset", "5"),
        ("GNU.sparse.numbytes", "2"),
    ];
    check(&old, b"abcd", expected);
    let listed = [
        ("GNU.sparse.name", "f"),
        ("GNU.sparse.map", "0,2,5,2,8,0"),
        ("GNU.sparse.size", "8"),
    ];
    check(&listed, b"abcd", expected);
    let new = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "f"),
        ("GNU.sparse.realsize", "8"),
        ("path", "GNUSparseFile.1/f"),
    ];
    let mut body = b"3\n0\n2\n5\n2\n8\n0\n".to_vec();
    body.resize(512, 0);
    body.extend_from_slice(b"abcd");
    check(&new, &body, expected);
    // A map may be longer than a block.
    let many: Vec<u8> = (0..200)
        .flat_map(|n| format!("{}\n1\n", 2 * n).into_bytes())
        .collect();
    let mut body = [b"200\n", &many[..]].concat();
    body.resize(body.len().next_multiple_of(512), 0);
    body.extend_from_slice(&[b'x'; 200]);
    let size = ("GNU.sparse.realsize", "400");
    check(&[new[0], new[1], new[2], size], &body, &b"x\0".repeat(200));
}

#[test]
fn sparse_files_that_lie_are_refused() {
    let check = |records: &[(&str, &str)], body: &str, reason: &str| {
        check_refused(archive().pax(records).file("f", body), reason);
    };
    let map = |map| [("GNU.sparse.size", "8"), ("GNU.sparse.map", map)];
    check(
        &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")],
        "",
        "malformed",
    );
    check(&[("GNU.sparse.major", "2")], "", "unknown form");
    check(&[("GNU.sparse.odd", "2")], "", "malformed");
    check(&map("0,2"), "abc", "malformed");
    check(&map("4,2,0,2"), "abcd", "malformed");
    check(&map("7,2"), "ab", "malformed");
    check(&map("0"), "", "malformed");
    check(&map("18446744073709551615,2"), "ab", "malformed");
    check(&[("GNU.sparse.numbytes", "1")], "a", "malformed");
    let new = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "9"),
    ];
    check(&new, "99999999999999999999\n", "malformed");
    check(&new, &"9\n".repeat(3), "malformed");
}

#[test]
fn truncation_is_an_error() {
    let whole = archive().file("a", &"x".repeat(2000)).file("b", "y").end();
    for length in [1, 100, 512, 1000, 2512, 2560, 3000, 3072, 3584] {
        let (_dir, result) = run(&whole[..length], &options());
        assert!(
            matches!(result, Err(ApplyError::Archive { .. })),
            "{length}"
        );
    }
    let lenient = ApplyOptions {
        require_end: false,
        ..options()
    };
    assert!(run(&whole[..3584], &lenient).1.is_ok());
    assert!(run(&whole[..3000], &lenient).1.is_err());
}

#[test]
fn sizes_are_bounded() {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[0] = b'f';
    header.set_size(1 << 50);
    header.set_cksum();
    check_refused(Archive(header.as_bytes().to_vec()), "more than");
    header.set_size(1 << 30);
    header.set_entry_type(EntryType::XHeader);
    header.set_cksum();
    check_refused(Archive(header.as_bytes().to_vec()), "extension header");
    let small = ApplyOptions {
        max_bytes: 10,
        ..options()
    };
    assert!(
        run(
            &archive().file("a", "12345").file("b", "123456").end(),
            &small
        )
        .1
        .is_err()
    );
    let few = ApplyOptions {
        max_entries: 3,
        ..options()
    };
    assert!(run(&archive().file("a/b/c/d", "").end(), &few).1.is_err());
}

#[test]
fn damage_is_an_error() {
    check_refused(Archive(vec![b'x'; 512]), "checksum");
    check_refused(
        archive()
            .add("a", EntryType::XHeader, "", b"99 a=b\n")
            .file("f", ""),
        "malformed",
    );
    check_refused(archive().pax(&[("mtime", "soon")]).file("f", ""), "time");
    check_refused(
        archive().pax(&[("uid", "5000000000")]).file("f", ""),
        "owner",
    );
    check_refused(archive().pax(&[("path", "x")]), "extends nothing");
    check_refused(
        archive().add("f", EntryType::new(b'?'), "", b""),
        "unknown type",
    );
    check_refused(archive().file(".", ""), "root");
}

#[test]
fn an_ordinary_user_gets_a_best_effort() {
    let bytes = archive()
        .pax(&[("uid", "33"), ("gid", "34")])
        .add("f", EntryType::Regular, "", b"x")
        .file("g", "")
        .end();
    let user = ApplyOptions::new(Ownership::Record, OverlayXattrs::User);
    let (dir, manifest) = run(&bytes, &user);
    let manifest = manifest.unwrap();
    let meta = &manifest.get(b"f").unwrap().meta;
    assert_eq!((meta.uid, meta.gid), (33, 34));
    let disk = fs::metadata(dir.path().join("layer/f")).unwrap();
    assert_eq!(disk.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(disk.permissions().mode() & 0o600, 0o600);
}

/// Any layer, with files whose bytes are their path.
fn layers() -> impl Strategy<Value = Vec<Entry>> {
    let names = prop_oneof!["[a-c]", "[a-c]{120}", "[äß]", "b-[a-c]"];
    let path = prop::collection::vec(names, 1..4).prop_map(|names| names.join("/"));
    let xattrs = prop::collection::btree_map(
        "user\\.[a-z]{1,3}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
        0..3,
    );
    let meta = (
        0..0o7777_u32,
        0..3_000_000_000_u32,
        any::<u16>(),
        0..1_000_000_000_u32,
        any::<i32>(),
        xattrs,
    );
    let entry = (path, 0..8_u8, meta).prop_map(|(path, kind, meta)| {
        let path = TreePath::new(path).unwrap();
        let (mode, uid, gid, nanos, seconds, xattrs) = meta;
        let mtime = Mtime {
            seconds: seconds.into(),
            nanos,
        };
        let mut meta = Meta {
            mode,
            uid,
            gid: gid.into(),
            mtime,
            xattrs,
        };
        let kind = match kind {
            0 | 1 => {
                let bytes = path.as_bytes();
                Kind::File {
                    size: bytes.len() as u64,
                    digest: FileDigest::of(bytes),
                }
            }
            2 => Kind::Directory {
                opaque: true,
                passing: false,
            },
            3 => Kind::DIRECTORY,
            // No disk keeps `user.` attributes of these.
            4 | 5 => {
                meta.xattrs.clear();
                if kind == 4 {
                    Kind::Fifo
                } else {
                    Kind::CharDevice {
                        major: 1,
                        minor: uid % 100,
                    }
                }
            }
            6 => {
                meta = Meta::default();
                Kind::Whiteout
            }
            _ => {
                meta.mode = 0o777;
                meta.xattrs.clear();
                Kind::Symlink {
                    target: b"t".repeat(nanos as usize % 150 + 1),
                }
            }
        };
        Entry::new(path, kind, meta)
    });
    prop::collection::vec(entry, 0..12).prop_map(|entries| {
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
        kept
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_is_read_back(entries in layers()) {
        if !is_root() {
            eprintln!("skipped: only root gives files away and makes devices");
            return Ok(());
        }
        let manifest = Manifest::new(entries).unwrap();
        let decoded = Manifest::decode(&manifest.encode()).unwrap();
        prop_assert_eq!(&decoded, &manifest);
        prop_assert_eq!(decoded.encode(), manifest.encode());
        // The files' bytes are their first path, so an applied archive can serve itself.
        let dir = tempfile::tempdir().unwrap();
        for entry in manifest.entries() {
            if let Kind::File { .. } = entry.kind {
                let path = dir.path().join(std::str::from_utf8(entry.path.as_bytes()).unwrap());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, entry.path.as_bytes()).unwrap();
            }
        }
        let options = WriteOptions { mtime: MtimePolicy::Keep, nanoseconds: true };
        let mut first = Vec::new();
        write_layer(&manifest, &DirectoryFiles(open(dir.path()).as_fd()), &options, &mut first).unwrap();
        let (applied_dir, applied) = run(&first, &self::options());
        let applied = applied.unwrap();
        agrees_with_disk(&applied_dir.path().join("layer"), &applied);
        let layer = open(&applied_dir.path().join("layer"));
        let mut second = Vec::new();
        write_layer(&applied, &DirectoryFiles(layer.as_fd()), &options, &mut second).unwrap();
        prop_assert_eq!(first, second);
        // All is kept but that a directory was only passed through, which archives cannot say.
        let plain = |manifest: &Manifest| -> Vec<Entry> {
            let mut entries = manifest.entries().to_vec();
            for entry in &mut entries {
                if entry.kind.is_passing() {
                    entry.kind = Kind::DIRECTORY;
                }
            }
            entries
        };
        prop_assert_eq!(plain(&applied), plain(&manifest));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096), at in 0..3000_usize, value: u8) {
        let _ = run(&bytes, &options());
        let mut whole = archive().pax(&[("path", "long"), ("SCHILY.xattr.user.a", "b")]).file("f", "x")
            .dir("d/").hardlink("h", "long").symlink("s", "..").file("d/.wh.x", "").end();
        let at = at % whole.len();
        whole[at] = value;
        let _ = run(&whole, &options());
    }
}

#[test]
fn times_follow_the_policy() {
    let meta = Meta {
        mtime: Mtime {
            seconds: 100,
            nanos: 5,
        },
        ..Meta::new(0o755)
    };
    let manifest = Manifest::new(vec![Entry::new(
        TreePath::new("d").unwrap(),
        Kind::DIRECTORY,
        meta,
    )])
    .unwrap();
    let seconds = |mtime, nanoseconds| {
        let mut bytes = Vec::new();
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path());
        write_layer(
            &manifest,
            &DirectoryFiles(files.as_fd()),
            &WriteOptions { mtime, nanoseconds },
            &mut bytes,
        )
        .unwrap();
        let (_dir, applied) = run(&bytes, &options());
        let mtime = applied.unwrap().get(b"d").unwrap().meta.mtime;
        (mtime.seconds, mtime.nanos)
    };
    assert_eq!(seconds(MtimePolicy::Keep, false), (100, 0));
    assert_eq!(seconds(MtimePolicy::Keep, true), (100, 5));
    assert_eq!(seconds(MtimePolicy::Clamp(50), true), (50, 0));
    assert_eq!(seconds(MtimePolicy::Clamp(200), true), (100, 5));
    assert_eq!(seconds(MtimePolicy::Fixed(7), true), (7, 0));
}

#[test]
fn a_name_that_would_be_a_deletion_is_refused() {
    let entry = Entry::new(
        TreePath::new("a/.wh.b").unwrap(),
        Kind::Fifo,
        Meta::new(0o644),
    );
    let dir = tempfile::tempdir().unwrap();
    let files = open(dir.path());
    let written = write_layer(
        &Manifest::new(vec![entry]).unwrap(),
        &DirectoryFiles(files.as_fd()),
        &WriteOptions::default(),
        &mut io::sink(),
    );
    assert!(matches!(written, Err(WriteError::Name(_))));
}
