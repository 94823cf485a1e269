//! Datagrams: what goes by the short cut, what becomes of it, and what is left to the fast path.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use culvert_packet::eth::EthAddr;
use culvert_packet::ip::Protocol;
use culvert_shortcut::End;
use nix::sys::socket::{setsockopt, sockopt};

use crate::datagram::Datagram;
use crate::netns::Netns;
use crate::node::{EPOCH, GATEWAY, MTU, Node, Pod, vtep_mac};
use crate::paths::kernel_node;
use crate::relay::{Station, enter_of, passed};
use crate::unusual::{self, ByTheShortCut, PORT, ToTheFastPath, WAY_MTU, Went, connected, send, went};
use crate::uplinks::{By, PORTS, SERVER, SERVICE, Tunnelled, Uplink, is_marked, receive};
use crate::{Case, within};

/// Bytes of headers.
const HEADERS: usize = 28;
/// What is in front of a frame in the tunnel.
const OUTER: usize = 50;
/// Where servers listen.
const LISTENING: u16 = 5300;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("datagrams_that_are_unusual_go_to_the_fast_path", leaving),
        ("datagrams_of_other_nodes_that_are_unusual_go_to_the_fast_path", coming),
        ("a_datagram_that_leaves_is_translated_and_whole", translated_out),
        ("a_datagram_that_reaches_a_pod_is_translated_and_whole", translated_in),
        ("datagrams_go_to_a_node_that_is_the_kernel_alone_and_back", to_the_kernel),
        ("datagrams_go_between_pods_of_one_node_and_back", within_a_node),
    ]
}

fn enter(node: &Node, ends: (End, End), key: (Station, Station), becomes: (Station, Station)) {
    enter_of(Protocol::UDP, node, ends, key, becomes);
}

/// Both directions of a flow to `SERVICE`.
fn enter_both(node: &Node, (near, far): (End, End), client: Station, server: Station) {
    enter(node, (near, far), (client, SERVICE), (client, server));
    enter(node, (far, near), (server, client), (SERVICE, client));
}

fn leaving() {
    let (node, pod, _uplink) = connected();
    let (client, server) = ((pod.address, PORT), unusual::SERVER);
    let usual = Datagram::new((pod.mac, client), (GATEWAY, server), 100);
    assert_eq!(went(&node, &pod, &usual.packet()), ToTheFastPath, "it has the ports of a TCP connection");
    enter(&node, (End::Door(3), End::Way(0)), (client, server), (client, server));
    type Change = fn(&mut Datagram);
    let longest = usize::from(WAY_MTU) - HEADERS;
    let changes: [(&str, Change, Went); 14] = [
        ("nothing", |_| {}, ByTheShortCut),
        ("no checksum", |d| d.has_checksum = false, ByTheShortCut),
        ("no data", |d| d.payload.clear(), ByTheShortCut),
        ("shorter than TCP could be", |d| d.payload.truncate(11), ByTheShortCut),
        ("as long as TCP must be", |d| d.payload.truncate(12), ByTheShortCut),
        ("the last hop", |d| d.ip.time_to_live = 1, ToTheFastPath),
        ("two hops", |d| d.ip.time_to_live = 2, ByTheShortCut),
        ("IP options", |d| d.ip.options = [1, 1, 1, 0].into(), ToTheFastPath),
        ("a first fragment", |d| d.ip.more_fragments = true, ToTheFastPath),
        ("a last fragment", |d| d.ip.fragment_offset = 100.try_into().unwrap(), ToTheFastPath),
        ("as long as may be", |d| d.payload.resize(usize::from(WAY_MTU) - HEADERS, 1), ByTheShortCut),
        ("too long", |d| d.payload.resize(usize::from(WAY_MTU) - HEADERS + 1, 1), ToTheFastPath),
        ("another port", |d| d.ports.1 += 1, ToTheFastPath),
        ("another protocol", |d| d.ip.protocol = etherparse::IpNumber::UDP_LITE, ToTheFastPath),
    ];
    for (change, apply, expected) in changes {
        let mut datagram = usual.clone();
        apply(&mut datagram);
        assert!(datagram.payload.len() <= longest + 1);
        assert_eq!(went(&node, &pod, &datagram.packet()), expected, "{change}");
    }
    for (len, expected) in
        [(107, ToTheFastPath), (108, ByTheShortCut), (109, ToTheFastPath), (0, ToTheFastPath)]
    {
        let mut packet = usual.packet();
        packet[24..26].copy_from_slice(&u16::to_be_bytes(len));
        assert_eq!(went(&node, &pod, &packet), expected, "{len} bytes, it says");
    }
    node.kernel.memory().set_epoch(EPOCH + 1);
    assert_eq!(went(&node, &pod, &usual.packet()), ToTheFastPath, "another epoch");
    assert_eq!(node.dropped(), [0; 4]);
}

