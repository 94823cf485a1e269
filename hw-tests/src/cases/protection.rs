//! What a pod does to others: nothing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use culvert_api::fastpath::PortCounters;

use super::malformed::{drops, router_of, settled_mbufs};
use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, note, wait_for};
use crate::net::{self, Flood, Load, Ping, Process, run};
use crate::topology::{GATEWAY, POD_PORT, Pod, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "what_a_pod_sends_under_false_names_is_counted_and_dropped", place: Netns, run: spoofed },
    Case { name: "pods_that_flood_starve_nobody", place: Netns, run: floods },
    Case { name: "pods_that_never_read_starve_nobody", place: Netns, run: never_reads },
    Case { name: "every_vnet_header_is_taken_at_its_word_or_counted", place: Netns, run: vnet_headers },
];

const SPOOF: &str = include_str!("../../scapy/spoof.py");
const VNET: &str = include_str!("../../scapy/vnet.py");

/// What the frames of `spoof.py` are dropped for.
const REASONS: [&str; 5] = ["spoofed-mac", "spoofed-address", "neighbour-ignored", "vlan-tag", "ether-type"];

/// How often each of them is sent.
const TIMES: u64 = 20;

fn spoofed(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let from = net.pod("pod-a");
    let script = context.file("spoof.py", SPOOF)?;
    for name in ["pod-b", "pod-c"] {
        let victim = net.pod(name);
        for address in victim.addresses.both() {
            Ping::to(address).answered(from.netns())?;
        }
        victim.netns().sh("nft add table inet watch
            nft add chain inet watch in '{ type filter hook prerouting priority -400; }'
            nft add rule inet watch in udp dport 9999 counter comment false
            nft add rule inet watch in meta nfproto ipv4 udp dport 9998 counter comment own4
            nft add rule inet watch in meta nfproto ipv6 udp dport 9998 counter comment own6")?;
        let send = |reason: &str| -> Outcome<u64> {
            let mut command = from.netns().command("/usr/bin/python3");
            command.arg(&script).args(identity(from)?);
            command.args(victim.addresses.both().map(|address| address.to_string()));
            command.args(GATEWAY.both().map(|address| address.to_string()));
            command.args([reason, &TIMES.to_string()]);
            Ok(run(&mut command)?.success()?.trim().parse()?)
        };
        for reason in REASONS {
            let before = dropped(&net, reason)?;
            let sent = send(reason)?;
            wait_for(&format!("{sent} frames are dropped: {reason}"), Duration::from_secs(5), || {
                Ok((dropped(&net, reason)? - before >= sent).then_some(()))
            })?;
        }
        // What the pod may send shows that the watch would have seen the rest.
        send("none")?;
        for own in ["own4", "own6"] {
            wait_for("what may be sent arrives", Duration::from_secs(5), || {
                Ok((watched(victim.netns(), own)? > 0).then_some(()))
            })?;
        }
        let arrived = watched(victim.netns(), "false")?;
        ensure!(arrived == 0, "{name}: {arrived} packets under false names arrived");
        let mac = from.netns().sh("cat /sys/class/net/eth0/address")?;
        let neighbours = victim.netns().sh("ip neigh")?;
        ensure!(!neighbours.contains(mac.trim()), "{name} was told of another pod:\n{neighbours}");
        Ping::to(victim.addresses.v6).answered(from.netns())?;
    }
    // Who did it is known as well.
    let ports = net.node.control()?.ports()?;
    for reason in REASONS {
        let did = ports
            .iter()
            .filter(|port| port.drops.iter().any(|drop| drop.name == reason && drop.value >= 2 * TIMES));
        let did: Vec<_> = did.map(|port| port.owner.as_str()).collect();
        ensure!(did == ["default/pod-a"], "{reason}: counted for {did:?}");
    }
    Ok(())
}

/// The interface, its MAC address, its router's, and the pod's addresses.
fn identity(pod: &Pod) -> Outcome<[String; 5]> {
    let mac = pod.netns().sh("cat /sys/class/net/eth0/address")?;
    let (v4, v6) = (pod.addresses.v4.to_string(), pod.addresses.v6.to_string());
    Ok(["eth0".to_owned(), mac.trim().to_owned(), router_of(pod)?.trim().to_owned(), v4, v6])
}

/// Packets that came to a namespace with a watch, by the rule's comment; merged ones count as one.
pub(super) fn watched(netns: &net::Netns, rule: &str) -> Outcome<u64> {
    let counted = format!("s/.*counter packets \\([0-9]*\\) .*\"{rule}\".*/\\1/p");
    Ok(netns.sh(&format!("nft list table inet watch | sed -n '{counted}'"))?.trim().parse()?)
}

/// How long others are watched while a pod misbehaves.
const WATCHED: Duration = Duration::from_secs(2);

/// Two pods flood, one the far node and one a pod of this node, both through the one worker that all pods have.
fn floods(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let to = |pod: &str| SocketAddr::from((net.pod(pod).addresses.v4, 9));
    let alone = fares(&net)?;
    let floods = [
        Flood::start(net.pod("pod-a").netns(), to("pod-c"))?,
        Flood::start(net.pod("pod-b").netns(), to("pod-a"))?,
    ];
    let before = ports(&net)?;
    let flooded = fares(&net)?;
    let after = ports(&net)?;
    let sent: u64 = floods.iter().map(Flood::sent).sum();
    drop(floods);
    ensure!(sent > 10_000, "that was no flood: {sent} datagrams");
    for pod in ["default/pod-a", "default/pod-b"] {
        ensure!(after[pod].rx_packets - before[pod].rx_packets > 1000, "nothing came through from {pod}");
    }
    flooded.is_bearable(&alone)
}

/// A pod neither reads what a connection brings, nor what floods it, and then takes its interface down.
fn never_reads(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let silent = net.pod("pod-b");
    let alone = fares(&net)?;
    let listener = silent.netns().run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 7)))??;
    let to = |port| SocketAddr::from((silent.addresses.v4, port));
    let mut stream = net.pod("pod-d").netns().run(|| TcpStream::connect(to(7)))??;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut written = 0;
    while let Ok(more) = stream.write(&[0; 65536]) {
        written += more;
        ensure!(written < 1 << 30, "a connection that nobody reads takes everything");
    }
    let flood = Flood::start(net.pod("pod-a").netns(), to(9))?;
    fares(&net)?.is_bearable(&alone)?;
    silent.netns().ip("link set eth0 down")?;
    // By the workers, or by the kernel for what takes the short cut.
    let lost = || -> Outcome<u64> {
        let by_kernel = silent.netns().sh("cat /sys/class/net/eth0/statistics/rx_dropped")?;
        Ok(ports(&net)?["default/pod-b"].tx_dropped + by_kernel.trim().parse::<u64>()?)
    };
    let before = lost()?;
    fares(&net)?.is_bearable(&alone)?;
    let lost = lost()? - before;
    drop((flood, listener));
    ensure!(lost > 100, "only {lost} packets for an interface that is down were counted");
    Ok(())
}

