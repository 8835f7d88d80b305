//! What is remembered of builds.

pub use kiln_store::Build;

use crate::error::Error;
use crate::executor::Executor;

impl Executor {
    /// Remembers a build.
    pub fn record_build(&self, build: &Build) -> Result<(), Error> {
        Ok(self.store().put_build(build)?)
    }

    /// Lists the latest builds, the latest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<Build>, Error> {
        Ok(self.store().builds(limit)?)
    }

    /// Finds the build whose id begins so; the latest, if there are several.
    pub fn build_by_id(&self, prefix: &str) -> Result<Option<Build>, Error> {
        Ok(self.store().build(prefix)?)
    }

    /// Tells whether a loss of power could take results of finished builds.
    pub fn has_volatile(&self) -> Result<bool, Error> {
        Ok(self.store().has_volatile()?)
    }

    /// Lets the results of finished builds outlive a loss of power.
    ///
    /// Waits for the disk, which may take a second: call it when nobody waits for you.
    pub fn make_durable(&self) -> Result<(), Error> {
        Ok(self.store().mark_durable()?)
    }
}
