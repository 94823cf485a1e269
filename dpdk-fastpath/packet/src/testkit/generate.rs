//! Generators of legal packets, for property tests.
//!
//! A [`LegalPacket`] knows its fields and lays out its bytes by itself, without the header types of this crate, so that
//! these can be tested against it.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::eth::EthAddr;
use crate::ip::Protocol;
use crate::parse::{Fragment, L4};
use crate::vlan::Tci;

/// An IP packet in an Ethernet frame that everybody must accept.
#[derive(Debug, Clone)]
pub struct LegalPacket {
    /// Who receives the frame.
    pub eth_dst: EthAddr,
    /// Who sends it.
    pub eth_src: EthAddr,
    /// Its 802.1Q tag.
    pub vlan: Option<Tci>,
    /// The IP header.
    pub net: Net,
    /// Which part of the message there is.
    pub piece: Piece,
    /// What the IP packet carries; the bytes of a [`Piece`] other than the whole are those of the piece.
    pub message: Message,
    /// Bytes behind the packet.
    pub padding: u8,
}

/// An IP header.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the headers")]
pub enum Net {
    V4 {
        src: Ipv4Addr,
        dst: Ipv4Addr,
        ttl: u8,
        traffic_class: u8,
        identification: u16,
        dont_fragment: bool,
        options: Vec<u8>,
    },
    V6 {
        src: Ipv6Addr,
        dst: Ipv6Addr,
        hop_limit: u8,
        traffic_class: u8,
        flow_label: u32,
        /// Extension headers but for the fragment header: type, and what follows the length byte.
        extensions: Vec<(Protocol, Vec<u8>)>,
    },
}

/// Which part of a packet there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// All.
    Whole,
    /// A fragment, with its offset in units of eight bytes and whether more follow.
    Fragment(u16, bool),
}

/// What an IP packet carries.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the headers")]
pub enum Message {
    Tcp { ports: (u16, u16), sequence: u32, acknowledgement: u32, flags: u8, options: Vec<u8>, data: Vec<u8> },
    Udp { ports: (u16, u16), with_checksum: bool, data: Vec<u8> },
    Icmp { kind: u8, code: u8, rest: [u8; 4], data: Vec<u8> },
    Opaque { protocol: Protocol, data: Vec<u8> },
}

