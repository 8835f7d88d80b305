//! Mounts from one store to another, and exports that mean harm.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_store::{CacheMountAttempt, Sharing};

use super::*;
use crate::executor::tests::executor;
use crate::transfer::TransferObserver;

struct Host {
    directory: tempfile::TempDir,
    executor: Executor,
}

fn host() -> Host {
    let (directory, executor) = executor();
    Host {
        directory,
        executor,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().unwrap()
}

impl Host {
    /// The directory of a mount, made if there is none.
    fn mount(&self, id: &str) -> PathBuf {
        let taken = self
            .executor
            .store()
            .cache_mount(id, Sharing::Locked, |_| Ok(()));
        match taken.unwrap() {
            CacheMountAttempt::Held(mount) => mount.path().to_owned(),
            CacheMountAttempt::Busy(_) => panic!("`{id}` is in use"),
        }
    }

    fn export(&self, ids: &[&str], place: &str) -> MountsExported {
        let request = ExportMounts {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            place: MountsPlace::parse(place).unwrap(),
            exclude: Vec::new(),
        };
        runtime()
            .block_on(
                self.executor
                    .export_mounts(&request, &|_| {}, &TransferObserver::silent()),
            )
            .unwrap()
    }

    fn try_import(&self, place: &str, merge: bool) -> Result<Vec<ImportedMount>, Error> {
        let request = ImportMounts {
            ids: Vec::new(),
            place: MountsPlace::parse(place).unwrap(),
            merge,
        };
        runtime().block_on(self.executor.import_mounts(
            &request,
            &|_| {},
            &TransferObserver::silent(),
        ))
    }

    fn import(&self, place: &str) -> Vec<ImportedMount> {
        self.try_import(place, false).unwrap()
    }

    fn place(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn set_time(path: &Path, seconds: u64, nanos: u32) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Puts something of each kind into a mount.
fn fill(mount: &Path) {
    fs::create_dir_all(mount.join("registry/deep")).unwrap();
    for number in 0..40 {
        let path = mount.join(format!("registry/file-{number}"));
        fs::write(&path, noise(number, 2000 + 37 * number as usize)).unwrap();
        set_time(&path, 1_600_000_000 + number, 123_456_789);
    }
    fs::write(mount.join("large"), noise(1000, 3 << 20)).unwrap();
    let holes = fs::File::create(mount.join("holes")).unwrap();
    holes.set_len(40 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"end", (40 << 20) - 3).unwrap();
    fs::write(mount.join("empty"), "").unwrap();
    fs::write(mount.join("registry/read-only"), "one").unwrap();
    fs::set_permissions(
        mount.join("registry/read-only"),
        fs::Permissions::from_mode(0o444),
    )
    .unwrap();
    fs::hard_link(mount.join("registry/read-only"), mount.join("again")).unwrap();
    symlink("/etc/passwd", mount.join("link")).unwrap();
    fs::set_permissions(
        mount.join("registry/deep"),
        fs::Permissions::from_mode(0o555),
    )
    .unwrap();
    set_time(&mount.join("registry/deep"), 1_500_000_000, 7);
    set_time(&mount.join("registry"), 1_500_000_001, 8);
}

/// Everything that there is to see of a directory.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = vec![root.to_owned()];
    while let Some(path) = rest.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let held = match meta.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            kind if kind.is_file() => blake3::hash(&fs::read(&path).unwrap()).to_string(),
            _ => {
                rest.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                String::new()
            }
        };
        lines.push(format!(
            "{} {:o} {}:{} {}.{:09} {} {held}",
            path.strip_prefix(root).unwrap().display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            if meta.is_dir() { 0 } else { meta.nlink() },
        ));
    }
    lines.sort();
    lines
}

fn check_travels(place: &str) {
    let (one, two) = (host(), host());
    let mount = one.mount("go");
    fill(&mount);
    let place = one.place(place);
    let exported = one.export(&[], &place);
    assert_eq!(exported.mounts.len(), 1);
    assert_eq!(exported.mounts[0].files, 46);
    assert!(exported.digest.is_some());
    let imported = two.import(&place);
    assert_eq!(imported[0].files, 46);
    let other = two.mount("go");
    assert_eq!(listing(&other), listing(&mount));
    // Holes stay holes.
    assert!(fs::metadata(other.join("holes")).unwrap().blocks() * 512 < 4 << 20);
    // Once more there is nothing to do.
    assert!(two.import(&place)[0].unchanged);
    assert_eq!(listing(&other), listing(&mount));
}

