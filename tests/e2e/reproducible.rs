//! The same inputs give the same bytes: whoever builds, wherever, however many steps at once.

use std::path::Path;

use crate::support::Capability::{
    self, Busybox, MountNamespace, OrdinaryUser, Root, Setpriv, Uidmap,
};
use crate::support::{Case, UID, User, World, case, find_program};

pub(crate) fn cases() -> Vec<Case> {
    const IDS: &[Capability] = &[Root, MountNamespace, OrdinaryUser, Setpriv, Uidmap, Busybox];
    const ONE: &[Capability] = &[Root, OrdinaryUser, Setpriv, Busybox];
    const COPIES: &[Capability] = &[Root, MountNamespace, OrdinaryUser, Setpriv, Busybox];
    let lacks = ["setcap", "setfattr"]
        .into_iter()
        .find(|name| find_program(name).is_none());
    vec![
        case("whoever_builds", IDS, whoever_builds).lacks(lacks.map(str::to_owned)),
        case("with_one_id", ONE, with_one_id),
        case("with_one_id_in_copies", COPIES, with_one_id_in_copies),
        case("several_names", COPIES, several_names),
        case("directories_made_anew", COPIES, directories_made_anew),
        case(
            "owners_that_one_id_cannot_tell",
            ONE,
            owners_that_one_id_cannot_tell,
        ),
        case("what_needs_more_ids", ONE, what_needs_more_ids),
    ]
}

/// Owners, modes, links, capabilities, attributes, large and small layers, and what a step sees.
const DOCKERFILE: &str = "
    FROM demo/base AS tools
    COPY tools /
    RUN mkdir /t && echo program > /t/capable && setcap cap_net_raw+ep /t/capable
    RUN echo noted > /t/noted && setfattr -n user.note -v something /t/noted

    FROM demo/base AS owners
    RUN mkdir -p /o/sub/deep && echo one > /o/one && ln /o/one /o/again && ln -s one /o/soft && mkfifo /o/pipe && \
        chown 5:6 /o/one && chmod 4755 /o/one
    RUN chown -R 33:34 /o/sub; chmod 2775 /o/sub; chmod 1777 /o/sub/deep
    USER 1000:1000
    RUN echo mine > /o/sub/deep/mine

    FROM demo/base AS large
    RUN seq 1 150000 > /large; dd if=/dev/zero of=/zeros bs=1M count=12 2> /dev/null
    RUN i=0; while [ $i -lt 200 ]; do mkdir -p /many/$((i % 7)); echo $i > /many/$((i % 7))/$i; i=$((i+1)); done

    FROM demo/base AS seen
    RUN umask > /seen; env | sort >> /seen; cat /proc/sys/kernel/hostname >> /seen; id >> /seen

    FROM demo/base
    COPY --from=owners /o /o
    COPY --from=tools /t /t
    COPY --from=large /large /zeros /many/ /b/
    COPY --from=seen /seen /seen
    COPY --chown=7:8 --chmod=640 src /src
    COPY src/link /l
    ADD owned.tar /added
    RUN --mount=type=cache,target=/k echo x > /k/x; cp /src/a /copied; rm /o/soft; mv /o/again /o/moved
    RUN chown 60000:9 /copied
    WORKDIR /made/by/workdir
    USER 33
    RUN id -u > /tmp/me
    ";

const EPOCH: &str = "1700000000";

