//! Caches in buckets, on a real store that checks signatures: SeaweedFS.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::line::{Line, Rule};
use super::{Machine, check_all_found, dockerfile, ran, says, single};
use crate::support::{Capability::*, Case, Kiln, World, case, find_program};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("buckets", &[Containers, Seaweed], buckets),
        case("bucket_in_parts", &[Containers, Seaweed], in_parts),
        case("bucket_interrupted", &[Containers, Seaweed], interrupted),
        case(
            "bucket_over_a_bad_line",
            &[Containers, Seaweed],
            over_a_bad_line,
        ),
    ]
}

/// Who says nothing of an account may make the bucket; who names one must know its secret.
const ACCOUNTS: &str = r#"{"identities": [
    {"name": "anonymous", "actions": ["Admin"]},
    {"name": "me", "actions": ["Admin", "Read", "Write", "List"],
     "credentials": [{"accessKey": "account", "secretKey": "hunter2"}]}]}"#;
/// How long the store may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store of objects on free ports, with one bucket, ended when it is dropped.
pub(super) struct Store {
    process: Child,
    /// All that it listens on.
    ports: Vec<u16>,
    /// The one for objects.
    port: u16,
    log: PathBuf,
}

impl Store {
    pub(super) fn start(world: &World) -> Store {
        // Somebody else may take a port between the look and the use.
        for _ in 0..5 {
            if let Some(store) = Store::try_start(world) {
                return store;
            }
        }
        panic!("the store does not begin: {}", world.read("weed.log"));
    }

    fn try_start(world: &World) -> Option<Store> {
        world.write("s3.json", ACCOUNTS);
        let data = world.path("objects");
        std::fs::create_dir_all(&data).unwrap();
        let ports = free_ports();
        let [
            master,
            master_grpc,
            volume,
            volume_grpc,
            filer,
            filer_grpc,
            s3,
            s3_grpc,
        ] = ports[..]
        else {
            panic!("there are eight ports");
        };
        let log = File::create(world.path("weed.log")).unwrap();
        let process = Command::new(find_program("weed").unwrap())
            .arg("server")
            .args([
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.telemetry=false",
            ])
            .args(["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args(["-volume.max=20", "-master.volumeSizeLimitMB=64"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", world.path("s3.json").display()))
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_grpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_grpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_grpc}"))
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.port.grpc={s3_grpc}"))
            .arg(format!(
                "-filer.localSocket={}",
                world.path("filer.sock").display()
            ))
            .arg(format!(
                "-s3.localSocket={}",
                world.path("s3.sock").display()
            ))
            .env_clear()
            .env("HOME", world.path("."))
            .current_dir(world.path("."))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut store = Store {
            process,
            port: s3,
            log: world.path("weed.log"),
            ports,
        };
        let deadline = Instant::now() + PATIENCE;
        // A bucket needs one part of the store, an object all of them.
        let is_there = || put(s3, "/caches") && put(s3, "/caches/probe");
        while !is_there() {
            if store.process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // Somebody else may have answered there.
        let is_running = store.process.try_wait().unwrap().is_none();
        is_running.then_some(store)
    }

    pub(super) fn place(&self, more: &str) -> String {
        place(self.port, more)
    }

    /// What it answers to somebody without an account.
    fn ask(&self, method: &str, path: &str) -> String {
        ask(self.port, method, path).unwrap()
    }

    /// How many parts each blob was sent in, as its ETag says.
    fn parts(&self) -> Vec<usize> {
        let list = self.ask("GET", "/caches?prefix=team/blobs/");
        let etags = list.split("<ETag>").skip(1);
        let etags = etags.map(|rest| rest.split("</ETag>").next().unwrap().replace("&#34;", ""));
        let count = |etag: String| {
            let etag = etag.replace("&quot;", "").replace('"', "");
            etag.split_once('-')
                .map_or(1, |(_, count)| count.parse().unwrap())
        };
        etags.map(count).collect()
    }
}

/// Eight ports that nobody listens on, and that nobody is given who asks for any: some are taken only after a while.
fn free_ports() -> Vec<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let taken = TAKEN.fetch_add(8, Ordering::Relaxed);
        let own = std::process::id() % 1_500 * 8;
        let first = 20_000 + (u16::try_from(own).unwrap() + taken) % 12_000;
        let ports: Vec<u16> = (first..first + 8).collect();
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        if ports.iter().all(free) {
            return ports;
        }
    }
}

/// The bucket as it is reached on a port.
fn place(port: u16, more: &str) -> String {
    format!(
        "type=s3,bucket=caches,region=us-east-1,use_path_style=true,prefix=team/,\
         endpoint_url=http://127.0.0.1:{port}{more}"
    )
}

/// Asks without an account and without a body.
fn ask(port: u16, method: &str, path: &str) -> std::io::Result<String> {
    let mut line = TcpStream::connect(("127.0.0.1", port))?;
    line.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        line,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    line.take(1 << 20).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Puts something empty there; whether it was taken, or was there.
fn put(port: u16, path: &str) -> bool {
    ask(port, "PUT", path).is_ok_and(|answer| {
        let head = answer.lines().next().unwrap_or_default();
        head.contains(" 200 ") || head.contains(" 409 ")
    })
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.process.try_wait() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("the store ended with {status}: {}", last.join("\n"));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // It makes these where no option says otherwise.
        for port in &self.ports {
            for part in ["master", "volume", "filer", "s3"] {
                let _ = std::fs::remove_file(format!("/tmp/seaweedfs-{part}-grpc-{port}.sock"));
            }
        }
    }
}

/// The command with the account in its environment.
pub(super) fn known<'w>(machine: Machine<'w>, arguments: &[&str]) -> Kiln<'w> {
    machine
        .kiln(arguments)
        .env("AWS_ACCESS_KEY_ID", "account")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2")
}

