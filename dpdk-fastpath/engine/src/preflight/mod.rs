//! Whether this machine has what the configuration asks for, said in plain words before DPDK says it in its own.

mod hugepages;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use culvert_api::config::fastpath::{FastPathConfig, Hugepages, Uplink};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

pub use hugepages::HugepageError;

/// What is missing, and what to do about it.
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
    /// Tap devices need a capability.
    #[error(
        "creating tap devices needs the capability CAP_NET_ADMIN: run as root, or grant it to the program"
    )]
    NotAllowed,
    /// Tap devices need /dev/net/tun.
    #[error("{path}: cannot be opened; creating tap devices needs it (`modprobe tun`)")]
    NoTun {
        /// The device node.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The uplink's name is taken.
    #[error("uplink {name}: an interface of that name exists already; remove it, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Hugepages are required and not there.
    #[error(transparent)]
    Hugepages(#[from] HugepageError),
    /// A file that every Linux has could not be read.
    #[error("{path}: cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where packet memory will lie.
#[derive(Debug)]
pub enum Pages {
    /// In hugepages.
    Huge,
    /// In ordinary pages, as configured.
    Ordinary,
    /// In ordinary pages for want of hugepages.
    Fallback(HugepageError),
}

/// The machine as far as preflight looks at it: files below one root, so that tests can make one up.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Machine {
    /// A machine whose `/proc`, `/sys` and `/dev` lie below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Checks all that can be checked from outside DPDK, and decides where packet memory will lie.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn check(&self, config: &FastPathConfig) -> Result<Pages, PreflightError> {
        self.check_cpus(config)?;
        match &config.uplink {
            Uplink::Tap { name, .. } => self.check_tap(name.as_str())?,
        }
        let enough = match config.memory.hugepages {
            Hugepages::Off => return Ok(Pages::Ordinary),
            Hugepages::Required | Hugepages::Preferred => hugepages::check(self, config.memory.megabytes)?,
        };
        match (enough, config.memory.hugepages) {
            (Ok(()), _) => Ok(Pages::Huge),
            (Err(missing), Hugepages::Required) => Err(missing.into()),
            (Err(missing), _) => Ok(Pages::Fallback(missing)),
        }
    }

    fn check_cpus(&self, config: &FastPathConfig) -> Result<(), PreflightError> {
        let have = self.read("sys/devices/system/cpu/online")?;
        let have = have.trim();
        let allowed = sched_getaffinity(Pid::this()).unwrap_or_else(|_| CpuSet::new());
        let workers = config.workers.iter().enumerate().map(|(n, &cpu)| (format!("workers[{n}]"), cpu));
        for (key, cpu) in std::iter::once(("controlCpu".to_owned(), config.control_cpu)).chain(workers) {
            if !in_list(have, cpu) {
                return Err(PreflightError::NoSuchCpu { key, cpu, have: have.to_owned() });
            }
            if !allowed.is_set(cpu.into()).unwrap_or(false) {
                return Err(PreflightError::CpuNotAllowed { key, cpu });
            }
        }
        Ok(())
    }

    fn check_tap(&self, name: &str) -> Result<(), PreflightError> {
        const CAP_NET_ADMIN: u32 = 12;
        let status = self.read("proc/self/status")?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
        if effective & (1 << CAP_NET_ADMIN) == 0 {
            return Err(PreflightError::NotAllowed);
        }
        let path = self.path("dev/net/tun");
        if let Err(source) = std::fs::File::options().read(true).write(true).open(&path) {
            return Err(PreflightError::NoTun { path, source });
        }
        if nix::net::if_::if_nametoindex(name).is_ok() {
            return Err(PreflightError::NameTaken { name: name.to_owned() });
        }
        Ok(())
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    fn read(&self, relative: &str) -> Result<String, PreflightError> {
        let path = self.path(relative);
        std::fs::read_to_string(&path).map_err(|source| PreflightError::Unreadable { path, source })
    }

    /// Names in a directory; none if there is no such directory.
    fn list(&self, relative: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(relative)).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }
}

/// Whether a kernel CPU list ("0-3,8") holds a CPU.
fn in_list(list: &str, cpu: u16) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&cpu))
    })
}