/// Writes a context; another order of writing is another order of inodes and of names on the disk.
fn context(world: &World, at: &str, dockerfile: &str, backwards: bool) {
    let mut files: Vec<(String, Vec<u8>)> = (0..40)
        .map(|number| (format!("src/d{}/f{number}", number % 3), vec![number; 100]))
        .collect();
    files.push(("src/a".to_owned(), b"a\n".to_vec()));
    files.push(("owned.tar".to_owned(), owned()));
    files.push((
        "Dockerfile".to_owned(),
        dockerfile.trim().replace("\n    ", "\n").into_bytes(),
    ));
    if backwards {
        files.reverse();
    }
    for (path, bytes) in &files {
        world.write(&format!("{at}/{path}"), bytes);
    }
    std::os::unix::fs::symlink("a", world.path(at).join("src/link")).unwrap();
    for directory in ["", "src", "src/d0", "src/d1", "src/d2"] {
        world.chmod(&format!("{at}/{directory}"), 0o755);
    }
    if backwards {
        for (path, _) in &files {
            let file = std::fs::File::open(world.path(at).join(path)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            file.set_modified(time).unwrap();
        }
    }
}

/// An archive with owners of its own.
fn owned() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, id) in [("f", 3), ("g", 4)] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o640);
        header.set_uid(id);
        header.set_gid(id + 1);
        header.set_mtime(1_600_000_000);
        header.set_size(1);
        builder.append_data(&mut header, name, &b"x"[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn tools(world: &World, at: &str) {
    let directory = world.path(at).join("tools");
    for name in ["setcap", "setfattr"] {
        world.copy_program(name, directory.to_str().unwrap());
    }
}

/// Runs a script as root; `$KILN` is the command, and the archive is to be `OUT`.
fn as_root(world: &World, script: &str) {
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let script =
        format!("set -e; umask 022; export SOURCE_DATE_EPOCH={EPOCH} KILN={kiln}\n{script}");
    world.program("sh", &["-c", &script]).ok();
}

/// One archive as another: the names of the files that differ, if any do.
#[track_caller]
fn check_same(world: &World, one: &str, other: &str) {
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    if read(one) != read(other) {
        let listed = |name: &str| listing(&world.path(name));
        panic!(
            "{one} and {other} differ:\n{:#?}\n{:#?}",
            listed(one),
            listed(other)
        );
    }
}

/// The blobs of an archive.
fn listing(path: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        format!("{} {}", entry.path().unwrap().display(), entry.size())
    });
    entries.collect()
}

fn whoever_builds(world: &World) {
    context(world, "ctx", DOCKERFILE, false);
    let user = User::with_ids(world, "user");
    // What the user's own files added is none of this.
    for extra in ["ctx/d/x", "ctx/a"] {
        world.remove(extra);
    }
    std::fs::remove_dir(world.path("ctx/d")).unwrap();
    context(world, "elsewhere/below", DOCKERFILE, true);
    tools(world, "elsewhere/below");
    tools(world, "ctx");
    let base = "$KILN import base.tar demo/base > /dev/null";
    let build = "$KILN build -q -t app";
    as_root(
        world,
        &format!("export KILN_ROOT=$PWD/one; {base}; {build} -o type=oci,dest=one.tar ctx"),
    );
    // One step after the other, and the caller's surroundings are others.
    as_root(
        world,
        &format!(
            "mkdir home2; export HOME=$PWD/home2 KILN_ROOT=$PWD/two TZ=Asia/Tokyo LANG=de_DE.UTF-8 LC_ALL=C.UTF-8
             umask 077; {base}; cd elsewhere
             exec unshare --uts sh -ec \"hostname elsewhere; {build} --jobs 1 -o type=oci,dest=../two.tar below\""
        ),
    );
    check_same(world, "one.tar", "two.tar");
    // Where no overlay can have its upper directory, trees are copied.
    as_root(
        world,
        &format!(
            "mkdir lower upper work merged
             exec unshare --mount sh -ec \"mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
             export KILN_ROOT=$PWD/merged/store; {base}; $KILN info > info.txt
             {build} --jobs 16 -o type=oci,dest=three.tar ctx\""
        ),
    );
    let info = world.read("info.txt");
    assert!(info.contains("copy"), "{info}");
    check_same(world, "one.tar", "three.tar");
    user.ok(&format!(
        "export SOURCE_DATE_EPOCH={EPOCH}
         kiln import base.tar demo/base; kiln build -q -t app --jobs 3 -o type=oci,dest=$HOME/four.tar ctx"
    ));
    check_same(world, "one.tar", "user/four.tar");
    // And once more in the first store, without its cache.
    as_root(
        world,
        &format!(
            "export KILN_ROOT=$PWD/one; {build} --no-cache -o type=oci,dest=five.tar elsewhere/below"
        ),
    );
    check_same(world, "one.tar", "five.tar");
}

