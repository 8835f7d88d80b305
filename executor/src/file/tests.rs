//! File ops as a whole, as COPY and ADD ask for them: what the layers show afterwards.
//!
//! What is expected here was compared with what BuildKit makes of the same copies.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_ir::{ActionInput, CopyAction, FileAction, FileActionKind, FileOp, Owner, UserRef};
use kiln_store::{Content as LayerContent, Lease, Store, StoreOptions};
use kiln_tree::{Kind, Stop, TreePath};

use super::source::{Origin, Source as _};
use super::{Base, open_layers, run};
use crate::context::ScannedContext;

/// A context and a base that the copies of all rows begin with.
struct Bench {
    _directory: tempfile::TempDir,
    store: Store,
    lease: Lease,
    context: ScannedContext,
    base: Vec<LayerContent>,
}

const PASSWD: &str = "root:x:0:0::/:\napp:x:7:8::/:\n";
const GROUP: &str = "root:x:0:\nstaff:x:9:\n";

fn write(root: &Path, files: &[&str]) {
    for line in files {
        let (path, content) = line.split_once(' ').unwrap_or((line, ""));
        let at = root.join(path.trim_end_matches('/'));
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        if path.ends_with('/') {
            std::fs::create_dir_all(&at).unwrap();
            std::fs::set_permissions(&at, PermissionsExt::from_mode(0o755)).unwrap();
        } else if let Some(target) = content.strip_prefix("-> ") {
            symlink(target, &at).unwrap();
        } else {
            std::fs::write(&at, content).unwrap();
            std::fs::set_permissions(&at, PermissionsExt::from_mode(0o644)).unwrap();
        }
    }
}

