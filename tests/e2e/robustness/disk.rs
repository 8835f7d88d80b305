//! Stores on disks that are full, read-only or written by a later version.

use kiln_test_registry::Registry;

use crate::support::Capability::{self, Busybox, Containers, MountNamespace, Root};
use crate::support::{Case, Ran, World, case};

pub(super) fn cases() -> Vec<Case> {
    const ROOT: &[Capability] = &[Root, MountNamespace, Busybox];
    vec![
        case("a_full_disk", ROOT, a_full_disk),
        case("a_full_disk_and_archives", ROOT, a_full_disk_and_archives),
        case("a_full_disk_and_pulls", ROOT, a_full_disk_and_pulls),
        case("a_full_disk_and_accounts", ROOT, a_full_disk_and_accounts),
        case(
            "a_limit_of_file_sizes",
            &[Containers],
            a_limit_of_file_sizes,
        ),
        case("a_read_only_store", ROOT, a_read_only_store),
        case("a_newer_store", &[Containers], a_newer_store),
    ]
}

/// Runs a script in a mount namespace of its own, where `$KILN_ROOT` is on a disk of 12 MB.
fn on_small_disk(world: &World, script: &str) -> Ran {
    world.write("base.tar", world.base_archive());
    let script = format!(
        "set -u\nkiln() {{ {} \"$@\"; }}\nmount -t tmpfs -o size=12m small small\n\
         export KILN_ROOT=$PWD/small/store\nkiln import base.tar demo/base\n{script}",
        env!("CARGO_BIN_EXE_kiln")
    );
    std::fs::create_dir(world.path("small")).unwrap();
    world
        .program("unshare", &["--mount", "sh", "-c", &script])
        .run()
}

