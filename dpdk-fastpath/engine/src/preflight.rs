//! Whether the CPUs that the configuration names are there, said with the configuration's own words.
//!
//! What else a machine can lack (hugepages, /dev/net/tun, capabilities) `culvert-dpdk` finds out when it is needed.

use std::path::{Path, PathBuf};

use culvert_api::config::fastpath::FastPathConfig;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Which CPU cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A CPU that the machine does not have.
    #[error("{key} {cpu}: no such CPU; this machine has {have}")]
    NoSuchCpu {
        /// Configuration key.
        key: String,
        /// The CPU.
        cpu: u16,
        /// Those there are, as sysfs lists them.
        have: String,
    },
    /// A CPU that this process may not use.
    #[error("{key} {cpu}: this process may not run there; its CPU affinity or cgroup (cpuset) leaves it out")]
    CpuNotAllowed {
        /// Configuration key.
        key: String,
        /// The CPU.
        cpu: u16,
    },
    /// The kernel does not say which CPUs there are.
    #[error("{path}: cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Checks `controlCpu` and `workers` against the machine whose files lie below `root` and this process's affinity.
///
/// # Errors
/// The first CPU that cannot be used.
pub fn check_cpus(root: &Path, config: &FastPathConfig) -> Result<(), PreflightError> {
    let path = root.join("sys/devices/system/cpu/online");
    let have = match std::fs::read_to_string(&path) {
        Ok(list) => list.trim().to_owned(),
        Err(source) => return Err(PreflightError::Unreadable { path, source }),
    };
    let allowed = sched_getaffinity(Pid::this()).unwrap_or_else(|_| CpuSet::new());
    let workers = config.workers.iter().enumerate().map(|(n, &cpu)| (format!("workers[{n}]"), cpu));
    for (key, cpu) in std::iter::once(("controlCpu".to_owned(), config.control_cpu)).chain(workers) {
        if !in_list(&have, cpu) {
            return Err(PreflightError::NoSuchCpu { key, cpu, have });
        }
        if !allowed.is_set(cpu.into()).unwrap_or(false) {
            return Err(PreflightError::CpuNotAllowed { key, cpu });
        }
    }
    Ok(())
}

/// Whether a kernel CPU list ("0-3,8") holds a CPU.
fn in_list(list: &str, cpu: u16) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&cpu))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused on a machine that has these CPUs.
    fn refusal(online: &str, lines: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/devices/system/cpu");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("online"), online).unwrap();
        let yaml = format!("uplink: {{ tap: {{ name: up0 }} }}\n{lines}\n");
        let config = FastPathConfig::from_yaml(&yaml).unwrap();
        check_cpus(root.path(), &config).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        let refused = refusal("0-1\n", "workers: [64]\ncontrolCpu: 0");
        assert_eq!(refused, "workers[0] 64: no such CPU; this machine has 0-1");
        assert_eq!(refusal("0-1\n", "controlCpu: 9"), "controlCpu 9: no such CPU; this machine has 0-1");
    }

    #[test]
    fn a_cpu_outside_the_affinity_of_this_process_is_named() {
        let refused = refusal("0-1023\n", "workers: [1023]");
        assert!(refused.starts_with("workers[0] 1023: this process may not run there"), "{refused}");
    }

    #[test]
    fn cpu_lists_of_the_kernel_are_understood() {
        for (list, cpu, expected) in
            [("0-3,8", 3, true), ("0-3,8", 8, true), ("0-3,8", 4, false), ("5", 5, true), ("", 0, false)]
        {
            assert_eq!(in_list(list, cpu), expected, "{list} {cpu}");
        }
    }
}