#[test]
fn a_mount_travels_in_a_file() {
    check_travels("cache.tar");
}

#[test]
fn a_mount_travels_in_a_directory() {
    check_travels("cache");
}

#[test]
fn compressed_archives_are_read() {
    let (one, two) = (host(), host());
    fs::write(one.mount("a").join("f"), "hello").unwrap();
    let place = one.place("cache.tar");
    one.export(&[], &place);
    let packed = one.place("packed.tar");
    fs::write(
        &packed,
        zstd::encode_all(&fs::read(&place).unwrap()[..], 3).unwrap(),
    )
    .unwrap();
    two.import(&packed);
    assert_eq!(fs::read(two.mount("a").join("f")).unwrap(), b"hello");
}

/// The names of the blobs of a layout.
fn blobs(place: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(place).join("blobs/sha256")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_second_export_sends_what_changed() {
    let (one, two) = (host(), host());
    let mount = one.mount("go");
    fill(&mount);
    let place = one.place("cache");
    let first = one.export(&[], &place);
    let before = blobs(&place);
    let again = one.export(&[], &place);
    assert!(
        again.mounts[0].unchanged && again.digest.is_none(),
        "{again:?}"
    );
    assert_eq!((again.sent_bytes, blobs(&place)), (0, before.clone()));
    // A few bytes in the midst of a large file, one new file, one gone.
    let mut large = noise(1000, 3 << 20);
    large.splice(1 << 20..1 << 20, *b"something new");
    fs::write(mount.join("large"), large).unwrap();
    fs::write(mount.join("new"), "new").unwrap();
    fs::remove_file(mount.join("registry/file-3")).unwrap();
    let second = one.export(&[], &place);
    assert!(
        second.sent_bytes * 4 < first.sent_bytes,
        "{second:?} after {first:?}"
    );
    let told = &second.mounts[0];
    assert_eq!(told.new_bytes, second.sent_bytes);
    assert!(told.there_bytes > told.new_bytes, "{told:?}");
    // What nothing names any more is gone: the older documents.
    assert_eq!(blobs(&place).len(), before.len() + 1);
    two.import(&place);
    assert_eq!(listing(&two.mount("go")), listing(&mount));
    // And an import fetches what is lacking.
    fs::write(mount.join("newer"), "newer").unwrap();
    one.export(&[], &place);
    let third = two.import(&place);
    assert!(third[0].fetched_bytes < 1000, "{third:?}");
    assert_eq!(listing(&two.mount("go")), listing(&mount));
}

#[test]
fn packs_of_which_little_is_left_are_packed_anew() {
    let (one, two) = (host(), host());
    let mount = one.mount("go");
    fs::write(mount.join("large"), noise(1, 4 << 20)).unwrap();
    fs::write(mount.join("small"), noise(2, 1000)).unwrap();
    let place = one.place("cache");
    one.export(&[], &place);
    fs::remove_file(mount.join("large")).unwrap();
    one.export(&[], &place);
    let blobs = Path::new(&place).join("blobs/sha256");
    let sizes = fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() < 10_000);
    two.import(&place);
    assert_eq!(listing(&two.mount("go")), listing(&mount));
}