fn archive(path: &Path, entries: &[(&str, u32, u64)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, mode, owner) in entries {
        let mut header = tar::Header::new_gnu();
        let is_directory = name.ends_with('/');
        header.set_entry_type(match is_directory {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1000);
        header.set_size(if is_directory { 0 } else { 3 });
        let data: &[u8] = if is_directory { b"" } else { b"tar" };
        builder.append_data(&mut header, name, data).unwrap();
    }
    builder.finish().unwrap();
}

/// An archive with a link to what it does not hold, and a file below a link of its own.
fn archive_of_links(path: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut link = |name: &str, entry_type, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_size(0);
        header.set_mode(0o644);
        builder.append_link(&mut header, name, target).unwrap();
    };
    link("hard", tar::EntryType::Link, "link/there");
    link("lib", tar::EntryType::Symlink, "/real/lib");
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "lib/in", &b"tar"[..])
        .unwrap();
    builder.finish().unwrap();
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("kiln"), StoreOptions::default()).unwrap();
        let lease = store.lease();
        let base = directory.path().join("base");
        write(
            &base,
            &[
                &format!("etc/passwd {PASSWD}"),
                &format!("etc/group {GROUP}"),
                "opt/tree/f old",
                "opt/strict/",
                "srv/real/there yes",
                "srv/link -> real",
                "srv/absolute -> /srv/real",
                "srv/dangling -> nowhere",
            ],
        );
        let strict = base.join("opt/strict");
        std::fs::set_permissions(strict, PermissionsExt::from_mode(0o700)).unwrap();
        let files = directory.path().join("context");
        write(
            &files,
            &[
                "a.txt a",
                "b.txt b",
                "x.go x",
                "y.go y",
                ".dot d",
                "[z].c z",
                "dir/one 1",
                "dir/sub/two 2",
                "dir/.hidden h",
                "dir/to -> one",
                "dir/empty/",
                "dir2/one new",
                "dir2/three 3",
                "tolink -> dir",
                "tofile -> a.txt",
                "lost -> nowhere",
                "out -> ../../../a.txt",
                "over/tree not a directory",
                "under/f/x in the way",
                "same/h1 h",
            ],
        );
        std::fs::hard_link(files.join("same/h1"), files.join("same/h2")).unwrap();
        let set = |path: &str, mode| {
            std::fs::set_permissions(files.join(path), PermissionsExt::from_mode(mode)).unwrap();
        };
        set("b.txt", 0o4750);
        set("dir2", 0o2770);
        archive(
            &files.join("t.tar"),
            &[("td/", 0o750, 5), ("td/in", 0o600, 6)],
        );
        archive(&files.join("bare.tar"), &[("srv/link/in", 0o644, 0)]);
        let whole = std::fs::read(files.join("bare.tar")).unwrap();
        std::fs::write(files.join("open.tar"), &whole[..whole.len() - 1024]).unwrap();
        archive_of_links(&files.join("links.tar"));
        archive(
            &files.join("replace.tar"),
            &[
                ("srv/link/", 0o755, 0),
                ("srv/link/in", 0o644, 0),
                ("opt/tree", 0o644, 0),
            ],
        );
        let scan = |path: &Path| ScannedContext::scan(&store, path, &[], &Stop::NEVER).unwrap();
        let (base, context) = (scan(&base), scan(&files));
        let base = super::copy_whole(&store, &lease, &base).unwrap();
        Bench {
            _directory: directory,
            store,
            lease,
            context,
            base,
        }
    }

    /// Copies one after the other onto the base; tells how it failed.
    fn copy(&self, copies: &[CopyAction]) -> Result<Vec<LayerContent>, String> {
        let inputs = [Base::Layers(&self.base), Base::Context(&self.context)];
        let actions = copies.iter().enumerate().map(|(index, copy)| FileAction {
            input: match index.checked_sub(1) {
                None => ActionInput::Input(0),
                Some(before) => ActionInput::Action(u32::try_from(before).unwrap()),
            },
            secondary: ActionInput::Input(1),
            output: (index + 1 == copies.len()).then_some(0),
            kind: FileActionKind::Copy(copy.clone()),
        });
        let op = FileOp {
            actions: actions.collect(),
        };
        let mut done = run(&self.store, &self.lease, &op, &inputs, &[], &Stop::NEVER)
            .map_err(|e| e.to_string())?;
        Ok(done.remove(0).1)
    }

    /// What is below `at`: `name` of a file with `!mode` and `@uid:gid` where they are not the usual
    /// ones and its content, `name/` of a directory, `name -> target`.
    fn list(&self, layers: &[LayerContent], at: &str) -> Vec<String> {
        let layers = open_layers(&self.store, layers).unwrap();
        let items = layers.within(&TreePath::new(at).unwrap());
        let line = |item: &super::source::Item| {
            let path = item.path.to_string();
            let path = path.trim_start_matches('/');
            let below = path.strip_prefix(at).unwrap_or(path);
            let (usual, shown) = match &item.kind {
                Kind::Directory { .. } => (0o755, "/".to_owned()),
                Kind::Symlink { target } => {
                    (0o777, format!(" -> {}", String::from_utf8_lossy(target)))
                }
                _ => {
                    let file = layers.open(item).unwrap();
                    let text = std::io::read_to_string(std::fs::File::from(file)).unwrap();
                    (0o644, format!(" {text}"))
                }
            };
            let mut line = format!("{}{shown}", below.trim_start_matches('/'));
            if item.meta.mode != usual {
                line.push_str(&format!(" !{:o}", item.meta.mode));
            }
            if (item.meta.uid, item.meta.gid) != (0, 0) {
                line.push_str(&format!(" @{}:{}", item.meta.uid, item.meta.gid));
            }
            line
        };
        items.iter().map(line).collect()
    }

    /// Copies `[--add ][--chown=U[:G] ][--chmod=M ][--exclude=P ]SRC DEST`, several with ` ; ` between,
    /// and compares what is then below `at`, or the error.
    fn check(&self, copies: &str, at: &str, expected: &[&str]) {
        let copies: Vec<CopyAction> = copies.split(" ; ").map(parse).collect();
        let got = match self.copy(&copies) {
            Ok(layers) => self.list(&layers, at),
            Err(error) => vec![format!("error: {error}")],
        };
        assert_eq!(got, expected, "{copies:?}");
    }
}

fn owner(text: &str) -> Owner {
    let reference = |text: &str| match text.parse() {
        Ok(id) => UserRef::Id(id),
        Err(_) => UserRef::Name {
            name: text.to_owned(),
            input: ActionInput::Input(0),
        },
    };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let given = |text: &str| (!text.is_empty()).then(|| reference(text));
    Owner {
        user: given(user),
        group: given(group),
    }
}

fn parse(line: &str) -> CopyAction {
    let mut copy = CopyAction {
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    };
    for word in line.split(' ') {
        match word.split_once('=').unwrap_or((word, "")) {
            ("--add", _) => copy.attempt_unpack = true,
            ("--chown", value) => copy.owner = Some(owner(value)),
            ("--chmod", value) => copy.mode = u32::from_str_radix(value, 8).ok(),
            ("--exclude", value) => copy.exclude_patterns.push(value.to_owned()),
            _ if copy.src.is_empty() => copy.src = word.to_owned(),
            _ => copy.dest = word.to_owned(),
        }
    }
    copy
}

