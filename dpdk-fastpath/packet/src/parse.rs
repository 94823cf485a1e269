//! The light parse of the fast path: one pass over a frame, every length verified.

use zerocopy::FromBytes;

use crate::Malformed;
use crate::arp::{self, ArpHeader};
use crate::checksum::Sum;
use crate::eth::{EthHeader, EtherType};
use crate::icmp::{IcmpHeader, IcmpType};
use crate::icmpv6::Icmpv6Type;
use crate::ip::Protocol;
use crate::ipv4::{self, Ipv4, Ipv4Header};
use crate::ipv6::{self, Ipv6, Ipv6Header};
use crate::sctp::{self, SctpChunks, SctpHeader};
use crate::tcp::{self, TcpFlags, TcpHeader};
use crate::udp::{self, Udp, UdpHeader};
use crate::vlan::{Tci, VlanHeader};

/// The protocol above Ethernet and its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L3 {
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Anything else, a second VLAN tag among them; nothing of it was looked at.
    Other(EtherType),
}

/// What of the transport protocol there is in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    /// A TCP header.
    Tcp,
    /// A UDP header.
    Udp,
    /// An SCTP header.
    Sctp,
    /// The header of an ICMP or ICMPv6 echo request or reply.
    Echo,
    /// The header of another ICMP or ICMPv6 message.
    Icmp,
    /// Another protocol, or a fragment other than the first: nothing that was looked at.
    Opaque,
}

/// Whether a packet is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// The whole packet; also an IPv6 packet that is the only fragment of itself (RFC 6946).
    Whole,
    /// The fragment that begins with the transport header.
    First,
    /// A fragment with an offset: no transport header, no ports.
    Later,
}

/// What forwarding needs to know of a frame. The offsets count from the frame's first byte, and all that they
/// and the lengths promise is in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// The protocol above Ethernet.
    pub l3: L3,
    /// The 802.1Q tag.
    pub vlan: Option<Tci>,
    /// Where that protocol's header begins: 14, or 18 behind a tag.
    pub l3_offset: u8,
    /// Where the transport header, or what else is behind the IP headers, begins. For other than IP: as
    /// `l3_offset`.
    pub l4_offset: u16,
    /// Length of the IP packet or ARP packet in bytes; for other than these all that the frame holds. What
    /// follows is padding.
    pub l3_len: u32,
    /// Transport protocol; 0 for other than IP.
    pub protocol: Protocol,
    /// What of the transport protocol there is.
    pub l4: L4,
    /// Source port of TCP, UDP and SCTP, identifier of an ICMP echo; else 0.
    pub src_port: u16,
    /// Destination port of TCP, UDP and SCTP, identifier of an ICMP echo; else 0.
    pub dst_port: u16,
    /// Control bits of TCP, else none.
    pub tcp_flags: TcpFlags,
    /// What SCTP opens and closes associations with, else none.
    pub sctp_chunks: SctpChunks,
    /// Message type of ICMP ([`IcmpType`]) or ICMPv6 ([`Icmpv6Type`]), else 0.
    pub icmp_type: u8,
    /// Whether the packet is whole.
    pub fragment: Fragment,
    /// Time to live or hop limit, as received; 0 for other than IP.
    pub ttl: u8,
    /// DSCP and ECN, as received; 0 for other than IP.
    pub traffic_class: u8,
    /// Whether routers must not fragment the packet; always so with IPv6.
    pub dont_fragment: bool,
    /// Whether the checksum of TCP or UDP is [partial](crate::offload::Offload::partial), which the frame does not tell.
    pub partial: bool,
}

const _: () = assert!(size_of::<Parsed>() <= 32);

impl Parsed {
    /// Where the frame ends without its padding.
    #[inline]
    pub const fn end(&self) -> usize {
        self.l3_offset as usize + self.l3_len as usize
    }

    /// Length in bytes of the transport header and all that follows in the packet.
    #[inline]
    pub const fn l4_len(&self) -> usize {
        self.end() - self.l4_offset as usize
    }

    /// Whether the message is an ICMP or ICMPv6 echo request.
    #[inline]
    pub const fn is_ping(&self) -> bool {
        matches!(self.l4, L4::Echo)
            && (self.icmp_type == IcmpType::ECHO_REQUEST.0 || self.icmp_type == Icmpv6Type::ECHO_REQUEST.0)
    }

    /// Whether the packet is one of several fragments.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        !matches!(self.fragment, Fragment::Whole)
    }
}

