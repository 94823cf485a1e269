//! Frames that are wrong, in their thousands.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_api::fastpath::Counters;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{self, Ping, run};
use crate::topology::{Addresses, Pod, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "malformed_frames_from_a_pod_are_counted_and_dropped", place: Netns, run: from_pod },
    Case {
        name: "malformed_frames_from_the_underlay_are_counted_and_dropped",
        place: Netns,
        run: from_underlay,
    },
];

const SCRIPT: &str = include_str!("../../scapy/malformed.py");

/// What each set of frames must have been dropped for, at least: a reason that never counts is not looked at.
const FROM_POD: [&str; 18] = [
    "arp-truncated",
    "ipv4-truncated",
    "ipv4-bad-version",
    "ipv4-header-length",
    "ipv4-total-length",
    "ipv4-checksum",
    "ipv4-fragment",
    "ipv6-truncated",
    "ipv6-bad-version",
    "ipv6-payload-length",
    "ipv6-extension-chain",
    "ether-type",
    "not-our-mac",
    "spoofed-address",
    "spoofed-mac",
    "martian",
    "ttl-exceeded",
    "vlan-tag",
];
const FROM_UNDERLAY: [&str; 8] = [
    "vxlan-truncated",
    "vxlan-flags",
    "tunnel-fragment",
    "tunnel-unknown-source",
    "tunnel-wrong-vni",
    "tunnel-not-our-mac",
    "tunnel-not-local",
    "ipv4-checksum",
];

fn from_pod(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let (from, to) = (net.pod("pod-a"), net.pod("pod-b"));
    Ping::to(to.addresses.v4).answered(from.netns())?;
    let router = router_of(from)?;
    send(&net, "pod", from.netns(), "eth0", router.trim(), (from.addresses, to.addresses), &FROM_POD)
}

/// The MAC address of a pod's router, which the pod has asked for before.
pub(super) fn router_of(pod: &Pod) -> Outcome<String> {
    pod.netns().sh("ip neigh show dev eth0 | sed -n 's/.*lladdr \\([^ ]*\\).*/\\1/p' | head -n 1")
}

fn from_underlay(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let (from, to) = (net.pod("pod-c"), net.pod("pod-b"));
    Ping::to(crate::topology::VTEP.v4).answered(net.far.netns())?;
    let script = "ip neigh show 10.1.1.1 dev cvup0 | sed -n 's/.*lladdr \\([^ ]*\\).*/\\1/p'";
    let vtep = net.far.netns().sh(script)?;
    let addresses = (from.addresses, to.addresses);
    send(&net, "underlay", net.far.netns(), "cvup0", vtep.trim(), addresses, &FROM_UNDERLAY)
}

fn send(
    net: &Topology,
    side: &str,
    netns: &net::Netns,
    interface: &str,
    router_mac: &str,
    (from, to): (Addresses, Addresses),
    reasons: &[&str],
) -> Outcome {
    let control = net.node.control()?;
    let before = control.counters()?;
    let free = settled_mbufs(net)?;
    let mac = netns.sh(&format!("cat /sys/class/net/{interface}/address"))?;
    let addresses = [from.v4.to_string(), from.v6.to_string(), to.v4.to_string(), to.v6.to_string()];
    // Not the first python3 on the path, which may be another than Debian's, and without scapy.
    let mut command = netns.command("/usr/bin/python3");
    command.args(["-c", SCRIPT, side, interface, mac.trim(), router_mac]).args(addresses);
    let sent: u64 = run(&mut command)?.success()?.trim().parse()?;
    ensure!(sent > 5000, "only {sent} frames were sent");

    let port = if side == "pod" { None } else { Some(interface) };
    wait_for(&format!("all {sent} frames are received"), Duration::from_secs(5), || {
        Ok((received(&control.counters()?, port) - received(&before, port) >= sent).then_some(()))
    })?;
    let after = control.counters()?;
    let (before, after) = (drops(&before), drops(&after));
    let silent: Vec<&str> =
        reasons.iter().copied().filter(|reason| after.get(*reason) <= before.get(*reason)).collect();
    ensure!(silent.is_empty(), "never counted: {silent:?}; counted: {after:?}");
    let left = settled_mbufs(net)?;
    ensure!(left == free, "{free} packet buffers were free before, {left} are now");
    Ping::to(net.pod("pod-c").addresses.v4).answered(net.pod("pod-b").netns())?;
    Ping::to(net.pod("pod-a").addresses.v6).answered(net.pod("pod-d").netns())
}

/// Free packet buffers, once no packet is on its way any more.
pub(super) fn settled_mbufs(net: &Topology) -> Outcome<u64> {
    let control = net.node.control()?;
    let mut last = (0, 0);
    wait_for("the number of free packet buffers settles", Duration::from_secs(5), || {
        let free = control.info()?.mbufs_free;
        last = if free == last.0 { (free, last.1 + 1) } else { (free, 0) };
        Ok((last.1 >= 20).then_some(free))
    })
}

/// Packets that came in, on the port of that name or on all.
fn received(counters: &Counters, port: Option<&str>) -> u64 {
    let wanted = counters.ports.iter().filter(|p| port.is_none_or(|name| p.name == name));
    wanted.filter_map(|port| port.counters.as_ref()).map(|c| c.rx_packets).sum()
}

pub(super) fn drops(counters: &Counters) -> BTreeMap<&str, u64> {
    counters.drops.iter().map(|drop| (drop.name.as_str(), drop.value)).collect()
}
