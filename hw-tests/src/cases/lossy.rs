//! Much data over ways that lose and reorder packets. Client and hash are Debian's curl and sha256sum.

use std::net::SocketAddr;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop};
use crate::net::{self, run};
use crate::topology::{Family, Pod, Quality, Topology, Wire};

pub(super) const CASES: &[Case] = &[
    Case { name: "100_megabytes_pass_a_wire_that_loses_and_reorders", place: Netns, run: across },
    Case { name: "100_megabytes_pass_between_pods_that_lose_and_reorder", place: Netns, run: within },
];

const BYTES: usize = 100_000_000;

fn across(context: &Context) -> Outcome {
    let quality = Quality { lost: 2, overtaken: 10 };
    let net = Topology::start_across(context, Family::V4, "", Some(quality))?;
    only_backend(&net, "pod-c")?;
    both_ways(context, net.pod("client"))?;
    let (lost, overtaken) = net.wire.as_ref().map_or(Ok((0, 0)), Wire::harm)?;
    ensure!(lost > 100 && overtaken > 500, "the wire was too good: {lost} lost, {overtaken} overtaken");
    Ok(())
}

fn within(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    only_backend(&net, "pod-b")?;
    let pods = ["client", "pod-b"].map(|name| net.pod(name));
    pods.into_iter().try_for_each(spoil)?;
    both_ways(context, pods[0])?;
    for pod in pods {
        let (lost, overtaken) = (packets(pod, "lost")?, packets(pod, "late")?);
        ensure!(lost > 5 && overtaken > 5, "{}: {lost} lost, {overtaken} overtaken", pod.name);
    }
    Ok(())
}

fn only_backend(net: &Topology, name: &str) -> Outcome {
    net.node.manifests.service(&net.web(&[name]))?;
    net.wait_for_backends(1)
}

/// Down and up, through the Service, over both families.
fn both_ways(context: &Context, from: &Pod) -> Outcome {
    let bytes = context.dir().join("bytes");
    std::fs::write(&bytes, net::pattern(BYTES))?;
    let (file, sum) = (bytes.display(), |text: &str| text.split(' ').next().unwrap_or_default().to_owned());
    let wanted = sum(&run(std::process::Command::new("sha256sum").arg(&bytes))?.success()?);
    for family in Family::BOTH {
        let to: SocketAddr = Topology::web_address(family);
        let curl = "timeout 100 curl -sS --fail";
        let down = from.netns().sh(&format!("{curl} http://{to}/bytes/{BYTES} | sha256sum"))?;
        ensure!(sum(&down) == wanted, "down from {to}: {down} instead of {wanted}");
        let up = from.netns().sh(&format!("{curl} -H Expect: -T {file} http://{to}/"))?;
        ensure!(sum(&up) == wanted, "up to {to}: {up} instead of {wanted}");
    }
    Ok(())
}

/// Has a pod lose one of a hundred packets that come, and send one of a hundred by a slow way, so that others overtake it.
fn spoil(pod: &Pod) -> Outcome {
    let shaped = pod.netns().sh("tc qdisc add dev eth0 root handle 1: htb default 10
        tc class add dev eth0 parent 1: classid 1:10 htb rate 40gbit quantum 200000
        tc class add dev eth0 parent 1: classid 1:20 htb rate 200mbit quantum 200000");
    shaped.map_err(|stop| Stop::Skip(format!("no sch_htb to reorder with: {}", stop.text())))?;
    pod.netns().sh("nft add table netdev bad
        nft add chain netdev bad in '{ type filter hook ingress device eth0 priority 0; }'
        nft add rule netdev bad in numgen random mod 100 == 0 counter drop comment lost
        nft add table inet bad
        nft add chain inet bad out '{ type filter hook output priority 0; }'
        nft add rule inet bad out numgen random mod 100 == 0 counter meta priority set 1:20 comment late")?;
    Ok(())
}

/// Packets that a rule of [`spoil`] met.
fn packets(pod: &Pod, rule: &str) -> Outcome<u64> {
    let script = format!("nft list ruleset | sed -n 's/.*counter packets \\([0-9]*\\) .*\"{rule}\".*/\\1/p'");
    Ok(pod.netns().sh(&script)?.trim().parse()?)
}