/// Reads the headers of an Ethernet frame without frame check sequence.
///
/// Verified are all lengths, versions, the checksum of the IPv4 header and what fragments may look like; not
/// the checksums of the transport protocols, and not whether addresses make sense.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    let Ok((eth, packet)) = EthHeader::ref_from_prefix(frame) else { return Err(Malformed::EthTruncated) };
    match eth.ether_type() {
        EtherType::VLAN => {
            let Ok((tag, packet)) = VlanHeader::ref_from_prefix(packet) else {
                return Err(Malformed::VlanTruncated);
            };
            parse_l3(packet, TAGGED, Some(tag.tci()), tag.ether_type())
        }
        ether_type => parse_l3(packet, UNTAGGED, None, ether_type),
    }
}

const UNTAGGED: u8 = EthHeader::LEN as u8;
const TAGGED: u8 = UNTAGGED + VlanHeader::LEN as u8;

#[inline]
fn parse_l3(
    packet: &[u8],
    l3_offset: u8,
    vlan: Option<Tci>,
    ether_type: EtherType,
) -> Result<Parsed, Malformed> {
    let blank = Parsed {
        l3: L3::Other(ether_type),
        vlan,
        l3_offset,
        l4_offset: u16::from(l3_offset),
        l3_len: packet.len() as u32,
        protocol: Protocol(0),
        l4: L4::Opaque,
        src_port: 0,
        dst_port: 0,
        tcp_flags: TcpFlags(0),
        sctp_chunks: SctpChunks::NONE,
        icmp_type: 0,
        fragment: Fragment::Whole,
        ttl: 0,
        traffic_class: 0,
        dont_fragment: false,
        partial: false,
    };
    match ether_type {
        EtherType::IPV4 => parse_ipv4(packet, blank),
        EtherType::IPV6 => parse_ipv6(packet, blank),
        EtherType::ARP => parse_arp(packet, blank),
        _ => Ok(blank),
    }
}

fn parse_arp(packet: &[u8], blank: Parsed) -> Result<Parsed, Malformed> {
    let Ok((header, _)) = ArpHeader::ref_from_prefix(packet) else { return Err(Malformed::ArpTruncated) };
    let extent = arp::check(header, packet.len())?;
    Ok(Parsed { l3: L3::Arp, l3_len: extent.total as u32, ..blank })
}

#[inline]
fn parse_ipv4(packet: &[u8], blank: Parsed) -> Result<Parsed, Malformed> {
    let Ok((header, _)) = Ipv4Header::ref_from_prefix(packet) else { return Err(Malformed::Ipv4Truncated) };
    let extent = ipv4::check(header, packet.len())?;
    let (head, payload) = packet[..extent.total].split_at(extent.header);
    // Nearly always without options: a sum of constant length is straight-line code.
    let sum = match <&[u8; Ipv4Header::LEN]>::try_from(head) {
        Ok(head) => Sum::ZERO.bytes(head),
        Err(_) => Sum::ZERO.bytes(head),
    };
    if !sum.is_valid() {
        return Err(Malformed::Ipv4Checksum);
    }
    let (offset, more) = (header.fragment_offset(), header.more_fragments());
    if offset as usize + extent.total > usize::from(u16::MAX) || more && !payload.len().is_multiple_of(8) {
        return Err(Malformed::Ipv4Fragment);
    }
    let parsed = Parsed {
        l3: L3::Ipv4,
        l4_offset: u16::from(blank.l3_offset) + extent.header as u16,
        l3_len: extent.total as u32,
        protocol: header.protocol(),
        fragment: fragment_of(offset, more),
        ttl: header.ttl(),
        traffic_class: header.traffic_class(),
        dont_fragment: header.dont_fragment(),
        ..blank
    };
    parse_l4(payload, offset, Protocol::ICMP, parsed)
}

#[inline]
fn parse_ipv6(packet: &[u8], blank: Parsed) -> Result<Parsed, Malformed> {
    let Ok((header, _)) = Ipv6Header::ref_from_prefix(packet) else { return Err(Malformed::Ipv6Truncated) };
    let extent = ipv6::check(header, packet.len())?;
    let payload = &packet[extent.header..extent.total];
    let upper = ipv6::walk(header.next_header(), payload)?;
    let (offset, more) = upper.fragment.map_or((0, false), |f| (f.offset(), f.more_fragments()));
    let parsed = Parsed {
        l3: L3::Ipv6,
        l4_offset: u16::from(blank.l3_offset) + (extent.header + upper.offset) as u16,
        l3_len: extent.total as u32,
        protocol: upper.protocol,
        fragment: fragment_of(offset, more),
        ttl: header.hop_limit(),
        traffic_class: header.traffic_class(),
        dont_fragment: true,
        ..blank
    };
    parse_l4(&payload[upper.offset..], offset, Protocol::ICMPV6, parsed)
}

