use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;

use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::icmp::{IcmpHeader, IcmpType};
use crate::icmpv6::{Icmpv6Header, Icmpv6Type};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{Fragment, L3, L4, Parsed};

use super::{NoAnswer, TTL, eth, ipv4, ipv6, is_unicast, require_hosts, turn_around};

/// What went wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// Its time to live or hop limit ran out here.
    TimeExceeded,
    /// There is no route to its destination.
    NetUnreachable,
    /// Its destination does not answer on the last link.
    HostUnreachable,
    /// Nothing listens on its destination port.
    PortUnreachable,
    /// A policy forbids it.
    Prohibited,
    /// It is larger than the next link takes and must not be fragmented.
    PacketTooBig {
        /// Largest packet of the next link in bytes, at least 1280 for IPv6.
        mtu: u16,
    },
}

impl IcmpError {
    /// RFC 792, RFC 1191 for the MTU, RFC 1812 for the last code.
    const fn v4(self) -> IcmpHeader {
        match self {
            Self::TimeExceeded => IcmpHeader::error(IcmpType::TIME_EXCEEDED, 0, 0),
            Self::NetUnreachable => IcmpHeader::error(IcmpType::UNREACHABLE, 0, 0),
            Self::HostUnreachable => IcmpHeader::error(IcmpType::UNREACHABLE, 1, 0),
            Self::PortUnreachable => IcmpHeader::error(IcmpType::UNREACHABLE, 3, 0),
            Self::PacketTooBig { mtu } => IcmpHeader::error(IcmpType::UNREACHABLE, 4, mtu),
            Self::Prohibited => IcmpHeader::error(IcmpType::UNREACHABLE, 13, 0),
        }
    }

    /// RFC 4443, section 3.
    const fn v6(self) -> Icmpv6Header {
        match self {
            Self::NetUnreachable => Icmpv6Header::new(Icmpv6Type::UNREACHABLE, 0, 0),
            Self::Prohibited => Icmpv6Header::new(Icmpv6Type::UNREACHABLE, 1, 0),
            Self::HostUnreachable => Icmpv6Header::new(Icmpv6Type::UNREACHABLE, 3, 0),
            Self::PortUnreachable => Icmpv6Header::new(Icmpv6Type::UNREACHABLE, 4, 0),
            Self::PacketTooBig { mtu } => Icmpv6Header::new(Icmpv6Type::PACKET_TOO_BIG, 0, mtu as u32),
            Self::TimeExceeded => Icmpv6Header::new(Icmpv6Type::TIME_EXCEEDED, 0, 0),
        }
    }
}

/// Headers in front of the quoted packet.
const HEAD_V4: usize = Ipv4Header::LEN + IcmpHeader::LEN;
const HEAD_V6: usize = Ipv6Header::LEN + Icmpv6Header::LEN;
/// What RFC 1812, section 4.3.2.3 lets an error be long.
const LONGEST_V4: usize = 576;
/// What RFC 4443, section 2.4 c lets an error be long: the least MTU of IPv6.
const LONGEST_V6: usize = 1280;
/// Internetwork control (RFC 1812, section 4.3.2.5).
const TRAFFIC_CLASS: u8 = 0xc0;

/// Turns a packet into the ICMP or ICMPv6 error about it, which `from`, an address of ours of the same IP
/// version, reports to its sender. The packet is quoted as it is in the buffer: answer before rewriting.
///
/// How many errors leave per second is for the caller to limit (RFC 1812, section 4.3.2.8; RFC 4443, section
/// 2.4 f).
pub fn icmp_error(
    buf: &mut impl PacketBuf,
    parsed: &Parsed,
    from: IpAddr,
    error: IcmpError,
) -> Result<(), NoAnswer> {
    require_deserving(buf.data(), parsed)?;
    match (parsed.l3, from) {
        (L3::Ipv4, IpAddr::V4(from)) => report_v4(buf, parsed, from, error.v4()),
        (L3::Ipv6, IpAddr::V6(from)) => report_v6(buf, parsed, from, error.v6()),
        _ => Err(NoAnswer::NotAsked),
    }
}

