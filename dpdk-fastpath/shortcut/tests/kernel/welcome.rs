//! What opens connections from another node to pods of this one: who takes it.

use std::net::Ipv4Addr;

use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_shortcut::End;

use crate::frame::Segment;
use crate::node::{EPOCH, Node, vtep, wire_mac};
use crate::relay::{Station, enter_plain, passed};
use crate::uplinks::{By, PORTS, SERVER, Tunnelled, Uplink, is_marked, receive};
use crate::{Case, within};

/// Where the pod listens.
const LISTENING: u16 = 80;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_syn_reaches_a_pod_only_from_a_pod_of_its_node_and_undecided", syns),
        ("a_syn_needs_two_free_slots", full),
        ("a_pod_that_has_no_place_any_more_is_not_welcome", no_place),
        ("a_syn_to_a_pod_that_has_left_takes_no_slots", left),
        ("a_syn_is_hidden_from_nobody_where_no_program_takes_it", no_uplink),
    ]
}

/// A node whose kernel takes connections to its pod.
fn welcoming(node: Node) -> Uplink {
    let uplink = Uplink::of(node);
    uplink.node.welcomes(&uplink.pod, 3, true);
    uplink
}

/// Opens a connection to the pod from a port of the other node's.
fn syn(uplink: &Uplink, port: u16) -> Segment {
    let mut segment = uplink.segment(LISTENING);
    segment.ip.identification = 7;
    segment.tcp.source_port = port;
    (segment.tcp.syn, segment.tcp.ack) = (true, false);
    segment
}

fn seen(uplink: &Uplink, segment: &Segment) -> By {
    uplink.seen(&Tunnelled::default().frame(segment))
}

fn syns() {
    let mut uplink = welcoming(Node::new(1));
    let pod = uplink.pod.address;
    // Nobody has its number.
    let _first = uplink.node.pod(0);
    // One that the engine has decided, and that stays as it is.
    enter_plain(&uplink.node, (End::Way(0), End::Door(3)), (SERVER.0, 5000), (pod, LISTENING));
    // Somebody has had an address, and has not any more.
    let memory = uplink.node.kernel.memory();
    let gone = Ipv4Addr::new(10, 244, 1, 77);
    memory.set_place(gone, End::Door(3), true);
    memory.set_place(gone, End::Door(3), false);
    type Change = fn(&mut Segment, &mut Tunnelled);
    let changes: [(&str, Change, By); 13] = [
        ("nothing", |_, _| {}, By::Pod),
        ("once more", |_, _| {}, By::Pod),
        ("the first address of the node's pods", |s, _| s.ip.source = [10, 244, 2, 0], By::Pod),
        ("the last one", |s, _| s.ip.source = [10, 244, 2, 255], By::Pod),
        ("the one before", |s, _| s.ip.source = [10, 244, 1, 255], By::Socket),
        ("the one after", |s, _| s.ip.source = [10, 244, 3, 0], By::Socket),
        ("an address that nobody has", |s, _| s.ip.destination = [10, 244, 1, 78], By::Socket),
        ("an address that nobody has any more", |s, _| s.ip.destination = [10, 244, 1, 77], By::Socket),
        ("no address", |s, _| s.ip.destination = [0; 4], By::Socket),
        ("another node", |_, t| t.from = vtep(3), By::Socket),
        ("an answer", |s, _| (s.tcp.source_port, s.tcp.ack) = (4000, true), By::Socket),
        ("decided, as it is", |s, _| s.tcp.source_port = 5000, By::Pod),
        (
            "decided, as something else",
            |s, _| (s.tcp.source_port, s.tcp.destination_port) = (SERVER.1, PORTS[0]),
            By::Socket,
        ),
    ];
    for (change, apply, expected) in changes {
        let (mut segment, mut tunnelled) = (syn(&uplink, 3000), Tunnelled::default());
        apply(&mut segment, &mut tunnelled);
        assert_eq!(uplink.seen(&tunnelled.frame(&segment)), expected, "{change}");
    }
}

fn full() {
    // Both connections of the pod fill them.
    let uplink = welcoming(Node::with_slots(1, 4));
    let Uplink { node, pod, .. } = &uplink;
    assert_eq!(seen(&uplink, &syn(&uplink, 3000)), By::Socket, "none is free");
    let forget = |from: Station, to: Station, now| {
        let key = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, from, to);
        node.slots.forget(&key, now);
        node.slots.review(&mut 0, usize::MAX, EPOCH, now + 1000, |_| {});
    };
    let service = (Ipv4Addr::new(10, 96, 0, 1), 80);
    forget((pod.address, PORTS[0]), service, 1);
    assert_eq!(seen(&uplink, &syn(&uplink, 3000)), By::Socket, "one is free");
    // What came then has one direction, that of the answers, which nobody has answered.
    forget(SERVER, (pod.address, PORTS[0]), 1001);
    forget((pod.address, LISTENING), (SERVER.0, 3000), 2002);
    assert_eq!(seen(&uplink, &syn(&uplink, 3000)), By::Pod, "two are free");
}

fn no_place() {
    let uplink = welcoming(Node::new(1));
    assert_eq!(seen(&uplink, &syn(&uplink, 3000)), By::Pod);
    uplink.node.welcomes(&uplink.pod, 3, false);
    assert_eq!(seen(&uplink, &syn(&uplink, 3001)), By::Socket);
    // Another pod has the address, and after that it is this one's again.
    uplink.node.welcomes(&uplink.pod, 4, true);
    assert_eq!(seen(&uplink, &syn(&uplink, 3002)), By::Socket);
    uplink.node.welcomes(&uplink.pod, 3, true);
    uplink.node.welcomes(&uplink.pod, 4, false);
    assert_eq!(seen(&uplink, &syn(&uplink, 3003)), By::Pod);
}

fn left() {
    let mut uplink = welcoming(Node::new(1));
    uplink.node.kernel.leave_pod(3).unwrap();
    let marked = arrives_at_socket(&uplink, 3000);
    assert!(marked);
    let node = &uplink.node;
    // Those of the pod's own connections.
    assert_eq!((passed(node), node.slots.given()), (vec![], 2 * PORTS.len()));
}

fn no_uplink() {
    let mut uplink = welcoming(Node::new(1));
    assert_eq!(seen(&uplink, &syn(&uplink, 3000)), By::Pod);
    let Node { netns, kernel, .. } = &mut uplink.node;
    netns.within(|| kernel.join_uplink("nope", wire_mac(1), false).unwrap_err());
    assert!(arrives_at_socket(&uplink, 3001));
}

/// Opens a connection, and waits until the packet socket at the uplink has it.
fn arrives_at_socket(uplink: &Uplink, port: u16) -> bool {
    uplink.tap.write(&Tunnelled::default().frame(&syn(uplink, port)));
    within("the socket has it", || {
        std::iter::from_fn(|| receive(&uplink.at_uplink)).find(|frame| is_marked(frame, 7))
    });
    !std::iter::from_fn(|| receive(&uplink.in_pod)).any(|frame| is_marked(&frame, 7))
}