/// How a client and a pod of the far node fare with each other.
#[derive(Debug)]
struct Fare {
    /// Time that 10 MB take.
    download: Duration,
    /// Requests in a second.
    requests: f64,
    /// The request that took longest.
    slowest: Duration,
}

fn fares(net: &Topology) -> Outcome<Fare> {
    let (client, to) =
        (net.pod("client").netns(), SocketAddr::from((net.pod("pod-c").addresses.v4, POD_PORT)));
    let begin = Instant::now();
    net::http::download(client, to, 10 << 20)?;
    let download = begin.elapsed();
    let load = Load::start(client, to)?;
    std::thread::sleep(WATCHED);
    let tally = load.finish()?;
    tally.nothing_lost(1)?;
    let requests = f64::from(tally.total()) / WATCHED.as_secs_f64();
    Ok(Fare { download, requests, slowest: tally.slowest })
}

impl Fare {
    /// Fails unless others had something left for it: on a machine with few CPUs a flood takes its share of them, wherever
    /// the packets go.
    fn is_bearable(&self, alone: &Self) -> Outcome {
        let fair = self.download < alone.download * 20 + Duration::from_secs(2)
            && self.requests > alone.requests / 20.0
            && self.slowest < Duration::from_secs(2);
        note(&format!("alone {alone:.1?}, beside others {self:.1?}"));
        ensure!(fair, "alone {alone:?}, beside others {self:?}");
        Ok(())
    }
}

