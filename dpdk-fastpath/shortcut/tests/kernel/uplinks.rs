//! What comes from the underlay, and what packet sockets there see of it.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use culvert_packet::eth::EthAddr;
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_shortcut::{Direction, End};
use etherparse::{IpNumber, Ipv4Header, PacketBuilder};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};

use crate::frame::Segment;
use crate::netns::Netns;
use crate::node::{EPOCH, GATEWAY, MTU, Node, Pod, VNI, vtep, vtep_mac, wire_mac};
use crate::relay::{NOW, Station, enter_translated};
use crate::tap::Tap;
use crate::{Case, within};

/// What the pod has connected to.
pub(crate) const SERVICE: Station = (Ipv4Addr::new(10, 96, 0, 1), 80);
/// Who answers.
pub(crate) const SERVER: Station = (Ipv4Addr::new(10, 244, 2, 9), 8080);
/// The pod's port, and that of a second connection.
pub(crate) const PORTS: [u16; 2] = [1000, 1001];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_packet_socket_sees_what_it_saw_but_for_what_goes_by_the_short_cut", sockets),
        ("what_reaches_a_pod_is_translated_and_whole", translated),
        ("what_cannot_answer_a_syn_is_for_the_fast_path", awaited),
        ("when_the_short_cut_ends_packet_sockets_see_all_again", dropped),
        ("an_uplink_that_is_not_there_is_refused_by_name", refusal),
    ]
}

/// Who has seen a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Pod,
    Socket,
    Nobody,
}

/// A node whose uplink is a tap, with a pod that has two connections.
pub(crate) struct Uplink {
    pub(crate) node: Node,
    pub(crate) pod: Pod,
    pub(crate) tap: Tap,
    /// On the uplink.
    pub(crate) at_uplink: OwnedFd,
    /// On all interfaces of the pod.
    pub(crate) in_pod: OwnedFd,
}

impl Uplink {
    pub(crate) fn new() -> Self {
        Self::of(Node::new(1))
    }

    /// The same of a node that is there.
    pub(crate) fn of(mut node: Node) -> Self {
        let tap = node.netns.within(|| Tap::new("wire"));
        node.netns.ip(&format!("link set wire address {} up", wire_mac(1)));
        let at_uplink = packet_socket4(&node.netns);
        node.connect(2, MTU);
        let pod = node.pod(3);
        for port in PORTS {
            let client = (pod.address, port);
            enter_translated(&node, (End::Door(3), End::Way(0)), client, SERVICE, SERVER);
        }
        let in_pod = packet_socket(&pod.netns);
        Self { node, pod, tap, at_uplink, in_pod }
    }

    /// Whether the pod has got a frame of this identification since it was asked last.
    pub(crate) fn pod_has(&self, identification: u16) -> bool {
        has(&self.in_pod, identification)
    }

    /// The same of the packet sockets.
    pub(crate) fn socket_has(&self, identification: u16) -> bool {
        has(&self.at_uplink, identification)
    }

    /// A segment from the server in a connection of the pod.
    pub(crate) fn segment(&self, port: u16) -> Segment {
        Segment::new((vtep_mac(2), SERVER), (vtep_mac(1), (self.pod.address, port)), 100)
    }

    /// Who sees a frame that comes in, which has the identification 7 at the end of its way. What comes after it, is seen after it.
    pub(crate) fn seen(&self, frame: &[u8]) -> By {
        self.tap.write(frame);
        let mut marker = self.segment(PORTS[1]);
        marker.ip.identification = 8;
        self.tap.write(&Tunnelled::default().frame(&marker));
        let mut broadcast = Segment::new((wire_mac(2), SERVER), (EthAddr([0xff; 6]), SERVER), 0);
        broadcast.ip.identification = 9;
        self.tap.write(&broadcast.frame());
        let [at_uplink, in_pod] = [(&self.at_uplink, 9), (&self.in_pod, 8)].map(|(socket, last)| {
            let mut all = Vec::new();
            within("what comes last is seen", || {
                all.extend(std::iter::from_fn(|| receive(socket)));
                all.iter().any(|frame| is_marked(frame, last)).then_some(())
            });
            all.iter().any(|frame| is_marked(frame, 7))
        });
        match (at_uplink, in_pod) {
            (false, false) => By::Nobody,
            (true, false) => By::Socket,
            (false, true) => By::Pod,
            (true, true) => panic!("seen by both"),
        }
    }
}

