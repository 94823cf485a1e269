//! Pods' ports other than taps that workers read themselves.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use culvert_api::fastpath::{PortKind, Waking};
use nix::sys::signal::{Signal, kill};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, wait_for};
use crate::net::{self, Ping};
use crate::topology::{BACKENDS, Family, GATEWAY, POD_PORT, Topology};

pub(super) const CASES: &[Case] = &[Case {
    name: "pods_whose_packets_vhost_net_moves_reach_pods_and_services_and_again_after_a_restart",
    place: Guest,
    run: vhost_net,
}];

const DEVICE: &str = "/dev/vhost-net";

/// The pods on this node.
const LOCAL: [&str; 3] = ["pod-a", "pod-b", "client"];

fn vhost_net(context: &Context) -> Outcome {
    net::run(Command::new("modprobe").arg("vhost_net"))?.success()?;
    let net = Topology::start_with_fastpath(context, "podPorts: vhostNet\n")?;
    is_in_use(&net)?;
    traffic(&net)?;

    // These ports go with the process; the agent makes them again.
    for id in net.node.forwarders()? {
        kill(id, Signal::SIGKILL)?;
    }
    for name in LOCAL {
        for gateway in GATEWAY.both() {
            wait_for(&format!("{name} has its port again"), Duration::from_secs(60), || {
                Ok(Ping::to(gateway).answered(net.pod(name).netns()).ok())
            })?;
        }
    }
    is_in_use(&net)?;
    traffic(&net)
}

/// The forwarder must have the device open once for each port: otherwise something else moves the packets. And packets must
/// wake it.
fn is_in_use(net: &Topology) -> Outcome {
    let mut count = 0;
    for id in net.node.forwarders()? {
        // One that has just ended has none.
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        count += targets.filter(|target| target == Path::new(DEVICE)).count();
    }
    ensure!(count == LOCAL.len(), "{DEVICE} is open {count} times, for {} pods", LOCAL.len());
    for port in net.node.control()?.ports()? {
        let wakes = if port.kind() == PortKind::Pod { Waking::Interrupt } else { Waking::Kernel };
        ensure!(port.waking() == wakes, "{}: woken by {:?}", port.name, port.waking());
    }
    Ok(())
}

/// Within the node, from and to the kernel's node, and through the Service, over both IP versions.
pub(super) fn traffic(net: &Topology) -> Outcome {
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        for (from, to) in [("pod-a", "pod-b"), ("pod-a", "pod-c"), ("pod-d", "pod-b")] {
            let (from, to) = (net.pod(from).netns(), net.pod(to).addresses.get(family));
            Ping::to(to).unfragmented(1450).answered(from)?;
            net::http::download(from, (to, POD_PORT).into(), 1 << 18)?;
        }
        for _ in 0..8 {
            net::http::download(client, Topology::web_address(family), 1 << 16)?;
        }
        let name = net::udp::name(client, Topology::web_address(family), 100)?;
        ensure!(BACKENDS.contains(&name.as_str()), "{name} answered for the Service");
    }
    Ok(())
}
