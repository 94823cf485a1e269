//! The packet that an ICMP error is about.
//!
//! An error about a packet that was translated on its way quotes it as its reporter got it. Its sender knows only what it
//! sent itself, so that the quote has to become that again: addresses, ports and checksums, as far as they are in the
//! quote (RFC 792: the IP header and eight bytes; RFC 4443: as much as fits). The error's own checksum covers the quote,
//! and in ICMPv6 the addresses of the error.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::FromBytes;

use crate::checksum::{Delta, Sum};
use crate::crc32c;
use crate::flow::{FlowKey4, FlowKey6, Tenant};
use crate::icmp::{IcmpHeader, IcmpType};
use crate::icmpv6::Icmpv6Type;
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::{self, Ipv6Header};
use crate::parse::{L3, L4, Parsed};
use crate::rewrite::{OTHER_FRAME, Translation4, Translation6, patch};

/// Where an ICMP or ICMPv6 error quotes what of the packet that it is about. The offsets count from the frame's first
/// byte, and what they promise is in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// IP version of the error, and of what it quotes.
    l3: L3,
    l3_offset: usize,
    l4_offset: usize,
    /// Where the quoted packet ends, or what is quoted of it.
    end: usize,
    /// Length of the transport header and all behind it, whether quoted or not; 0 for a fragment, which does not tell.
    message_len: u16,
    protocol: Protocol,
    /// Source and destination, or twice the identifier of an echo.
    ports: (u16, u16),
}

impl Quote {
    /// What a frame quotes; `None` unless the packet in it is a whole "destination unreachable" (with "fragmentation
    /// needed"), "packet too big", "time exceeded" or "parameter problem" that quotes so much that the flow can be told:
    /// TCP, UDP, SCTP or an echo, and no later fragment. Checksums are not looked at.
    pub fn of(frame: &[u8], parsed: &Parsed) -> Option<Self> {
        if parsed.l4 != L4::Icmp || parsed.is_fragment() {
            return None;
        }
        let l3_offset = usize::from(parsed.l4_offset) + IcmpHeader::LEN;
        let quote = frame.get(l3_offset..parsed.end())?;
        let Inside { there, upper, message_len, protocol } = match parsed.l3 {
            L3::Ipv4 if quotes_v4(IcmpType(parsed.icmp_type)) => quoted_v4(quote)?,
            L3::Ipv6 if quotes_v6(Icmpv6Type(parsed.icmp_type)) => quoted_v6(quote)?,
            _ => return None,
        };
        let message = &quote[upper..there];
        let port = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
        let ports = match (parsed.l3, protocol) {
            (_, Protocol::TCP | Protocol::UDP | Protocol::SCTP) => (port(0)?, port(2)?),
            (L3::Ipv4, Protocol::ICMP) if IcmpType(*message.first()?).is_echo() => (port(4)?, port(4)?),
            (L3::Ipv6, Protocol::ICMPV6) if Icmpv6Type(*message.first()?).is_echo() => (port(4)?, port(4)?),
            _ => return None,
        };
        let (l4_offset, end) = (l3_offset + upper, l3_offset + there);
        Some(Self { l3: parsed.l3, l3_offset, l4_offset, end, message_len, protocol, ports })
    }

    /// The key of the quoted packet; `None` if it is not IPv4.
    pub fn key4(&self, frame: &[u8], tenant: Tenant) -> Option<FlowKey4> {
        if self.l3 != L3::Ipv4 {
            return None;
        }
        let (header, _) = Ipv4Header::ref_from_prefix(frame.get(self.l3_offset..)?).ok()?;
        let (src, dst) = ((header.src(), self.ports.0), (header.dst(), self.ports.1));
        Some(FlowKey4::new(tenant, self.protocol, src, dst))
    }