impl LegalPacket {
    /// The bytes on the wire.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [self.eth_dst.0, self.eth_src.0].concat();
        if let Some(tci) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(tci.0.to_be_bytes());
        }
        let message = self.message_bytes();
        match &self.net {
            Net::V4 { src, dst, ttl, traffic_class, identification, dont_fragment, options } => {
                frame.extend([0x08, 0x00]);
                let (offset, more) = self.piece.offset_and_more();
                let flags = u16::from(*dont_fragment) << 14 | u16::from(more) << 13 | offset;
                let header_len = 20 + options.len();
                let mut header = vec![0x40 | (header_len / 4) as u8, *traffic_class];
                header.extend(((header_len + message.len()) as u16).to_be_bytes());
                header.extend(identification.to_be_bytes());
                header.extend(flags.to_be_bytes());
                header.extend([*ttl, self.protocol().0, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(options);
                let checksum = slow_checksum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(header);
            }
            Net::V6 { src, dst, hop_limit, traffic_class, flow_label, extensions } => {
                frame.extend([0x86, 0xdd]);
                let (first, chain) = self.chain(extensions);
                frame.extend((6 << 28 | u32::from(*traffic_class) << 20 | flow_label).to_be_bytes());
                frame.extend(((chain.len() + message.len()) as u16).to_be_bytes());
                frame.extend([first.0, *hop_limit]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                frame.extend(chain);
            }
        }
        frame.extend(message);
        frame.extend(std::iter::repeat_n(0xee, usize::from(self.padding)));
        frame
    }

    /// What a parser must find.
    pub fn fragment(&self) -> Fragment {
        match self.piece {
            Piece::Whole | Piece::Fragment(0, false) => Fragment::Whole,
            Piece::Fragment(0, true) => Fragment::First,
            Piece::Fragment(..) => Fragment::Later,
        }
    }

    /// What a parser must find.
    pub fn l4(&self) -> L4 {
        let echo: &[u8] = if self.is_v6() { &[128, 129] } else { &[0, 8] };
        match &self.message {
            _ if self.fragment() == Fragment::Later => L4::Opaque,
            Message::Tcp { .. } => L4::Tcp,
            Message::Udp { .. } => L4::Udp,
            Message::Icmp { kind, .. } if echo.contains(kind) => L4::Echo,
            Message::Icmp { .. } => L4::Icmp,
            Message::Opaque { .. } => L4::Opaque,
        }
    }

    /// What a parser must find: ports, or twice the identifier of an echo.
    pub fn ports(&self) -> (u16, u16) {
        match (&self.message, self.l4()) {
            (Message::Tcp { ports, .. } | Message::Udp { ports, .. }, L4::Tcp | L4::Udp) => *ports,
            (Message::Icmp { rest, .. }, L4::Echo) => {
                let identifier = u16::from_be_bytes([rest[0], rest[1]]);
                (identifier, identifier)
            }
            _ => (0, 0),
        }
    }

    /// Number of the message's protocol.
    pub fn protocol(&self) -> Protocol {
        match &self.message {
            Message::Tcp { .. } => Protocol::TCP,
            Message::Udp { .. } => Protocol::UDP,
            Message::Icmp { .. } if self.is_v6() => Protocol::ICMPV6,
            Message::Icmp { .. } => Protocol::ICMP,
            Message::Opaque { protocol, .. } => *protocol,
        }
    }

    /// Whether this is IPv6.
    pub fn is_v6(&self) -> bool {
        matches!(self.net, Net::V6 { .. })
    }

    fn message_bytes(&self) -> Vec<u8> {
        let (mut bytes, field) = match &self.message {
            Message::Tcp { ports, sequence, acknowledgement, flags, options, data } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([((20 + options.len()) as u8 / 4) << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(data);
                (bytes, Some(16))
            }
            Message::Udp { ports, with_checksum, data } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(((data.len() + 8) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(data);
                (bytes, (*with_checksum || self.is_v6()).then_some(6))
            }
            Message::Icmp { kind, code, rest, data } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(rest);
                bytes.extend(data);
                (bytes, Some(2))
            }
            Message::Opaque { data, .. } => return data.clone(),
        };
        if let Some(field) = field {
            let covered = [self.pseudo_header(bytes.len() as u32), bytes.clone()].concat();
            let checksum = match (slow_checksum(&covered), &self.message) {
                (0, Message::Udp { .. }) => 0xffff,
                (checksum, _) => checksum,
            };
            bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }

    fn pseudo_header(&self, len: u32) -> Vec<u8> {
        let tail = |len: u32| [len.to_be_bytes(), [0, 0, 0, self.protocol().0]].concat();
        match &self.net {
            Net::V4 { .. } if self.protocol() == Protocol::ICMP => vec![],
            Net::V4 { src, dst, .. } => [&src.octets()[..], &dst.octets(), &tail(len)].concat(),
            Net::V6 { src, dst, .. } => [&src.octets()[..], &dst.octets(), &tail(len)].concat(),
        }
    }

    /// The first next-header value, and the extension headers with the fragment header behind them.
    fn chain(&self, extensions: &[(Protocol, Vec<u8>)]) -> (Protocol, Vec<u8>) {
        let mut bytes = vec![];
        let mut next = self.protocol();
        if let Piece::Fragment(offset, more) = self.piece {
            bytes = vec![next.0, 0];
            bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
            bytes.extend([1, 2, 3, 4]);
            next = Protocol::FRAGMENT;
        }
        for (kind, body) in extensions.iter().rev() {
            let units = match *kind {
                Protocol::AUTHENTICATION => (body.len() + 2) / 4 - 2,
                _ => (body.len() + 2) / 8 - 1,
            };
            bytes = [&[next.0, units as u8], &body[..], &bytes].concat();
            next = *kind;
        }
        (next, bytes)
    }
}

impl Piece {
    fn offset_and_more(self) -> (u16, bool) {
        match self {
            Self::Whole => (0, false),
            Self::Fragment(offset, more) => (offset, more),
        }
    }
}

/// RFC 1071 word by word.
fn slow_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// An address of one station.
pub fn unicast_mac() -> impl Strategy<Value = EthAddr> {
    any::<[u8; 6]>().prop_map(|mut octets| {
        octets[0] = octets[0] & !1 | 2;
        EthAddr(octets)
    })
}

/// An IPv4 address of one host.
pub fn host_v4() -> impl Strategy<Value = Ipv4Addr> {
    (prop_oneof![1u8..127, 128u8..224], any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

/// An IPv6 address of one host.
pub fn host_v6() -> impl Strategy<Value = Ipv6Addr> {
    (prop_oneof![0x20u8..0x40, Just(0xfd), Just(0xfe)], any::<[u8; 16]>()).prop_map(|(first, mut octets)| {
        octets[0] = first;
        Ipv6Addr::from_octets(octets)
    })
}

/// Any legal IPv4 or IPv6 packet with up to 1500 bytes of data.
pub fn packet() -> impl Strategy<Value = LegalPacket> {
    prop_oneof![ipv4(), ipv6()]
}

/// Any legal packet that is no fragment.
pub fn whole_packet() -> impl Strategy<Value = LegalPacket> {
    packet().prop_filter("a fragment", |p| p.fragment() == Fragment::Whole)
}

/// Any legal IPv4 packet.
pub fn ipv4() -> impl Strategy<Value = LegalPacket> {
    let net = (host_v4(), host_v4(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>(), words(10))
        .prop_map(|(src, dst, ttl, traffic_class, identification, dont_fragment, options)| Net::V4 {
            src,
            dst,
            ttl,
            traffic_class,
            identification,
            dont_fragment,
            options,
        });
    let icmp = prop_oneof![Just(8), Just(0), any::<u8>()];
    carrying(net, icmp)
}

/// Any legal IPv6 packet.
pub fn ipv6() -> impl Strategy<Value = LegalPacket> {
    let net = (host_v6(), host_v6(), any::<u8>(), any::<u8>(), 0..0x10_0000u32, extensions()).prop_map(
        |(src, dst, hop_limit, traffic_class, flow_label, extensions)| Net::V6 {
            src,
            dst,
            hop_limit,
            traffic_class,
            flow_label,
            extensions,
        },
    );
    let icmp = prop_oneof![Just(128), Just(129), Just(135), any::<u8>()];
    carrying(net, icmp)
}

fn extensions() -> impl Strategy<Value = Vec<(Protocol, Vec<u8>)>> {
    let body = |unit: usize, head: usize| {
        (0..4usize).prop_flat_map(move |n| vec(any::<u8>(), unit * n + head)).boxed()
    };
    let eights = prop_oneof![
        Just(Protocol::ROUTING),
        Just(Protocol::DESTINATION_OPTIONS),
        Just(Protocol::MOBILITY),
        Just(Protocol::HIP),
        Just(Protocol::SHIM6)
    ];
    // The authentication header is measured in words of four bytes, and has three of them at least.
    let any_extension = prop_oneof![
        3 => (eights, body(8, 6)),
        1 => (Just(Protocol::AUTHENTICATION), body(4, 10)),
    ];
    let hop_by_hop = option::weighted(0.2, (Just(Protocol::HOP_BY_HOP), body(8, 6)));
    let some = (hop_by_hop, vec(any_extension, 0..4))
        .prop_map(|(first, rest)| first.into_iter().chain(rest).collect());
    prop_oneof![2 => Just(vec![]), 1 => some]
}

fn carrying(
    net: impl Strategy<Value = Net> + 'static,
    icmp_type: impl Strategy<Value = u8> + 'static,
) -> impl Strategy<Value = LegalPacket> {
    let link =
        (unicast_mac(), unicast_mac(), option::of(any::<u16>().prop_map(Tci)), prop_oneof![Just(0), 0u8..64]);
    let whole =
        (message(icmp_type), prop_oneof![4 => Just(Piece::Whole), 1 => Just(Piece::Fragment(0, true))])
            .prop_map(|(mut message, piece)| {
                if piece != Piece::Whole {
                    message.round_up();
                }
                (message, piece)
            });
    // From offset 24 on, so that no TCP header is overwritten, and short of where the packet would end past 65535 bytes.
    let later = (3u16..7800, any::<bool>(), prop_oneof![Just(6), Just(17), any::<u8>()], data()).prop_map(
        |(offset, more, protocol, data)| {
            let mut message = Message::Opaque { protocol: upper_layer(protocol), data };
            if more {
                message.round_up();
            }
            (message, Piece::Fragment(offset, more))
        },
    );
    (link, net, prop_oneof![5 => whole, 1 => later]).prop_map(
        |((eth_dst, eth_src, vlan, padding), net, (message, piece))| LegalPacket {
            eth_dst,
            eth_src,
            vlan,
            net,
            piece,
            message,
            padding,
        },
    )
}

fn message(icmp_type: impl Strategy<Value = u8> + 'static) -> impl Strategy<Value = Message> {
    let ports = || any::<(u16, u16)>();
    let opaque =
        prop_oneof![Just(Protocol::SCTP), Just(Protocol(47)), Just(Protocol(50)), Just(Protocol(253))];
    prop_oneof![
        3 => (ports(), any::<u32>(), any::<u32>(), any::<u8>(), words(10), data()).prop_map(
            |(ports, sequence, acknowledgement, flags, options, data)| Message::Tcp {
                ports, sequence, acknowledgement, flags, options, data
            }
        ),
        3 => (ports(), any::<bool>(), data())
            .prop_map(|(ports, with_checksum, data)| Message::Udp { ports, with_checksum, data }),
        3 => (icmp_type, any::<u8>(), any::<[u8; 4]>(), data())
            .prop_map(|(kind, code, rest, data)| Message::Icmp { kind, code, rest, data }),
        1 => (opaque, data()).prop_map(|(protocol, data)| Message::Opaque { protocol, data }),
    ]
}

impl Message {
    /// Fills up the data so that the message's length is a multiple of eight, as that of a fragment with successors must be.
    fn round_up(&mut self) {
        let (head, data) = match self {
            Self::Tcp { options, data, .. } => (20 + options.len(), data),
            Self::Udp { data, .. } | Self::Icmp { data, .. } => (8, data),
            Self::Opaque { data, .. } => (0, data),
        };
        let missing = (head + data.len()).next_multiple_of(8) - head - data.len();
        data.resize(data.len() + missing, 0);
    }
}

/// A number that is no IPv6 extension header.
fn upper_layer(number: u8) -> Protocol {
    match Protocol(number) {
        Protocol::HOP_BY_HOP
        | Protocol::ROUTING
        | Protocol::FRAGMENT
        | Protocol::AUTHENTICATION
        | Protocol::DESTINATION_OPTIONS
        | Protocol::MOBILITY
        | Protocol::HIP
        | Protocol::SHIM6 => Protocol::UDP,
        protocol => protocol,
    }
}

fn words(most: usize) -> impl Strategy<Value = Vec<u8>> {
    // Mostly none; else "no operation", which is one byte long in IPv4 and TCP.
    prop_oneof![2 => Just(0), 1 => 0..=most].prop_map(|n| vec![1; n * 4])
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..1500)]
}
