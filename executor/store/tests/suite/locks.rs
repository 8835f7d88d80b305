//! Locks between threads and between processes.

use kiln_store::LockAttempt;

use crate::child::Child;
use crate::fixture::{fixture, open};

#[test]
fn a_lock_excludes_threads_of_the_same_process() {
    let f = fixture();
    let LockAttempt::Held(held) = f.store.try_lock_key(&[1; 32]).unwrap() else {
        panic!()
    };
    let again = f.store.try_lock_key(&[1; 32]).unwrap();
    assert!(matches!(again, LockAttempt::Busy(Some(pid)) if pid == std::process::id()));
    assert!(matches!(
        open(&f.dir).try_lock_key(&[1; 32]).unwrap(),
        LockAttempt::Busy(_)
    ));
    assert!(matches!(
        f.store.try_lock_key(&[2; 32]).unwrap(),
        LockAttempt::Held(_)
    ));
    drop(held);
    assert!(matches!(
        f.store.try_lock_key(&[1; 32]).unwrap(),
        LockAttempt::Held(_)
    ));
}

#[test]
fn every_key_has_a_byte() {
    let f = fixture();
    for key in [[0; 32], [0xff; 32], [0x7f; 32], [0x80; 32]] {
        assert!(matches!(
            f.store.try_lock_key(&key).unwrap(),
            LockAttempt::Held(_)
        ));
    }
}

#[test]
fn a_killed_process_holds_no_lock_and_was_told_of() {
    let f = fixture();
    let child = Child::start("lock", &f.dir);
    let attempt = f.store.try_lock_key(&[7; 32]).unwrap();
    assert!(
        matches!(attempt, LockAttempt::Busy(Some(pid)) if pid == child.pid()),
        "{attempt:?}"
    );
    child.kill();
    assert!(matches!(
        f.store.try_lock_key(&[7; 32]).unwrap(),
        LockAttempt::Held(_)
    ));
}
