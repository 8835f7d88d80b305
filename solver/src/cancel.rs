//! A flag that stops a build, and whoever waits for it.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells a build, or a run of it, to stop. Clones share one flag, which is never taken back.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Cancel(Arc::new(watch::Sender::new(false)))
    }

    /// Sets it.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is set.
    pub async fn cancelled(&self) {
        let mut flag = self.0.subscribe();
        // The sender lives as long as `self`, so that waiting can't fail.
        let _ = flag.wait_for(|set| *set).await;
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Cancel::new()
    }
}