/// What is in front of a frame in the tunnel.
pub(crate) struct Tunnelled {
    to: EthAddr,
    pub(crate) from: Ipv4Addr,
    pub(crate) vni: u32,
    pub(crate) class: u8,
    /// Behind all.
    padding: usize,
}

impl Default for Tunnelled {
    fn default() -> Self {
        Self { to: wire_mac(1), from: vtep(2), vni: VNI, class: 0, padding: 0 }
    }
}

impl Tunnelled {
    pub(crate) fn frame(&self, inner: &Segment) -> Vec<u8> {
        self.around(&inner.frame())
    }

    /// The same, of any frame.
    pub(crate) fn around(&self, inner: &[u8]) -> Vec<u8> {
        let mut payload = vec![8, 0, 0, 0];
        payload.extend((self.vni << 8).to_be_bytes());
        payload.extend(inner);
        let (from, to) = (self.from.octets(), vtep(1).octets());
        let mut ip = Ipv4Header::new(0, 64, IpNumber::UDP, from, to).unwrap();
        ip.dscp = (self.class >> 2).try_into().unwrap();
        ip.ecn = (self.class & 3).try_into().unwrap();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(wire_mac(2).0, self.to.0)
            .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
            .udp(50_000, 4789)
            .write(&mut frame, &payload)
            .unwrap();
        frame.extend(vec![0; self.padding]);
        frame
    }
}

/// Sees all that there is in a network namespace.
pub(crate) fn packet_socket(netns: &Netns) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK;
    netns.within(|| socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap())
}

/// Sees IPv4 packets in a network namespace, once programs have seen them.
pub(crate) fn packet_socket4(netns: &Netns) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK;
    netns.within(|| socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthIp).unwrap())
}

/// What has come, whichever interface it was at.
pub(crate) fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    Some(receive_at(socket)?.1)
}

/// What has come, and the index of the interface.
pub(crate) fn receive_at(socket: &OwnedFd) -> Option<(usize, Vec<u8>)> {
    let mut frame = vec![0; 1 << 16];
    let (len, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame).ok()?;
    frame.truncate(len);
    Some((from.unwrap().ifindex(), frame))
}

/// Whether there was a frame of this identification since the last time.
pub(crate) fn has(socket: &OwnedFd, identification: u16) -> bool {
    std::iter::from_fn(|| receive(socket)).any(|frame| is_marked(&frame, identification))
}

/// Whether a frame, or what it has in its tunnel, has this identification.
pub(crate) fn is_marked(frame: &[u8], identification: u16) -> bool {
    [18, 68].iter().any(|at| frame.get(*at..*at + 2) == Some(&identification.to_be_bytes()))
}