#[test]
fn several_hosts_add_to_one_export() {
    let (one, two, three) = (host(), host(), host());
    let place = one.place("cache");
    fs::write(one.mount("a").join("f"), "of one").unwrap();
    fs::write(two.mount("a").join("f"), "of two").unwrap();
    fs::write(two.mount("b").join("f"), "of two").unwrap();
    one.export(&[], &place);
    two.export(&[], &place);
    let imported = three.import(&place);
    let ids: Vec<&str> = imported.iter().map(|mount| mount.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(fs::read(three.mount("a").join("f")).unwrap(), b"of two");
    assert_eq!(fs::read(three.mount("b").join("f")).unwrap(), b"of two");
}

#[test]
fn an_import_takes_the_place_of_what_is_here() {
    let (one, two) = (host(), host());
    fs::write(one.mount("a").join("f"), "new").unwrap();
    fs::write(two.mount("a").join("g"), "old").unwrap();
    let place = one.place("cache.tar");
    one.export(&[], &place);
    two.import(&place);
    assert_eq!(listing(&two.mount("a")), listing(&one.mount("a")));
}

#[test]
fn merging_keeps_what_is_younger_and_what_is_only_here() {
    let (one, two) = (host(), host());
    let (export, here) = (one.mount("a"), two.mount("a"));
    for (mount, older, younger) in [(&export, "f", "g"), (&here, "g", "f")] {
        let word = if *mount == export { "export" } else { "here" };
        for (name, time) in [(older, 1000), (younger, 2000)] {
            fs::write(mount.join(name), word).unwrap();
            set_time(&mount.join(name), time, 0);
        }
    }
    fs::write(export.join("only-there"), "export").unwrap();
    fs::hard_link(export.join("only-there"), export.join("linked")).unwrap();
    fs::write(here.join("only-here"), "here").unwrap();
    fs::create_dir(export.join("d")).unwrap();
    fs::write(export.join("d/below"), "export").unwrap();
    fs::write(here.join("d"), "no directory").unwrap();
    let place = one.place("cache.tar");
    one.export(&[], &place);
    two.try_import(&place, true).unwrap();
    let here = two.mount("a");
    let read = |name: &str| fs::read_to_string(here.join(name)).unwrap();
    assert_eq!(read("f"), "here");
    assert_eq!(read("g"), "export");
    assert_eq!(read("only-there"), "export");
    assert_eq!(read("only-here"), "here");
    assert_eq!(read("d"), "no directory");
    assert_eq!(fs::metadata(here.join("linked")).unwrap().nlink(), 2);
}

#[test]
fn what_is_excluded_stays() {
    let (one, two) = (host(), host());
    let mount = one.mount("a");
    fs::create_dir(mount.join("tmp")).unwrap();
    fs::write(mount.join("tmp/x"), "x").unwrap();
    fs::write(mount.join("kept"), "kept").unwrap();
    fs::write(mount.join("a.log"), "both").unwrap();
    fs::hard_link(mount.join("a.log"), mount.join("b")).unwrap();
    let request = ExportMounts {
        ids: Vec::new(),
        place: MountsPlace::parse(&one.place("cache.tar")).unwrap(),
        exclude: vec!["tmp".to_owned(), "*.log".to_owned()],
    };
    runtime()
        .block_on(
            one.executor
                .export_mounts(&request, &|_| {}, &TransferObserver::silent()),
        )
        .unwrap();
    two.import(&one.place("cache.tar"));
    let mount = two.mount("a");
    let mut names: Vec<_> = fs::read_dir(&mount)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["b", "kept"]);
    assert_eq!(fs::read(mount.join("b")).unwrap(), b"both");
}

#[test]
fn a_mount_in_use_is_waited_for() {
    let one = host();
    fs::write(one.mount("a").join("f"), "first").unwrap();
    let store = one.executor.store();
    let CacheMountAttempt::Held(used) =
        store.cache_mount("a", Sharing::Shared, |_| Ok(())).unwrap()
    else {
        panic!("nobody uses it");
    };
    let refused = one.executor.remove_mount("a").unwrap_err();
    assert!(
        refused.to_string().contains("in use by kiln with pid"),
        "{refused}"
    );
    assert_eq!(
        one.executor.mounts().unwrap()[0].user,
        Some(Some(std::process::id()))
    );
    let request = ExportMounts {
        ids: Vec::new(),
        place: MountsPlace::parse(&one.place("cache")).unwrap(),
        exclude: Vec::new(),
    };
    let runtime = runtime();
    let exported = runtime.block_on(async {
        let used = std::sync::Mutex::new(Some(used));
        let told = |event| {
            if let MountsEvent::Waiting { .. } = event {
                let used = used.lock().unwrap().take();
                fs::write(used.as_ref().unwrap().path().join("f"), "last").unwrap();
            }
        };
        one.executor
            .export_mounts(&request, &told, &TransferObserver::silent())
            .await
            .unwrap()
    });
    assert_eq!(exported.mounts[0].bytes, 4);
    assert_eq!(one.executor.mounts().unwrap()[0].user, None);
    one.executor.remove_mount("a").unwrap();
    assert!(one.executor.mounts().unwrap().is_empty());
    let left = fs::read_dir(one.directory.path().join("store/mounts")).unwrap();
    assert_eq!(left.count(), 0);
}