/// What one id is enough for: owners that no step has to give.
const ONE_ID: &str = "
    FROM demo/base AS made
    COPY --chown=5:6 src /c/
    RUN --mount=type=cache,target=/k touch /k/x; wc -c < /c/a > /n; chmod 4755 /n; ln /n /again; chmod 600 /c/a
    FROM demo/base
    COPY --from=made /c /c
    COPY --from=made --chown=7:8 /again /again
    COPY --from=made /n /n
    ADD owned.tar /added
    COPY --chmod=444 src/a /read/only
    COPY --chown=9:9 --chmod=400 src/a /read/nobody
    RUN echo x > /new; rm -r /var; mkfifo /fifo; mv /n /moved; chmod 600 /c/d0/f0
    RUN echo more >> /c/d1/f1; mv /c/d1/f4 /again; ln /c/d2/f2 /linked; rm /c/d2/f5
    RUN echo made > /c/d1/made; echo other > /t; mv /t /c/d1/f7; rm /c/d1/f10; echo other > /c/d1/f10
    RUN echo x >> /read/only; cat /read/nobody; echo x >> /read/nobody; touch /read/made
    RUN echo x > /mine; chown 0:0 /mine; chown -R root:root /bin
    ";

const ONE_ID_BUILD: &str = "kiln import base.tar demo/base; kiln info > $HOME/info.txt
     kiln build -q --jobs 1 -o type=oci,dest=$HOME/one.tar ctx";

/// Builds as root.
fn build_as_root(world: &World) {
    as_root(
        world,
        "export KILN_ROOT=$PWD/root; $KILN import base.tar demo/base
         $KILN build -q -o type=oci,dest=root.tar ctx",
    );
}

fn with_one_id(world: &World) {
    context(world, "ctx", ONE_ID, false);
    let user = User::new(world, "user");
    user.ok(&format!("export SOURCE_DATE_EPOCH={EPOCH}; {ONE_ID_BUILD}"));
    build_as_root(world);
    check_same(world, "root.tar", "user/one.tar");
}

fn with_one_id_in_copies(world: &World) {
    context(world, "ctx", ONE_ID, false);
    let user = User::without_overlays(world, "user");
    user.ok(&format!("export SOURCE_DATE_EPOCH={EPOCH}; {ONE_ID_BUILD}"));
    let info = world.read("user-upper/info.txt");
    assert!(info.contains("copy"), "{info}");
    build_as_root(world);
    check_same(world, "root.tar", "user-upper/one.tar");
}

/// Steps that change one name of a file of several, or give one more.
const NAMES: &str = "
    FROM demo/base
    RUN for n in 1 2 3 4 5 6; do echo $n > /$n; ln /$n /$n.b; ln /$n /$n.c; done
    RUN echo more >> /1.b; chmod 600 /2; mv /3.b /3.x; rm /4; ln /5.c /5.d; chmod 600 /6*
    RUN cat /1 /1.b /1.c > /seen; ln /bin/busybox /bin/b2
    ";

fn several_names(world: &World) {
    check_copies(world, NAMES);
}

/// Steps that make directories again that they removed.
const MADE_ANEW: &str = "
    FROM demo/base
    RUN mkdir -p /d/s /d/t/u /e; touch /d/a /d/b /d/s/x /d/s/y /d/t/z /d/t/u/v /e/f
    RUN rm -r /d /e && mkdir -p /d/s /d/b /e && touch /d/c /d/s/y /d/t
    RUN rm -r /d && mkdir /d && touch /d/a
    RUN ls -R /d /e > /seen
    ";

fn directories_made_anew(world: &World) {
    check_copies(world, MADE_ANEW);
}

