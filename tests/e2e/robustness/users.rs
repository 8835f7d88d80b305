//! Ordinary users: with many ids, with one, and where namespaces are refused.

use std::path::Path;

use crate::support::Capability::{self, Busybox, OrdinaryUser, Setpriv, Uidmap};
use crate::support::{Case, UID, User, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[OrdinaryUser, Setpriv, Busybox];
    vec![
        case("a_user_with_one_id", NEEDS, a_user_with_one_id),
        case(
            "a_user_with_many_ids",
            &[OrdinaryUser, Setpriv, Busybox, Uidmap],
            a_user_with_many_ids,
        ),
        case(
            "owners_beyond_the_ids",
            &[OrdinaryUser, Setpriv, Busybox, Uidmap],
            owners_beyond_the_ids,
        ),
        case("owners_without_ids", NEEDS, owners_without_ids),
        case("what_one_id_cannot_do", NEEDS, what_one_id_cannot_do),
        case(
            "root_of_another_namespace",
            NEEDS,
            root_of_another_namespace,
        ),
        case(
            "namespaces_that_are_refused",
            NEEDS,
            namespaces_that_are_refused,
        ),
        case(
            "a_file_that_the_user_cannot_read",
            NEEDS,
            a_file_that_the_user_cannot_read,
        ),
    ]
}

const DOCKERFILE: &str = "
    FROM demo/base AS made
    COPY --chown=5:6 a d /c/
    RUN --mount=type=cache,target=/k touch /k/x; wc -c < /c/a > /n; chmod 4755 /n
    FROM demo/base
    COPY --from=made /c /c
    COPY --from=made --chown=7:8 /n /n
    RUN touch /c/a; echo x > /new; rm -r /var; mkfifo /fifo
    ";

/// What root gets out of the same sources.
fn as_root(world: &World) -> (String, Vec<String>) {
    world.base();
    let id = world
        .kiln(&["build", "-t", "app", "ctx"])
        .env("SOURCE_DATE_EPOCH", "0")
        .ok()
        .id()
        .to_owned();
    world
        .kiln(&["build", "--quiet", "-o", "type=tar,dest=root.tar", "ctx"])
        .env("SOURCE_DATE_EPOCH", "0")
        .ok();
    (id, listing(&world.path("root.tar")))
}

/// Names, owners, modes and kinds of an archive's entries.
fn listing(path: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let mut lines: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            format!(
                "{} {:?} {:o} {}:{}",
                entry.path().unwrap().display(),
                header.entry_type(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            )
        })
        .collect();
    lines.sort();
    lines
}

