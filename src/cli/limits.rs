//! The flags that limit what steps and programs use, which a cgroup does.

use clap::Args;
use kiln::ResourceLimits;

use super::spec::{self, SpecError};

/// Limits of each RUN step, or of a program; they need cgroups that kiln may write.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LimitArgs {
    /// Limit memory, such as 512m; files in memory count
    #[arg(short = 'm', long, value_name = "SIZE")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 is unlimited swap [default: twice --memory]
    #[arg(
        long,
        value_name = "SIZE",
        requires = "memory",
        allow_hyphen_values = true
    )]
    memory_swap: Option<String>,
    /// Weight of processor time beside others, 1024 being usual
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(i64).range(2..))]
    cpu_shares: Option<i64>,
    /// Length of a period of --cpu-quota in microseconds [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1000..=1_000_000))]
    cpu_period: Option<i64>,
    /// Limit processor time in each period, in microseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1000..))]
    cpu_quota: Option<i64>,
    /// Use these processors only, such as 0-3,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Use these nodes of memory only
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Limit below this cgroup: from the root if it begins with /, else below kiln's own
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,
}

impl LimitArgs {
    /// What they say.
    pub(crate) fn limits(&self) -> Result<ResourceLimits, SpecError> {
        let size = |text: &String| spec::size_bytes(text).map(|bytes| bytes.cast_signed());
        Ok(ResourceLimits {
            memory: self.memory.as_ref().map(size).transpose()?.unwrap_or(0),
            memory_swap: match self.memory_swap.as_ref() {
                None => 0,
                Some(text) if text == "-1" => -1,
                Some(text) => size(text)?,
            },
            cpu_shares: self.cpu_shares.unwrap_or(0),
            cpu_period: self.cpu_period.unwrap_or(0),
            cpu_quota: self.cpu_quota.unwrap_or(0),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
        })
    }
}

/// `1.5` processors are 150000 microseconds of each 100000.
pub(crate) fn processors(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(count) if (0.01..=100_000.0).contains(&count) => {
            Ok((count * PERIOD_MICROS).round() as i64)
        }
        _ => Err("a number of processors from 0.01 on is wanted, such as 1.5".to_owned()),
    }
}

const PERIOD_MICROS: f64 = 100_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_processors() {
        assert_eq!(processors("1.5"), Ok(150_000));
        assert_eq!(processors("0.01"), Ok(1000));
        for wrong in ["0", "-1", "NaN", "inf", "x", ""] {
            assert!(processors(wrong).is_err(), "{wrong}");
        }
    }
}