    /// The key of the quoted packet; `None` if it is not IPv6.
    pub fn key6(&self, frame: &[u8], tenant: Tenant) -> Option<FlowKey6> {
        if self.l3 != L3::Ipv6 {
            return None;
        }
        let (header, _) = Ipv6Header::ref_from_prefix(frame.get(self.l3_offset..)?).ok()?;
        let (src, dst) = ((header.src(), self.ports.0), (header.dst(), self.ports.1));
        Some(FlowKey6::new(tenant, self.protocol, src, dst))
    }

    /// Makes the quoted packet one of flow `to`, and the error one from `src` to `dst`. No effect on what is not IPv4.
    pub fn translate4(
        &self,
        frame: &mut [u8],
        parsed: &Parsed,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        to: &FlowKey4,
    ) {
        let Some(from) = self.key4(frame, to.tenant()) else { return };
        let (header, transport) = Translation4::new(&from, to).deltas();
        let inside = self.rewrite(frame, |packet, upper| {
            patch(&mut packet[10..12], |checksum| header.apply(checksum));
            packet[12..16].copy_from_slice(&to.src().octets());
            packet[16..20].copy_from_slice(&to.dst().octets());
            self.rewrite_message(&mut packet[upper..], (to.src_port(), to.dst_port()), transport);
        });
        let icmp = usize::from(parsed.l4_offset);
        patch(&mut frame[icmp + 2..icmp + 4], |checksum| inside.apply(checksum));
        let ip: &mut [u8; 20] = frame[usize::from(parsed.l3_offset)..].first_chunk_mut().expect(OTHER_FRAME);
        let old = Sum::ZERO.bytes(&ip[12..]);
        ip[12..16].copy_from_slice(&src.octets());
        ip[16..20].copy_from_slice(&dst.octets());
        let outside = Delta::between(old, Sum::ZERO.bytes(&ip[12..]));
        patch(&mut ip[10..12], |checksum| outside.apply(checksum));
    }

    /// As [`translate4`](Self::translate4), for IPv6.
    pub fn translate6(
        &self,
        frame: &mut [u8],
        parsed: &Parsed,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        to: &FlowKey6,
    ) {
        let Some(from) = self.key6(frame, to.tenant()) else { return };
        let transport = Translation6::new(&from, to).delta();
        let inside = self.rewrite(frame, |packet, upper| {
            packet[8..24].copy_from_slice(&to.src().octets());
            packet[24..40].copy_from_slice(&to.dst().octets());
            self.rewrite_message(&mut packet[upper..], (to.src_port(), to.dst_port()), transport);
        });
        let ip: &mut [u8; 40] = frame[usize::from(parsed.l3_offset)..].first_chunk_mut().expect(OTHER_FRAME);
        let old = Sum::ZERO.bytes(&ip[8..]);
        ip[8..24].copy_from_slice(&src.octets());
        ip[24..40].copy_from_slice(&dst.octets());
        let pseudo = Delta::between(old, Sum::ZERO.bytes(&ip[8..]));
        let icmp = usize::from(parsed.l4_offset);
        patch(&mut frame[icmp + 2..icmp + 4], |checksum| inside.and(pseudo).apply(checksum));
    }

    /// Changes the quoted packet, which is given with the offset of its transport header; returns what that does to the
    /// checksum over it.
    fn rewrite(&self, frame: &mut [u8], change: impl FnOnce(&mut [u8], usize)) -> Delta {
        /// More of a transport header is never changed.
        const HEADER: usize = 20;
        let end = self.end.min(self.l4_offset + HEADER);
        // An even number of bytes behind the beginning of the error, so that the words are the same.
        let packet = &mut frame[self.l3_offset..end];
        let old = Sum::ZERO.bytes(packet);
        change(packet, self.l4_offset - self.l3_offset);
        Delta::between(old, Sum::ZERO.bytes(packet))
    }