fn a_full_disk(world: &World) {
    world.write("copy/Dockerfile", "FROM demo/base\nCOPY big /\n");
    world.write("copy/big", vec![7; 20_000_000]);
    world.write(
        "run/Dockerfile",
        "FROM demo/base\nRUN head -c 20000000 /dev/zero > /big\n",
    );
    world.write("fits/Dockerfile", "FROM demo/base\nRUN echo fits > /fits\n");
    let ran = on_small_disk(
        world,
        "kiln build --quiet copy; echo copy $?\n\
         kiln build --quiet run; echo run $?\n\
         kiln tag demo/base other\n\
         head -c 20000000 /dev/zero > small/fill 2>/dev/null\n\
         kiln build --quiet fits; echo filled $?\n\
         kiln images; echo images $?\n\
         kiln inspect demo/base >/dev/null; echo inspect $?\n\
         kiln history demo/base >/dev/null; echo history $?\n\
         kiln du >/dev/null; echo du $?\n\
         kiln rmi other; echo rmi $?\n\
         kiln prune; echo prune $?\n\
         rm small/fill\n\
         kiln build --quiet -t fits fits && kiln run fits cat /fits\n\
         kiln prune; kiln du\n\
         ls small/store/work small/store/trash",
    );
    let expected = [
        "copy 1",
        "run 1",
        "filled 3",
        "images 0",
        "inspect 0",
        "history 0",
        "du 0",
        "rmi 0",
        "prune 0",
        "fits",
    ];
    for line in expected {
        assert!(
            ran.stdout.lines().any(|found| found == line),
            "{line}: {}",
            ran.whole()
        );
    }
    assert!(
        ran.stderr.contains("could not write `big`"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("No space left on device"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("no space left on the disk of the store"),
        "{}",
        ran.stderr
    );
}

/// A file that may not grow is an error of kiln's and the end of a step's program, and nothing half-made stays.
fn a_limit_of_file_sizes(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY big /\n");
    world.write("ctx/big", vec![7; 3_000_000]);
    world.write(
        "run/Dockerfile",
        "FROM demo/base\nRUN head -c 3000000 /dev/zero > /big; echo $? > /code\n",
    );
    world.kiln(&["build", "-t", "large", "ctx"]).ok();
    world.kiln(&["prune", "--all"]).ok();
    let script = format!(
        "kiln() {{ {} \"$@\"; }}\n\
         ulimit -f 2000\n\
         kiln save -o large.tar large; echo save $?; ls large.tar\n\
         kiln rmi large; kiln prune --all\n\
         kiln build -q -t large ctx; echo copy $?\n\
         kiln build -q -t step run; echo run $?\n\
         kiln run step cat /code",
        env!("CARGO_BIN_EXE_kiln")
    );
    let ran = world.program("sh", &["-c", &script]).run();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    for expected in ["save 3", "copy 1", "run 0", "153"] {
        assert!(lines.contains(&expected), "{expected}: {}", ran.whole());
    }
    for expected in [
        "cannot write a blob",
        "could not copy `big`",
        "File too large",
    ] {
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.whole());
    }
    assert!(!world.path("large.tar").exists());
    world.kiln(&["build", "-t", "large", "ctx"]).ok();
    assert_eq!(world.sh("large", "wc -c < /big"), "3000000\n");
}

/// Bytes that no compression makes fewer.
fn noise(count: usize) -> Vec<u8> {
    let mut number = 1_u64;
    let words = (0..count / 8).flat_map(|_| {
        number = number
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (number ^ number >> 29).to_le_bytes()
    });
    words.collect()
}

/// It is the disk that a layer does not fit onto, whatever of it was being written, and not its archive.
fn a_full_disk_and_pulls(world: &World) {
    world.base();
    let registry = Registry::start();
    let name = format!("{}/noise", registry.host());
    world.write("noise/Dockerfile", "FROM demo/base\nCOPY big /\n");
    world.write("noise/big", noise(20_000_000));
    world.kiln(&["build", "-q", "-t", &name, "noise"]).ok();
    world.kiln(&["push", &name]).ok();
    let script = format!(
        "held() {{ ls small/store/layers; kiln images -q; }}\n\
         held > before; kiln pull {name}; echo pull $?\n\
         held > after; cmp before after; echo held $?\n\
         rm -r small/store; kiln import base.tar demo/base && echo rest\n"
    );
    let ran = on_small_disk(world, &script);
    let whole = ran.whole();
    for line in ["pull 3", "held 0", "rest"] {
        assert!(ran.stdout.lines().any(|one| one == line), "{line}: {whole}");
    }
    let told = "no space left on the disk of the store; `kiln prune` frees some";
    assert!(ran.stderr.contains(told), "{whole}");
    assert!(!whole.contains("archive after entry"), "{whole}");
}

/// What does not fit is refused and leaves nothing, in the store and beside an archive.
fn a_full_disk_and_archives(world: &World) {
    world.base();
    // Small as an archive, and large once it is unpacked.
    world.write("same/Dockerfile", "FROM demo/base\nCOPY big /\n");
    world.write("same/big", vec![7; 20_000_000]);
    world.write("noise/Dockerfile", "FROM demo/base\nCOPY big /\n");
    world.write("noise/big", noise(20_000_000));
    for name in ["same", "noise"] {
        world.kiln(&["build", "-q", "-t", name, name]).ok();
        let file = format!("{name}.tar");
        world.kiln(&["save", "-o", &file, name]).ok();
    }
    world.write(
        "mount/Dockerfile",
        "FROM demo/base\nRUN --mount=type=cache,id=c,target=/c head -c 20000000 /dev/urandom > /c/big\n",
    );
    world.kiln(&["build", "-q", "mount"]).ok();
    world.kiln(&["mounts", "export", "mounts.tar"]).ok();
    let ran = on_small_disk(
        world,
        &format!(
            "held() {{ ls small/store/layers small/store/blobs/sha256; }}\n\
             held > before\n\
             kiln load -i same.tar; echo same $?\n\
             kiln load < noise.tar; echo noise $?\n\
             held > after; cmp before after; echo held $?\n\
             ls small/store/trash\n\
             kiln images\n\
             kiln mounts import mounts.tar; echo mounts $?\n\
             export KILN_ROOT={}\n\
             kiln build -q --cache-to type=local,dest=small/cache noise; echo cache $?\n\
             rm -r small/cache\n\
             kiln save -o small/out.tar noise; echo save $?\n\
             kiln save --format oci-dir -o small/layout noise; echo directory $?\n\
             ls -A small | grep -v store\n\
             kiln save --format oci-dir -o small/layout demo/base; echo again $?\n\
             rm -r small/layout; export KILN_ROOT=$PWD/small/store\n\
             kiln save -o out.tar demo/base && kiln rmi demo/base && kiln load -i out.tar; echo back $?\n",
            world.store().display()
        ),
    );
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let whole = ran.whole();
    for line in [
        "same 3",
        "noise 3",
        "held 0",
        "mounts 1",
        "cache 1",
        "save 1",
        "directory 1",
        "again 0",
        "back 0",
    ] {
        assert!(lines.contains(&line), "{line}: {whole}");
    }
    assert!(!whole.contains("``"), "something has no name: {whole}");
    for part in ["out.tar", "same:latest", "noise:latest"] {
        let told = lines.iter().any(|line| line.starts_with(part));
        assert!(!told, "{part}: {whole}");
    }
    assert!(whole.contains("No space left on device"), "{whole}");
}

/// The file of accounts is the old one where there is no room for a new one.
fn a_full_disk_and_accounts(world: &World) {
    let registry = kiln_test_registry::Registry::start();
    let host = registry.host();
    let login = format!("echo secret | kiln login -u anna --password-stdin {host}");
    let ran = on_small_disk(
        world,
        &format!(
            "mkdir small/docker; export DOCKER_CONFIG=$PWD/small/docker\n\
             echo '{{\"auths\":{{\"other.example\":{{\"auth\":\"YTpi\"}}}}}}' > small/docker/config.json\n\
             cp small/docker/config.json before\n\
             head -c 20000000 /dev/zero > small/fill 2>/dev/null\n\
             {login}; echo full $?\n\
             cmp before small/docker/config.json; echo same $?\n\
             ls -A small/docker\n\
             rm small/fill\n\
             {login}; echo room $?\n\
             grep -c -e YTpi -e YW5uYTpzZWNyZXQ= small/docker/config.json\n\
             ls -A small/docker\n"
        ),
    );
    let expected = "full 3\nsame 0\nconfig.json\nLogin Succeeded\nroom 0\n2\nconfig.json\n";
    assert!(ran.stdout.ends_with(expected), "{}", ran.whole());
    assert!(ran.stderr.contains("it is as it was"), "{}", ran.stderr);
}

fn a_read_only_store(world: &World) {
    world.write("fits/Dockerfile", "FROM demo/base\nRUN echo fits > /fits\n");
    let ran = on_small_disk(
        world,
        // What the import left behind to settle it keeps files open for a moment.
        "until mount -o remount,ro small 2> /dev/null; do sleep 0.02; done\n\
         kiln build --quiet fits; echo build $?\nkiln run demo/base true; echo run $?\n\
         kiln images; echo images $?\nkiln inspect demo/base; echo inspect $?\n\
         kiln history demo/base; echo history $?\nkiln plan fits; echo plan $?\n\
         kiln builds ls; echo builds $?",
    );
    for line in [
        "build 3",
        "run 125",
        "images 0",
        "inspect 0",
        "history 0",
        "plan 0",
        "builds 0",
    ] {
        assert!(
            ran.stdout.lines().any(|found| found == line),
            "{line}: {}",
            ran.whole()
        );
    }
    assert!(
        ran.stderr.contains("Read-only file system"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("small/store"), "{}", ran.stderr);
}

fn a_newer_store(world: &World) {
    world.base();
    std::fs::write(world.store().join("version"), "99\n").unwrap();
    world.write("ctx/Dockerfile", "FROM demo/base\n");
    for arguments in [&["build", "ctx"][..], &["images"], &["prune"]] {
        let ran = world.kiln(arguments).exits(3);
        assert!(
            ran.stderr.contains("99") && ran.stderr.contains("newer"),
            "{}",
            ran.stderr
        );
    }
    world.kiln(&["plan", "ctx"]).ok();
}
