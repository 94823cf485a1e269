//! Who reaches whom, how far, and with packets of which size.

use std::net::IpAddr;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns};
use crate::net::{self, Ping};
use crate::topology::{Family, GATEWAY, POD_PORT, Topology, VTEP};

pub(super) const CASES: &[Case] = &[
    Case { name: "the_far_node_reaches_the_vtep", place: Netns, run: vtep },
    Case { name: "a_pod_reaches_its_gateway", place: Netns, run: gateway },
    Case { name: "pods_reach_each_other_here_and_across_the_kernels_vxlan", place: Netns, run: pods },
    Case { name: "a_download_arrives_unchanged", place: Netns, run: download },
    Case { name: "a_packet_without_hops_left_is_answered_by_the_router", place: Netns, run: hops },
    Case { name: "packets_as_large_as_the_mtu_pass_whole", place: Netns, run: mtu },
    Case { name: "a_packet_too_big_is_answered_with_the_mtu", place: Netns, run: too_big },
];

fn vtep(context: &Context) -> Outcome {
    let net = Topology::without_pods(context)?;
    VTEP.both().into_iter().try_for_each(|address| Ping::to(address).answered(net.far.netns()))
}

fn gateway(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    GATEWAY.both().into_iter().try_for_each(|address| Ping::to(address).answered(net.pod("pod-a").netns()))
}

/// From and to: within this node, from here to there, from there to here.
const WAYS: [(&str, &str); 3] = [("pod-a", "pod-b"), ("pod-a", "pod-c"), ("pod-d", "pod-b")];

fn pods(context: &Context) -> Outcome {
    each_way(context, |from, to| Ping::to(to).answered(from))
}

fn download(context: &Context) -> Outcome {
    each_way(context, |from, to| net::http::download(from, (to, POD_PORT).into(), 1 << 20))
}

fn mtu(context: &Context) -> Outcome {
    each_way(context, |from, to| Ping::to(to).unfragmented(1450).answered(from))
}

fn hops(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    for (family, says) in [(Family::V4, "Time to live exceeded"), (Family::V6, "Hop limit")] {
        let router = GATEWAY.get(family).to_string();
        for to in ["pod-b", "pod-c"] {
            let ping = Ping::to(net.pod(to).addresses.get(family)).hops(1);
            let pong = ping.unanswered(net.pod("pod-a").netns())?;
            ensure!(pong.text.contains(&router) && pong.text.contains(says), "{}", pong.text);
        }
        // This node's router, the far node's, and then the pod.
        Ping::to(net.pod("pod-c").addresses.get(family)).hops(2).unanswered(net.pod("pod-a").netns())?;
        Ping::to(net.pod("pod-c").addresses.get(family)).hops(3).answered(net.pod("pod-a").netns())?;
    }
    Ok(())
}

fn too_big(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    // A pod that was told of a larger MTU than the path has: only the router can set it right.
    net.pod("pod-a").netns().ip("link set eth0 mtu 1500")?;
    for to in ["pod-b", "pod-c"] {
        for (family, says) in [(Family::V4, "mtu = 1450"), (Family::V6, "mtu=1450")] {
            let ping = Ping::to(net.pod(to).addresses.get(family)).unfragmented(1451);
            let pong = ping.unanswered(net.pod("pod-a").netns())?;
            ensure!(pong.text.contains(says), "to {to}:\n{}", pong.text);
        }
    }
    Ok(())
}

fn each_way(context: &Context, holds: impl Fn(&net::Netns, IpAddr) -> Outcome) -> Outcome {
    let net = Topology::start(context)?;
    for (from, to) in WAYS {
        for address in net.pod(to).addresses.both() {
            holds(net.pod(from).netns(), address).map_err(|s| s.while_doing(&format!("{from} to {to}")))?;
        }
    }
    Ok(())
}
