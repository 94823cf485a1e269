//! What makes legal packets.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::eth::EthAddr;
use crate::ip::Protocol;
use crate::parse::Fragment;
use crate::vlan::Tci;

use super::{LegalPacket, Message, Net, Piece};

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
    // From offset 24 on, so that no TCP header is overwritten, and short of where the packet would end past
    // 65535 bytes.
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
    let opaque = prop_oneof![Just(Protocol(47)), Just(Protocol(50)), Just(Protocol(253))];
    prop_oneof![
        3 => (ports(), any::<u32>(), any::<u32>(), any::<u8>(), words(10), data()).prop_map(
            |(ports, sequence, acknowledgement, flags, options, data)| Message::Tcp {
                ports, sequence, acknowledgement, flags, options, data
            }
        ),
        3 => (ports(), any::<bool>(), data())
            .prop_map(|(ports, with_checksum, data)| Message::Udp { ports, with_checksum, data }),
        2 => (ports(), any::<u32>(), chunks())
            .prop_map(|(ports, tag, chunks)| Message::Sctp { ports, tag, chunks }),
        3 => (icmp_type, any::<u8>(), any::<[u8; 4]>(), data())
            .prop_map(|(kind, code, rest, data)| Message::Icmp { kind, code, rest, data }),
        1 => (opaque, data()).prop_map(|(protocol, data)| Message::Opaque { protocol, data }),
    ]
}

/// One chunk of any kind, or a few of those that may go together.
fn chunks() -> impl Strategy<Value = Vec<(u8, u8, Vec<u8>)>> {
    let chunk = |kind: BoxedStrategy<u8>| (kind, any::<u8>(), data());
    let sociable = prop_oneof![Just(0), Just(3), Just(4), Just(6), Just(7), Just(8), 15u8..];
    prop_oneof![
        vec(chunk((0u8..16).boxed()), 0..=1),
        vec(chunk(sociable.boxed()), 0..4).prop_map(|mut chunks| {
            chunks.truncate(2);
            chunks
        }),
    ]
}

impl Message {
    /// Fills up the data so that the message's length is a multiple of eight, as that of a fragment with
    /// successors must be.
    fn round_up(&mut self) {
        let (head, data) = match self {
            Self::Tcp { options, data, .. } => (20 + options.len(), data),
            Self::Udp { data, .. } | Self::Icmp { data, .. } => (8, data),
            Self::Opaque { data, .. } => (0, data),
            // A chunk fills up by itself to a multiple of four, and the header is four bytes short of one of eight.
            Self::Sctp { chunks, .. } => {
                let len: usize = chunks.iter().map(|(.., value)| value.len().next_multiple_of(4)).sum();
                if (12 + chunks.len() * 4 + len).is_multiple_of(8) {
                    return;
                }
                return chunks.push((3, 0, vec![]));
            }
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