/// Root's image is the same from an overlay and from copied trees, which is also what a user with one id gets.
fn check_copies(world: &World, dockerfile: &str) {
    context(world, "ctx", dockerfile, false);
    let user = User::without_overlays(world, "user");
    user.ok(&format!("export SOURCE_DATE_EPOCH={EPOCH}; {ONE_ID_BUILD}"));
    build_as_root(world);
    check_same(world, "root.tar", "user-upper/one.tar");
    as_root(
        world,
        "mkdir lower upper work merged
         exec unshare --mount sh -ec \"mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
         export KILN_ROOT=$PWD/merged/store; $KILN import base.tar demo/base
         $KILN build -q -o type=oci,dest=copied.tar ctx\"",
    );
    check_same(world, "root.tar", "copied.tar");
}

fn owners_that_one_id_cannot_tell(world: &World) {
    let stepped = |step: &str| format!("FROM demo/base\nCOPY --chown=5:6 src /c/\nRUN {step}\n");
    let bound = "FROM demo/base AS other\nCOPY --chown=5:6 src /c/\nFROM demo/base\n\
                 RUN --mount=type=bind,from=other,source=/c,target=/m cp -p /m/a /copy\n";
    let failing = [
        (
            stepped("cp -p /c/a /copy"),
            "`/copy` is the same as `/c/a`, which belongs to 5:6",
        ),
        (
            bound.to_owned(),
            "`/copy` is the same as `/c/a`, which belongs to 5:6",
        ),
        (
            stepped("chown 0:0 /c/a"),
            "`/c/a` belongs to 5:6, and the step may have given it to root",
        ),
        (
            stepped("echo x > /t && chown 0:0 /t && mv /t /c/a"),
            "`/c/a` belonged to 5:6, and the step put another in its place",
        ),
        (
            stepped("mv /c/link /x"),
            "`/x` is the same as `/c/link`, which belongs to 5:6",
        ),
    ];
    context(world, "ctx", "", false);
    for user in [
        User::new(world, "user"),
        User::without_overlays(world, "copies"),
    ] {
        for (dockerfile, words) in &failing {
            world.write("ctx/Dockerfile", dockerfile);
            let ran = user.run("kiln import base.tar demo/base; kiln build ctx");
            assert_eq!(ran.status.code(), Some(1), "{dockerfile}\n{}", ran.whole());
            let line = format!("`{UID}:");
            for words in [
                *words,
                "one id",
                "hint: ",
                &line,
                "/etc/subuid",
                "/etc/subgid",
            ] {
                assert!(
                    ran.stderr.contains(words),
                    "{dockerfile}\n{words}: {}",
                    ran.stderr
                );
            }
        }
    }
}

fn what_needs_more_ids(world: &World) {
    let user = User::new(world, "user");
    user.ok("kiln import base.tar demo/base");
    world.write("ctx/owned.tar", owned());
    let failing = [
        "RUN echo x > /x && chown 5:6 /x",
        "COPY owned.tar /\nRUN tar -C / -xpf /owned.tar && chown 3:4 /f",
        // As apt does before it becomes _apt.
        "RUN setpriv --regid 5 --clear-groups true || su -s /bin/sh nobody -c true",
        "USER 33:34\nRUN true",
        // Nobody but the kernel says that it was refused.
        "RUN touch /x; chown 7:8 /x || true",
        "RUN touch /x; chgrp 8 /x 2>&- || true",
        "RUN su -s /bin/sh nobody -c true 2>&- || echo no > /no",
    ];
    for steps in failing {
        world.write("ctx/Dockerfile", format!("FROM demo/base\n{steps}\n"));
        let ran = user.run("kiln build ctx");
        assert_eq!(ran.status.code(), Some(1), "{steps}\n{}", ran.whole());
        let line = format!("`{UID}:");
        for words in ["hint: ", &line, "/etc/subuid", "/etc/subgid", ":65536`"] {
            assert!(
                ran.stderr.contains(words),
                "{steps}\n{words}: {}",
                ran.stderr
            );
        }
    }
}
