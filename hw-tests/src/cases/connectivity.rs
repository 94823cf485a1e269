//! Who reaches whom.

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns};
use crate::net::Ping;
use crate::topology::{GATEWAY, Topology, VTEP};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_pod_reaches_its_gateway", place: Netns, run: gateway },
    Case { name: "the_far_node_reaches_the_vtep", place: Netns, run: vtep },
    Case { name: "pods_of_one_node_reach_each_other", place: Netns, run: local },
    Case { name: "pods_reach_each_other_across_the_kernels_vxlan", place: Netns, run: overlay },
];

fn gateway(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    GATEWAY.both().into_iter().try_for_each(|address| Ping::to(address).answered(net.pod("pod-a").netns()))
}

fn vtep(context: &Context) -> Outcome {
    let net = Topology::without_pods(context)?;
    VTEP.both().into_iter().try_for_each(|address| Ping::to(address).answered(net.far.netns()))
}

fn local(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let (a, b) = (net.pod("pod-a"), net.pod("pod-b"));
    b.addresses.both().into_iter().try_for_each(|address| Ping::to(address).answered(a.netns()))
}

fn overlay(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    for (from, to) in [("pod-a", "pod-c"), ("pod-d", "pod-b")] {
        for address in net.pod(to).addresses.both() {
            let pong = Ping::to(address).from(net.pod(from).netns())?;
            ensure!(pong.received == pong.sent, "{from} to {to} {address}:\n{}", pong.text);
        }
    }
    Ok(())
}
