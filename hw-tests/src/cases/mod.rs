//! The tests themselves, about ten lines each.

mod balancing;
mod cni;
mod config;
mod connectivity;
mod geneve;
mod host;
mod host_port;
mod icmp;
mod interrupts;
mod lossy;
mod malformed;
mod manifests;
mod netdevsim;
mod nic;
mod ports;
mod protection;
mod resilience;
mod restart;
mod sctp;
mod service;
mod shortcut;
mod sriov;
mod sriov_cni;
mod sriov_return;
mod tunnel;
mod wire;
mod yardstick;

use crate::frame::Case;

/// All cases there are, in the order in which they run.
pub fn all() -> Vec<Case> {
    [
        yardstick::CASES,
        connectivity::CASES,
        tunnel::CASES,
        service::CASES,
        host_port::CASES,
        balancing::CASES,
        sctp::CASES,
        icmp::CASES,
        resilience::CASES,
        restart::CASES,
        shortcut::CASES,
        malformed::CASES,
        wire::CASES,
        lossy::CASES,
        protection::CASES,
        manifests::CASES,
        cni::CASES,
        config::CASES,
        sriov::CASES,
        host::CASES,
        netdevsim::CASES,
        ports::CASES,
        geneve::CASES,
        interrupts::CASES,
        nic::CASES,
        sriov_cni::CASES,
        sriov_return::CASES,
    ]
    .concat()
}
