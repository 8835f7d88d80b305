//! Build contexts with files of every kind, and ones that change while they are read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Capability::{self, Busybox, Containers, Root};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("names_of_any_bytes", NEEDS, names_of_any_bytes),
        case(
            "links_stay_in_the_context",
            NEEDS,
            links_stay_in_the_context,
        ),
        case("files_that_are_no_files", NEEDS, files_that_are_no_files),
        case("a_device", &[Root, Busybox], a_device),
        case("deep_directories", NEEDS, deep_directories),
        case(
            "a_file_that_is_being_written",
            NEEDS,
            a_file_that_is_being_written,
        ),
    ]
}

fn names_of_any_bytes(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY odd /odd\nRUN set -- /odd/*; echo $# > /count\n");
    std::fs::create_dir_all(world.path("ctx/odd")).unwrap();
    let names: [&[u8]; 6] = [
        b"a\nb",
        b"in\xff\xfevalid",
        b"back\\slash",
        b"tab\there",
        b"\x1b[2J",
        b"-n *?[x]",
    ];
    for name in names {
        let path = world.path("ctx/odd").join(OsStr::from_bytes(name));
        std::fs::write(path, b"1").unwrap();
    }
    let ran = world.build();
    assert_eq!(world.sh("app", "cat /count").trim(), "6");
    assert!(!ran.stderr.contains('\x1b'));
    let path = world.path("ctx/odd").join(OsStr::from_bytes(b"\x1b[2J"));
    std::fs::write(path, b"22").unwrap();
    let ran = world.build();
    assert!(ran.stderr.contains("[2J changed"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b'), "{}", ran.stderr);
}

fn links_stay_in_the_context(world: &World) {
    world.base();
    std::fs::create_dir_all(world.path("ctx/links")).unwrap();
    let link =
        |to: &str, at: &str| std::os::unix::fs::symlink(to, world.path("ctx").join(at)).unwrap();
    link("two", "links/one");
    link("one", "links/two");
    link("/etc/shadow", "links/absolute");
    link("../../../../../../etc/shadow", "up");
    link("/", "root");
    // Copied with their directory, links are links.
    world.dockerfile("FROM demo/base\nCOPY links /links\nRUN [ \"$(readlink /links/absolute)\" = /etc/shadow ] && [ \"$(readlink /links/one)\" = two ]\n");
    world.build();
    // Named, they are followed within the context, where nothing is.
    for source in ["up", "root/etc/shadow", "links/one", "../../../etc/shadow"] {
        world.write(
            "ctx/Dockerfile",
            format!("FROM demo/base\nCOPY {source} /x\n"),
        );
        let ran = world.kiln(&["build", "ctx"]).run();
        assert!(
            matches!(ran.status.code(), Some(1 | 2)),
            "{source}: {}",
            ran.whole()
        );
    }
}

fn files_that_are_no_files(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY . /x\nRUN ls /x > /list\n");
    let _socket = std::os::unix::net::UnixListener::bind(world.path("ctx/socket")).unwrap();
    world.build();
    assert_eq!(world.sh("app", "cat /list"), "Dockerfile\n");
    nix::unistd::mkfifo(&world.path("ctx/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // As in BuildKit: a pipe is copied as one, without waiting for anybody at its other end.
    world.dockerfile("FROM demo/base\nCOPY . /x\nRUN test -p /x/fifo && ls /x > /list\n");
    world.build();
    assert_eq!(world.sh("app", "cat /list"), "Dockerfile\nfifo\n");
    assert_eq!(world.sh("app", "stat -c %a /x/fifo"), "700\n");
    world.write("ctx/.dockerignore", "fifo\n");
    world.dockerfile("FROM demo/base\nCOPY . /x\nRUN ls -a /x > /list\n");
    world.build();
    assert!(!world.sh("app", "cat /list").contains("fifo"));
}

fn a_device(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY . /x\n");
    let path = world.path("ctx/device");
    world
        .program("mknod", &[path.to_str().unwrap(), "c", "1", "3"])
        .ok();
    world.build();
    assert_eq!(
        world.sh("app", "stat -c '%F %t:%T' /x/device"),
        "character special file 1:3\n"
    );
    // What an overlay marks a deletion with is nothing that a layer can hold, and in nobody's way.
    let mark = world.path("ctx/mark");
    world
        .program("mknod", &[mark.to_str().unwrap(), "c", "0", "0"])
        .ok();
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot(&ran.stderr);
    world.write("ctx/file", "x");
    world.dockerfile("FROM demo/base\nCOPY file /file\n");
    world.build();
}

fn deep_directories(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY deep /deep\nRUN find /deep -type f | wc -c > /length\n");
    let dig = |levels: usize| {
        std::fs::create_dir(world.path("ctx/deep")).unwrap();
        let mut here = std::fs::File::open(world.path("ctx/deep")).unwrap();
        for _ in 0..levels {
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::sys::stat::mkdirat(&here, "d", mode).unwrap();
            let flags = nix::fcntl::OFlag::O_DIRECTORY;
            let below = nix::fcntl::openat(&here, "d", flags, mode).unwrap();
            here = below.into();
        }
        let flags = nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_WRONLY;
        nix::fcntl::openat(&here, "leaf", flags, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    dig(60);
    world.build();
    assert_eq!(world.sh("app", "cat /length").trim(), "131");
    // Beyond what a path can be, it says so.
    world.program("rm", &["-rf", "ctx/deep"]).ok();
    dig(3_000);
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    assert!(
        ran.stderr.contains("is longer than 4096 bytes")
            || ran.stderr.contains("File name too long"),
        "{}",
        ran.stderr
    );
    // Too deep to be removed by path.
    world.program("rm", &["-rf", "ctx/deep"]).ok();
}

/// Lets a writer end, also where the case fails: its scope waits for it.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn a_file_that_is_being_written(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY big /big\nRUN sort -u /big | wc -l > /kinds\n");
    let lines = |word: &str| format!("{word}\n").repeat(2_000_000);
    world.write("ctx/big", lines("a"));
    let texts = [lines("a"), lines("b")];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                std::fs::write(world.path("ctx/big"), &texts[turn % 2]).unwrap();
            }
        });
        let _stopped = StopAtEnd(&stop);
        for _ in 0..5 {
            let ran = world.kiln(&["build", "-t", "app", "ctx"]).run();
            match ran.status.code() {
                // Whatever it took, it looked the same before and after.
                Some(0) => {}
                Some(1) => assert!(
                    ran.stderr.contains("context changed while building")
                        || ran.stderr.contains("keeps changing while it is read"),
                    "{}",
                    ran.stderr
                ),
                _ => panic!("{}", ran.whole()),
            }
        }
    });
    world.write("ctx/big", "c\n");
    world.build();
    assert_eq!(world.sh("app", "cat /big"), "c\n");
}
