//! Generators of legal packets, for property tests.
//!
//! A [`LegalPacket`] knows its fields and lays out its bytes by itself, without the header types of this
//! crate, so that these can be tested against it.

pub(crate) mod layout;
mod strategy;

pub use strategy::{host_v4, host_v6, ipv4, ipv6, packet, unicast_mac, whole_packet};

use std::net::{Ipv4Addr, Ipv6Addr};

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
    Tcp {
        ports: (u16, u16),
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        with_checksum: bool,
        data: Vec<u8>,
    },
    /// Chunks: type, flags and value.
    Sctp {
        ports: (u16, u16),
        tag: u32,
        chunks: Vec<(u8, u8, Vec<u8>)>,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: Vec<u8>,
    },
    Opaque {
        protocol: Protocol,
        data: Vec<u8>,
    },
}

impl LegalPacket {
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
            Message::Sctp { .. } => L4::Sctp,
            Message::Icmp { kind, .. } if echo.contains(kind) => L4::Echo,
            Message::Icmp { .. } => L4::Icmp,
            Message::Opaque { .. } => L4::Opaque,
        }
    }

    /// What a parser must find: ports, or twice the identifier of an echo.
    pub fn ports(&self) -> (u16, u16) {
        match (&self.message, self.l4()) {
            (
                Message::Tcp { ports, .. } | Message::Udp { ports, .. } | Message::Sctp { ports, .. },
                L4::Tcp | L4::Udp | L4::Sctp,
            ) => *ports,
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
            Message::Sctp { .. } => Protocol::SCTP,
            Message::Icmp { .. } if self.is_v6() => Protocol::ICMPV6,
            Message::Icmp { .. } => Protocol::ICMP,
            Message::Opaque { protocol, .. } => *protocol,
        }
    }

    /// Whether this is IPv6.
    pub fn is_v6(&self) -> bool {
        matches!(self.net, Net::V6 { .. })
    }
}
