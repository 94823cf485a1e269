//! Connections of the kernel's own TCP, forwarded by the short cut.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use culvert_shortcut::End;

use crate::frame::Segment;
use crate::netns::Netns;
use crate::node::{MTU, Node, VNI, vtep, vtep_mac, wire_mac};
use crate::relay::{Station, deliver, enter_plain, enter_translated, passed, relay};
use crate::uplinks::{packet_socket4, receive};
use crate::{Case, within};

/// Bytes in each direction.
const LEN: usize = 8 << 20;
/// What is in front of a frame in the tunnel.
const OUTER: usize = 50;
/// A virtual address.
pub(crate) const SERVICE: Station = (Ipv4Addr::new(10, 96, 0, 1), 80);
/// Where servers listen.
pub(crate) const PORT: u16 = 8080;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_connection_to_a_service_goes_from_node_to_node", node_to_node),
        ("a_connection_goes_to_a_node_that_is_the_kernel_alone", to_the_kernel),
        ("a_connection_from_another_node_to_a_pod_needs_nobody_but_the_kernel", from_the_kernel),
        ("a_connection_goes_between_pods_of_one_node", within_a_node),
    ]
}

fn node_to_node() {
    let (mut near, mut far) = (Node::new(1), Node::new(2));
    near.wire(2, &far.netns);
    near.connect(2, MTU);
    far.connect(1, MTU);
    let (client, server) = (near.pod(3), far.pod(4));
    let listening = (server.address, PORT);
    let open = |syn: Segment| {
        let from = (client.address, syn.tcp.source_port);
        enter_translated(&near, (End::Door(3), End::Way(0)), from, SERVICE, listening);
        enter_plain(&far, (End::Door(4), End::Way(0)), listening, from);
        deliver(syn, &server, listening);
    };
    let ((), seen) =
        relay([&client, &server], open, || transfer(&client.netns, SERVICE, &server.netns, listening));
    assert!(seen.opening >= 1);
    assert_eq!(seen.others, [], "all but the first packet takes the short cut");
    for pod in [&client, &server] {
        // What the kernel's IP has received: one for each packet, merged or not.
        let snmp = pod.netns.run("cat /proc/net/snmp");
        let received = snmp.lines().filter(|line| line.starts_with("Ip:")).nth(1).unwrap();
        let received: usize = received.split(' ').nth(3).unwrap().parse().unwrap();
        let least = LEN / usize::from(MTU);
        assert!(received < least, "segments are merged: {received} {least}");
    }
    for (node, door) in [(&near, 3), (&far, 4)] {
        let mut all = passed(node);
        all.sort_by_key(|(from, ..)| matches!(from, End::Way(_)));
        let [(from, to, sent), (back_from, back_to, received)] = all[..] else { panic!("{all:?}") };
        assert_eq!((from, to), (End::Door(door), End::Way(0)));
        assert_eq!((back_from, back_to), (End::Way(0), End::Door(door)));
        assert!(sent > LEN as u64 && received > LEN as u64, "{sent} {received}");
    }
}

/// A node that is the kernel alone, at the other end of the cable: its tunnel, and the address 10.244.2.1 in it.
pub(crate) fn kernel_node(near: &Node) -> Netns {
    let far = Netns::new("far");
    near.wire(2, &far);
    near.netns.ip("addr add 192.168.9.1/24 dev wire");
    for command in [
        format!("addr add {}/24 dev wire", vtep(2)),
        format!("neigh add {} lladdr {} dev wire", vtep(1), wire_mac(1)),
        format!(
            "link add vx0 address {} type vxlan id {VNI} local {} remote {} dstport 4789 dev wire",
            vtep_mac(2),
            vtep(2),
            vtep(1)
        ),
        format!("link set vx0 mtu {MTU} up"),
        "addr add 10.244.2.1/32 dev vx0".to_owned(),
        "route add 10.244.1.0/24 dev vx0 src 10.244.2.1".to_owned(),
        format!("neigh add 10.244.1.3 lladdr {} dev vx0", vtep_mac(1)),
    ] {
        far.ip(&command);
    }
    far
}

