//! Caches in buckets, on a real store that checks signatures: SeaweedFS.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Machine, check_all_found, dockerfile, ran, says};
use crate::support::{Capability::*, Case, Kiln, World, case, find_program};

pub(super) fn cases() -> Vec<Case> {
    vec![case("buckets", &[Containers, Seaweed], buckets)]
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
    url: String,
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
        let held: Vec<TcpListener> = (0..8)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<u16> = held
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        drop(held);
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
        let mut process = Command::new(find_program("weed").unwrap())
            .arg("server")
            .args([
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.telemetry=false",
            ])
            .args(["-filer", "-s3", "-s3.port.iceberg=0", "-volume.max=20"])
            .arg("-master.volumeSizeLimitMB=64")
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
            .env_clear()
            .env("HOME", world.path("."))
            .current_dir(world.path("."))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let url = format!("http://127.0.0.1:{s3}");
        // A bucket needs one part of the store, an object all of them.
        let is_there = || put(s3, "/caches") && put(s3, "/caches/probe");
        while !is_there() {
            if process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                let _ = process.kill();
                let _ = process.wait();
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // Somebody else may have answered there.
        process
            .try_wait()
            .unwrap()
            .is_none()
            .then_some(Store { process, url })
    }

    pub(super) fn place(&self, more: &str) -> String {
        format!(
            "type=s3,bucket=caches,region=us-east-1,use_path_style=true,prefix=team/,endpoint_url={}{more}",
            self.url
        )
    }
}

/// Puts something empty there, without an account; whether it was taken, or was there.
fn put(port: u16, path: &str) -> bool {
    let answer = || -> std::io::Result<String> {
        let mut line = TcpStream::connect(("127.0.0.1", port))?;
        line.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            line,
            "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        line.take(100).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    answer().is_ok_and(|answer| answer.contains(" 200 ") || answer.contains(" 409 "))
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command with the account in its environment.
pub(super) fn known<'w>(machine: Machine<'w>, arguments: &[&str]) -> Kiln<'w> {
    machine
        .kiln(arguments)
        .env("AWS_ACCESS_KEY_ID", "account")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2")
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
