//! What is sent arrives, and goes by the short cut.

use std::process::Command;

use culvert_api::fastpath::Protocol;

use super::{PATIENCE, PORT, Talk, check_kernel, directly, serve, start};
use crate::cases::wire;
use crate::ensure;
use crate::frame::{Context, Outcome, wait_for};
use crate::net::{Process, run};
use crate::topology::{Family, Topology, TwoNodes};

/// Sent each way.
const BYTES: usize = 20 << 20;

const SCRIPT: &str = include_str!("../../../scapy/shortcut.py");

pub(super) fn two_nodes(context: &Context) -> Outcome {
    check_kernel()?;
    let net = TwoNodes::start(context.dir(), &[(Protocol::Tcp, PORT)])?;
    let talk = Talk::open(net.client(), (TwoNodes::VIP, PORT).into(), net.far())?;
    talk.exchange_by_the_short_cut(BYTES, &[net.client(), net.far()])
}

pub(super) fn on_the_wire(context: &Context) -> Outcome {
    /// Packets that are looked at.
    const LOOKED_AT: usize = 1500;
    check_kernel()?;
    let net = TwoNodes::start(context.dir(), &[(Protocol::Tcp, PORT)])?;
    // A device that makes no checksums gets packets that have theirs.
    for node in net.nodes() {
        node.sh(&format!("ethtool -K {} tx off >&2", TwoNodes::WIRE))?;
    }
    let talk = Talk::open(net.client(), (TwoNodes::VIP, PORT).into(), net.far())?;
    for pod in [net.client(), net.far()] {
        talk.take_the_short_cut(pod)?;
    }
    let capture = context.dir().join("wire.pcap");
    let mut command = net.nodes()[1].command("tcpdump");
    command.args(["-i", TwoNodes::WIRE, "-B", "16384", "-s", "2048", "--immediate-mode"]);
    command.args(["-c", &LOOKED_AT.to_string(), "-w"]).arg(&capture).arg("udp");
    let mut tcpdump = Process::spawn("tcpdump", &mut command, context.dir())?;
    wait_for("tcpdump listens", PATIENCE, || Ok(tcpdump.log().contains("listening on").then_some(())))?;
    // A little each way in turns: no direction is ahead of the other by much.
    talk.meanwhile(|| tcpdump.wait(PATIENCE).map(drop))?;
    talk.exchange_by_the_short_cut(BYTES / 4, &[net.client(), net.far()])?;

    // It makes use of what the other one has.
    context.file("segments.py", wire::SCRIPT)?;
    let mut check = Command::new("/usr/bin/python3");
    check.arg(context.file("shortcut.py", SCRIPT)?).arg("check").arg(&capture);
    check.args([TwoNodes::address(1, 2), TwoNodes::address(2, 3)].map(|address| address.to_string()));
    check.args([PORT.to_string(), TwoNodes::VNI.to_string()]);
    let looked_at: usize = run(&mut check)?.success()?.trim().parse()?;
    ensure!(looked_at == LOOKED_AT, "{looked_at} packets were looked at");
    Ok(())
}

pub(super) fn one_node(context: &Context) -> Outcome {
    let net = start(context)?;
    serve(&net, &["pod-b"], PORT)?;
    let (client, server) = (net.pod("client").netns(), net.pod("pod-b").netns());
    for to in [Topology::web_address(Family::V4), directly(&net, "pod-b")] {
        let carried = Talk::open(client, to, server)
            .and_then(|talk| talk.exchange_by_the_short_cut(BYTES, &[client, server]));
        carried.map_err(|stop| stop.while_doing(&to.to_string()))?;
    }
    Ok(())
}

pub(super) fn kernel(context: &Context) -> Outcome {
    let net = start(context)?;
    serve(&net, &["pod-c"], PORT)?;
    let (here, there) = (net.pod("client").netns(), net.pod("pod-c").netns());
    for (client, to, server) in [
        (here, Topology::web_address(Family::V4), there),
        (here, directly(&net, "pod-c"), there),
        (there, directly(&net, "client"), here),
    ] {
        let carried =
            Talk::open(client, to, server).and_then(|talk| talk.exchange_by_the_short_cut(BYTES, &[here]));
        carried.map_err(|stop| stop.while_doing(&to.to_string()))?;
    }
    Ok(())
}