#[inline]
const fn fragment_of(offset: u32, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Reads the transport header in `payload`; `icmp` is the ICMP of the IP version at hand.
#[inline]
fn parse_l4(payload: &[u8], offset: u32, icmp: Protocol, parsed: Parsed) -> Result<Parsed, Malformed> {
    if parsed.fragment == Fragment::Later {
        // First fragments hold a whole header, which nothing may overwrite later.
        let tiny = parsed.protocol == Protocol::TCP && (offset as usize) < TcpHeader::LEN;
        return if tiny { Err(Malformed::TcpTinyFragment) } else { Ok(parsed) };
    }
    match parsed.protocol {
        Protocol::TCP => {
            let Ok((header, _)) = TcpHeader::ref_from_prefix(payload) else {
                return Err(Malformed::TcpTruncated);
            };
            tcp::check(header, payload.len())?;
            Ok(Parsed {
                l4: L4::Tcp,
                src_port: header.src_port(),
                dst_port: header.dst_port(),
                tcp_flags: header.flags(),
                ..parsed
            })
        }
        Protocol::UDP => {
            let Ok((header, _)) = UdpHeader::ref_from_prefix(payload) else {
                return Err(Malformed::UdpTruncated);
            };
            // The length in a first fragment is that of the whole datagram.
            let there = if parsed.is_fragment() { usize::from(u16::MAX) } else { payload.len() };
            udp::check(header, there)?;
            Ok(Parsed { l4: L4::Udp, src_port: header.src_port(), dst_port: header.dst_port(), ..parsed })
        }
        protocol if protocol == icmp => {
            let Ok((header, _)) = IcmpHeader::ref_from_prefix(payload) else {
                return Err(Malformed::IcmpTruncated);
            };
            // Type and identifier lie at the same place in ICMP and ICMPv6.
            let icmp_type = header.kind().0;
            let echo = match icmp {
                Protocol::ICMP => IcmpType(icmp_type).is_echo(),
                _ => Icmpv6Type(icmp_type).is_echo(),
            };
            let identifier = if echo { header.identifier() } else { 0 };
            let l4 = if echo { L4::Echo } else { L4::Icmp };
            Ok(Parsed { l4, src_port: identifier, dst_port: identifier, icmp_type, ..parsed })
        }
        Protocol::SCTP => parse_sctp(payload, parsed),
        _ => Ok(parsed),
    }
}

fn parse_sctp(payload: &[u8], parsed: Parsed) -> Result<Parsed, Malformed> {
    let Ok((header, rest)) = SctpHeader::ref_from_prefix(payload) else {
        return Err(Malformed::SctpTruncated);
    };
    Ok(Parsed {
        l4: L4::Sctp,
        src_port: header.src_port(),
        dst_port: header.dst_port(),
        sctp_chunks: sctp::chunks(rest, parsed.is_fragment())?,
        ..parsed
    })
}

/// Checks the checksum of TCP, UDP, SCTP, ICMP or ICMPv6. Fine is also what cannot be checked: fragments, other
/// protocols, and UDP over IPv4 without one. Not for packets whose checksum was left to the NIC.
pub fn verify_transport(frame: &[u8], parsed: &Parsed) -> Result<(), Malformed> {
    let wrong = match parsed.l4 {
        _ if parsed.is_fragment() => return Ok(()),
        L4::Tcp => Malformed::TcpChecksum,
        L4::Udp => Malformed::UdpChecksum,
        L4::Sctp => Malformed::SctpChecksum,
        L4::Echo | L4::Icmp => Malformed::IcmpChecksum,
        L4::Opaque => return Ok(()),
    };
    let packet = &frame[usize::from(parsed.l3_offset)..parsed.end()];
    let mut message = &frame[usize::from(parsed.l4_offset)..parsed.end()];
    if parsed.l4 == L4::Udp {
        let udp = Udp::new(message)?;
        match (udp.checksum(), parsed.l3) {
            (0, L3::Ipv4) => return Ok(()),
            (0, _) => return Err(wrong),
            _ => message = &message[..usize::from(udp.length())],
        }
    }
    if parsed.l4 == L4::Sctp {
        return if sctp::is_valid(message) { Ok(()) } else { Err(wrong) };
    }
    let len = message.len() as u32;
    let pseudo = match parsed.l3 {
        L3::Ipv4 if parsed.protocol == Protocol::ICMP => Sum::ZERO,
        L3::Ipv4 => {
            let ip = Ipv4::new(packet)?;
            Sum::pseudo_v4(ip.src(), ip.dst(), parsed.protocol, len)
        }
        _ => {
            let ip = Ipv6::new(packet)?;
            Sum::pseudo_v6(ip.src(), ip.dst(), parsed.protocol, len)
        }
    };
    if pseudo.bytes(message).is_valid() { Ok(()) } else { Err(wrong) }
}

#[cfg(test)]
mod tests;
