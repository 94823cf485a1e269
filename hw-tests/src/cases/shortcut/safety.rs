//! The short cut takes nothing that the fast path would not.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::{CULVERT0, PATIENCE, PORT, Talk, directly, start, through_the_service};
use crate::cases::malformed::router_of;
use crate::cases::protection::watched;
use crate::ensure;
use crate::frame::{Context, Outcome, Stop, wait_for};
use crate::net::{Netns, Ping, http, run};
use crate::topology::{CLUSTER_IP, Family, GATEWAY, POD_PORT, Pod, SERVICE_PORT, Topology};

/// More than what a connection keeps its slots without a packet.
const SILENCE: Duration = Duration::from_secs(12);

const SCRIPT: &str = include_str!("../../../scapy/shortcut.py");

/// IP identification of packets that must not arrive, and of those that must.
const FORGED: u16 = 0xbeef;
const OWN: u16 = 0xcafe;

/// A TCP segment that a pod makes by itself.
#[derive(Debug, Clone)]
struct Segment {
    interface: &'static str,
    source_mac: String,
    router_mac: String,
    source: (Ipv4Addr, u16),
    target: (Ipv4Addr, u16),
    ttl: u8,
    /// Of the IP packet.
    length: u16,
    id: u16,
}

impl Segment {
    /// The next one of a pod's connection.
    fn of(pod: &Pod, talk: &Talk, target: (Ipv4Addr, u16)) -> Outcome<Self> {
        let mac = pod.netns().sh("cat /sys/class/net/eth0/address")?;
        Ok(Self {
            interface: CULVERT0,
            source_mac: mac.trim().to_owned(),
            router_mac: router_of(pod)?.trim().to_owned(),
            source: (pod.addresses.v4, talk.client.local_addr()?.port()),
            target,
            ttl: 64,
            length: 100,
            id: FORGED,
        })
    }

    /// Sends it from inside a pod; what ICMP says to that, if it is waited for.
    fn send(&self, context: &Context, from: &Pod, mode: &str) -> Outcome<String> {
        context.file("segments.py", crate::cases::wire::SCRIPT)?;
        let mut command = from.netns().command("/usr/bin/python3");
        command.arg(context.file("shortcut.py", SCRIPT)?).args([mode, self.interface]);
        command.args([&self.source_mac, &self.router_mac]);
        for (address, port) in [self.source, self.target] {
            command.args([address.to_string(), port.to_string()]);
        }
        command.args([u16::from(self.ttl), self.length, self.id].map(|number| number.to_string()));
        run(&mut command)?.success()
    }
}

pub(super) fn forged(context: &Context) -> Outcome {
    let net = start(context)?;
    let (from, victim) = (net.pod("pod-a"), net.pod("client"));
    // Their router's address becomes known as well.
    for pod in [from, victim] {
        Ping::to(IpAddr::from(GATEWAY.v4)).answered(pod.netns())?;
    }
    let others = through_the_service(&net, "pod-c")?;
    let own = Talk::open(from.netns(), directly(&net, "pod-b"), net.pod("pod-b").netns())?;
    own.take_the_short_cut(from.netns())?;
    let watching = [victim.netns(), net.pod("pod-b").netns(), net.pod("pod-c").netns(), net.far.netns()];
    for netns in watching {
        watch(netns)?;
    }

    let right = Segment::of(from, &own, (net.pod("pod-b").addresses.v4, PORT))?;
    let of_others = Segment::of(victim, &others, (CLUSTER_IP.v4, SERVICE_PORT))?;
    let macs = [right.source_mac.clone(), of_others.source_mac.clone()];
    ensure!(macs[0] != macs[1], "two pods have the MAC address {}", macs[0]);
    let before = undecided(&net)?;
    let forged = [
        // Another pod's connection, under either name.
        of_others.clone(),
        Segment { source_mac: macs[0].clone(), ..of_others.clone() },
        // The pod's own connection, under another one's name.
        Segment { source_mac: macs[1].clone(), ..right.clone() },
        // Not to the router.
        Segment { router_mac: macs[1].clone(), ..right.clone() },
        // An address that is not the pod's.
        Segment { source: (Ipv4Addr::new(10, 244, 1, 99), right.source.1), ..right.clone() },
        // Connections that nobody knows.
        Segment { source: (right.source.0, 1), ..right.clone() },
        Segment { target: (net.pod("pod-c").addresses.v4, PORT), ..right.clone() },
        Segment { target: (victim.addresses.v4, PORT), ..right.clone() },
        // More than the path can take, and without a hop left.
        Segment { ttl: 1, ..right.clone() },
    ];
    // On a machine that is busy a connection may otherwise be idle for so long that it is undecided.
    let in_use =
        || own.take_the_short_cut(from.netns()).and_then(|()| others.take_the_short_cut(victim.netns()));
    for segment in &forged {
        in_use()?;
        segment.send(context, from, "send")?;
    }
    wait_for("what was forged is counted", PATIENCE, || {
        Ok((undecided(&net)? == before + forged.len() as u64).then_some(()))
    })?;
    // What may be sent shows that the watch would have seen the rest.
    for (pod, segment, to) in [(from, right, "pod-b"), (victim, of_others, "pod-c")] {
        let segment = Segment { id: OWN, ..segment };
        wait_for(&format!("what may be sent arrives at {to}"), PATIENCE, || {
            in_use()?;
            segment.send(context, pod, "send")?;
            Ok((watched(net.pod(to).netns(), "own")? > 0).then_some(()))
        })?;
    }
    for netns in watching {
        let arrived = watched(netns, "false")?;
        ensure!(arrived == 0, "{arrived} packets under false names came to {}", netns.name());
    }
    own.exchange(10_000)?;
    others.exchange(10_000)
}

