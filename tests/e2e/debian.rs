//! Images of packages: the front end for Debian with an archive of the test's own, and with Debian's.

mod archive;

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use libtest_mimic::Arguments;

use self::archive::{Archive, Fault};
use crate::remotes::server::Page;
use crate::support::Capability::{Busybox, Containers, Root};
use crate::support::{Case, Kiln, Ran, World, case, find_program};

pub(crate) fn cases() -> Vec<Case> {
    let own = lacks_own();
    let name = "a_redis_of_debian";
    let arguments = Arguments::from_args();
    let is_wanted = !arguments.list
        && arguments
            .filter
            .is_none_or(|filter| format!("debian::{name}").contains(&filter));
    // Nobody is asked whether Debian is there unless it is to be used.
    let debian = own
        .clone()
        .or_else(|| is_wanted.then(lacks_debian).flatten());
    let case_of =
        |name, run: fn(&World)| case(name, &[Containers, Busybox], run).lacks(own.clone());
    vec![
        case_of("an_image_of_packages", an_image_of_packages),
        case_of("what_is_built_again", what_is_built_again),
        case_of("the_same_image_twice", the_same_image_twice),
        case_of(
            "releases_that_are_not_trusted",
            releases_that_are_not_trusted,
        ),
        case_of("packages_that_cannot_be_had", packages_that_cannot_be_had),
        case(name, &[Root], a_redis_of_debian).lacks(debian),
    ]
}

/// The front end is built beside the command.
fn front_end() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kiln")).with_file_name("kiln-debian")
}

fn lacks_own() -> Option<String> {
    if !front_end().is_file() {
        return Some("kiln-debian, which `cargo build --workspace` makes".to_owned());
    }
    let programs = [
        "dpkg-deb",
        "dpkg-trigger",
        "gpg",
        "gpgconf",
        "gpgv",
        "xz",
        "ldd",
    ];
    let missing = programs
        .into_iter()
        .find(|name| find_program(name).is_none());
    missing
        .map(str::to_owned)
        .or_else(|| (!cfg!(target_arch = "x86_64")).then(|| "an amd64 machine".to_owned()))
}

/// Debian's own archive is asked for only where it answers.
fn lacks_debian() -> Option<String> {
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if !std::path::Path::new(keys).exists() {
        return Some("debian-archive-keyring".to_owned());
    }
    let addresses = "deb.debian.org:80".to_socket_addrs();
    let mut addresses = addresses.into_iter().flatten();
    let answers =
        addresses.any(|to| TcpStream::connect_timeout(&to, Duration::from_secs(3)).is_ok());
    (!answers).then(|| "a way to deb.debian.org".to_owned())
}

/// A build of `ctx/debian.toml`, with one result in the store.
fn build<'w>(world: &'w World, more: &[&str]) -> Kiln<'w> {
    let front_end = front_end().display().to_string();
    let arguments = [
        "build",
        "--frontend",
        &front_end,
        "-f",
        "ctx/debian.toml",
        "-t",
        "app",
    ];
    world.kiln(&arguments).args(more).args(&["ctx"])
}

/// The names of the steps of a build that ran, without those that fetch.
fn ran(built: &Ran) -> Vec<String> {
    let lines = built.stderr.lines().filter(|line| line.contains(" ran "));
    let names = lines.filter_map(|line| line.split_once("  ")?.1.trim().split("  ").next());
    let names = names.filter(|name| !name.starts_with("fetch "));
    names.map(|name| name.trim().to_owned()).collect()
}

/// An archive with a program that needs a library, which asks for a user.
fn archive(world: &World) -> Archive<'_> {
    let mut archive = Archive::new(world);
    world.write_mode(
        "hello/usr/bin/hello",
        "#!/bin/sh\ncat /usr/share/greeting\n",
        0o755,
    );
    world.write("hello/etc/hello.conf", "loud\n");
    world.write("hello/DEBIAN/conffiles", "/etc/hello.conf\n");
    world.write("hello/usr/share/doc/hello/copyright", "free\n");
    world.write("hello/usr/share/doc/hello/manual", "long\n");
    let script = "#!/bin/sh\nset -e\ntest -e /usr/share/greeting\ndate +%s >/var/log/hello.log\necho done >/var/hello\n";
    world.write_mode("hello/DEBIAN/postinst", script, 0o755);
    archive.package(
        "hello",
        "1:2.0-1",
        "Architecture: amd64\nDepends: gone | greeting (>= 1)\nPre-Depends: early",
    );
    world.write("greeting/usr/share/greeting", "good morning\n");
    archive.package("greeting", "1.5", "Architecture: all");
    world.write("early/usr/share/early", "1\n");
    archive.package("early", "1", "Architecture: all");
    world.write("extra/usr/share/extra", "1\n");
    archive.package("extra", "1", "Architecture: all");
    archive.package("grumpy", "1", "Architecture: all\nConflicts: greeting");
    archive.package("needy", "1", "Architecture: all\nDepends: greeting (>= 9)");
    archive
}

const DESCRIPTION: &str = r#"
    packages = ["hello"]
    minimize = true
    [users.app]
    uid = 1000
    home = "/srv/app"
    [files."/etc/motd"]
    from = "motd"
    owner = "app:app"
    mode = "0600"
    [files."/etc/hello.conf"]
    content = "quiet"
    [symlinks]
    "/etc/greeting" = "/usr/share/greeting"
    [image]
    cmd = ["hello"]
"#;

