//! What a measurement stands on: priority, hugepages, DPDK.

use culvert_dpdk::{Eal, EalConfig, EalError, Hugepages};
use nix::unistd::geteuid;

use crate::hugepages::{HugepageError, Reservation};

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("must be run as root: hugepages are reserved")]
    NotRoot,
    #[error("hugepages")]
    Hugepages(#[from] HugepageError),
    #[error("DPDK")]
    Eal(#[from] EalError),
}

/// For who wants to know before much has been done.
pub(crate) fn need_root() -> Result<(), StartError> {
    if geteuid().is_root() { Ok(()) } else { Err(StartError::NotRoot) }
}

/// DPDK with so many megabytes of hugepages, which are given back with the reservation.
pub(crate) fn start(megabytes: u64, control_cpu: u32) -> Result<(Reservation, Eal), StartError> {
    let reservation = Reservation::of(megabytes)?;
    Ok((reservation, init(Hugepages::Required, megabytes, control_cpu)?))
}

/// DPDK in ordinary memory, where packets are not what is measured.
pub(crate) fn start_without_hugepages(megabytes: u64, control_cpu: u32) -> Result<Eal, StartError> {
    Ok(init(Hugepages::Off, megabytes, control_cpu)?)
}

fn init(hugepages: Hugepages, megabytes: u64, control_cpu: u32) -> Result<Eal, EalError> {
    // Several processes' nice values count only within their session where sched_autogroup is on; elsewhere there is no
    // such file.
    let _ = std::fs::write("/proc/self/autogroup", "-20");
    Eal::init(&EalConfig {
        control_cpu,
        hugepages,
        megabytes: megabytes as u32,
        file_prefix: "culvert-bench".into(),
        ..EalConfig::default()
    })
}
