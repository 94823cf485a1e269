//! Random packets: mostly such as pods and nodes send, with something odd about them now and then.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::tables::{Dscp, Tables};
use crate::model::tunnel::wrap;
use crate::wire::make::{self, Ip, checked};
use crate::wire::{
    ACK, ETH, FIN, Frame, ICMP, ICMPV6, Left, RST, SCTP, SYN, TCP, UDP, checksum, put16, sctp,
};

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Pod(usize),
    /// A pod of a node, through the tunnel.
    Node(usize),
    /// Somebody on the underlay.
    Stranger,
}

/// What is above IP.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Tcp {
        ports: (u16, u16),
        flags: u8,
    },
    Udp {
        ports: (u16, u16),
        with_checksum: bool,
    },
    /// Request or reply; data of zeros.
    Echo {
        request: bool,
        identifier: u16,
        sequence: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
    },
    /// An error about this packet, of which so many bytes are quoted.
    Error {
        kind: u8,
        code: u8,
        about: Vec<u8>,
        quoted: usize,
    },
    Sctp {
        ports: (u16, u16),
        chunks: Vec<u8>,
    },
    Other {
        protocol: u8,
    },
}

/// How it lies in IP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Plain,
    /// With so many extension headers or with options.
    Extended {
        headers: usize,
        kind: u8,
    },
    First {
        identification: u16,
        more: bool,
    },
    Later {
        identification: u16,
        offset: usize,
        more: bool,
    },
}

/// What is odd about a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Odd {
    Nothing,
    Padded(usize),
    /// A byte set to a value, and the checksum of an IPv4 header without options made right again.
    Byte {
        at: usize,
        value: u8,
        repaired: bool,
    },
    Cut(usize),
    Tagged,
    To(Mac),
    From(Mac),
}

/// What is odd about the tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OddTunnel {
    Nothing,
    Vni,
    Port,
    /// VXLAN for Geneve, or the other way round.
    Kind,
    /// A UDP checksum where there should be none, or the other way round.
    Checksum,
    /// Another byte in the tunnel's header.
    Header {
        at: usize,
        value: u8,
    },
    Source,
    Destination,
    InnerMac,
    Fragment,
    Odd(Odd),
}

#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) sender: Sender,
    pub(crate) src: Option<IpAddr>,
    pub(crate) dst: IpAddr,
    pub(crate) transport: Transport,
    pub(crate) len: usize,
    pub(crate) hops: u8,
    pub(crate) class: u8,
    pub(crate) shape: Shape,
    /// Of TCP or UDP from a pod: the checksum is left to us, and if this is not 0 to cut the packet.
    pub(crate) left: Option<u16>,
    pub(crate) odd: Odd,
    pub(crate) outer_class: u8,
    /// In the other tenant's tunnel.
    pub(crate) tenant: bool,
    pub(crate) odd_tunnel: OddTunnel,
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        6 => (select(&CLIENT_PORTS[..]), select(&SERVICE_PORTS[..])),
        // As endpoints answer.
        3 => (select(&ENDPOINT_PORTS[..]), select(&CLIENT_PORTS[..])),
        1 => (select(vec![4789_u16, 9]), select(vec![4789_u16, 8472, 9])),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    let flags = select(vec![
        SYN,
        SYN,
        SYN | ACK,
        ACK,
        ACK,
        ACK | 8,
        FIN | ACK,
        FIN | ACK,
        RST,
        RST | ACK,
        0,
        FIN,
        SYN | FIN,
    ]);
    prop_oneof![
        8 => (ports(), flags).prop_map(|(ports, flags)| Transport::Tcp { ports, flags }),
        5 => (ports(), prop::bool::weighted(0.8)).prop_map(|(ports, with_checksum)| Transport::Udp { ports, with_checksum }),
        2 => (prop::bool::weighted(0.8), select(vec![0_u16, 7]), select(vec![0_u16, 1]))
            .prop_map(|(request, identifier, sequence)| Transport::Echo { request, identifier, sequence }),
        1 => (select(vec![3_u8, 1, 2, 4, 11, 12, 13, 130, 133, 134, 137]), 0_u8..5).prop_map(|(kind, code)| Transport::Icmp { kind, code }),
        3 => (ports(), chunks()).prop_map(|(ports, chunks)| Transport::Sctp { ports, chunks }),
        1 => select(vec![SCTP, 47, 50, 59]).prop_map(|protocol| Transport::Other { protocol }),
    ]
}