fn coming() {
    let uplink = Uplink::new();
    let client = (uplink.pod.address, PORTS[0]);
    let usual = Datagram::new((vtep_mac(2), SERVER), (vtep_mac(1), client), 100);
    let seen = |datagram: &Datagram, tunnelled: &Tunnelled| uplink.seen(&tunnelled.around(&datagram.frame()));
    assert_eq!(seen(&usual, &Tunnelled::default()), By::Socket, "it has the ports of a TCP connection");
    enter(&uplink.node, (End::Way(0), End::Door(3)), (SERVER, client), (SERVICE, client));
    type Change = fn(&mut Datagram, &mut Tunnelled);
    let changes: [(&str, Change, By); 11] = [
        ("nothing", |_, _| {}, By::Pod),
        ("no data", |d, _| d.payload.clear(), By::Pod),
        ("no checksum", |d, _| d.has_checksum = false, By::Pod),
        ("a fragment", |d, _| d.ip.more_fragments = true, By::Socket),
        ("the last hop", |d, _| d.ip.time_to_live = 1, By::Socket),
        ("too long", |d, _| d.payload.resize(usize::from(MTU) - HEADERS + 1, 1), By::Socket),
        ("another flow", |d, _| d.ports.0 += 1, By::Socket),
        ("another inner address", |d, _| d.eth.destination[5] ^= 1, By::Socket),
        ("another network", |_, t| t.vni += 1, By::Socket),
        ("another node", |_, t| t.from = Ipv4Addr::new(192, 168, 9, 3), By::Socket),
        ("congestion on the way", |_, t| t.class = 3, By::Socket),
    ];
    for (change, apply, expected) in changes {
        let (mut datagram, mut tunnelled) = (usual.clone(), Tunnelled::default());
        apply(&mut datagram, &mut tunnelled);
        assert_eq!(seen(&datagram, &tunnelled), expected, "{change}");
    }
}

/// What there may be in a datagram, and that with no checksum and with one that becomes 0 when it is `translated`.
fn kinds(
    from: (EthAddr, Station),
    to: (EthAddr, Station),
    translated: impl Fn(&Datagram) -> Datagram,
) -> Vec<Datagram> {
    let mut all: Vec<_> = [0, 1, 11, 12, 13, 1000].map(|len| Datagram::new(from, to, len)).into();
    all.push(Datagram { has_checksum: false, ..all[3].clone() });
    let ones = translated(&all[0]).with_checksum_of_ones();
    all.push(Datagram { payload: ones.payload, ..all[0].clone() });
    all.push(all[0].clone().with_checksum_of_ones());
    all
}

fn translated_out() {
    let (node, pod, uplink) = connected();
    let (client, server) = ((pod.address, PORT), unusual::SERVER);
    let becomes = ((pod.address, 2000), (Ipv4Addr::new(10, 244, 2, 77), 99));
    enter(&node, (End::Door(3), End::Way(0)), (client, server), becomes);
    let next = |datagram: &Datagram| datagram.after_a_hop((vtep_mac(1), becomes.0), (vtep_mac(2), becomes.1));
    for datagram in kinds((pod.mac, client), (GATEWAY, server), next) {
        send(&pod.netns, &datagram.packet());
        let frame =
            within("it leaves", || std::iter::from_fn(|| uplink.read()).find(|frame| is_marked(frame, 7)));
        let len = datagram.payload.len();
        assert_eq!(frame[OUTER..], next(&datagram).frame(), "{len} bytes");
        let [ip, udp] = [16, 38].map(|at| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]])));
        assert_eq!((ip, udp), (HEADERS + len + OUTER, HEADERS + len + OUTER - 20));
    }
    assert_eq!(node.dropped(), [0; 4]);
}

