//! What an ICMP error quotes, and the same error about another packet.

use std::net::IpAddr;

use super::checksum::{fill_ipv4, shifted, sum};
use super::dissect::{Net, Packet, Upper, chain, v4, v6};
use super::{ETH, ICMP, ICMPV6, SCTP, TCP, UDP, get16, put16, sctp};

/// The packet that an error is about, as far as it is quoted. Offsets count from the frame's first byte.
pub(crate) struct Quote {
    ip_at: usize,
    upper_at: usize,
    end: usize,
    /// Length of what is above IP, whether quoted or not; `None` for a fragment, which does not tell.
    message_len: Option<usize>,
    pub(crate) protocol: u8,
    pub(crate) src: (IpAddr, u16),
    pub(crate) dst: (IpAddr, u16),
}

impl Quote {
    /// `None` unless the message is an error of a known kind that quotes so much that the flow can be told.
    pub(crate) fn of(frame: &[u8], packet: &Packet) -> Option<Self> {
        let Upper::Icmp { kind } = packet.upper else { return None };
        let kinds: &[u8] = if packet.net == Net::V4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
        let ip_at = packet.upper_at + 8;
        if packet.is_fragment() || !kinds.contains(&kind) || ip_at > packet.end {
            return None;
        }
        let quote = &frame[ip_at..packet.end];
        let (upper, there, protocol, message_len, src, dst);
        if packet.net == Net::V4 {
            if quote.len() < 20 || quote[0] >> 4 != 4 {
                return None;
            }
            let total = usize::from(get16(quote, 2));
            upper = usize::from(quote[0] & 0xf) * 4;
            there = total.min(quote.len());
            if upper < 20 || upper > there || get16(quote, 6) & 0x1fff != 0 {
                return None;
            }
            protocol = quote[9];
            message_len = (quote[6] & 0x20 == 0).then_some(total - upper);
            (src, dst) = (v4(quote, 12), v4(quote, 16));
        } else {
            if quote.len() < 40 || quote[0] >> 4 != 6 {
                return None;
            }
            let payload = usize::from(get16(quote, 4));
            there = quote.len().min(40 + payload);
            let headers = chain(quote[6], &quote[40..there]).ok()?;
            if headers.offset > 0 {
                return None;
            }
            upper = 40 + headers.len;
            protocol = headers.protocol;
            message_len = (!headers.more).then_some(payload.saturating_sub(headers.len));
            (src, dst) = (v6(quote, 8), v6(quote, 24));
        }
        let message = &quote[upper..there];
        let icmp = if packet.net == Net::V4 { ICMP } else { ICMPV6 };
        let ports = match protocol {
            TCP | UDP | SCTP if message.len() >= 4 => (get16(message, 0), get16(message, 2)),
            protocol if protocol == icmp && message.len() >= 6 => {
                let echo = if icmp == ICMP { [0, 8] } else { [128, 129] };
                if !echo.contains(&message[0]) {
                    return None;
                }
                (get16(message, 4), get16(message, 4))
            }
            _ => return None,
        };
        let (upper_at, end) = (ip_at + upper, ip_at + there);
        Some(Self { ip_at, upper_at, end, message_len, protocol, src: (src, ports.0), dst: (dst, ports.1) })
    }
}

/// The error from and to other addresses, about a packet with other ends. Checksums in the quote are right or wrong as before;
/// the error's own is right.
pub(crate) fn rewritten(
    frame: &[u8],
    packet: &Packet,
    quote: &Quote,
    ends: (IpAddr, IpAddr),
    (src, dst): ((IpAddr, u16), (IpAddr, u16)),
) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let v4 = packet.net == Net::V4;
    let echo = [ICMP, ICMPV6].contains(&quote.protocol);
    // What of the packet changes, as it adds to its checksum.
    let words = |src: (IpAddr, u16), dst: (IpAddr, u16)| {
        let mut words = Vec::new();
        if quote.protocol != ICMP {
            words.extend(octets(src.0));
            words.extend(octets(dst.0));
        }
        words.extend(src.1.to_be_bytes());
        if !echo {
            words.extend(dst.1.to_be_bytes());
        }
        !sum(&words)
    };
    let (before, after) = (words(quote.src, quote.dst), words(src, dst));
    let at = quote.ip_at;
    if v4 {
        let header = !sum(&frame[at + 12..at + 20]);
        frame[at + 12..at + 20].copy_from_slice(&[octets(src.0), octets(dst.0)].concat());
        let field = shifted(get16(&frame, at + 10), header, !sum(&frame[at + 12..at + 20]), 0);
        put16(&mut frame, at + 10, field);
    } else {
        frame[at + 8..at + 40].copy_from_slice(&[octets(src.0), octets(dst.0)].concat());
    }
    let upper = quote.upper_at;
    if quote.protocol == SCTP {
        let old = [frame[upper], frame[upper + 1], frame[upper + 2], frame[upper + 3]];
        put16(&mut frame, upper, src.1);
        put16(&mut frame, upper + 2, dst.1);
        if let Some(len) = quote.message_len.filter(|len| *len >= 4 && upper + 12 <= quote.end) {
            // A CRC is linear: the change of a message changes it by the same bits, whatever the rest is.
            let rest = vec![0; len - 4];
            let [before, after] =
                [&old[..], &frame[upper..upper + 4]].map(|ports| sctp::crc(&[ports, &rest].concat()));
            for (n, bits) in (before ^ after).to_le_bytes().into_iter().enumerate() {
                frame[upper + 8 + n] ^= bits;
            }
        }
    } else {
        let field = match quote.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        if echo {
            put16(&mut frame, upper + 4, src.1);
        } else {
            put16(&mut frame, upper, src.1);
            put16(&mut frame, upper + 2, dst.1);
        }
        if upper + field + 2 <= quote.end {
            let moved = shifted(get16(&frame, upper + field), before, after, quote.protocol);
            put16(&mut frame, upper + field, moved);
        }
    }
    let outer = if v4 { ETH + 12 } else { ETH + 8 };
    let addresses = [octets(ends.0), octets(ends.1)].concat();
    frame[outer..outer + addresses.len()].copy_from_slice(&addresses);
    if v4 {
        fill_ipv4(&mut frame[ETH..]);
    }
    let protocol = if v4 { ICMP } else { ICMPV6 };
    let right = super::checksum::transport(ends.0, ends.1, protocol, &frame[packet.upper_at..]);
    put16(&mut frame, packet.upper_at + 2, right);
    frame
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