/// Types of SCTP chunks: mostly as they come.
pub(crate) fn chunks() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => select(vec![vec![1_u8], vec![1], vec![2], vec![10, 0], vec![11, 0], vec![0], vec![3], vec![7], vec![8], vec![14], vec![6]]),
        1 => prop::collection::vec(select(vec![0_u8, 1, 2, 3, 6, 7, 8, 10, 11, 14, 64]), 0..5),
    ]
}

/// Mostly whole; of fragments, mostly such as belong together.
pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let identification = || select(vec![0_u16, 1, 1, 0xffff]);
    let offset = select(vec![8_usize, 16, 24, 32, 32, 32, 40, 1480, 65_000]);
    prop_oneof![
        16 => Just(Shape::Plain),
        1 => (1_usize..10, select(vec![60_u8, 0, 43, 51, 44])).prop_map(|(headers, kind)| Shape::Extended { headers, kind }),
        2 => (identification(), prop::bool::weighted(0.9))
            .prop_map(|(identification, more)| Shape::First { identification, more }),
        2 => (identification(), offset, any::<bool>())
            .prop_map(|(identification, offset, more)| Shape::Later { identification, offset, more }),
    ]
}

fn mac() -> impl Strategy<Value = Mac> {
    select(vec![
        UPLINK_MAC,
        GATEWAY_MAC,
        VTEP_MAC,
        pod_mac(0),
        node_mac(0),
        [0xff; 6],
        [0; 6],
        [0x33, 0x33, 0, 0, 0, 1],
    ])
}

fn odd(often: u32) -> impl Strategy<Value = Odd> {
    prop_oneof![
        often => Just(Odd::Nothing),
        1 => select(vec![1_usize, 7, 200]).prop_map(Odd::Padded),
        2 => (0_usize..110, any::<u8>(), any::<bool>()).prop_map(|(at, value, repaired)| Odd::Byte { at, value, repaired }),
        1 => (0_usize..100).prop_map(Odd::Cut),
        1 => mac().prop_map(Odd::To),
        1 => mac().prop_map(Odd::From),
        1 => Just(Odd::Tagged),
    ]
}

fn odd_tunnel() -> impl Strategy<Value = OddTunnel> {
    use OddTunnel as O;
    prop_oneof![
        16 => Just(O::Nothing),
        2 => select(vec![O::Vni, O::Port, O::Kind, O::Checksum, O::Source, O::Destination, O::InnerMac, O::Fragment]),
        // Geneve options that must be understood.
        1 => Just(O::Header { at: 1, value: 0x40 }),
        1 => (0_usize..8, select(vec![0_u8, 1, 8, 0x40, 0x80, 0xff])).prop_map(|(at, value)| O::Header { at, value }),
        1 => odd(0).prop_map(O::Odd),
    ]
}

fn sender() -> impl Strategy<Value = Sender> {
    prop_oneof![
        8 => (0_usize..6).prop_map(Sender::Pod),
        4 => (0_usize..4).prop_map(Sender::Node),
        1 => Just(Sender::Stranger),
    ]
}

fn peer(version: usize) -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        8 => select(VIPS[version]),
        8 => select(PEERS[version]),
        1 => select(SPECIAL[version]),
        1 => select(vec![GATEWAYS[version], VTEPS[version]]),
    ]
    .prop_map(ip)
}

/// What a pod leaves to us of its TCP and UDP.
pub(crate) fn left() -> impl Strategy<Value = Option<u16>> {
    prop::option::weighted(0.2, select(vec![0_u16, 500, 1200, 1300, 1440]))
}

pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
    (sender(), any::<bool>()).prop_flat_map(|(sender, v6)| {
        let version = match sender {
            Sender::Pod(pod) if PODS[pod].0.len() == 1 => usize::from(PODS[pod].0[0].contains(':')),
            _ => usize::from(v6),
        };
        let from_pods = select(PEERS[version]).prop_map(|text| Some(ip(text)));
        let src = match sender {
            Sender::Pod(_) => prop_oneof![20 => Just(None), 1 => peer(version).prop_map(Some)].boxed(),
            _ => prop_oneof![20 => from_pods, 1 => peer(version).prop_map(Some)].boxed(),
        };
        let dst = match sender {
            Sender::Pod(_) => peer(version).boxed(),
            Sender::Node(_) => prop_oneof![3 => select(PEERS[version]).prop_map(ip), 1 => peer(version)].boxed(),
            Sender::Stranger => prop_oneof![3 => Just(ip(VTEPS[version])), 1 => peer(version)].boxed(),
        };
        let len = prop_oneof![8 => 0_usize..64, 1 => 1200_usize..1520, 1 => select(vec![536_usize, 548, 1252, 8950, 9000])];
        let hops = prop_oneof![12 => Just(64_u8), 1 => select(vec![0_u8, 1, 2, 255])];
        let class = || select(vec![0_u8, 0, 0, 1, 2, 3, 0xb8, 0xb9, 0xff]);
        let link = (left(), odd(30), class(), prop::bool::weighted(0.2), odd_tunnel());
        (src, dst, transport(), len, hops, class(), shape(), link).prop_map(
            move |(src, dst, transport, len, hops, class, shape, (left, odd, outer_class, tenant, odd_tunnel))| Recipe {
                sender, src, dst, transport, len, hops, class,
                shape,
                left,
                odd, outer_class, tenant,
                odd_tunnel,
            },
        )
    })
}

impl Recipe {
    /// The port where it comes in, and the frame.
    pub(crate) fn frame(&self, tables: &Tables) -> (u16, Frame) {
        let (port, inner_macs) = match self.sender {
            Sender::Pod(n) => (
                n as u16 + 1,
                (GATEWAY_MAC, tables.ports.get(&(n as u16 + 1)).map_or(pod_mac(n), |port| port.mac)),
            ),
            Sender::Node(n) => (UPLINK, (VTEP_MAC, node_mac(n))),
            Sender::Stranger => (UPLINK, (UPLINK_MAC, [2, 0, 0, 0, 9, 9])),
        };
        let own = || {
            let port = tables.ports.get(&port).map(|port| port.addresses.clone()).unwrap_or_default();
            port.into_iter().find(|own| own.is_ipv4() == self.dst.is_ipv4())
        };
        let default = if self.dst.is_ipv4() { ip("10.1.0.5") } else { ip("fd00:1::5") };
        let src = self.src.or_else(own).unwrap_or(default);
        let packet = self.shaped(&self.packet(src));
        let frame = make::frame(inner_macs.0, inner_macs.1, &packet);
        let frame = self.odd.applied(frame);
        match self.sender {
            Sender::Node(n) => (port, self.tunnelled(tables, n, frame).into()),
            _ => (port, Frame { bytes: frame, left: self.left().unwrap_or_default() }),
        }
    }

    fn left(&self) -> Option<Left> {
        let may_be = matches!(self.transport, Transport::Tcp { .. } | Transport::Udp { .. })
            && matches!((self.sender, self.shape, self.odd), (Sender::Pod(_), Shape::Plain, Odd::Nothing));
        self.left.filter(|_| may_be).map(|segment| Left { segment, partial: true })
    }

    fn packet(&self, src: IpAddr) -> Vec<u8> {
        let data = vec![0x5a; self.len];
        let v4 = src.is_ipv4();
        let (protocol, message) = match self.transport {
            Transport::Tcp { ports, flags } => (TCP, make::tcp(ports, 1000, 2000, flags, 0xffff, &data)),
            Transport::Udp { ports, .. } => (UDP, make::udp(ports, &data)),
            Transport::Echo { request, identifier, sequence } => {
                let kind = match (request, v4) {
                    (true, true) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (false, false) => 129,
                };
                let [a, b] = identifier.to_be_bytes();
                let [c, d] = sequence.to_be_bytes();
                (if v4 { ICMP } else { ICMPV6 }, make::icmp(kind, 0, [a, b, c, d], &vec![0; self.len]))
            }
            Transport::Icmp { kind, code } => {
                (if v4 { ICMP } else { ICMPV6 }, make::icmp(kind, code, [0; 4], &data))
            }
            Transport::Error { kind, code, ref about, quoted } => {
                let quote = &about[..quoted.min(about.len())];
                (if v4 { ICMP } else { ICMPV6 }, make::icmp(kind, code, [0; 4], quote))
            }
            Transport::Sctp { ports, ref chunks } => (SCTP, sctp::make(ports, chunks, self.len)),
            Transport::Other { protocol } => (protocol, data),
        };
        let message = match self.transport {
            _ if self.left().is_some() => {
                let mut message = message;
                let sum = checksum::partial(src, self.dst, protocol, message.len());
                put16(&mut message, checksum::field(protocol).expect("TCP or UDP"), sum);
                message
            }
            Transport::Udp { with_checksum: false, .. } => message,
            _ => checked(src, self.dst, protocol, message),
        };
        make::ip(src, self.dst, Ip { protocol, hops: self.hops, class: self.class }, &message)
    }

