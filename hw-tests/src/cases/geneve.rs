//! Geneve tunnels. The other end is the kernel's Geneve device, which Debian's kernel has and not every machine's.

use std::process::Command;
use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, wait_for};
use crate::net::{self, Netns, Ping};
use crate::topology::{Family, POD_PORT, Topology};

pub(super) const CASES: &[Case] = &[Case {
    name: "pods_and_services_are_reached_across_the_kernels_geneve_over_ipv4_and_ipv6",
    place: Guest,
    run: geneve,
}];

fn geneve(context: &Context) -> Outcome {
    net::run(Command::new("modprobe").arg("geneve"))?.success()?;
    // Across a wire, so that nothing reaches the kernel whose checksums are still to be made.
    let mut net = Topology::start_across(context, Family::V4, ", encapsulation: geneve", None)?;
    let remote = ["pod-c", "pod-d"];
    net.node.manifests.service(&net.web(&remote))?;
    net.wait_for_backends(remote.len())?;
    for underlay in Family::BOTH {
        net.node.manifests.nodes(underlay)?;
        net.far.take_geneve(underlay)?;
        wait_for("the tunnel's other end answers", Duration::from_secs(60), || {
            let ping = Ping::to(net.pod("pod-a").addresses.v4).answered(net.pod("pod-c").netns());
            Ok(ping.ok())
        })?;
        traffic(&net).map_err(|stop| stop.while_doing(&format!("underlay {underlay:?}")))?;
    }
    let receivers = [net.far.netns(), net.pod("pod-c").netns(), net.pod("pod-d").netns()];
    for netns in receivers.into_iter().chain([net.pod("pod-a").netns(), net.pod("pod-b").netns()]) {
        let wrong = wrong_checksums(netns)?;
        ensure!(wrong == 0, "{}: {wrong} packets came with a wrong checksum", netns.name());
    }
    a_wrong_checksum_is_noticed(&net)
}

/// Both ways, over both inner IP versions: pings that fill the tunnel's MTU, TCP, UDP, and from here the Service.
fn traffic(net: &Topology) -> Outcome {
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        for (from, to) in [("pod-a", "pod-c"), ("pod-d", "pod-b")] {
            let (from, address) = (net.pod(from).netns(), net.pod(to).addresses.get(family));
            Ping::to(address).unfragmented(net.far.mtu()).answered(from)?;
            net::http::download(from, (address, POD_PORT).into(), 1 << 18)?;
            let name = net::udp::name(from, (address, POD_PORT).into(), 1000)?;
            ensure!(name == to, "{name} answered for {to}");
        }
        let web = Topology::web_address(family);
        for name in [net::http::name(client, web)?, net::udp::name(client, web, 100)?] {
            ensure!(["pod-c", "pod-d"].contains(&name.as_str()), "{name} answered for the Service");
        }
    }
    Ok(())
}

/// The kernel behind the tunnel does look at what it is sent: two datagrams of each IP version, one of which at least has
/// another checksum than they should.
fn a_wrong_checksum_is_noticed(net: &Topology) -> Outcome {
    let (from, to) = (net.pod("pod-a"), net.pod("pod-c"));
    from.netns().sh(&format!(
        "ethtool -K eth0 tx off >&2
        nft add table inet harm
        nft add chain inet harm out '{{ type filter hook output priority 0; }}'
        nft add rule inet harm out udp dport {POD_PORT} udp checksum set 0x0bad"
    ))?;
    for address in to.addresses.both() {
        let before = wrong_checksums(to.netns())?;
        for _ in 0..2 {
            // Hardly ever answered, within the second that it waits.
            let _ = net::udp::name(from.netns(), (address, POD_PORT).into(), 100);
        }
        let after = wrong_checksums(to.netns())?;
        ensure!(after > before, "{address}: the kernel has noticed no wrong checksum");
    }
    Ok(())
}

/// How many packets of TCP, UDP and ICMP a namespace's kernel has found to have one.
fn wrong_checksums(netns: &Netns) -> Outcome<u64> {
    let count = netns.sh("nstat -asz | awk '/CsumErrors/ { n += $2; k++ } END { print n, k }'")?;
    let mut numbers = count.split_whitespace().map(|number| number.parse().unwrap_or(0));
    let (wrong, counters) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(counters >= 4, "nstat does not tell of checksums: {count}");
    Ok(wrong)
}