/// Layers keep owners that only root may give.
#[allow(clippy::print_stderr)]
fn bench() -> Option<Bench> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: file ops with owners need root");
        return None;
    }
    Some(Bench::new())
}

const DIR: [&str; 6] = ["/", ".hidden h", "empty/", "one 1", "sub/", "sub/two 2"];

fn dir() -> Vec<&'static str> {
    DIR.into_iter().chain(["to -> one"]).collect()
}

#[test]
fn files_and_destinations() {
    let Some(bench) = bench() else { return };
    bench.check("a.txt /new", "new", &[" a"]);
    bench.check("a.txt /new/", "new", &["/", "a.txt a"]);
    bench.check(
        "a.txt /new/deep/name",
        "new",
        &["/", "deep/", "deep/name a"],
    );
    bench.check("a.txt /opt/strict", "opt/strict", &["/ !700", "a.txt a"]);
    bench.check("a.txt /opt/tree/f", "opt/tree", &["/", "f a"]);
    bench.check("b.txt /new", "new", &[" b !4750"]);
    bench.check("a.txt /new ; x.go /new", "new", &[" x"]);
    bench.check(".dot /new/", "new", &["/", ".dot d"]);
    bench.check("nothing /new", "", &["error: \"/nothing\": not found"]);
}

#[test]
fn directories() {
    let Some(bench) = bench() else { return };
    bench.check("dir /new", "new", &dir());
    bench.check("dir/ /new/", "new", &dir());
    bench.check("dir/. /new", "new", &dir());
    bench.check("dir2 /new", "new", &["/", "one new", "three 3"]);
    bench.check("dir/empty /new/deep", "new", &["/", "deep/"]);
    bench.check(
        "dir2 /opt/strict",
        "opt/strict",
        &["/ !700", "one new", "three 3"],
    );
    bench.check(
        "dir2 /opt/tree",
        "opt/tree",
        &["/", "f old", "one new", "three 3"],
    );
    let merged = [
        &DIR[..3],
        &["one new"],
        &DIR[4..],
        &["three 3", "to -> one"],
    ]
    .concat();
    bench.check("dir /new ; dir2 /new", "new", &merged);
}

#[test]
fn what_is_in_the_way() {
    let Some(bench) = bench() else { return };
    let file = "error: `/opt/tree/f` is not a directory";
    bench.check("dir /opt/tree/f", "", &[file]);
    bench.check("dir /opt/tree/f/", "", &[file]);
    bench.check("a.txt /opt/tree/f/x", "", &[file]);
    bench.check("under /opt/tree", "", &[file]);
    let directory = "error: `/opt/tree` is a directory, and a file cannot replace it";
    bench.check("over /opt", "", &[directory]);
}

#[test]
fn wildcards() {
    let Some(bench) = bench() else { return };
    bench.check("*.go /new/", "new", &["/", "x.go x", "y.go y"]);
    bench.check("[x-y].go /new/", "new", &["/", "x.go x", "y.go y"]);
    bench.check("?.go /new/", "new", &["/", "x.go x", "y.go y"]);
    bench.check("[[]z].c /new/", "new", &["/", "[z].c z"]);
    bench.check("d*/one /new/", "new", &["/", "one new"]);
    bench.check(
        "dir/* /new/",
        "new",
        &["/", ".hidden h", "one 1", "to 1", "two 2"],
    );
    bench.check("*.none /opt/tree/", "opt/tree", &["/", "f old"]);
    bench.check("--exclude=one dir2 /new", "new", &["/", "three 3"]);
}

#[test]
fn links() {
    let Some(bench) = bench() else { return };
    bench.check("tofile /new", "new", &[" a"]);
    bench.check("tolink /new", "new", &dir());
    bench.check("tolink/one /new", "new", &[" 1"]);
    bench.check("dir/to /new/", "new", &["/", "to 1"]);
    bench.check("out /new", "new", &[" a"]);
    bench.check("lost /new", "", &["error: \"/lost\": not found"]);
    let real = ["/", "a.txt a", "there yes"];
    bench.check("a.txt /srv/link/", "srv/real", &real);
    bench.check("a.txt /srv/link", "srv/real", &real);
    bench.check("a.txt /srv/absolute/a.txt", "srv/real", &real);
    bench.check("a.txt /srv/dangling", "srv/nowhere", &[" a"]);
    let merged = ["/", "one new", "there yes", "three 3"];
    bench.check("dir2 /srv/link", "srv/real", &merged);
}

