//! The case that everything began with: redis on a real Alpine, from a signed repository.
//!
//! What it needs is made once by `seed/prepare.sh` and kept in the build directory.

mod repository;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_test_registry::{Registry, digest_of};
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;

use crate::registries::archive::Archive;
use crate::registries::server::{add_image, gzip};
use crate::support::{Capability::*, Case, Kiln, World, case, find_program};
use repository::Repository;

const PREPARE: &str = include_str!("seed/prepare.sh");
/// Programs that `prepare.sh` starts, and which Debian package has each.
const TOOLS: &[&str] = &[
    "python3", "qemu-img", "debugfs", "apt-get", "dpkg-deb", "openssl", "ldd", "awk",
];
const SEED: &str = r#"FROM alpine
RUN apk add --update redis
CMD ["redis-server"]
"#;

pub(crate) fn cases() -> Vec<Case> {
    let name = "redis_on_alpine";
    let arguments = Arguments::from_args();
    let is_wanted = !arguments.list
        && arguments
            .filter
            .is_none_or(|filter| format!("seed::{name}").contains(&filter));
    let lacks = is_wanted.then(prepare).and_then(Result::err);
    vec![case(name, &[Root], redis_on_alpine).lacks(lacks)]
}

fn prepared() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("seed")
}

/// Makes Alpine and the repository unless they are there; errors with what cannot be had.
fn prepare() -> Result<(), String> {
    let stamp = prepared().join("stamp");
    let version = digest_of(PREPARE.as_bytes());
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == version) {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err("an amd64 host, which its Alpine is for".to_owned());
    }
    if let Some(tool) = TOOLS.iter().find(|tool| find_program(tool).is_none()) {
        return Err((*tool).to_owned());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/seed/prepare.sh");
    let output = Command::new("sh")
        .arg(script)
        .arg(prepared())
        .arg(env!("CARGO_BIN_EXE_kiln"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.trim().lines().last().unwrap_or("no reason given");
        return Err(format!("Alpine, redis and their tools: {last}"));
    }
    std::fs::write(stamp, version).unwrap();
    Ok(())
}

/// A docker.io that has `alpine`, and the repository that this Alpine installs from.
struct Internet {
    mirror: Registry,
    _repository: Repository,
}

impl Internet {
    fn start() -> Internet {
        let repository = Repository::start(prepared().join("repository"));
        let line = format!("v3 http://{}\n", repository.host());
        let alpine = gzip(&std::fs::read(prepared().join("alpine.tar")).unwrap());
        let settings = Archive::new().file("etc/apk/repositories", &line).layer();
        let mirror = Registry::start();
        add_image(&mirror, "library/alpine", &[&alpine, &settings]);
        Internet {
            mirror,
            _repository: repository,
        }
    }

    fn build<'w>(&self, world: &'w World, more: &[&str]) -> Kiln<'w> {
        let mirror = format!("docker.io={}", self.mirror.url());
        world
            .kiln(&["build"])
            .args(more)
            .args(&["."])
            .in_directory("ctx")
            .env("KILN_REGISTRY_MIRROR", mirror)
    }
}

fn redis_on_alpine(world: &World) {
    let internet = Internet::start();
    world.write("ctx/Dockerfile", SEED);
    let built = internet.build(world, &["-t", "leon/redis:latest"]).ok();
    world.snapshot_of("built", &built.table());
    assert!(
        built.stderr.contains("Installing redis (7.0.15-r0)"),
        "{}",
        built.stderr
    );

    let images = world.kiln(&["images"]).ok().stdout;
    let listed = images.lines().find(|line| line.starts_with("leon/redis"));
    assert!(
        listed.is_some_and(|line| line.contains("latest")),
        "{images}"
    );

    let run = |arguments: &[&str]| {
        world
            .kiln(&["run", "leon/redis"])
            .args(arguments)
            .ok()
            .stdout
    };
    let version = run(&["redis-server", "--version"]);
    assert!(version.starts_with("Redis server v=7.0.15"), "{version}");
    let script = "redis-server --save '' --port 0 --unixsocket /tmp/s --daemonize yes >/dev/null; \
                  for i in 1 2 3 4 5 6 7 8 9; do test -S /tmp/s || sleep 0.3; done; \
                  redis-cli -s /tmp/s set k v; redis-cli -s /tmp/s get k; \
                  redis-cli -s /tmp/s ping; redis-cli -s /tmp/s shutdown nosave";
    assert_eq!(run(&["sh", "-c", script]), "OK\nv\nPONG\n");
    serves(world);

    // apk's own list is what the SBOM says.
    let listed = run(&["apk", "info", "-v"]);
    let listed: BTreeSet<&str> = listed.split_whitespace().collect();
    let line = ["sbom", "--format", "spdx", "leon/redis"];
    let document = world.kiln(&line).ok().stdout;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let packages = document["packages"].as_array().unwrap().iter();
    let packages: BTreeSet<String> = packages
        .filter(|one| {
            one["SPDXID"]
                .as_str()
                .unwrap()
                .starts_with("SPDXRef-Package-apk-")
        })
        .map(|one| {
            let name = one["name"].as_str().unwrap().rsplit('/').next().unwrap();
            format!("{name}-{}", one["versionInfo"].as_str().unwrap())
        })
        .collect();
    assert!(listed.contains("redis-7.0.15-r0") && listed.len() > 10);
    assert!(
        packages
            .iter()
            .map(String::as_str)
            .eq(listed.iter().copied())
    );

    // One more step: only it runs.
    let asked = internet.mirror.log().len();
    let more = "RUN apk add --update gcc\n";
    world.write("ctx/Dockerfile", format!("{SEED}{more}"));
    let grown = internet.build(world, &["-t", "leon/redis:latest"]).ok();
    world.snapshot_of("grown", &grown.table());
    assert_eq!(run(&["gcc"]), "gcc (a script) 14\n");

    // Another order: nothing of it is known.
    let (from, rest) = SEED.split_once('\n').unwrap();
    world.write("ctx/Dockerfile", format!("{from}\n{more}{rest}"));
    let swapped = internet.build(world, &["-t", "leon/redis:latest"]).ok();
    world.snapshot_of("swapped", &swapped.table());

    // Without a name, the id is the name.
    world.write("ctx/Dockerfile", SEED);
    let unnamed = internet.build(world, &[]).ok();
    world.snapshot_of("unnamed", &unnamed.table());
    assert_eq!(unnamed.id(), built.id());
    let version = world
        .kiln(&["run", unnamed.id(), "redis-cli", "--version"])
        .ok()
        .stdout;
    assert!(version.starts_with("redis-cli 7.0.15"), "{version}");
    assert_eq!(internet.mirror.log().len(), asked, "the base is here");
}

/// `kiln run leon/redis` starts the server, and Ctrl-C ends it.
fn serves(world: &World) {
    const PLACE: &str = "127.0.0.1:6379";
    if TcpListener::bind(PLACE).is_err() {
        eprintln!("seed: {PLACE} is taken, so `kiln run leon/redis` itself is not tried");
        return;
    }
    let server = world.kiln(&["run", "leon/redis"]).spawn();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut connection = loop {
        match TcpStream::connect(PLACE) {
            Ok(connection) => break connection,
            Err(error) => assert!(Instant::now() < deadline, "redis does not answer: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    connection.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    server.signal(Signal::SIGINT);
    let ran = server.wait();
    assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    assert!(
        ran.stdout.contains("User requested shutdown"),
        "{}",
        ran.stdout
    );
}