fn vnet_headers(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let (from, to) = (net.pod("pod-a"), net.pod("pod-b"));
    for address in to.addresses.both() {
        Ping::to(address).answered(from.netns())?;
    }
    let script = context.file("vnet.py", VNET)?;
    let mut receive = to.netns().command("/usr/bin/python3");
    receive.arg(&script).args(["receive", "eth0", "3"]);
    let mut receiver = Process::spawn("receive", &mut receive, context.dir())?;
    wait_for("the receiver is there", Duration::from_secs(30), || {
        receiver.check_alive()?;
        Ok(receiver.log().contains("receiving").then_some(()))
    })?;
    let free = settled_mbufs(&net)?;
    let (before, refused) = (ports(&net)?, dropped(&net, "vnet-header")?);

    let mut send = from.netns().command("/usr/bin/python3");
    send.arg(&script).arg("send").args(identity(from)?);
    send.args(to.addresses.both().map(|address| address.to_string()));
    let taken: u64 = run(&mut send)?.success()?.trim().parse()?;
    ensure!(taken > 1500, "the kernel took only {taken} frames");
    let status = receiver.wait(Duration::from_secs(60))?;
    let log = receiver.log();
    ensure!(status.success(), "what arrived is wrong: {log}");
    let right: u64 = log.lines().last().unwrap_or_default().parse()?;

    let left = settled_mbufs(&net)?;
    ensure!(left == free, "{free} packet buffers were free before, {left} are now");
    let (after, refused) = (ports(&net)?, dropped(&net, "vnet-header")? - refused);
    let of = |pod: &Pod| {
        let owner = format!("default/{}", pod.name);
        let (before, after) = (before[&owner], after[&owner]);
        (
            after.rx_packets - before.rx_packets,
            after.rx_dropped - before.rx_dropped,
            after.tx_packets - before.tx_packets,
        )
    };
    let (received, dropped, _) = of(from);
    let (_, _, delivered) = of(to);
    // What was refused for its header was not received. A few packets of the pods' kernels go to the router. More come than
    // were sent, as the kernel cuts some of them by itself.
    let accounted = delivered + dropped - refused;
    ensure!(
        received.abs_diff(accounted) <= 30 && received + refused + 30 >= taken,
        "{taken} frames were sent; {received} received, {refused} refused for their header, {dropped} dropped with \
         these, {delivered} delivered"
    );
    ensure!(right > 50 && right <= delivered, "{right} packets arrived right, {delivered} were delivered");
    let to = Ping::to(net.pod("pod-c").addresses.v4);
    wait_for("the far node answers", Duration::from_secs(20), || Ok(to.answered(from.netns()).ok()))
}

/// Counters of each port, by owner.
fn ports(net: &Topology) -> Outcome<BTreeMap<String, PortCounters>> {
    let ports = net.node.control()?.ports()?;
    Ok(ports.into_iter().map(|port| (port.owner, port.counters.unwrap_or_default())).collect())
}

fn dropped(net: &Topology, reason: &str) -> Outcome<u64> {
    Ok(drops(&net.node.control()?.counters()?).get(reason).copied().unwrap_or(0))
}
