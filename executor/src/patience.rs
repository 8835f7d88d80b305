//! Waiting for a lock that another step or another kiln holds.

use std::time::Duration;

use kiln_store::{KeyLock, LockAttempt, Store};
use kiln_tree::Stop;

use crate::error::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The pauses between attempts on one lock, and whether its holder was told of.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
    told: bool,
}

impl Patience {
    pub(crate) fn new() -> Patience {
        Patience {
            pause: FIRST_PAUSE,
            told: false,
        }
    }

    /// Whether to say now, once, that the process `holder` is waited for.
    ///
    /// A holder gives its pid after it has locked: one without is worth a few more looks.
    pub(crate) fn tells(&mut self, holder: Option<u32>) -> bool {
        let due = !self.told && (holder.is_some() || self.pause == LONGEST_PAUSE);
        self.told |= due;
        due
    }

    /// Waits before the next attempt, longer each time.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// What comes from elsewhere, held so that no other process brings it here too.
///
/// Whoever holds one waits for no other, so nobody waits for ever. `waiting` is told whom this waits for, once; a
/// holder that dies has let go.
pub(crate) async fn arriving(
    store: &Store,
    digest: &[u8; 32],
    stop: &Stop,
    waiting: impl Fn(Option<u32>),
) -> Result<KeyLock, Error> {
    let key = blake3::derive_key("kiln 2026 arriving blob lock v0", digest);
    let mut patience = Patience::new();
    loop {
        match store.try_lock_key(&key)? {
            LockAttempt::Held(guard) => return Ok(guard),
            LockAttempt::Busy(_) if stop.is_set() => return Err(Error::Cancelled),
            LockAttempt::Busy(pid) if patience.tells(pid) => waiting(pid),
            LockAttempt::Busy(_) => {}
        }
        patience.pause().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_holder_is_told_of_once_and_as_soon_as_it_is_known() {
        let mut patience = Patience::new();
        assert!(!patience.tells(None));
        patience.pause().await;
        assert!(patience.tells(Some(7)));
        assert!(!patience.tells(Some(7)));
    }

    #[tokio::test]
    async fn a_holder_without_a_name_is_told_of_in_the_end() {
        let mut patience = Patience::new();
        let mut looks = 0;
        while !patience.tells(None) {
            patience.pause().await;
            looks += 1;
        }
        assert_eq!(looks, 6);
    }
}