fn an_image_of_packages(world: &World) {
    let archive = archive(world);
    archive.publish(Fault::None);
    archive.describe(DESCRIPTION);
    world.write("ctx/motd", "welcome\n");
    build(world, &[]).ok();
    assert_eq!(world.kiln(&["run", "app"]).ok().stdout, "good morning\n");
    let script =
        "cat /etc/greeting /etc/hello.conf /var/hello; echo; grep app: /etc/passwd /etc/group
        ls -l /etc/motd | cut -c1-10; ls /usr/share/doc/hello /packages /usr/sbin/policy-rc.d 2>&1
        ls -s /var/log; dpkg-query -W; /usr/bin/dpkg --audit; /usr/bin/dpkg --verify hello greeting early";
    let seen = world.sh("app", &script.replace("| cut -c1-10", ""));
    world.snapshot(&mask(&seen));
}

/// Times and sizes of a listing are of no interest.
fn mask(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| match line.strip_prefix("-rw-------") {
            Some(rest) => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                format!("-rw------- {} {}\n", words[1], words[2])
            }
            None => format!("{line}\n"),
        });
    lines.collect()
}

fn what_is_built_again(world: &World) {
    let archive = archive(world);
    archive.publish(Fault::None);
    world.write("ctx/motd", "welcome\n");
    archive.describe(DESCRIPTION);
    build(world, &[]).ok();
    let all = ["base", "busybox-static", "early", "greeting", "hello"];
    assert_eq!(archive.fetched(), all);

    archive.describe(&DESCRIPTION.replace("quiet", "silent"));
    assert_eq!(ran(&build(world, &[]).ok()), ["files"]);

    archive.describe(&DESCRIPTION.replace("[\"hello\"]", "[\"hello\", \"extra\"]"));
    let built = ran(&build(world, &[]).ok());
    let begins = "install extra 1, hello 1:2.0-1 and 2 more";
    assert!(built.iter().any(|name| name == begins), "{built:?}");
    assert!(
        !built.iter().any(|name| name.ends_with("the base")),
        "{built:?}"
    );
    assert_eq!(archive.fetched(), ["extra"]);
}

fn the_same_image_twice(world: &World) {
    let archive = archive(world);
    archive.publish(Fault::None);
    world.write("ctx/motd", "welcome\n");
    archive.describe(DESCRIPTION);
    let id = |more: &[&str]| {
        let built = build(world, more)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .ok();
        built.id().to_owned()
    };
    assert_eq!(id(&[]), id(&["--no-cache"]));
}

/// What is said of a release that is wrong, without the address of the server.
fn refused(world: &World, archive: &Archive<'_>) -> String {
    let failed = build(world, &[]).exits(2);
    let line = failed.stderr.lines().find(|line| line.starts_with("error"));
    let line = line.unwrap_or(&failed.stderr).to_owned();
    line.replace(
        archive.server.url("").trim_end_matches('/'),
        "http://MIRROR",
    )
}

fn releases_that_are_not_trusted(world: &World) {
    let archive = archive(world);
    archive.describe("packages = [\"hello\"]");
    let mut said = String::new();
    for fault in [
        Fault::Expired,
        Fault::Changed,
        Fault::OtherKey,
        Fault::Unsigned,
    ] {
        archive.publish(fault);
        said += &format!("{fault:?}: {}\n", refused(world, &archive));
    }
    // The numbers of keys are those of this run.
    let words = said.split(' ').map(|word| {
        match word.len() == 16 && word.bytes().all(|c| c.is_ascii_hexdigit()) {
            true => "KEY",
            false => word,
        }
    });
    let said: Vec<&str> = words.collect();
    let said = said.join(" ");
    let now = said
        .find("and it is 2")
        .map(|at| &said[at + 10..at + 10 + said[at + 10..].find('Z').unwrap_or(0) + 1]);
    let said = match now {
        Some(now) => said.replace(now, "NOW"),
        None => said.clone(),
    };
    world.snapshot(&said);

    archive.publish(Fault::Index);
    let failed = build(world, &[]).exits(1);
    assert!(failed.stderr.contains("sha256:"), "{}", failed.stderr);
    assert!(archive.fetched().is_empty());
}

fn packages_that_cannot_be_had(world: &World) {
    let archive = archive(world);
    archive.publish(Fault::None);
    let mut said = String::new();
    for packages in [
        "'helo'",
        "'hello', 'grumpy'",
        "'needy'",
        "'hello=3'",
        "'hello world'",
    ] {
        archive.describe(&format!("packages = [{packages}]"));
        said += &format!("{packages}: {}\n", refused(world, &archive));
    }
    world.snapshot(&said);

    // A package that is not what the index says, and one that ends in the middle.
    archive.describe("packages = ['extra']");
    archive
        .server
        .put("/pool/extra_1.deb", Page::new("no package"));
    let failed = build(world, &[]).exits(1);
    assert!(failed.stderr.contains("extra_1.deb"), "{}", failed.stderr);
    assert!(failed.stderr.contains("sha256:"), "{}", failed.stderr);
}

fn a_redis_of_debian(world: &World) {
    world.write(
        "ctx/debian.toml",
        "suite = 'bookworm'\npackages = ['redis-server']\nminimize = true\n\
         [image]\nuser = 'redis'\ncmd = ['redis-server', '--version']\n",
    );
    let built = build(world, &[]).run();
    let unserved = |line: &&str| line.contains("could not fetch `http://deb.debian.org/");
    if let Some(line) = built.stderr.lines().find(unserved) {
        eprintln!("left out, since Debian's mirror does not serve: {line}");
        return;
    }
    assert!(built.status.success(), "{}", built.stderr);
    let said = world.kiln(&["run", "app"]).ok().stdout;
    assert!(said.starts_with("Redis server v=7."), "{said}");
    assert_eq!(world.sh("app", "dpkg --audit; id -un"), "redis\n");
}
