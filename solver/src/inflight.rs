//! What runs in this process, so that two builds of it run an equal step once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::DefinitionKey;

/// Locks by definition key, shared by all builds of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<DefinitionKey, Arc<AsyncMutex<()>>>>>);

/// Holds the lock of a key.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    table: InFlight,
    key: DefinitionKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl InFlight {
    /// Takes the lock of a key; `waiting` is called if somebody has it. Returns whether so.
    pub(crate) async fn lock(
        &self,
        key: DefinitionKey,
        waiting: impl FnOnce(),
    ) -> (InFlightGuard, bool) {
        let lock = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            table.entry(key).or_default().clone()
        };
        let (guard, waited) = match lock.clone().try_lock_owned() {
            Ok(guard) => (guard, false),
            Err(_) => {
                waiting();
                (lock.lock_owned().await, true)
            }
        };
        let guard = InFlightGuard {
            table: self.clone(),
            key,
            guard: Some(guard),
        };
        (guard, waited)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Whoever waits has a clone of the entry; only the last one leaves none.
        if table
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            table.remove(&self.key);
        }
    }
}
