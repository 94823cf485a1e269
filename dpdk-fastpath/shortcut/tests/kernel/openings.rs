//! Connections of pods to services that the kernel opens.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_shortcut::{Choice, Direction, End};
use nix::time::{ClockId, clock_gettime};

use crate::frame::Segment;
use crate::node::{EPOCH, GATEWAY, MTU, Node, Pod};
use crate::paths::{PORT, SERVICE, transfer};
use crate::relay::{Station, enter_plain, passed, relay};
use crate::tap::Tap;
use crate::unusual::{ByTheShortCut, ToTheFastPath, send, went};
use crate::{Case, within};

/// The number of the tables.
const SERIAL: u64 = 0x1_0000_0007;
/// Where connections of the other cases come from.
const CLIENT: u16 = 2000;
/// Packets to the other node.
const WAY_MTU: u16 = 1200;
/// Endpoints: on the other node; that has to be asked for; on this node, without a door; and one more on the other node.
const ENDPOINTS: [(Ipv4Addr, Option<End>); 4] = [
    (Ipv4Addr::new(10, 244, 2, 3), Some(End::Way(0))),
    (Ipv4Addr::new(10, 244, 2, 4), None),
    (Ipv4Addr::new(10, 244, 1, 9), Some(End::Door(9))),
    (Ipv4Addr::new(10, 244, 2, 5), Some(End::Way(0))),
];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_connection_to_a_service_needs_nobody_but_the_kernel", alone),
        ("the_kernel_chooses_an_endpoint_by_the_hash_of_the_fast_path", choices),
        ("a_syn_to_a_service_is_for_the_fast_path_unless_all_is_known", conditions),
        ("a_syn_under_another_pods_name_opens_nothing", under_false_name),
        ("a_syn_to_a_service_needs_two_free_slots", full),
        ("an_endpoint_that_goes_on_instead_of_answering_is_for_the_fast_path", stray),
        ("what_the_kernel_has_opened_is_told_of_once_and_again_if_it_has_to_wait", told),
    ]
}

fn now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap()).as_nanos() as u64
}

/// Tells the kernel of a service, and of a pod of this node at port 3.
fn tell(node: &Node, pod: &Pod, choices: &[u8], endpoints: &[(Ipv4Addr, Option<End>)]) {
    let memory = node.kernel.memory();
    node.welcomes(pod, 3, true);
    memory.set_serial(SERIAL);
    memory.set_alive(Some(now()));
    let endpoints = endpoints.iter().map(|&(address, to)| Choice { address, port: PORT, to });
    let choices = choices.iter().copied();
    assert!(node.slots.open_by_kernel((SERIAL, SERVICE), choices, endpoints, 1));
    assert!(node.slots.is_opened_by_kernel(SERIAL, SERVICE));
}

/// What the kernel has opened since the last time.
fn heard(node: &Node) -> Vec<(u32, Direction)> {
    let mut all = Vec::new();
    node.slots.hear_of_opened(|epoch, direction| {
        all.push((epoch, *direction));
        true
    });
    all
}

fn alone() {
    let (mut near, mut far) = (Node::new(1), Node::new(2));
    near.wire(2, &far.netns);
    near.connect(2, MTU);
    far.connect(1, MTU);
    let (client, server) = (near.pod(3), far.pod(4));
    far.welcomes(&server, 4, true);
    let listening = (server.address, PORT);
    tell(&near, &client, &[0], &[(server.address, Some(End::Way(0)))]);
    let open = |syn| panic!("at the tap: {syn:?}");
    let done = AtomicBool::new(false);
    let ((), seen) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                near.kernel.memory().set_alive(Some(now()));
                thread::sleep(Duration::from_millis(1));
            }
        });
        let transfer = || transfer(&client.netns, SERVICE, &server.netns, listening);
        let seen = relay([&client, &server], open, transfer);
        done.store(true, Ordering::Relaxed);
        seen
    });
    assert_eq!((seen.opening, seen.others), (0, vec![]));
    assert!(near.slots.are_any_opened());
    let [(EPOCH, opened)] = heard(&near)[..] else { panic!("one connection") };
    assert_eq!((opened.from, opened.to), (End::Door(3), End::Way(0)));
    assert_eq!((opened.key.src(), (opened.key.dst(), opened.key.dst_port())), (client.address, SERVICE));
    assert_eq!((opened.becomes.dst(), opened.becomes.dst_port()), listening);
    assert_eq!(passed(&near).len(), 2, "in both directions");
    assert!(!far.slots.are_any_opened(), "nothing is to be decided there");
}