    fn shaped(&self, packet: &[u8]) -> Vec<u8> {
        let v4 = packet[0] >> 4 == 4;
        match self.shape {
            Shape::Plain => packet.to_vec(),
            Shape::Extended { .. } if v4 => make::extend4(packet),
            Shape::Extended { headers, kind } => {
                (0..headers).fold(packet.to_vec(), |packet, _| make::extend6(&packet, kind))
            }
            Shape::First { identification, more } => fragment(packet, identification, more),
            Shape::Later { identification, offset, more } => {
                let mut packet = fragment(packet, identification, more);
                if v4 {
                    put16(&mut packet, 6, (offset / 8) as u16 | if more { 0x2000 } else { 0 });
                    checksum::fill_ipv4(&mut packet);
                } else {
                    put16(&mut packet, 42, offset as u16 & !7 | u16::from(more));
                }
                packet
            }
        }
    }

    fn tunnelled(&self, tables: &Tables, n: usize, mut inner: Vec<u8>) -> Vec<u8> {
        let (name, vteps, _) = NODES[n];
        let odd = self.odd_tunnel;
        let Some(node) = &tables.node else { return inner };
        let mut tunnels = node.tunnels;
        let mut src = tables.remotes.get(name).map_or(ip(vteps[0]), |remote| remote.vtep);
        let version = usize::from(src.is_ipv6());
        let mut dst = ip(VTEPS[version]);
        match odd {
            OddTunnel::Source => src = ip(["192.168.0.77", "2001:db8::77"][version]),
            OddTunnel::Destination => dst = ip(ROUTERS[version]),
            OddTunnel::InnerMac if inner.len() >= ETH => inner[5] ^= 0x40,
            _ => {}
        }
        match odd {
            OddTunnel::Port => tunnels.port += 1,
            OddTunnel::Kind => tunnels.geneve ^= true,
            OddTunnel::Checksum => tunnels.send_zero_checksum6 ^= true,
            _ => {}
        }
        let own = if self.tenant { TENANT_VNI } else { node.vni };
        let vni = if let OddTunnel::Vni = odd { own ^ 2 } else { own };
        // The peer's outer class is what this side's settings do not touch.
        (tunnels.dscp, tunnels.compatibility) = (Dscp::Copy, false);
        let mut packet = wrap(tunnels, (src, dst), 50_000, (self.outer_class, 60), vni, &inner);
        match odd {
            OddTunnel::Header { at, value } => packet[[28, 48][version] + at] = value,
            OddTunnel::Fragment if version == 0 => packet = make::fragment4(&packet, 0, 64, true),
            OddTunnel::Fragment => packet = make::fragment6(&packet, 0, 64, true),
            _ => {}
        }
        let frame = make::frame(UPLINK_MAC, [2, 0, 0, 0, 2, n as u8], &packet);
        if let OddTunnel::Odd(odd) = odd { odd.applied(frame) } else { frame }
    }
}

/// Length of fragments.
const FRAGMENT: usize = 32;

fn fragment(packet: &[u8], identification: u16, more: bool) -> Vec<u8> {
    let make = if packet[0] >> 4 == 4 { make::fragment4 } else { make::fragment6 };
    make(packet, identification, FRAGMENT, more)
}

impl Odd {
    fn applied(self, mut frame: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Nothing => {}
            Self::Padded(by) => frame.resize(frame.len() + by, 0xee),
            Self::Byte { at, value, repaired } => {
                let at = at % frame.len();
                frame[at] = value;
                if repaired && frame.len() >= ETH + 20 && frame[12..15] == [8, 0, 0x45] {
                    checksum::fill_ipv4(&mut frame[ETH..]);
                }
            }
            Self::Cut(len) => frame.truncate(len),
            Self::Tagged => frame = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat(),
            Self::To(mac) => frame[..6].copy_from_slice(&mac),
            Self::From(mac) => frame[6..12].copy_from_slice(&mac),
        }
        frame
    }
}
