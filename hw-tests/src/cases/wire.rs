//! What goes over the wire between two nodes, read by tcpdump and held against scapy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::malformed::settled_mbufs;
use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{self, Ping, Process, run};
use crate::topology::{CLUSTER_IP, Family, Far, POD_PORT, SERVICE_PORT, Topology, VTEP};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "super_packets_become_the_segments_that_scapy_makes_of_them",
        place: Netns,
        run: |context| segments(context, Family::V4, ""),
    },
    Case {
        name: "super_packets_become_right_segments_over_an_ipv6_underlay",
        place: Netns,
        run: |context| segments(context, Family::V6, ""),
    },
    Case {
        name: "super_packets_become_right_segments_in_geneve",
        place: Netns,
        run: |context| segments(context, Family::V4, GENEVE),
    },
];

pub(super) const SCRIPT: &str = include_str!("../../scapy/segments.py");

/// The far node's kernel need not know Geneve: it only carries these packets.
const GENEVE: &str = ", encapsulation: geneve";

/// Super-packets of every kind from a pod to a pod on the far node and to a Service, and downloads beside them.
fn segments(context: &Context, underlay: Family, overlay: &str) -> Outcome {
    let net = Topology::start_across(context, underlay, overlay, None)?;
    net.node.manifests.service(&net.web(&["pod-c"]))?;
    net.wait_for_backends(1)?;
    let (from, to) = (net.pod("pod-a"), net.pod("pod-c"));
    let is_answered = overlay != GENEVE;
    for address in to.addresses.both() {
        // Unanswered it makes the next hop known as well.
        match is_answered {
            true => Ping::to(address).answered(from.netns())?,
            false => drop(Ping::to(address).unanswered(from.netns())?),
        }
    }
    keep_quiet(&net)?;

    let capture = context.dir().join("wire.pcap");
    let mut tcpdump = tcpdump(&net, &capture)?;
    let targets = [Family::V4, Family::V6].map(|family| {
        let (pod, vip) = (to.addresses.get(family), CLUSTER_IP.get(family));
        format!("{pod},{POD_PORT},{pod},{POD_PORT} {vip},{SERVICE_PORT},{pod},{POD_PORT}")
    });
    let about = [
        net.far.mtu().to_string(),
        from.addresses.v4.to_string(),
        from.addresses.v6.to_string(),
        targets.join(" "),
    ];
    let mac = from.netns().sh("cat /sys/class/net/eth0/address")?;
    let router = super::malformed::router_of(from)?;
    let script = context.file("segments.py", SCRIPT)?;
    let mut send = from.netns().command("/usr/bin/python3");
    send.arg(&script).arg("send").args(&about).args(["eth0", mac.trim(), router.trim()]);
    let sent: u64 = run(&mut send)?.success()?.trim().parse()?;
    ensure!(sent == 40, "{sent} super-packets were sent");
    if is_answered {
        for address in from.addresses.both() {
            net::http::download(net.pod("pod-d").netns(), (address, POD_PORT).into(), 1 << 18)?;
        }
    }
    settled_mbufs(&net)?;
    tcpdump.signal(Signal::SIGINT)?;
    tcpdump.wait(Duration::from_secs(5))?;
    ensure!(tcpdump.log().contains("\n0 packets dropped by kernel"), "tcpdump: {}", tcpdump.log());

    let mut check = Command::new("/usr/bin/python3");
    check.arg(&script).arg("check").args(&about).arg(&capture).args([
        VTEP.get(underlay).to_string(),
        "1500".to_owned(),
        "4096".to_owned(),
    ]);
    let looked_at: u64 = run(&mut check)?.success()?.trim().parse()?;
    // Those that are held against scapy's, byte by byte, and the downloads.
    let least = if is_answered { 900 } else { 568 };
    ensure!(looked_at >= least, "only {looked_at} packets crossed the wire");
    Ok(())
}

/// Lets no kernel answer what no kernel has sent.
fn keep_quiet(net: &Topology) -> Outcome {
    const DROP: &str = "nft add table inet quiet";
    net.pod("pod-a").netns().sh(&format!(
        "{DROP}; nft add chain inet quiet out '{{ type filter hook output priority 0; }}'
        nft add rule inet quiet out tcp flags rst drop"
    ))?;
    net.pod("pod-c").netns().sh(&format!(
        "{DROP}; nft add chain inet quiet in '{{ type filter hook prerouting priority 0; }}'
        nft add rule inet quiet in th sport 20000-20999 drop"
    ))?;
    Ok(())
}

/// Captures what comes out of the wire at the far node, from now on.
fn tcpdump(net: &Topology, capture: &Path) -> Outcome<Process> {
    let mut command = net.far.netns().command("tcpdump");
    command
        .args(["-i", Far::WIRE, "-B", "16384", "-s", "2048", "--immediate-mode", "-Q", "in", "-w"])
        .arg(capture);
    command.arg("udp");
    let dir = capture.parent().unwrap_or(Path::new("/"));
    let process = Process::spawn("tcpdump", &mut command, dir)?;
    wait_for("tcpdump listens", Duration::from_secs(5), || {
        Ok(process.log().contains("listening on").then_some(()))
    })?;
    Ok(process)
}