const EVERYTHING: &str = "
    kiln import base.tar demo/base
    kiln info >&2
    kiln plan ctx > /dev/null
    kiln build --quiet -t app ctx
    [ \"$(kiln run app cat /n)\" = 2 ]
    kiln images | grep -q app
    kiln inspect app > /dev/null
    kiln build --quiet -o type=oci,dest=$HOME/oci.tar -o type=docker,dest=$HOME/docker.tar ctx > /dev/null
    kiln build --quiet -o type=local,dest=$HOME/local ctx > /dev/null
    kiln build --quiet -o type=tar,dest=$HOME/out.tar ctx > /dev/null
    kiln du > /dev/null; kiln prune > /dev/null; kiln build --quiet ctx
    ";

fn a_user_with_one_id(world: &World) {
    world.dockerfile(DOCKERFILE);
    let user = User::new(world, "user");
    let ran = user.ok(EVERYTHING);
    assert!(ran.stderr.contains("one id only"), "{}", ran.stderr);
    let (id, root) = as_root(world);
    assert_eq!(listing(&world.path("user/out.tar")), root);
    assert_eq!(ran.id(), id);
}

fn a_user_with_many_ids(world: &World) {
    world.dockerfile(&format!("{DOCKERFILE}    RUN chown 9:10 /c/x; mv /c/x /c/y\n    USER 33:34\n    RUN id -u > /tmp/me\n"));
    let user = User::with_ids(world, "user");
    let ran = user.ok(EVERYTHING);
    assert!(ran.stderr.contains("65537 users"), "{}", ran.stderr);
    let (id, root) = as_root(world);
    assert_eq!(listing(&world.path("user/out.tar")), root);
    assert_eq!(ran.id(), id);
}

/// An archive whose files belong to others.
fn owned() -> Vec<u8> {
    owned_by(33, 34)
}

fn owned_by(uid: u64, gid: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("data", tar::EntryType::Directory, 0o750, b"");
    add("data/f", tar::EntryType::Regular, 0o4711, b"f");
    add("data/sub", tar::EntryType::Directory, 0o700, b"");
    add("data/sub/g", tar::EntryType::Regular, 0o600, b"g");
    builder.into_inner().unwrap()
}

fn owners_beyond_the_ids(world: &World) {
    let user = User::with_ids(world, "user");
    world.write("owned.tar", owned_by(33, 200_000));
    world.write("last.tar", owned_by(33, 65_536));
    user.ok("kiln import base.tar demo/base; kiln import last.tar demo/last");
    let check = |command: &str, owner: &str, count: u32| {
        let ran = user.run(command);
        assert_ne!(ran.status.code(), Some(0), "{}", ran.whole());
        let line = format!("add the line `kilntest:1065536:{count}` to /etc/subuid");
        for words in [owner, "hint: ", &line, "to /etc/subgid"] {
            assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        }
    };
    let beyond = "owner 33:200000 is outside of the ids that are mapped here";
    check("kiln import owned.tar demo/owned", beyond, 196_608);
    world.dockerfile("FROM demo/base\nCOPY --chown=70000:5 a /a\n");
    check("kiln build ctx", "owner 70000:5 is outside", 65_536);
    world.dockerfile("FROM demo/base\nRUN touch /x && chown 70000:70000 /x\n");
    check("kiln build ctx", "has the ids 0 to 65536 only", 65_536);
}

fn owners_without_ids(world: &World) {
    let user = User::new(world, "user");
    world.write("owned.tar", owned());
    world.dockerfile(
        "
        FROM demo/owned AS owned
        FROM demo/base
        COPY --from=owned /data /data
        RUN touch /data/f; chmod 640 /data/sub/g; touch /data/new; chmod 755 /data
        ",
    );
    user.ok("kiln import base.tar demo/base; kiln import owned.tar demo/owned; kiln build --quiet -o type=tar,dest=$HOME/out.tar ctx");
    let found = listing(&world.path("user/out.tar"));
    let expected = [
        // Their own directory is made by COPY, as root.
        "data Directory 755 0:0",
        "data/f Regular 4711 33:34",
        "data/new Regular 644 0:0",
        "data/sub Directory 700 33:34",
        "data/sub/g Regular 640 33:34",
    ];
    let names: Vec<String> = found
        .iter()
        .map(|line| line.replace("/ ", " "))
        .filter(|line| line.starts_with("data"))
        .collect();
    assert_eq!(names, expected);
}

fn what_one_id_cannot_do(world: &World) {
    let user = User::new(world, "user");
    user.ok("kiln import base.tar demo/base");
    let line = format!("add the line `{UID}:");
    for steps in [
        "RUN touch /x && chown 5:6 /x",
        "USER 33\nRUN id",
        "RUN echo x > /x; chgrp 5 /x",
    ] {
        world.write("ctx/Dockerfile", format!("FROM demo/base\n{steps}\n"));
        let ran = user.run("kiln build ctx");
        assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
        for words in ["hint: ", &line, "/etc/subuid", "/etc/subgid"] {
            assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        }
    }
    let ran = user.run("kiln run -u 33 demo/base id");
    assert_eq!(ran.status.code(), Some(125), "{}", ran.whole());
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    // What fails for another reason is not told about ids.
    world.write("ctx/Dockerfile", "FROM demo/base\nRUN echo no; exit 4\n");
    assert!(!user.run("kiln build ctx").stderr.contains("subuid"));
}

fn root_of_another_namespace(world: &World) {
    world.dockerfile(DOCKERFILE);
    let user = User::new(world, "user");
    let script = format!(
        "umask 022; cat > $HOME/all.sh <<'END'\nset -e\nkiln() {{ {} \"$@\"; }}\n{EVERYTHING}\nEND\nexec unshare --map-root-user --mount sh $HOME/all.sh",
        env!("CARGO_BIN_EXE_kiln")
    );
    let ran = user.ok(&script);
    let (id, root) = as_root(world);
    assert_eq!(listing(&world.path("user/out.tar")), root);
    assert_eq!(ran.id(), id);
}

fn namespaces_that_are_refused(world: &World) {
    world.dockerfile("FROM demo/base\n");
    let mut user = User::new(world, "user");
    user.ok("kiln import base.tar demo/base; kiln build --quiet -t app ctx");
    // A user namespace with every id, in which no further one can be made.
    user.before = "unshare --user sleep 80 & made=$!\n\
         while [ \"$(readlink /proc/$made/ns/user)\" = \"$(readlink /proc/self/ns/user)\" ]; do sleep 0.01; done\n\
         echo 0 0 65536 > /proc/$made/uid_map; echo 0 0 65536 > /proc/$made/gid_map\n\
         nsenter --target $made --user --setuid 0 --setgid 0 sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"' sh \"$@\"; code=$?\n\
         kill $made; exit $code"
        .to_owned();
    for (command, code) in [
        ("build ctx", 3),
        ("run app ls", 125),
        ("import base.tar x", 3),
        ("info", 3),
    ] {
        let ran = user.run(&format!("kiln {command}"));
        assert_eq!(ran.status.code(), Some(code), "{}", ran.whole());
        for words in [
            "refused by a kernel setting",
            "sysctl -w user.max_user_namespaces=",
        ] {
            assert!(ran.stderr.contains(words), "{}", ran.stderr);
        }
    }
    let ran = user.ok("kiln images; kiln inspect app; kiln history app; kiln plan ctx; kiln builds; kiln tag app other; kiln rmi other");
    assert!(
        ran.stdout.contains("%0 = image docker.io/demo/base:latest"),
        "{}",
        ran.stdout
    );
}

fn a_file_that_the_user_cannot_read(world: &World) {
    world.dockerfile("FROM demo/base\nCOPY . /x\n");
    let user = User::new(world, "user");
    world.write_mode("ctx/secret", "s", 0o600);
    let ran = user.run("kiln import base.tar demo/base; kiln build ctx");
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    assert!(
        ran.stderr.contains("could not open `secret`") && ran.stderr.contains("Permission denied"),
        "{}",
        ran.stderr
    );
    world.write("ctx/.dockerignore", "secret\n");
    user.ok("kiln build ctx");
}