fn translated_in() {
    let uplink = Uplink::new();
    let client = (uplink.pod.address, PORTS[0]);
    enter(&uplink.node, (End::Way(0), End::Door(3)), (SERVER, client), (SERVICE, client));
    let next = |datagram: &Datagram| datagram.after_a_hop((GATEWAY, SERVICE), (uplink.pod.mac, client));
    for datagram in kinds((vtep_mac(2), SERVER), (vtep_mac(1), client), next) {
        uplink.tap.write(&Tunnelled::default().around(&datagram.frame()));
        let frame = within("the pod has it", || {
            std::iter::from_fn(|| receive(&uplink.in_pod)).find(|frame| is_marked(frame, 7))
        });
        assert_eq!(frame, next(&datagram).frame(), "{} bytes", datagram.payload.len());
        // At the second interface, too.
        within("the pod's IP has it", || uplink.pod_has(7).then_some(()));
    }
}

fn to_the_kernel() {
    let mut near = Node::new(1);
    let far = kernel_node(&near);
    near.connect(2, MTU);
    let client = near.pod(3);
    let listening = (Ipv4Addr::new(10, 244, 2, 1), LISTENING);
    exchange(&near, End::Way(0), &client, (&far, listening));
}

fn within_a_node() {
    let mut node = Node::new(1);
    let (client, server) = (node.pod(3), node.pod(4));
    exchange(&node, End::Door(4), &client, (&server.netns, (server.address, LISTENING)));
}

/// Lets the pod at port 3 ask `SERVICE`, which is `server` at `far`, one datagram after the other and many in one piece; each is sent
/// back. Nothing of it must come to the pod's tap.
fn exchange(node: &Node, far: End, pod: &Pod, (netns, server): (&Netns, Station)) {
    const PIECE: usize = 1000;
    let socket = |netns: &Netns, at: Station| {
        let socket = netns.within(|| UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let (client, listener) = (socket(&pod.netns, (pod.address, PORT)), socket(netns, server));
    pod.netns.within(|| client.connect(SERVICE).unwrap());
    enter_both(node, (End::Door(3), far), (pod.address, PORT), server);
    let longest = usize::from(MTU) - HEADERS;
    let whole: Vec<_> = (0..40 * PIECE).map(|n| (n / 7) as u8).collect();
    let answered = |expected: &[u8]| {
        let (mut buffer, mut answer) = (vec![0; 2000], vec![0; 2000]);
        let (len, from) = listener.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], expected);
        listener.send_to(&buffer[..len], from).unwrap();
        let len = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..len], expected);
    };
    let done = AtomicBool::new(false);
    let at_tap = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut datagrams = 0;
            while !done.load(Ordering::Relaxed) {
                // Of UDP over IPv4.
                datagrams += std::iter::from_fn(|| pod.tap.read())
                    .filter(|frame| frame[12..15] == [8, 0, 0x45] && frame[23] == 17)
                    .count();
                thread::sleep(Duration::from_millis(1));
            }
            datagrams
        });
        for len in [0, 1, 11, 12, 100, longest] {
            client.send(&whole[..len]).unwrap();
            answered(&whole[..len]);
        }
        setsockopt(&client, sockopt::UdpGsoSegment, &(PIECE as i32)).unwrap();
        client.send(&whole).unwrap();
        whole.chunks(PIECE).for_each(answered);
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert_eq!(at_tap, 0);
    let sent = passed(node).into_iter().find(|(from, to, _)| (*from, *to) == (End::Door(3), far));
    // The many in one piece count as one.
    let bytes = [0, 1, 11, 12, 100, longest, whole.len()].map(|len| len + HEADERS);
    assert_eq!(sent.map(|(.., bytes)| bytes), Some(bytes.iter().sum::<usize>() as u64));
    assert_eq!(node.dropped(), [0; 4]);
}