/// A node with one pod at port 3, whose uplink is a tap.
fn node() -> (Node, Pod, Tap) {
    node_with(Node::new(1))
}

fn node_with(mut node: Node) -> (Node, Pod, Tap) {
    let uplink = node.netns.within(|| Tap::new("wire"));
    node.netns.ip("link set wire up");
    node.connect(2, WAY_MTU);
    let pod = node.pod(3);
    (node, pod, uplink)
}

fn syn(pod: &Pod, port: u16) -> Segment {
    let mut syn = Segment::new((pod.mac, (pod.address, port)), (GATEWAY, SERVICE), 0);
    (syn.tcp.syn, syn.tcp.ack) = (true, false);
    syn
}

/// Sends a segment from a pod, and returns what was opened for it; `None` if it came to the tap.
fn opened(node: &Node, pod: &Pod, segment: &Segment) -> Option<Direction> {
    let memory = node.kernel.memory();
    if memory.is_alive() {
        // Since then this thread may have waited for others.
        memory.set_alive(Some(now()));
    }
    send(&pod.netns, &segment.packet());
    within("the packet goes somewhere", || {
        let is_it = |frame: Vec<u8>| {
            let found = Segment::parse(&frame);
            found.is_some_and(|found| found.tcp.source_port == segment.tcp.source_port)
        };
        match &heard(node)[..] {
            [] => std::iter::from_fn(|| pod.tap.read()).any(is_it).then_some(None),
            [(EPOCH, opened)] => Some(Some(*opened)),
            more => panic!("{more:?}"),
        }
    })
}

fn choices() {
    let (node, pod, _uplink) = node();
    // As many as there can be, in no order.
    let choices: Vec<u8> = (0..8192_u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 30) as u8).collect();
    tell(&node, &pod, &choices, &ENDPOINTS);
    let mut chosen = [0; ENDPOINTS.len()];
    for port in 3000..3200 {
        let key = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (pod.address, port), SERVICE);
        let part = (u128::from(key.hash64()) * choices.len() as u128) >> 64;
        let expected = usize::from(choices[part as usize]);
        let opened = opened(&node, &pod, &syn(&pod, port));
        let endpoint = ENDPOINTS[expected];
        match endpoint {
            (address, Some(way @ End::Way(_))) => {
                let opened = opened.unwrap();
                assert_eq!((opened.from, opened.key, opened.to), (End::Door(3), key, way));
                let from = (pod.address, port);
                let becomes = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, from, (address, PORT));
                assert_eq!(opened.becomes, becomes);
                let back = node.slots.direction(EPOCH, way, &becomes.reversed()).unwrap();
                assert_eq!((back.becomes, back.to), (key.reversed(), End::Door(3)));
            }
            // Slots for it are of no use as long as there is no such door.
            (address, Some(End::Door(_))) => assert_eq!(opened.map(|o| o.becomes.dst()), Some(address)),
            (_, None) => assert_eq!(opened, None),
        }
        chosen[expected] += 1;
    }
    assert!(chosen.iter().all(|times| *times > 20), "{chosen:?}");
}

