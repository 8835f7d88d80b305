//! From a plan's limits to the cgroup of a sandbox.

use kiln_ir::{ExecOp, ResourceLimits};
use kiln_sandbox::{Cgroup, Exit, Limits, Running, Swap, cgroup};

use crate::error::Error;
use crate::executor::Executor;

impl Executor {
    /// Errors unless a step can have these limits here, which is found out by trying.
    pub fn check_limits(&self, op: &ExecOp, limits: &ResourceLimits) -> Result<(), Error> {
        match cgroup_of(&op.meta.cgroup_parent, limits, None)? {
            Some(wanted) => cgroup::check(&wanted).map_err(refused),
            None => Ok(()),
        }
    }
}

fn refused(error: kiln_sandbox::Error) -> Error {
    match error {
        kiln_sandbox::Error::Invalid { what, value } => Error::Limit { what, value },
        error => Error::Sandbox(error),
    }
}

/// What a sandbox is told; none if nothing is asked for.
pub(crate) fn cgroup_of(
    parent: &str,
    limits: &ResourceLimits,
    processes: Option<u64>,
) -> Result<Option<Cgroup>, Error> {
    if parent.is_empty() && *limits == ResourceLimits::default() && processes.is_none() {
        return Ok(None);
    }
    // 0 is no limit, and of processor time so is -1.
    let positive = |what, value: i64| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Error::Limit {
            what,
            value: value.to_string(),
        }),
    };
    let limits = Limits {
        memory_bytes: positive("so little memory:", limits.memory)?,
        swap: match limits.memory_swap {
            0 => None,
            -1 => Some(Swap::Unlimited),
            total => positive("so little memory and swap:", total)?.map(Swap::Total),
        },
        cpu_shares: positive("the weight", limits.cpu_shares)?,
        cpu_period_micros: positive("the period", limits.cpu_period)?,
        cpu_quota_micros: match limits.cpu_quota {
            -1 => None,
            quota => positive("the quota", quota)?,
        },
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        processes,
    };
    Ok(Some(Cgroup {
        parent: (!parent.is_empty()).then(|| parent.to_owned()),
        limits,
    }))
}

/// What to say of a step that failed, if its limit of memory is why.
pub(crate) fn out_of_memory(
    process: &Running,
    exit: Exit,
    limits: &ResourceLimits,
) -> Option<String> {
    if exit.success() || limits.memory == 0 || !process.out_of_memory() {
        return None;
    }
    let how = match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
    };
    Some(format!(
        "{how}; the kernel ended a process of it, which has no more than {} bytes of memory",
        limits.memory
    ))
}
