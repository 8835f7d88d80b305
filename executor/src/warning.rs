//! What is doubtful and keeps nothing from going on.

use std::fmt;
use std::sync::Arc;

/// Told of it, a line each; by default nobody is.
#[derive(Clone)]
pub struct Warn(Arc<dyn Fn(String) + Send + Sync>);

impl Warn {
    /// Tells `tell`.
    pub fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Warn {
        Warn(Arc::new(tell))
    }

    pub(crate) fn tell(&self, line: String) {
        (self.0)(line);
    }
}

impl Default for Warn {
    fn default() -> Warn {
        Warn::new(drop)
    }
}

impl fmt::Debug for Warn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Warn(..)")
    }
}
