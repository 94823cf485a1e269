//! Decided connections of pods go by programs in the kernel: the short cut.

mod bytes;
mod counts;
mod datagrams;
mod pods;
mod safety;
mod tables;
mod talk;

use std::net::SocketAddr;
use std::time::Duration;

use self::talk::Talk;
use super::icmp::serve;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop, wait_for};
use crate::net::{Netns as Namespace, run};
use crate::topology::{Family, Topology};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "bytes_through_a_service_to_another_node_take_the_short_cut",
        place: Netns,
        run: bytes::two_nodes,
    },
    Case { name: "packets_of_the_short_cut_are_right_on_the_wire", place: Netns, run: bytes::on_the_wire },
    Case { name: "bytes_within_the_node_take_the_short_cut", place: Netns, run: bytes::one_node },
    Case { name: "bytes_to_and_from_the_kernels_vxlan_take_the_short_cut", place: Netns, run: bytes::kernel },
    Case {
        name: "a_connection_on_the_short_cut_is_refused_when_its_endpoint_goes",
        place: Netns,
        run: tables::removed,
    },
    Case {
        name: "a_connection_on_the_short_cut_is_refused_when_its_endpoint_goes_after_kill_9",
        place: Netns,
        run: tables::removed_after_kill,
    },
    Case { name: "a_connection_on_the_short_cut_outlives_what_is_added", place: Netns, run: tables::added },
    Case { name: "a_flow_on_the_short_cut_lives_and_ends_in_the_listing", place: Netns, run: counts::flow },
    Case { name: "what_went_by_the_short_cut_is_counted", place: Netns, run: counts::counted },
    Case {
        name: "what_a_pod_writes_to_the_short_cut_by_itself_reaches_nobody_and_is_counted",
        place: Netns,
        run: safety::forged,
    },
    Case {
        name: "the_node_gets_nothing_by_the_short_cut_of_a_fast_path_that_is_dead",
        place: Netns,
        run: safety::dead,
    },
    Case {
        name: "packets_of_the_short_cut_without_hops_left_or_too_big_are_answered",
        place: Netns,
        run: safety::answered,
    },
    Case {
        name: "a_port_in_use_towards_an_endpoint_serves_its_service_too",
        place: Netns,
        run: safety::alike,
    },
    Case {
        name: "a_port_long_silent_towards_an_endpoint_serves_its_service_too",
        place: Netns,
        run: safety::alike_later,
    },
    Case {
        name: "datagrams_through_a_service_and_to_pods_take_the_short_cut",
        place: Netns,
        run: datagrams::carried,
    },
    Case {
        name: "a_datagram_on_the_short_cut_goes_to_another_endpoint_when_its_own_goes",
        place: Netns,
        run: datagrams::moved,
    },
    Case {
        name: "a_datagram_on_the_short_cut_is_refused_by_who_does_not_listen",
        place: Netns,
        run: datagrams::refused,
    },
    Case {
        name: "questions_by_one_datagram_and_silent_flows_have_no_place_in_the_short_cut",
        place: Netns,
        run: datagrams::silent,
    },
    Case { name: "a_pod_without_its_short_cut_goes_on_and_gets_another", place: Netns, run: pods::deleted },
    Case { name: "a_pod_that_sets_its_short_cut_down_goes_on_without_it", place: Netns, run: pods::down },
    Case {
        name: "a_pod_that_is_attached_again_takes_the_short_cut_again",
        place: Netns,
        run: pods::attached_again,
    },
    Case {
        name: "connections_on_the_short_cut_go_on_while_the_fast_path_stands_still",
        place: Netns,
        run: pods::still,
    },
    Case {
        name: "a_stream_on_the_short_cut_to_another_node_outlives_kill_9_twice",
        place: Netns,
        run: |context| pods::killed(context, "pod-c"),
    },
    Case {
        name: "a_stream_on_the_short_cut_within_the_node_outlives_kill_9_twice",
        place: Netns,
        run: |context| pods::killed(context, "pod-b"),
    },
    Case { name: "a_short_cut_that_is_switched_off_is_not_there", place: Netns, run: pods::off },
];

/// What the programs need (tcx).
const OLDEST: (u32, u32) = (6, 6);

/// Port that the case itself listens on in pods.
const PORT: u16 = 9000;

/// The interface of a pod that leads to the short cut.
const CULVERT0: &str = "culvert0";

/// Long enough for whatever is done a few times a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Skips the case where the kernel is too old.
fn check_kernel() -> Outcome {
    let release = run(std::process::Command::new("uname").arg("-r"))?.success()?;
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        let (major, minor) = OLDEST;
        return Err(Stop::Skip(format!(
            "the short cut needs Linux {major}.{minor}; this is Linux {}",
            release.trim()
        )));
    }
    Ok(())
}

/// Everything started, a veth between the nodes.
fn start(context: &Context) -> Outcome<Topology> {
    check_kernel()?;
    Topology::start_by_veth(context, "")
}

/// A connection of the pod "client" through the Service to this pod, once it goes by the short cut.
fn through_the_service(net: &Topology, server: &str) -> Outcome<Talk> {
    serve(net, &[server], PORT)?;
    let client = net.pod("client").netns();
    let talk = Talk::open(client, Topology::web_address(Family::V4), net.pod(server).netns())?;
    talk.take_the_short_cut(client)?;
    Ok(talk)
}

/// Where the case itself listens in a pod.
fn directly(net: &Topology, pod: &str) -> SocketAddr {
    (net.pod(pod).addresses.v4, PORT).into()
}

/// Waits until the short cut carries what a pod sends, from now on.
fn wait_until_carried(pod: &Namespace) -> Outcome {
    let mut last = u64::MAX;
    wait_for("the pod's packets go by the short cut", PATIENCE, || {
        let now = talk::packets(pod, CULVERT0)?.map_or(u64::MAX, |packets| packets.sent);
        let grew = now != u64::MAX && now > last;
        last = now;
        Ok(grew.then_some(()))
    })
}