fn conditions() {
    let (node, pod, _uplink) = node();
    let other = (Ipv4Addr::new(10, 244, 2, 3), PORT);
    let all = || tell(&node, &pod, &[0], &ENDPOINTS[..1]);
    let memory = node.kernel.memory();
    let next = Cell::new(CLIENT);
    let is_opened = |change: &dyn Fn(&mut Segment)| {
        next.set(next.get() + 1);
        let mut segment = syn(&pod, next.get());
        change(&mut segment);
        opened(&node, &pod, &segment).is_some()
    };
    all();
    assert!(is_opened(&|_| {}), "all is known");
    type Change = fn(&mut Segment);
    let changes: [(&str, Change); 7] = [
        ("another address", |s| s.ip.destination[3] += 1),
        ("another port", |s| s.tcp.destination_port = 81),
        ("the end at once", |s| s.tcp.fin = true),
        ("a reset at once", |s| s.tcp.rst = true),
        ("an answer", |s| s.tcp.ack = true),
        ("the last hop", |s| s.ip.time_to_live = 1),
        ("longer than the way", |s| s.payload.resize(usize::from(WAY_MTU), 0)),
    ];
    for (what, change) in changes {
        all();
        // The way is looked at when it is opened already.
        assert_eq!(is_opened(&change), what == "longer than the way", "{what}");
    }
    type Prepare<'a> = &'a dyn Fn();
    let cases: [(&str, Prepare<'_>); 6] = [
        ("other tables", &|| memory.set_serial(SERIAL + 1)),
        ("tables of which nothing is known", &|| memory.set_serial(0)),
        ("a worker that wants nothing opened", &|| memory.set_alive(None)),
        ("a pod that has no place", &|| node.welcomes(&pod, 3, false)),
        ("no epoch", &|| memory.set_epoch(0)),
        ("a pod of another port", &|| node.welcomes(&pod, 5, true)),
    ];
    for (what, prepare) in cases {
        all();
        memory.set_epoch(EPOCH);
        prepare();
        assert!(!is_opened(&|_| {}), "{what}");
    }
    node.welcomes(&pod, 5, false);
    all();
    memory.set_alive(Some(now() - 200_000_000));
    let segment = syn(&pod, next.get() + 1);
    send(&pod.netns, &segment.packet());
    within("who is long gone is asked all the same", || {
        let all = std::iter::from_fn(|| pod.tap.read());
        let mut ports = all.filter_map(|frame| Segment::parse(&frame)).map(|found| found.tcp.source_port);
        ports.any(|port| port == segment.tcp.source_port).then_some(())
    });
    all();
    next.set(next.get() + 1);
    assert!(is_opened(&|_| {}), "all is known again");
    // To itself.
    tell(&node, &pod, &[0], &[(pod.address, Some(End::Door(3)))]);
    assert!(!is_opened(&|_| {}), "to itself");
    all();
    // Another connection has the answers.
    let from: Station = (pod.address, next.get() + 1);
    enter_plain(&node, (End::Door(3), End::Way(0)), from, other);
    assert!(!is_opened(&|_| {}), "answers are another one's");
    // Twice the same: the second is to be decided.
    let again = syn(&pod, next.get() + 1);
    assert!(opened(&node, &pod, &again).is_some() && opened(&node, &pod, &again).is_none());
    assert_eq!(node.dropped(), [0; 4]);
}

fn stray() {
    let (mut node, server, _uplink) = node();
    let pod = node.pod(4);
    node.welcomes(&pod, 4, true);
    // Nobody listens; that must not be said.
    server.netns.ip(&format!("route add blackhole {}", pod.address));
    tell(&node, &server, &[0], &[(server.address, Some(End::Door(3)))]);
    for (port, answers) in [(CLIENT, &[(true, false), (false, false)][..]), (CLIENT + 1, &[(false, true)])] {
        assert!(opened(&node, &pod, &syn(&pod, port)).is_some());
        passed(&node);
        let answer = |id, (syn, rst)| {
            let mut answer =
                Segment::new((server.mac, (server.address, PORT)), (GATEWAY, (pod.address, port)), 0);
            answer.ip.identification = id;
            (answer.tcp.syn, answer.tcp.rst) = (syn, rst);
            answer.packet()
        };
        // What it says about another connection between these ports, and then about this one.
        assert_eq!(went(&node, &server, &answer(1, (false, false))), ToTheFastPath);
        for (id, flags) in (2..).zip(answers) {
            assert_eq!(went(&node, &server, &answer(id, *flags)), ByTheShortCut, "{flags:?}");
        }
    }
}

fn under_false_name() {
    let mut node = Node::new(1);
    let _uplink = node.netns.within(|| Tap::new("wire"));
    node.netns.ip("link set wire up");
    node.connect(2, WAY_MTU);
    let [pod, other] = [3, 4].map(|port| node.pod(port));
    tell(&node, &pod, &[0], &ENDPOINTS[..1]);
    assert!(opened(&node, &pod, &syn(&pod, CLIENT)).is_some());
    // What the other one sends has the first one's addresses, of both kinds.
    other.netns.ip(&format!("link set tap0 address {}", pod.mac));
    other.netns.ip(&format!("neigh replace 169.254.1.1 lladdr {GATEWAY} dev tap0"));
    let sent = syn(&pod, CLIENT + 1);
    let from_other = Pod { netns: other.netns, tap: other.tap, address: pod.address, mac: pod.mac };
    assert_eq!(opened(&node, &from_other, &sent), None, "it comes to the tap");
}

fn full() {
    let (node, pod, _uplink) = node_with(Node::with_slots(1, 4));
    tell(&node, &pod, &[0], &ENDPOINTS[..1]);
    let taken = (pod.address, 999);
    enter_plain(&node, (End::Door(3), End::Way(0)), taken, (Ipv4Addr::new(10, 244, 2, 3), 1));
    assert!(opened(&node, &pod, &syn(&pod, CLIENT)).is_some(), "two are free");
    assert!(opened(&node, &pod, &syn(&pod, CLIENT + 1)).is_none(), "none is free");
    let key = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, taken, (Ipv4Addr::new(10, 244, 2, 3), 1));
    node.slots.forget(&key, 1);
    node.slots.review(&mut 0, usize::MAX, EPOCH, 1000, |_| {});
    assert!(opened(&node, &pod, &syn(&pod, CLIENT + 1)).is_none(), "one is free");
}