/// A step that makes 13 MB that no compression makes less.
fn large(world: &World, name: &str) {
    let text = format!("FROM demo/base\nRUN head -c 13000000 /dev/urandom > /{name}\n");
    world.write(&format!("{name}/Dockerfile"), text);
}

/// A layer that is larger than a part, over a line that is cut in the middle of one.
fn in_parts(world: &World) {
    let store = Store::start(world);
    let line = Line::to(store.port, Rule::CutAfter(7_000_000));
    large(world, "big");
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let to = place(line.port, ",part_size=5MB,mode=max");
    let first = known(one, &["build", "-t", "app", "--cache-to", &to, "big"]).ok();
    assert!(line.was_cut(), "{}", first.stderr);
    assert_eq!(store.parts(), [3], "{}", store.ask("GET", "/caches"));
    let from = store.place("");
    let second = known(two, &["build", "-t", "app", "--cache-from", &from, "big"]).ok();
    check_all_found(&second, first.id());
    assert_eq!(two.sh("wc -c < /big").trim(), "13000000");
    // What a rule of the bucket removed is sent again, and what is there is not.
    let list = store.ask("GET", "/caches?prefix=team/blobs/");
    let blob = list
        .split("<Key>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    store.ask("DELETE", &format!("/caches/{blob}"));
    assert_eq!(store.parts(), [0; 0]);
    let again = known(one, &["build", "-t", "app", "--cache-to", &to, "big"]).ok();
    assert_eq!(store.parts(), [3], "{}", again.stderr);
    let again = known(one, &["build", "-t", "app", "--cache-to", &to, "big"]).ok();
    assert!(
        says(&again, "has all 1 results already"),
        "{}",
        again.stderr
    );
}

/// A layer whose line is cut again and again is gone on with where it broke.
fn over_a_bad_line(world: &World) {
    let store = Store::start(world);
    large(world, "big");
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let to = store.place(",mode=max");
    let first = known(one, &["build", "-t", "app", "--cache-to", &to, "big"]).ok();
    // More cuts than there are tries: each piece is new ground.
    let line = Line::to(store.port, Rule::CutEachBack(1_500_000));
    let from = place(line.port, "");
    let second = known(two, &["build", "-t", "app", "--cache-from", &from, "big"]).ok();
    check_all_found(&second, first.id());
    assert_eq!(two.sh("wc -c < /big").trim(), "13000000");
}

/// Ctrl-C in the middle of a large layer: what lay there stays, and no part is left.
fn interrupted(world: &World) {
    let store = Store::start(world);
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    single(world, "small");
    let to = store.place(",mode=max");
    known(one, &["build", "--cache-to", &to, "small"]).ok();
    large(world, "big");
    let line = Line::to(store.port, Rule::StallAfter(8_000_000));
    let to = place(line.port, ",part_size=5MB,mode=max");
    let build = known(one, &["build", "--cache-to", &to, "big"]).spawn();
    line.wait_stalled();
    build.signal(Signal::SIGINT);
    line.free();
    let ended = build.wait();
    assert_eq!(ended.status.code(), Some(130), "{}", ended.whole());
    let open = store.ask("GET", "/caches?uploads");
    assert!(open.contains("ListMultipartUploadsResult"), "{open}");
    assert!(!open.contains("<UploadId>"), "{open}");
    let from = store.place("");
    let build = known(two, &["build", "--cache-from", &from, "small"]).ok();
    assert_eq!(ran(&build), 0, "{}", build.stderr);
    let build = known(two, &["build", "--cache-from", &from, "big"]).ok();
    assert_eq!(ran(&build), 1, "{}", build.stderr);
}

fn buckets(world: &World) {
    dockerfile(world);
    let store = Store::start(world);
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let place = store.place(",mode=max");
    let first = known(one, &["build", "-t", "app", "--cache-to", &place, "ctx"]).ok();
    assert_eq!(ran(&first), 5, "{}", first.stderr);
    let place = store.place("");
    let second = known(two, &["build", "-t", "app", "--cache-from", &place, "ctx"]).ok();
    check_all_found(&second, first.id());
    assert!(
        says(&second, "from s3://caches/team/manifests/kiln"),
        "{}",
        second.stderr
    );
    // Another name in the same place is another cache.
    let other = format!("{place},name=other");
    let missing = known(one, &["build", "--no-cache", "--cache-from", &other, "ctx"]).ok();
    assert!(says(&missing, "there is no cache at"), "{}", missing.stderr);
    // Wrong keys: no cache, and a clear word for who wanted to write.
    let wrong = one
        .kiln(&["build", "-t", "app", "--cache-to"])
        .args(&[
            &format!("{place},access_key_id=account,secret_access_key=wrong"),
            "ctx",
        ])
        .exits(1);
    assert!(wrong.id().starts_with("sha256:"), "{}", wrong.whole());
    assert!(
        says(&wrong, "access denied (SignatureDoesNotMatch)"),
        "{}",
        wrong.stderr
    );
    assert!(says(&wrong, "hint: access_key_id"), "{}", wrong.stderr);
    let three = Machine::new(world, "three");
    let build = three
        .kiln(&["build", "--cache-from"])
        .args(&[
            &format!("{place},access_key_id=nobody,secret_access_key=wrong"),
            "ctx",
        ])
        .ok();
    assert!(
        says(&build, "access denied (InvalidAccessKeyId)"),
        "{}",
        build.stderr
    );
    assert_eq!(ran(&build), 5);
    // No secret is in what was told.
    for told in [&wrong, &build, &second] {
        assert!(
            !told.whole().contains("hunter2") && !told.whole().contains("X-Amz"),
            "{}",
            told.whole()
        );
    }
}
