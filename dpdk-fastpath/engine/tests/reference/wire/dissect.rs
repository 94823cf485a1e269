//! What a frame is, and what is wrong with it: RFC 791, 8200, 768, 792, 826, 4443, 9260, 9293; by the names under which the
//! engine counts malformed packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ETH, ICMP, ICMPV6, Mac, SCTP, TCP, UDP, checksum, get16, sctp};

/// What is above Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Arp,
    V4,
    V6,
    Other(u16),
}

/// What is above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper {
    Tcp {
        flags: u8,
    },
    Udp,
    /// With the chunks that open and close associations.
    Sctp {
        chunks: u8,
    },
    Echo {
        kind: u8,
    },
    Icmp {
        kind: u8,
    },
    Unknown,
}

/// Whether the packet is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    Whole,
    First,
    Later,
}

/// What the fragment header says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) identification: u32,
    /// Place of its first byte in what is fragmented, and behind its last one.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A frame that is well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) eth_dst: Mac,
    pub(crate) eth_src: Mac,
    pub(crate) tagged: bool,
    pub(crate) net: Net,
    /// Where the IP header begins, where what is above IP begins, and where the packet ends.
    pub(crate) ip_at: usize,
    pub(crate) upper_at: usize,
    pub(crate) end: usize,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) upper: Upper,
    /// Ports of TCP, UDP and SCTP; the identifier of an echo, twice.
    pub(crate) ports: (u16, u16),
    pub(crate) piece: Piece,
    pub(crate) fragment: Fragment,
    pub(crate) hops: u8,
    /// DSCP and ECN.
    pub(crate) class: u8,
}

impl Packet {
    /// Length of the IP packet.
    pub(crate) fn len(&self) -> usize {
        self.end - self.ip_at
    }

    /// Router and neighbour discovery and redirects (RFC 4861).
    pub(crate) fn is_discovery(&self) -> bool {
        matches!((self.net, self.upper), (Net::V6, Upper::Icmp { kind: 133..=137 }))
    }

    /// Echo requests.
    pub(crate) fn is_ping(&self) -> bool {
        matches!(self.upper, Upper::Echo { kind: 8 | 128 })
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.piece != Piece::Whole
    }
}

/// Reads a frame.
pub(crate) fn dissect(frame: &[u8]) -> Result<Packet, &'static str> {
    if frame.len() < ETH {
        return Err("eth-truncated");
    }
    let mut ip_at = ETH;
    let tagged = get16(frame, 12) == 0x8100;
    if tagged {
        ip_at += 4;
        if frame.len() < ip_at {
            return Err("vlan-truncated");
        }
    }
    let ether_type = get16(frame, ip_at - 2);
    let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let blank = Packet {
        eth_dst: mac(frame, 0),
        eth_src: mac(frame, 6),
        tagged,
        net: Net::Other(ether_type),
        ip_at,
        upper_at: ip_at,
        end: frame.len(),
        src: none,
        dst: none,
        protocol: 0,
        upper: Upper::Unknown,
        ports: (0, 0),
        piece: Piece::Whole,
        fragment: Fragment::default(),
        hops: 0,
        class: 0,
    };
    match ether_type {
        0x0800 => ipv4(&frame[ip_at..], blank),
        0x86dd => ipv6(&frame[ip_at..], blank),
        0x0806 => arp(&frame[ip_at..], blank),
        _ => Ok(blank),
    }
}

pub(crate) fn mac(bytes: &[u8], at: usize) -> Mac {
    bytes[at..at + 6].try_into().expect("six bytes")
}

pub(crate) fn v4(bytes: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four bytes")).into()
}

pub(crate) fn v6(bytes: &[u8], at: usize) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes")).into()
}

/// Ethernet and IPv4 only.
fn arp(packet: &[u8], blank: Packet) -> Result<Packet, &'static str> {
    if packet.len() < 28 {
        return Err("arp-truncated");
    }
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return Err("arp-type");
    }
    Ok(Packet { net: Net::Arp, end: blank.ip_at + 28, src: v4(packet, 14), dst: v4(packet, 24), ..blank })
}

fn ipv4(packet: &[u8], blank: Packet) -> Result<Packet, &'static str> {
    if packet.len() < 20 {
        return Err("ipv4-truncated");
    }
    if packet[0] >> 4 != 4 {
        return Err("ipv4-bad-version");
    }
    let (header, total) = (usize::from(packet[0] & 0xf) * 4, usize::from(get16(packet, 2)));
    if header < 20 || header > packet.len() {
        return Err("ipv4-header-length");
    }
    if total < header || total > packet.len() {
        return Err("ipv4-total-length");
    }
    if !checksum::ipv4_is_right(&packet[..header]) {
        return Err("ipv4-checksum");
    }
    let (more, offset) = (packet[6] & 0x20 != 0, usize::from(get16(packet, 6) & 0x1fff) * 8);
    if offset + total > 0xffff || more && !(total - header).is_multiple_of(8) {
        return Err("ipv4-fragment");
    }
    let found = Packet {
        net: Net::V4,
        upper_at: blank.ip_at + header,
        end: blank.ip_at + total,
        src: v4(packet, 12),
        dst: v4(packet, 16),
        protocol: packet[9],
        piece: piece(offset, more),
        fragment: Fragment {
            identification: get16(packet, 4).into(),
            start: offset,
            end: offset + total - header,
        },
        hops: packet[8],
        class: packet[1],
        ..blank
    };
    upper(&packet[header..total], offset, ICMP, found)
}