    /// Changes ports or identifier, and the checksum if it is quoted.
    fn rewrite_message(&self, message: &mut [u8], (src, dst): (u16, u16), delta: Delta) {
        if self.protocol == Protocol::SCTP {
            self.rewrite_sctp(message, src, dst);
            return;
        }
        let is_echo = matches!(self.protocol, Protocol::ICMP | Protocol::ICMPV6);
        if is_echo {
            message[4..6].copy_from_slice(&src.to_be_bytes());
        } else {
            message[..2].copy_from_slice(&src.to_be_bytes());
            message[2..4].copy_from_slice(&dst.to_be_bytes());
        }
        let checksum = match self.protocol {
            Protocol::TCP => message.get_mut(16..18),
            Protocol::UDP => message.get_mut(6..8),
            _ => message.get_mut(2..4),
        };
        if let Some(field) = checksum {
            let is_udp = self.protocol == Protocol::UDP;
            patch(field, |checksum| if is_udp { delta.apply_udp(checksum) } else { delta.apply(checksum) });
        }
    }
}

impl Quote {
    /// The checksum of SCTP depends on how long the packet is.
    fn rewrite_sctp(&self, message: &mut [u8], src: u16, dst: u16) {
        let [[a, b], [c, d]] = [src.to_be_bytes(), dst.to_be_bytes()];
        let [old @ .., _, _, _, _, _, _, _, _] = *message.first_chunk::<12>().unwrap_or(&[0; 12]);
        if let (Some(checksum), Some(behind)) = (message.get_mut(8..12), self.message_len.checked_sub(4)) {
            let delta = crc32c::delta(old, [a, b, c, d], behind).to_le_bytes();
            checksum.iter_mut().zip(delta).for_each(|(byte, delta)| *byte ^= delta);
        }
        message[..4].copy_from_slice(&[a, b, c, d]);
    }
}

const fn quotes_v4(kind: IcmpType) -> bool {
    matches!(kind, IcmpType::UNREACHABLE | IcmpType::TIME_EXCEEDED | IcmpType::PARAMETER_PROBLEM)
}

const fn quotes_v6(kind: Icmpv6Type) -> bool {
    matches!(
        kind,
        Icmpv6Type::UNREACHABLE
            | Icmpv6Type::PACKET_TOO_BIG
            | Icmpv6Type::TIME_EXCEEDED
            | Icmpv6Type::PARAMETER_PROBLEM
    )
}

/// What is in a quote.
struct Inside {
    /// How much of it is the packet.
    there: usize,
    /// Where the transport header begins.
    upper: usize,
    message_len: u16,
    protocol: Protocol,
}

fn quoted_v4(quote: &[u8]) -> Option<Inside> {
    let (header, _) = Ipv4Header::ref_from_prefix(quote).ok()?;
    let (upper, total) = (header.header_len(), usize::from(header.total_len()));
    let there = total.min(quote.len());
    let is_sound = header.version() == 4 && upper >= Ipv4Header::LEN && upper <= there;
    let message_len = if header.more_fragments() { 0 } else { total.saturating_sub(upper) as u16 };
    (is_sound && header.fragment_offset() == 0).then_some(Inside {
        there,
        upper,
        message_len,
        protocol: header.protocol(),
    })
}

fn quoted_v6(quote: &[u8]) -> Option<Inside> {
    let (header, _) = Ipv6Header::ref_from_prefix(quote).ok()?;
    let payload_len = usize::from(header.payload_len());
    let there = quote.len().min(Ipv6Header::LEN + payload_len);
    let upper = ipv6::walk(header.next_header(), &quote[Ipv6Header::LEN..there]).ok()?;
    let (is_first, more) =
        upper.fragment.map_or((true, false), |fragment| (fragment.offset() == 0, fragment.more_fragments()));
    let message_len = if more { 0 } else { payload_len.saturating_sub(upper.offset) as u16 };
    (header.version() == 6 && is_first).then_some(Inside {
        there,
        upper: Ipv6Header::LEN + upper.offset,
        message_len,
        protocol: upper.protocol,
    })
}

#[cfg(test)]
mod tests;