#[test]
fn owners_and_modes() {
    let Some(bench) = bench() else { return };
    bench.check("--chown=app a.txt /new", "new", &[" a @7:8"]);
    bench.check("--chown=app:staff a.txt /new", "new", &[" a @7:9"]);
    bench.check("--chown=app:3 a.txt /new", "new", &[" a @7:3"]);
    bench.check("--chown=4 a.txt /new", "new", &[" a @4:4"]);
    bench.check("--chown=:staff a.txt /new", "new", &[" a @0:9"]);
    bench.check(
        "--chown=4:5 a.txt /new/",
        "new",
        &["/ @4:5", "a.txt a @4:5"],
    );
    bench.check(
        "--chown=4:5 a.txt /opt/strict/",
        "opt/strict",
        &["/ !700", "a.txt a @4:5"],
    );
    bench.check(
        "--chown=nobody a.txt /new",
        "",
        &["error: could not find the owner"],
    );
    bench.check("--chmod=4711 a.txt /new", "new", &[" a !4711"]);
    let both = ["/ @1:2", "one new !600 @1:2", "three 3 !600 @1:2"];
    bench.check("--chmod=600 --chown=1:2 dir2 /new", "new", &both);
}

#[test]
fn archives() {
    let Some(bench) = bench() else { return };
    let unpacked = ["/", "td/ !750 @5:5", "td/in tar !600 @6:6"];
    bench.check("--add t.tar /new", "new", &unpacked);
    bench.check("--add t.tar /new/", "new", &unpacked);
    bench.check("--add --chmod=777 t.tar /new", "new", &unpacked);
    let owned = ["/ @1:2", "td/ !750 @1:2", "td/in tar !600 @1:2"];
    bench.check("--add --chown=1:2 t.tar /new", "new", &owned);
    bench.check("--add a.txt /new", "new", &[" a"]);
    bench.check(
        "--add bare.tar /",
        "srv/real",
        &["/", "in tar", "there yes"],
    );
    bench.check("--add replace.tar /", "srv/link", &["/", "in tar"]);
    bench.check("--add replace.tar /", "opt/tree", &[" tar"]);
    bench.check(
        "--add open.tar /",
        "srv/real",
        &["/", "in tar", "there yes"],
    );
    let linked = [
        "/",
        "absolute -> /srv/real",
        "dangling -> nowhere",
        "hard yes",
        "lib -> /real/lib",
        "link -> real",
        "real/",
        "real/lib/",
        "real/lib/in tar",
        "real/there yes",
    ];
    bench.check("--add links.tar /srv", "srv", &linked);
    let file = "error: `/opt/tree/f` is not a directory";
    bench.check("--add t.tar /opt/tree/f", "", &[file]);
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let Some(bench) = bench() else { return };
    let origins = |copies: &str, at: &str| -> Vec<Origin> {
        let copies: Vec<CopyAction> = copies.split(" ; ").map(parse).collect();
        let layers = open_layers(&bench.store, &bench.copy(&copies).unwrap()).unwrap();
        let items = layers.within(&TreePath::new(at).unwrap());
        let files = items
            .into_iter()
            .filter(|item| matches!(item.kind, Kind::File { .. }));
        files.map(|item| item.origin).collect()
    };
    let whole = origins("same /new", "new");
    assert_eq!(whole.len(), 2);
    assert_eq!(whole[0], whole[1]);
    // Each match of a wildcard is a copy of its own.
    let each = origins("same/* /new/", "new");
    assert_ne!(each[0], each[1]);
}

#[test]
fn a_directory_that_is_merged_into_gets_the_time_alone() {
    let Some(bench) = bench() else { return };
    let layers = bench.copy(&[parse("dir2 /opt/strict")]).unwrap();
    let layers = open_layers(&bench.store, &layers).unwrap();
    let at = |path: &str| layers.get(&TreePath::new(path).unwrap()).unwrap().meta;
    let from = bench.context.get(&TreePath::new("dir2").unwrap()).unwrap();
    assert_eq!(at("opt/strict").mtime, bench.context.mtime(&from));
    assert_eq!(at("opt/strict").mode, 0o700);
}