fn piece(offset: usize, more: bool) -> Piece {
    match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    }
}

fn ipv6(packet: &[u8], blank: Packet) -> Result<Packet, &'static str> {
    if packet.len() < 40 {
        return Err("ipv6-truncated");
    }
    if packet[0] >> 4 != 6 {
        return Err("ipv6-bad-version");
    }
    let total = 40 + usize::from(get16(packet, 4));
    if total > packet.len() {
        return Err("ipv6-payload-length");
    }
    let Chain { protocol, len, offset, more, fragment } = chain(packet[6], &packet[40..total])?;
    let found = Packet {
        net: Net::V6,
        upper_at: blank.ip_at + 40 + len,
        end: blank.ip_at + total,
        src: v6(packet, 8),
        dst: v6(packet, 24),
        protocol,
        piece: piece(offset, more),
        fragment,
        hops: packet[7],
        class: packet[0] << 4 | packet[1] >> 4,
        ..blank
    };
    upper(&packet[40 + len..total], offset, ICMPV6, found)
}

/// Extension headers.
pub(crate) struct Chain {
    /// What follows them.
    pub(crate) protocol: u8,
    /// Length of all of them.
    pub(crate) len: usize,
    /// Where the fragment belongs, in bytes, and whether it is not the last.
    pub(crate) offset: usize,
    pub(crate) more: bool,
    pub(crate) fragment: Fragment,
}

/// Walks at most eight extension headers (RFC 8504, section 5.3), hop-by-hop options only in the first place. Nothing is
/// known about what follows the fragment header of a fragment other than the first.
pub(crate) fn chain(first: u8, payload: &[u8]) -> Result<Chain, &'static str> {
    const HOP_BY_HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    // Routing, destination options, mobility, HIP, Shim6.
    const OTHERS: [u8; 5] = [43, 60, 135, 139, 140];
    let mut chain = Chain { protocol: first, len: 0, offset: 0, more: false, fragment: Fragment::default() };
    let (mut headers, mut fragmented) = (0, false);
    while [HOP_BY_HOP, FRAGMENT, AUTHENTICATION].contains(&chain.protocol) || OTHERS.contains(&chain.protocol)
    {
        headers += 1;
        if headers > 8 || chain.protocol == HOP_BY_HOP && headers > 1 {
            return Err("ipv6-extension-chain");
        }
        // Which of two to believe nobody knows.
        if chain.protocol == FRAGMENT && std::mem::replace(&mut fragmented, true) {
            return Err("ipv6-extension-chain");
        }
        let rest = &payload[chain.len..];
        let least = if chain.protocol == FRAGMENT { 8 } else { 2 };
        if rest.len() < least {
            return Err("ipv6-extension-truncated");
        }
        let len = match chain.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        if len > rest.len() {
            return Err("ipv6-extension-truncated");
        }
        if chain.protocol == FRAGMENT {
            chain.offset = usize::from(get16(rest, 2) & !7);
            chain.more = rest[3] & 1 == 1;
            let there = rest.len() - 8;
            chain.fragment = Fragment {
                identification: u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]),
                start: chain.offset,
                end: chain.offset + there,
            };
            if chain.more && !there.is_multiple_of(8) || chain.offset + there > 0xffff {
                return Err("ipv6-fragment");
            }
        }
        chain.protocol = rest[0];
        chain.len += len;
        if chain.offset > 0 {
            break;
        }
    }
    Ok(chain)
}

fn upper(message: &[u8], offset: usize, icmp: u8, packet: Packet) -> Result<Packet, &'static str> {
    if packet.piece == Piece::Later {
        // RFC 1858 and 3128: nothing may overwrite a TCP header.
        return if packet.protocol == TCP && offset < 20 { Err("tcp-tiny-fragment") } else { Ok(packet) };
    }
    let ports = |message: &[u8]| (get16(message, 0), get16(message, 2));
    match packet.protocol {
        TCP if message.len() < 20 => Err("tcp-truncated"),
        TCP => {
            let header = usize::from(message[12] >> 4) * 4;
            if header < 20 || header > message.len() {
                return Err("tcp-offset");
            }
            Ok(Packet { upper: Upper::Tcp { flags: message[13] }, ports: ports(message), ..packet })
        }
        UDP if message.len() < 8 => Err("udp-truncated"),
        UDP => {
            let length = usize::from(get16(message, 4));
            // In a first fragment it is that of the whole datagram.
            if length < 8 || length > message.len() && packet.piece == Piece::Whole {
                return Err("udp-length");
            }
            Ok(Packet { upper: Upper::Udp, ports: ports(message), ..packet })
        }
        SCTP if message.len() < 12 => Err("sctp-truncated"),
        SCTP => {
            let chunks = sctp::chunks(message, packet.piece == Piece::First)?;
            Ok(Packet { upper: Upper::Sctp { chunks }, ports: ports(message), ..packet })
        }
        protocol if protocol == icmp => {
            if message.len() < 8 {
                return Err("icmp-truncated");
            }
            let kind = message[0];
            let echo = if icmp == ICMP { [8, 0].contains(&kind) } else { [128, 129].contains(&kind) };
            if !echo {
                return Ok(Packet { upper: Upper::Icmp { kind }, ..packet });
            }
            let identifier = get16(message, 4);
            Ok(Packet { upper: Upper::Echo { kind }, ports: (identifier, identifier), ..packet })
        }
        _ => Ok(packet),
    }
}