fn sockets() {
    let mut uplink = Uplink::new();
    type Change = fn(&mut Segment, &mut Tunnelled);
    let changes: [(&str, Change, By); 16] = [
        ("nothing", |_, _| {}, By::Pod),
        ("the last hop", |s, _| s.ip.time_to_live = 1, By::Socket),
        ("a fragment", |s, _| s.ip.more_fragments = true, By::Socket),
        ("IP options", |s, _| s.ip.options = [1, 1, 1, 0].into(), By::Socket),
        ("a SYN", |s, _| (s.tcp.syn, s.tcp.ack) = (true, false), By::Socket),
        ("an answer to a SYN", |s, _| s.tcp.syn = true, By::Pod),
        ("as long as may be", |s, _| s.payload.resize(usize::from(MTU) - 40, 1), By::Pod),
        ("too long", |s, _| s.payload.resize(usize::from(MTU) - 39, 1), By::Socket),
        ("another connection", |s, _| s.tcp.source_port = 8081, By::Socket),
        ("another inner address", |s, _| s.eth.destination[5] ^= 1, By::Socket),
        ("another network", |_, t| t.vni += 1, By::Socket),
        ("another node", |_, t| t.from = vtep(3), By::Socket),
        ("another class", |_, t| t.class = 0x28 << 2, By::Pod),
        ("congestion on the way", |_, t| t.class = 3, By::Socket),
        ("padding", |_, t| t.padding = 4, By::Socket),
        // Its own filter passes over it.
        ("another station", |_, t| t.to.0[5] ^= 1, By::Socket),
    ];
    for (change, apply, expected) in changes {
        let (mut segment, mut tunnelled) = (uplink.segment(PORTS[0]), Tunnelled::default());
        segment.ip.identification = 7;
        apply(&mut segment, &mut tunnelled);
        assert_eq!(uplink.seen(&tunnelled.frame(&segment)), expected, "{change}");
    }
    let mut segment = uplink.segment(PORTS[0]);
    segment.ip.identification = 7;
    let mut tagged = Tunnelled::default().frame(&segment);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(uplink.seen(&tagged), By::Socket, "a VLAN tag");
    assert_eq!(uplink.node.dropped(), [0; 4]);
    let Node { netns, kernel, .. } = &mut uplink.node;
    netns.within(|| kernel.join_uplink("wire", wire_mac(1), true)).unwrap();
    assert_eq!(uplink.seen(&tagged), By::Nobody, "a VLAN tag, and an address apart");
    assert_eq!(uplink.node.dropped(), [0, 0, 0, 1]);
    let plain = Segment { eth: segment.eth.clone(), ..segment };
    let mut plain = plain.frame();
    plain[..6].copy_from_slice(&wire_mac(1).0);
    assert_eq!(uplink.seen(&plain), By::Socket, "no tunnel");
}

fn translated() {
    let uplink = Uplink::new();
    let mut segment = uplink.segment(PORTS[0]);
    segment.ip.identification = 7;
    segment.ip.dscp = 10.try_into().unwrap();
    segment.tcp.psh = true;
    uplink.tap.write(&Tunnelled::default().frame(&segment));
    let frame = within("the pod has it", || {
        std::iter::from_fn(|| receive(&uplink.in_pod)).find(|frame| is_marked(frame, 7))
    });
    (segment.eth.source, segment.eth.destination) = (GATEWAY.0, uplink.pod.mac.0);
    (segment.ip.source, segment.tcp.source_port) = (SERVICE.0.octets(), SERVICE.1);
    segment.ip.time_to_live -= 1;
    assert_eq!(Segment::parse(&frame).unwrap().packet(), segment.packet());
    assert_eq!(frame, segment.frame(), "checksums, too");
}

fn awaited() {
    let uplink = Uplink::new();
    let (client, slots) = ((uplink.pod.address, PORTS[0]), &uplink.node.slots);
    let key = |from, to| FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, from, to);
    let answers = key(SERVER, client);
    slots.forget(&answers, NOW);
    let (from, to, tunnel_port) = (End::Way(0), End::Door(3), 0);
    let direction = Direction { from, key: answers, becomes: key(SERVICE, client), to, tunnel_port };
    assert!(slots.enter_awaited(EPOCH, &direction, NOW, || {}));
    for (syn, expected) in [(false, By::Socket), (true, By::Pod), (false, By::Pod)] {
        let mut segment = uplink.segment(PORTS[0]);
        (segment.ip.identification, segment.tcp.syn) = (7, syn);
        assert_eq!(uplink.seen(&Tunnelled::default().frame(&segment)), expected, "SYN: {syn}");
    }
}

fn dropped() {
    let uplink = Uplink::new();
    let mut segment = uplink.segment(PORTS[0]);
    segment.ip.identification = 7;
    let frame = Tunnelled::default().frame(&segment);
    assert_eq!(uplink.seen(&frame), By::Pod);
    let Uplink { node: Node { netns: _netns, kernel, slots, .. }, tap, at_uplink, .. } = uplink;
    drop((kernel, slots));
    tap.write(&frame);
    within("the socket has it", || {
        std::iter::from_fn(|| receive(&at_uplink)).find(|frame| is_marked(frame, 7))
    });
}

fn refusal() {
    let mut node = Node::new(1);
    let error = node.netns.within(|| node.kernel.join_uplink("nope", wire_mac(1), false).unwrap_err());
    assert_eq!(
        error.to_string(),
        "short cut: uplink nope: there is no interface of this name: see `ip link`"
    );
}