/// Packets that came by a pod's short cut without a decision, as people see them.
fn undecided(net: &Topology) -> Outcome<u64> {
    let status: Value = serde_json::from_str(&net.node.agent.says(&["status", "-o", "json"])?)?;
    let count = &status["fastpath"]["shortCut"]["drops"]["undecided"];
    count.as_u64().ok_or_else(|| Stop::fail(format!("{status} has no count of them")))
}

pub(super) fn dead(context: &Context) -> Outcome {
    let net = start(context)?;
    let (from, node) = (net.pod("pod-a"), net.node.netns());
    Ping::to(IpAddr::from(GATEWAY.v4)).answered(from.netns())?;
    let talk = Talk::open(from.netns(), directly(&net, "pod-b"), net.pod("pod-b").netns())?;
    talk.take_the_short_cut(from.netns())?;
    watch(node)?;
    let forwarders = net.node.forwarders()?;
    // The keeper first: it would start another one.
    net.node.signal_fastpath(Signal::SIGKILL)?;
    for id in forwarders {
        // It may have ended with its keeper.
        let _ = kill(id, Signal::SIGKILL);
    }
    let arrived = || -> Outcome<u64> {
        let counts = node.sh("cat /sys/class/net/culvert-p*/statistics/rx_packets")?;
        Ok(counts.split_whitespace().filter_map(|count| count.parse::<u64>().ok()).sum())
    };
    let (before, all) = (arrived()?, "ff:ff:ff:ff:ff:ff".to_owned());
    let segment = Segment::of(from, &talk, (net.pod("pod-b").addresses.v4, PORT))?;
    // To whoever is there, which the node's kernel would take for itself.
    Segment { router_mac: all, ..segment }.send(context, from, "send")?;
    wait_for("what a pod writes comes to the node's end", PATIENCE, || {
        Ok((arrived()? > before).then_some(()))
    })?;
    let taken = watched(node, "false")?;
    ensure!(taken == 0, "the node took {taken} packets of a pod");
    Ok(())
}

/// Counts in a namespace what was forged, and what was not.
fn watch(netns: &Netns) -> Outcome {
    netns.sh(&format!(
        "nft add table inet watch
        nft add chain inet watch in '{{ type filter hook prerouting priority -400; }}'
        nft add rule inet watch in ip id {FORGED} counter comment false
        nft add rule inet watch in ip id {OWN} counter comment own"
    ))?;
    Ok(())
}

pub(super) fn answered(context: &Context) -> Outcome {
    let net = start(context)?;
    let client = net.pod("client");
    Ping::to(IpAddr::from(GATEWAY.v4)).answered(client.netns())?;
    // A pod that was told of a larger MTU than the path has.
    client.netns().ip("link set eth0 mtu 1500")?;
    for server in ["pod-c", "pod-b"] {
        let talk = through_the_service(&net, server)?;
        let target = (CLUSTER_IP.v4, SERVICE_PORT);
        let usual = Segment { interface: "eth0", ..Segment::of(client, &talk, target)? };
        for (segment, says) in [
            (Segment { ttl: 1, ..usual.clone() }, "11 0 0"),
            (Segment { length: 1451, ..usual.clone() }, "3 4 1450"),
        ] {
            let heard = segment.send(context, client, "ask")?;
            let expected = format!("{} {says} {}:{}", GATEWAY.v4, target.0, target.1);
            ensure!(heard.trim() == expected, "{server}: heard {heard:?} instead of {expected:?}");
        }
        talk.exchange(10_000)?;
    }
    Ok(())
}

/// A connection to an endpoint itself, and one through the Service that begins while that is there, by the same port.
pub(super) fn alike(context: &Context) -> Outcome {
    let net = start(context)?;
    let client = net.pod("client").netns();
    let web = Topology::web_address(Family::V4);
    for name in ["pod-a", "pod-c"] {
        // What is not on the short cut is not known.
        Talk::open(client, directly(&net, name), net.pod(name).netns())?.take_the_short_cut(client)?;
        let endpoint = (net.pod(name).addresses.v4, POD_PORT).into();
        // The Service chooses that one for a quarter of all ports.
        let mut alike = 0;
        for port in 41_000..41_032 {
            let directly = http::connect_from(client, port, endpoint)?;
            alike += u32::from(http::name_from(client, port, web)? == name);
            let answer = http::name_over(directly)?;
            ensure!(answer == name, "{answer} answered for {name}");
        }
        ensure!(alike > 0, "the Service has never chosen {name}");
    }
    Ok(())
}

/// The same while the former has been silent for so long that the short cut knows nothing of it.
pub(super) fn alike_later(context: &Context) -> Outcome {
    let net = start(context)?;
    let client = net.pod("client").netns();
    let web = Topology::web_address(Family::V4);
    // From here on the kernel opens connections to it.
    http::name(client, web)?;
    let endpoint = |name| (net.pod(name).addresses.v4, POD_PORT).into();
    let ports = (43_000_u16..43_024).zip(["pod-a", "pod-c"].into_iter().cycle());
    let talks = ports.map(|(port, name)| Ok((port, name, http::connect_from(client, port, endpoint(name))?)));
    let talks = talks.collect::<Outcome<Vec<_>>>()?;
    thread::sleep(SILENCE);
    let mut alike = 0;
    for (port, name, directly) in talks {
        alike += u32::from(http::name_from(client, port, web)? == name);
        let answer = http::name_over(directly)?;
        ensure!(answer == name, "{answer} answered for {name}");
    }
    ensure!(alike > 0, "the Service has chosen none of the same endpoints");
    Ok(())
}