/// RFC 1122, section 3.2.2 and RFC 4443, section 2.4 e.
fn require_deserving(frame: &[u8], parsed: &Parsed) -> Result<(), NoAnswer> {
    if parsed.fragment == Fragment::Later {
        return Err(NoAnswer::Fragment);
    }
    let is_error = match parsed.l3 {
        L3::Ipv4 => IcmpType(parsed.icmp_type).is_error(),
        _ => Icmpv6Type(parsed.icmp_type).is_error(),
    };
    if parsed.l4 == L4::Icmp && is_error {
        return Err(NoAnswer::Error);
    }
    if !is_unicast(eth(frame)) {
        return Err(NoAnswer::Group);
    }
    require_hosts(frame, parsed)
}

fn report_v4(
    buf: &mut impl PacketBuf,
    parsed: &Parsed,
    from: Ipv4Addr,
    mut icmp: IcmpHeader,
) -> Result<(), NoAnswer> {
    let to = ipv4(buf.data(), parsed).src();
    let quote_len = (parsed.l3_len as usize).min(LONGEST_V4 - HEAD_V4);
    let (head, quote) = make_room::<HEAD_V4>(buf, parsed, quote_len)?;
    icmp.set_checksum(Sum::ZERO.bytes(icmp.as_bytes()).bytes(quote).checksum());
    let icmp_len = (IcmpHeader::LEN + quote_len) as u16;
    let mut ip = Ipv4Header::new(from, to, Protocol::ICMP, TTL, icmp_len);
    ip.set_traffic_class(TRAFFIC_CLASS);
    ip.update_checksum();
    head[..Ipv4Header::LEN].copy_from_slice(ip.as_bytes());
    head[Ipv4Header::LEN..].copy_from_slice(icmp.as_bytes());
    Ok(())
}

fn report_v6(
    buf: &mut impl PacketBuf,
    parsed: &Parsed,
    from: Ipv6Addr,
    mut icmp: Icmpv6Header,
) -> Result<(), NoAnswer> {
    let to = ipv6(buf.data(), parsed).src();
    let quote_len = (parsed.l3_len as usize).min(LONGEST_V6 - HEAD_V6);
    let (head, quote) = make_room::<HEAD_V6>(buf, parsed, quote_len)?;
    let icmp_len = Icmpv6Header::LEN + quote_len;
    let pseudo = Sum::pseudo_v6(from, to, Protocol::ICMPV6, icmp_len as u32);
    icmp.set_checksum(pseudo.bytes(icmp.as_bytes()).bytes(quote).checksum());
    let ip = Ipv6Header::new(from, to, Protocol::ICMPV6, TTL, icmp_len as u16);
    head[..Ipv6Header::LEN].copy_from_slice(ip.as_bytes());
    head[Ipv6Header::LEN..].copy_from_slice(icmp.as_bytes());
    Ok(())
}

/// Turns the frame around, cuts the packet to `quote_len` and opens a gap of `HEAD` bytes in front of it.
/// Returns the gap and the quote.
fn make_room<'a, const HEAD: usize>(
    buf: &'a mut impl PacketBuf,
    parsed: &Parsed,
    quote_len: usize,
) -> Result<(&'a mut [u8; HEAD], &'a [u8]), NoAnswer> {
    let l2_len = usize::from(parsed.l3_offset);
    let frame = buf.prepend(HEAD).ok_or(NoAnswer::Room)?;
    frame.copy_within(HEAD..HEAD + l2_len, 0);
    turn_around(frame);
    buf.truncate(l2_len + HEAD + quote_len);
    let (head, quote) = buf.data_mut()[l2_len..].split_first_chunk_mut().ok_or(NoAnswer::Room)?;
    Ok((head, quote))
}