/// Changes each blob of an export in turn: no import may succeed, and what is here must stay.
#[test]
fn damaged_exports_are_refused() {
    let (one, two) = (host(), host());
    fill(&one.mount("a"));
    let place = one.place("cache");
    one.export(&[], &place);
    fs::write(two.mount("a").join("f"), "as it was").unwrap();
    for name in blobs(&place) {
        let path = Path::new(&place).join("blobs/sha256").join(&name);
        let right = fs::read(&path).unwrap();
        let mut changed = right.clone();
        changed[right.len() / 2] ^= 1;
        for bytes in [&changed[..], &right[..right.len() - 1], b""] {
            fs::write(&path, bytes).unwrap();
            let refused = two.try_import(&place, false).unwrap_err();
            assert!(refused.to_string().contains("is damaged"), "{refused}");
        }
        fs::remove_file(&path).unwrap();
        two.try_import(&place, false).unwrap_err();
        fs::write(&path, &right).unwrap();
        let names: Vec<_> = fs::read_dir(two.mount("a"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["f"]);
    }
    two.import(&place);
    assert_eq!(listing(&two.mount("a")), listing(&one.mount("a")));
}

/// Writes an export anew whose only mount is changed, with digests that are right but for those of files.
fn rewrite(place: &str, change: impl FnOnce(&mut format::ExportedTree, &mut format::Tree)) {
    use kiln_oci::digest::Sha256Digest;
    use kiln_oci::document::Descriptor;
    let directory = Path::new(place);
    let blob = |name: &Sha256Digest| directory.join(kiln_oci::layout::blob_path(name));
    let index = fs::read(directory.join("index.json")).unwrap();
    let index = kiln_oci::layout::read_index(&index).unwrap();
    let manifest = fs::read(blob(&index.manifests[0].digest)).unwrap();
    let manifest = kiln_oci::document::Manifest::from_slice(&manifest).unwrap();
    let config = fs::read(blob(&manifest.config.digest)).unwrap();
    let mut config = format::Config::decode(&config).unwrap();
    let mount = &mut config.mounts[0];
    let tree = fs::read(blob(&mount.tree.digest)).unwrap();
    let mut tree = format::Tree::decode(&tree, &mount.packs).unwrap();
    change(mount, &mut tree);
    let tree = tree.encode().unwrap();
    mount.tree = Descriptor::new(format::TREE, Sha256Digest::of(&tree), tree.len() as u64);
    fs::write(blob(&mount.tree.digest), &tree).unwrap();
    let documents = publish::documents(&config);
    for document in [&documents.config, &documents.manifest] {
        fs::write(blob(&document.descriptor.digest), &document.bytes).unwrap();
    }
    let index = place::with_entry(Some(index), documents.manifest.descriptor);
    fs::write(directory.join("index.json"), index.to_bytes()).unwrap();
}

#[track_caller]
fn check_lie(change: impl FnOnce(&mut format::ExportedTree, &mut format::Tree), reason: &str) {
    let (one, two) = (host(), host());
    fill(&one.mount("a"));
    let place = one.place("cache");
    one.export(&[], &place);
    fs::write(two.mount("a").join("f"), "as it was").unwrap();
    rewrite(&place, change);
    let refused = two.try_import(&place, false).unwrap_err();
    assert!(refused.to_string().contains(reason), "{refused}");
    assert_eq!(fs::read(two.mount("a").join("f")).unwrap(), b"as it was");
}

/// The number of a chunk of a file that has several.
fn inner_chunk(tree: &format::Tree) -> usize {
    let parts = tree.files.iter().find(|parts| parts.len() > 1);
    let chunk = parts.unwrap().iter().find_map(|part| match part {
        format::Part::Chunk(index) => Some(*index as usize),
        format::Part::Zeros(_) => None,
    });
    chunk.unwrap()
}

#[test]
fn a_chunk_of_other_bytes_is_refused() {
    let change = |_: &mut format::ExportedTree, tree: &mut format::Tree| {
        let at = inner_chunk(tree);
        tree.chunks[at].digest = kiln_tree::FileDigest([7; 32]);
    };
    check_lie(change, "a chunk has another digest");
}

#[test]
fn a_file_of_other_chunks_is_refused() {
    let change = |_: &mut format::ExportedTree, tree: &mut format::Tree| {
        let large = tree
            .files
            .iter_mut()
            .max_by_key(|parts| parts.len())
            .unwrap();
        large.reverse();
    };
    check_lie(change, "a file has another digest");
}

#[test]
fn a_pack_that_holds_more_or_less_than_it_says_is_refused() {
    let less = |mount: &mut format::ExportedTree, _: &mut format::Tree| {
        mount.packs[0].bytes += 1;
    };
    check_lie(less, "a pack holds less");
    let more = |mount: &mut format::ExportedTree, tree: &mut format::Tree| {
        // Nothing is wanted of what is left out.
        let last = tree
            .chunks
            .iter()
            .map(|chunk| chunk.offset + chunk.length)
            .max();
        let end = tree
            .chunks
            .iter()
            .position(|chunk| Some(chunk.offset + chunk.length) == last);
        tree.chunks[end.unwrap()].offset = 0;
        mount.packs[0].bytes = u64::from(last.unwrap()) - 1;
    };
    check_lie(more, "decompresses to more than");
}

#[test]
fn places_are_what_they_look_like() {
    let parse = |text: &str| MountsPlace::parse(text).unwrap();
    assert_eq!(parse("-"), MountsPlace::Stream);
    assert_eq!(parse("cache.tar"), MountsPlace::Archive("cache.tar".into()));
    assert_eq!(parse("./cache"), MountsPlace::Directory("./cache".into()));
    assert_eq!(
        parse("/var/cache"),
        MountsPlace::Directory("/var/cache".into())
    );
    let registry = |text: &str| MountsPlace::Registry(text.to_owned());
    assert_eq!(parse("cache"), registry("docker.io/library/cache:latest"));
    assert_eq!(parse("docker://r.example/c:go"), registry("r.example/c:go"));
    assert_eq!(
        parse("127.0.0.1:5000/cache").to_string(),
        "127.0.0.1:5000/cache:latest"
    );
    assert!(MountsPlace::parse("cache.tar.zst").is_err());
    assert!(MountsPlace::parse("Not A Name").is_err());
    let digest = "0".repeat(64);
    assert!(MountsPlace::parse(&format!("cache@sha256:{digest}")).is_err());
}

/// Two mounts with the same files: what one brought is there for the other, wherever they go.
#[test]
fn what_another_mount_brought_is_there_already() {
    let one = host();
    for id in ["a", "b", "c"] {
        fs::write(one.mount(id).join("large"), noise(7, 1 << 20)).unwrap();
        set_time(&one.mount(id).join("large"), 1_600_000_000, 0);
        set_time(&one.mount(id), 1_600_000_000, 0);
    }
    for name in ["cache", "cache.tar"] {
        let place = one.place(name);
        let first = one.export(&["a", "b"], &place);
        let [a, b] = &first.mounts[..] else {
            panic!("two mounts were exported")
        };
        assert_eq!(
            (a.new_bytes, b.there_bytes),
            (first.sent_bytes - b.new_bytes, a.new_bytes)
        );
        assert!(b.new_bytes == 0 && a.there_bytes == 0, "{first:?}");
        // Also what an earlier export brought.
        let second = one.export(&["c"], &place);
        let there = (second.sent_bytes, second.mounts[0].there_bytes);
        assert_eq!(there, (0, a.new_bytes), "{second:?}");
    }
}

#[test]
fn something_else_is_neither_read_nor_replaced() {
    let one = host();
    one.mount("a");
    let place = one.place("cache");
    fs::create_dir(&place).unwrap();
    fs::write(Path::new(&place).join("precious"), "").unwrap();
    let check = |place: &str, expected: &str| {
        let refused = one.try_import(place, false).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("`{place}` is no export of cache mounts: {expected}")
        );
        let hint = refused.hint().unwrap();
        assert!(
            hint.starts_with("`kiln mounts export PLACE` makes one"),
            "{hint}"
        );
    };
    check(&place, "there is no file `oci-layout` in it");
    let archive = one.place("other.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    tar.append_dir_all("d", &place).unwrap();
    tar.finish().unwrap();
    drop(tar);
    check(&archive, "there is no file `oci-layout` in it");
    let text = one.place("text.tar");
    fs::write(&text, "some text ".repeat(200)).unwrap();
    check(&text, "it is no whole tar archive");
    let request = ExportMounts {
        ids: Vec::new(),
        place: MountsPlace::parse(&place).unwrap(),
        exclude: Vec::new(),
    };
    let silent = TransferObserver::silent();
    let exporting = one.executor.export_mounts(&request, &|_| {}, &silent);
    let refused = runtime().block_on(exporting).unwrap_err();
    assert!(matches!(refused, Error::NotALayout { .. }), "{refused:?}");
    let offline = one.try_import("registry.example/cache", false).unwrap_err();
    assert!(matches!(offline, Error::Offline { .. }), "{offline:?}");
    let nothing = one.try_import(&one.place("empty"), false).unwrap_err();
    assert!(
        matches!(nothing, Error::Mounts(MountsError::NothingThere { .. })),
        "{nothing:?}"
    );
}
