//! What the store takes on the disk, and what may go.

use std::time::Duration;

use kiln_store::Policy;

use crate::error::Error;
use crate::executor::Executor;

/// One kind of thing in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceLine {
    /// What.
    pub what: &'static str,
    /// How many.
    pub count: u64,
    /// Bytes of disk blocks; a file shared with an earlier line counts there.
    pub bytes: u64,
}

/// What a sweep leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Only what images with names and running builds need.
    Needed,
    /// What was used within this time, too.
    UsedWithin(Duration),
    /// The most recently used, up to so many bytes.
    Bytes(u64),
}

/// What a sweep took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Kinds with how many of each went, those that none went of left out.
    pub removed: Vec<(&'static str, u64)>,
    /// Bytes of disk blocks freed.
    pub bytes: u64,
}

impl Executor {
    /// Tells what takes up the store; the lines add up to all of it.
    pub fn space(&self) -> Result<Vec<SpaceLine>, Error> {
        let usage = self.store().usage()?;
        let line = |what, line: kiln_store::UsageLine| SpaceLine {
            what,
            count: line.count,
            bytes: line.bytes,
        };
        Ok(vec![
            line("layers", usage.layers),
            line("blobs", usage.blobs),
            line("cache mounts", usage.cache_mounts),
            line("contexts", usage.contexts),
            line("repositories", usage.remotes),
            line("running steps", usage.work),
            line("trash", usage.trash),
            line("records", usage.records),
            line("builds", usage.builds),
            line("other", usage.other),
        ])
    }

    /// Removes what nobody needs; cache mounts only if asked.
    pub fn sweep(&self, keep: &Keep, cache_mounts: bool) -> Result<Swept, Error> {
        let policy = match keep {
            Keep::Needed => Policy::All,
            Keep::UsedWithin(time) => Policy::KeepDuration(*time),
            Keep::Bytes(bytes) => Policy::KeepBytes(*bytes),
        };
        let report = match cache_mounts {
            true => self.store().sweep(policy)?,
            false => self.store().sweep_keeping_mounts(policy)?,
        };
        let removed = [
            ("records", report.records),
            ("untagged images", report.images),
            ("pulled references", report.pulls),
            ("layers", report.layers),
            ("blobs", report.blobs),
            ("cache mounts", report.cache_mounts),
            ("repositories", report.repositories),
            ("contexts", report.contexts),
            ("builds", report.builds),
            (
                "leftovers of dead processes",
                report.dead_processes + report.orphans,
            ),
        ];
        Ok(Swept {
            removed: removed
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            bytes: report.bytes,
        })
    }
}
