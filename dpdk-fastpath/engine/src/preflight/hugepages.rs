//! Hugepages: reserved by the kernel, and within reach of a mounted hugetlbfs.

use super::{Machine, PreflightError};

/// Why packet memory cannot lie in hugepages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HugepageError {
    /// The kernel has reserved none, or others use them all.
    #[error(
        "memory.megabytes {need}: only {free} MiB of hugepages are free; reserve them: \
         `sysctl vm.nr_hugepages=N`, N pages of 2 MiB, or set memory.hugepages to `off`"
    )]
    TooFew {
        /// MiB asked for.
        need: u64,
        /// MiB free.
        free: u64,
    },
    /// No hugetlbfs is mounted.
    #[error(
        "hugepages are reserved, but no hugetlbfs is mounted: `mkdir -p /dev/hugepages && mount -t hugetlbfs none \
         /dev/hugepages`, or set memory.hugepages to `off`"
    )]
    NotMounted,
}

const POOLS: &str = "sys/kernel/mm/hugepages";

/// Whether `need` MiB of hugepages are free and mounted.
pub(super) fn check(machine: &Machine, need: u32) -> Result<Result<(), HugepageError>, PreflightError> {
    let need = u64::from(need);
    let free = free_mebibytes(machine)?;
    if free < need {
        return Ok(Err(HugepageError::TooFew { need, free }));
    }
    let mounts = machine.read("proc/self/mounts")?;
    let mounted = mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs"));
    Ok(if mounted { Ok(()) } else { Err(HugepageError::NotMounted) })
}

/// Free hugepages of every size, in MiB.
fn free_mebibytes(machine: &Machine) -> Result<u64, PreflightError> {
    let mut kibibytes = 0;
    for pool in machine.list(POOLS) {
        let Some(page) = pool.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB")) else {
            continue;
        };
        let Ok(page) = page.parse::<u64>() else { continue };
        let free = machine.read(&format!("{POOLS}/{pool}/free_hugepages"))?;
        kibibytes += page * free.trim().parse::<u64>().unwrap_or(0);
    }
    Ok(kibibytes / 1024)
}
