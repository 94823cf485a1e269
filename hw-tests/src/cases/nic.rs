//! A NIC as uplink that DPDK drives, and that the kernel has given away.

use std::process::Command;
use std::time::Duration;

use culvert_api::fastpath::{PortKind, Waking};
use nix::sys::signal::{Signal, kill};

use super::ports::traffic;
use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, wait_for};
use crate::net::{self, Ping};
use crate::topology::sriov::{GivenAway, Pf};
use crate::topology::{Family, Topology};

pub(super) const CASES: &[Case] = &[Case {
    name: "pods_and_services_are_reached_by_a_nic_that_dpdk_drives_and_again_after_restarts",
    place: Guest,
    run: nic,
}];

/// Until a link is up, and a process has started in a guest without hardware's help.
const PATIENCE: Duration = Duration::from_secs(90);

/// The kernel's node has NIC 0, the fast path NIC 1, on the same wire.
fn nic(context: &Context) -> Outcome {
    let (far, ours) = (Pf::find(0)?, Pf::find(1)?);
    let _back = Back(far.interface.clone());
    let _given_away = GivenAway::new(&ours)?;
    let net = Topology::start_by_nic(context, &ours, &far)?;
    let uplink = net.node.control()?.ports()?.into_iter().find(|port| port.kind() == PortKind::Uplink);
    let shown = uplink.as_ref().map(|port| (port.name.clone(), port.waking()));
    ensure!(shown == Some(("nic".to_owned(), Waking::Interrupt)), "{shown:?}");
    // This NIC has no tunnel TSO.
    let segmentation = uplink.and_then(|port| port.segmentation).unwrap_or_default();
    ensure!(segmentation.device_offloads.is_empty(), "{segmentation:?}");
    ensure!(segmentation.reason.contains("VXLAN_TNL_TSO (for VXLAN)"), "{segmentation:?}");
    reached(&net)?;
    traffic(&net)?;

    let before = net.node.forwarders()?;
    for id in &before {
        kill(*id, Signal::SIGKILL)?;
    }
    replaced(&net, &before)?;
    let before = net.node.forwarders()?;
    net.node.signal_fastpath(Signal::SIGHUP)?;
    replaced(&net, &before)?;

    refused(context, &net, &far)
}

/// The wire carries packets between the nodes.
fn reached(net: &Topology) -> Outcome {
    wait_for("the far node answers", PATIENCE, || {
        let ping = Ping::to(net.pod("pod-c").addresses.v4).answered(net.pod("pod-a").netns());
        Ok(ping.ok())
    })
}

/// Another process forwards than before, by the same NIC.
fn replaced(net: &Topology, before: &[nix::unistd::Pid]) -> Outcome {
    wait_for("another process forwards", PATIENCE, || {
        let now = net.node.forwarders()?;
        Ok((!now.is_empty() && now.iter().all(|id| !before.contains(id))).then_some(()))
    })?;
    reached(net)?;
    net::http::download(net.pod("client").netns(), Topology::web_address(Family::V4), 1 << 18)
}

/// A NIC that the kernel has is not taken.
fn refused(context: &Context, net: &Topology, far: &Pf) -> Outcome {
    for (pci, expected) in
        [(far.pci.as_str(), "its kernel driver is igb"), ("0000:ff:1f.7", "there is no PCI device")]
    {
        let config = context.file(
            "other.yaml",
            &format!(
                "socket: {}/other.sock\nmemory: {{ megabytes: 64, mbufs: 2048 }}\n\
                 uplink: {{ nic: {{ pci: '{pci}' }} }}\n",
                context.dir().display()
            ),
        )?;
        let run = net.node.run_with_config("culvert-fastpath", &config)?;
        ensure!(!run.status.success(), "{pci} was taken");
        let said = format!("{}{}", run.stdout, run.stderr);
        ensure!(said.contains(&format!("nic {pci}: {expected}")), "{pci}: {said}");
    }
    Ok(())
}

/// Gives the far node's NIC its name again once its namespace is gone, for the cases that come after this one.
struct Back(String);

impl Drop for Back {
    fn drop(&mut self) {
        let back = wait_for("the far node's NIC comes back", PATIENCE, || {
            let Ok(pf) = Pf::find(0) else { return Ok(None) };
            if pf.interface != self.0 {
                let arguments = ["link", "set", &pf.interface, "down", "name", &self.0];
                net::run(Command::new("ip").args(arguments))?.success()?;
            }
            Ok(Some(()))
        });
        // The next case that looks for it says so.
        let _ = back;
    }
}
