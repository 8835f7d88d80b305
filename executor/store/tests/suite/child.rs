//! Another process: this test binary again, told what to be by its environment.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use kiln_store::{LockAttempt, Store, StoreOptions};
use tempfile::TempDir;

use crate::fixture::{key, layer, record};

const ROLE: &str = "KILN_STORE_TEST_ROLE";
const ROOT: &str = "KILN_STORE_TEST_ROOT";

/// What a child says when it holds what it is to hold.
const READY: &str = "the child is ready";

/// A child process, killed when dropped.
pub(crate) struct Child(std::process::Child);

impl Child {
    /// Starts a child of a role without waiting for it.
    pub(crate) fn spawn(role: &str, dir: &TempDir) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ROOT, dir.path().join("store"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Starts a child of a role and waits until it is ready.
    pub(crate) fn start(role: &str, dir: &TempDir) -> Self {
        let mut child = Self::spawn(role, dir);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        assert!(
            lines.map_while(Result::ok).any(|line| line.contains(READY)),
            "{role}"
        );
        child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a child, plays the role that the environment names; in the test run itself, nothing.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let root = std::path::PathBuf::from(std::env::var_os(ROOT).unwrap());
    let store = Store::open(&root, StoreOptions::default()).unwrap();
    let lease = store.lease();
    let _lock = match role.as_str() {
        "lock" => match store.try_lock_key(&[7; 32]).unwrap() {
            LockAttempt::Held(lock) => Some(lock),
            LockAttempt::Busy(_) => panic!("the lock was not free"),
        },
        "lease" => {
            let found = store.find(&lease, &[key(1)]).unwrap();
            assert!(found[0].is_some());
            None
        }
        "draft" => {
            let draft = store.begin_layer().unwrap();
            std::fs::write(draft.fs_path().join("file"), "x").unwrap();
            std::mem::forget(draft);
            None
        }
        "busy" => busy(&store),
        _ => panic!("no role `{role}`"),
    };
    use std::io::Write;
    let mut out = std::io::stdout();
    writeln!(out, "{READY}").unwrap();
    out.flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// Does all that changes the store, until it is killed.
fn busy(store: &Store) -> ! {
    let mut number = std::process::id();
    loop {
        number = number.wrapping_add(1);
        let lease = store.lease();
        let text = format!("{}", number % 64);
        let content = layer(store, &lease, &[("dir/file", &text), ("other", &text)]).content;
        crate::fixture::blob(store, &lease, text.as_bytes());
        store
            .file_record(&lease, &record(&[key((number % 64) as u8)], &[content]))
            .unwrap();
        for record in store
            .find(&lease, &[key((number % 7) as u8)])
            .unwrap()
            .into_iter()
            .flatten()
        {
            assert_eq!(record.missing, []);
            for content in record.outputs.iter().flatten().flatten() {
                store.open_layer(content).unwrap();
                store.layer_manifest(content).unwrap();
            }
        }
        if number.is_multiple_of(16) {
            store.sweep(kiln_store::Policy::KeepBytes(20)).unwrap();
        }
    }
}