fn told() {
    let (node, pod, _uplink) = node();
    tell(&node, &pod, &[0], &ENDPOINTS[..1]);
    let of = |port| FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (pod.address, port), SERVICE);
    for port in [CLIENT, CLIENT + 1] {
        send(&pod.netns, &syn(&pod, port).packet());
    }
    within("both are there", || {
        let direction = |port| node.slots.direction(EPOCH, End::Door(3), &of(port));
        direction(CLIENT).and(direction(CLIENT + 1))
    });
    assert_eq!(passed(&node), [], "nobody has heard of it");
    let mut first = Vec::new();
    node.slots.hear_of_opened(|_, direction| {
        first.push(direction.key);
        direction.key == of(CLIENT)
    });
    first.sort_by_key(FlowKey4::src_port);
    assert_eq!(first, [of(CLIENT), of(CLIENT + 1)]);
    let ways: Vec<_> = passed(&node).into_iter().map(|(from, to, _)| (from, to)).collect();
    assert_eq!(ways, [(End::Door(3), End::Way(0))], "of one");
    // Tables have changed since, and it is taken back.
    node.kernel.memory().set_epoch(EPOCH + 1);
    let again: Vec<_> = heard(&node).into_iter().map(|(epoch, direction)| (epoch, direction.key)).collect();
    assert_eq!(again, [(EPOCH, of(CLIENT + 1))]);
    assert_eq!(heard(&node), []);
    assert!(!node.slots.are_any_opened());
}
