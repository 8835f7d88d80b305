//! What is remembered of builds.

pub use kiln_store::{Build, FoundBuild, NewBuild, StepLog};

use std::path::Path;
use std::time::SystemTime;

use kiln_solver::Content;

use crate::error::Error;
use crate::executor::Executor;
use crate::stack::to_store;

impl Executor {
    /// Remembers a build.
    pub fn record_build(&self, build: &NewBuild) -> Result<(), Error> {
        Ok(self.store().put_build(build)?)
    }

    /// Lists the latest builds, the latest first.
    pub fn recorded_builds(&self, limit: usize) -> Result<Vec<Build>, Error> {
        Ok(self.store().builds(limit)?)
    }

    /// Returns when the latest builds began and their details, the latest first.
    pub fn recorded_details(&self, limit: usize) -> Result<Vec<(SystemTime, Vec<u8>)>, Error> {
        Ok(self.store().build_details(limit)?)
    }

    /// Finds the build whose id begins so.
    pub fn recorded_build(&self, prefix: &str) -> Result<FoundBuild, Error> {
        Ok(self.store().build(prefix)?)
    }

    /// Returns the plan of a build, as it was encoded.
    pub fn recorded_plan(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.store().build_plan(id)?)
    }

    /// Returns what the steps of a build wrote, in the order of the steps.
    pub fn recorded_logs(&self, id: &str) -> Result<Vec<StepLog>, Error> {
        Ok(self.store().build_logs(id)?)
    }

    /// Forgets a build with all that is kept of it; tells whether it was there.
    pub fn forget_build(&self, id: &str) -> Result<bool, Error> {
        Ok(self.store().forget_build(id)?)
    }

    /// The bytes of a step's own layer, the uppermost of what it made; none if it made none, or the
    /// layer is gone.
    pub fn own_layer_bytes(&self, content: &Content) -> Result<Option<u64>, Error> {
        let Some(layer) = to_store(content).last().copied() else {
            return Ok(None);
        };
        Ok(self.store().layer(&layer)?.map(|info| info.size_bytes))
    }

    /// Tells whether there is reason to call [`Executor::make_durable`].
    pub fn wants_settling(&self) -> Result<bool, Error> {
        Ok(self.store().wants_settling()?)
    }

    /// Whether there is a store at `root`; opening one that is not there makes it.
    pub fn has_store(root: &Path) -> bool {
        kiln_store::Store::is_at(root)
    }

    /// Lets the results of finished builds outlive a loss of power.
    ///
    /// Waits for the disk, which may take a second: call it when nobody waits for you.
    pub fn make_durable(&self) -> Result<(), Error> {
        Ok(self.store().mark_durable()?)
    }
}