fn to_the_kernel() {
    let mut near = Node::new(1);
    let far = kernel_node(&near);
    near.connect(2, MTU);
    let client = near.pod(3);
    let listening = (Ipv4Addr::new(10, 244, 2, 1), PORT);
    let tunnel = near.netns.within(|| UdpSocket::bind((vtep(1), 0)).unwrap());
    let open = |mut syn: Segment| {
        let from = (client.address, syn.tcp.source_port);
        enter_translated(&near, (End::Door(3), End::Way(0)), from, SERVICE, listening);
        (syn.eth.source, syn.eth.destination) = (vtep_mac(1).0, vtep_mac(2).0);
        (syn.ip.destination, syn.tcp.destination_port) = (listening.0.octets(), listening.1);
        let mut packet = vec![8, 0, 0, 0];
        packet.extend((VNI << 8).to_be_bytes());
        packet.extend(syn.frame());
        tunnel.send_to(&packet, (vtep(2), 4789)).unwrap();
    };
    let ((), seen) = relay([&client, &client], open, || transfer(&client.netns, SERVICE, &far, listening));
    assert_eq!(seen.others, []);
}

fn from_the_kernel() {
    let mut near = Node::new(1);
    let far = kernel_node(&near);
    let at_uplink = packet_socket4(&near.netns);
    near.connect(2, MTU);
    let server = near.pod(3);
    near.welcomes(&server, 3, true);
    let listening = (server.address, PORT);
    let open = |syn| panic!("at the tap: {syn:?}");
    let ((), seen) = relay([&server, &server], open, || transfer(&far, listening, &server.netns, listening));
    assert_eq!((seen.opening, seen.others), (0, vec![]));
    let tunnelled = |frame: Vec<u8>| Segment::parse(frame.get(OUTER..)?);
    assert_eq!(std::iter::from_fn(|| receive(&at_uplink)).find_map(tunnelled), None);
    let mut all = passed(&near);
    all.sort_by_key(|(from, ..)| matches!(from, End::Way(_)));
    let [(from, to, sent), (back_from, back_to, received)] = all[..] else { panic!("{all:?}") };
    assert_eq!((from, to), (End::Door(3), End::Way(0)));
    assert_eq!((back_from, back_to), (End::Way(0), End::Door(3)));
    assert!(sent > LEN as u64 && received > LEN as u64, "{sent} {received}");
}

fn within_a_node() {
    let mut node = Node::new(1);
    let (client, server) = (node.pod(3), node.pod(4));
    let listening = (server.address, PORT);
    let open = |syn: Segment| {
        let from = (client.address, syn.tcp.source_port);
        enter_translated(&node, (End::Door(3), End::Door(4)), from, SERVICE, listening);
        deliver(syn, &server, listening);
    };
    let ((), seen) =
        relay([&client, &server], open, || transfer(&client.netns, SERVICE, &server.netns, listening));
    assert_eq!(seen.others, []);
    let bytes: Vec<_> = passed(&node).into_iter().map(|(.., bytes)| bytes).collect();
    assert!(bytes.len() == 2 && bytes.iter().all(|bytes| *bytes > LEN as u64), "{bytes:?}");
}

/// Transfers bytes in both directions at once, and compares them.
pub(crate) fn transfer(client: &Netns, to: Station, server: &Netns, listening: Station) {
    let listener = server.within(|| TcpListener::bind(SocketAddrV4::new(listening.0, listening.1)).unwrap());
    listener.set_nonblocking(true).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = within("a connection arrives", || listener.accept().ok());
            stream.set_nonblocking(false).unwrap();
            exchange(&stream, 2, 1);
        });
        let to = SocketAddrV4::new(to.0, to.1).into();
        let stream = client.within(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
        exchange(&stream, 1, 2);
    });
}

/// Sends the bytes of `own`, and expects those of `other`.
fn exchange(stream: &TcpStream, own: u64, other: u64) {
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(stream, Some(Duration::from_secs(20))).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&bytes(own)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let (mut stream, mut received) = (stream, Vec::with_capacity(LEN));
        stream.read_to_end(&mut received).unwrap();
        assert!(received == bytes(other), "{} bytes, and not all as they were sent", received.len());
    });
}

/// What one side sends: no two pieces are alike (xorshift).
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    (0..LEN / 8).flat_map(|_| next()).collect()
}
