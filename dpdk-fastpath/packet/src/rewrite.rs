//! Changes of addresses, ports and hops in place, with checksums kept right by difference.
//!
//! The offsets and lengths in a frame's [`Parsed`] stay right; its ports and TTL are those from before.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::{Delta, Sum};
use crate::crc32c;
use crate::flow::{FlowKey4, FlowKey6};
use crate::ip::Protocol;
use crate::parse::{L3, L4, Parsed};

/// How packets of one IPv4 flow become packets of another: made once per flow, applied to each of its
/// packets.
///
/// 16 bytes, for a flow table's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Translation4 {
    /// Source and destination.
    addresses: [u8; 8],
    ports: Ports,
    /// For the header checksum.
    header: Delta,
    /// For the checksum of TCP, UDP or an ICMP echo.
    transport: Delta,
}

/// As [`Translation4`], for IPv6; 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Translation6 {
    src: [u8; 16],
    dst: [u8; 16],
    ports: Ports,
    /// For the checksum of an ICMPv6 message other than an echo: addresses only.
    pseudo: Delta,
    /// For the checksum of TCP, UDP or an ICMPv6 echo.
    transport: Delta,
}

const _: () = assert!(size_of::<Translation4>() == 16 && size_of::<Translation6>() == 40);

impl Translation4 {
    /// What turns packets of flow `from` into packets of flow `to`. The identifier of an ICMP echo is the
    /// source port.
    #[inline(always)]
    pub fn new(from: &FlowKey4, to: &FlowKey4) -> Self {
        let addresses = |key: &FlowKey4| Sum::ZERO.long(key.src().to_bits()).long(key.dst().to_bits());
        let (old, new) = (addresses(from), addresses(to));
        let transport = match from.protocol() {
            // ICMP has no pseudo header, and the identifier is there once.
            Protocol::ICMP => Delta::of_word(from.src_port(), to.src_port()),
            _ => Delta::between(
                old.word(from.src_port()).word(from.dst_port()),
                new.word(to.src_port()).word(to.dst_port()),
            ),
        };
        Self::with_deltas(to, Delta::between(old, new), transport)
    }

    /// The same, of what was worked out before: what the change does to the header checksum, and to that of TCP, UDP or
    /// an ICMP echo.
    #[inline(always)]
    pub const fn with_deltas(to: &FlowKey4, header: Delta, transport: Delta) -> Self {
        let (addresses, ports) = to.to_words();
        let [a, b, c, d] = ports.to_ne_bytes();
        let ports = Ports { src: [a, b], dst: [c, d] };
        Self { addresses: addresses.to_ne_bytes(), ports, header, transport }
    }

    /// What the change does to the header checksum, and to that of TCP, UDP or an ICMP echo.
    #[inline(always)]
    pub const fn deltas(&self) -> (Delta, Delta) {
        (self.header, self.transport)
    }

    /// New addresses and new ports as they are in headers.
    #[inline(always)]
    pub(crate) const fn words(&self) -> ([u8; 8], [u8; 4]) {
        let Ports { src: [a, b], dst: [c, d] } = self.ports;
        (self.addresses, [a, b, c, d])
    }

    /// New source address and port.
    pub const fn src(&self) -> (Ipv4Addr, u16) {
        let [a, b, c, d, ..] = self.addresses;
        (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes(self.ports.src))
    }

    /// New destination address and port.
    pub const fn dst(&self) -> (Ipv4Addr, u16) {
        let [.., a, b, c, d] = self.addresses;
        (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes(self.ports.dst))
    }

    /// Rewrites a packet of the flow this was made for; no effect on what is not IPv4. A fragment other than
    /// the first gets the addresses only.
    ///
    /// New ports in the first fragment of an SCTP packet make its checksum wrong: how long the packet is, and so what they
    /// do to the checksum, only the last fragment says.
    #[inline(always)]
    pub fn apply(&self, frame: &mut [u8], parsed: &Parsed) {
        if parsed.l3 != L3::Ipv4 {
            return;
        }
        let header = ipv4(frame, parsed);
        patch(&mut header[10..12], |checksum| self.header.apply(checksum));
        header[12..20].copy_from_slice(&self.addresses);
        self.ports.apply(self.header, self.transport, frame, parsed);
    }
}

impl Translation6 {
    /// As [`Translation4::new`].
    pub fn new(from: &FlowKey6, to: &FlowKey6) -> Self {
        let pseudo = Delta::of_v6(from.src(), to.src()).and(Delta::of_v6(from.dst(), to.dst()));
        let src_port = Delta::of_word(from.src_port(), to.src_port());
        let transport = match from.protocol() {
            Protocol::ICMPV6 => pseudo.and(src_port),
            _ => pseudo.and(src_port).and(Delta::of_word(from.dst_port(), to.dst_port())),
        };
        let ports = Ports::new(to.src_port(), to.dst_port());
        Self { src: to.src().octets(), dst: to.dst().octets(), ports, pseudo, transport }
    }

    /// What the change does to the checksum of TCP, UDP or an ICMPv6 echo.
    pub(crate) const fn delta(&self) -> Delta {
        self.transport
    }

    /// New source address and port.
    pub const fn src(&self) -> (Ipv6Addr, u16) {
        (Ipv6Addr::from_octets(self.src), u16::from_be_bytes(self.ports.src))
    }

    /// New destination address and port.
    pub const fn dst(&self) -> (Ipv6Addr, u16) {
        (Ipv6Addr::from_octets(self.dst), u16::from_be_bytes(self.ports.dst))
    }

    /// As [`Translation4::apply`], for IPv6.
    #[inline]
    pub fn apply(&self, frame: &mut [u8], parsed: &Parsed) {
        if parsed.l3 != L3::Ipv6 {
            return;
        }
        let header = ipv6(frame, parsed);
        header[8..24].copy_from_slice(&self.src);
        header[24..40].copy_from_slice(&self.dst);
        if parsed.l4 == L4::Icmp {
            let icmp: &mut [u8; 8] = l4(frame, parsed);
            patch(&mut icmp[2..4], |checksum| self.pseudo.apply(checksum));
        } else {
            self.ports.apply(self.pseudo, self.transport, frame, parsed);
        }
    }
}

/// New ports, as they are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Ports {
    src: [u8; 2],
    dst: [u8; 2],
}

// A partial checksum is the sum of the pseudo header, not complemented: ports have no part in it.
impl Ports {
    const fn new(src: u16, dst: u16) -> Self {
        Self { src: src.to_be_bytes(), dst: dst.to_be_bytes() }
    }

    #[inline(always)]
    fn apply(self, addresses: Delta, transport: Delta, frame: &mut [u8], parsed: &Parsed) {
        match parsed.l4 {
            L4::Tcp => {
                let tcp: &mut [u8; 20] = l4(frame, parsed);
                tcp[0..2].copy_from_slice(&self.src);
                tcp[2..4].copy_from_slice(&self.dst);
                patch(&mut tcp[16..18], |checksum| match parsed.partial {
                    false => transport.apply(checksum),
                    true => !addresses.apply(!checksum),
                });
            }
            L4::Udp => {
                let udp: &mut [u8; 8] = l4(frame, parsed);
                udp[0..2].copy_from_slice(&self.src);
                udp[2..4].copy_from_slice(&self.dst);
                patch(&mut udp[6..8], |checksum| match parsed.partial {
                    false => transport.apply_udp(checksum),
                    true => !addresses.apply(!checksum),
                });
            }
            L4::Sctp => self.apply_sctp(frame, parsed),
            L4::Echo => self.apply_echo(transport, frame, parsed),
            L4::Icmp | L4::Opaque => {}
        }
    }

    #[inline(never)]
    fn apply_echo(self, transport: Delta, frame: &mut [u8], parsed: &Parsed) {
        let icmp: &mut [u8; 8] = l4(frame, parsed);
        if parsed.l3 == L3::Ipv4 && icmp[4..6] == self.src {
            return;
        }
        icmp[4..6].copy_from_slice(&self.src);
        patch(&mut icmp[2..4], |checksum| transport.apply(checksum));
        // Only the sum of zeros is 0, and that is told by no difference (RFC 1624, section 3).
        if *icmp == [0; 8] && !parsed.is_fragment() {
            let message = &mut frame[usize::from(parsed.l4_offset)..parsed.end()];
            if message.iter().all(|&byte| byte == 0) {
                message[2..4].fill(0xff);
            }
        }
    }

    /// The checksum of SCTP covers no addresses, and depends on how many bytes follow the ports.
    #[inline(never)]
    fn apply_sctp(self, frame: &mut [u8], parsed: &Parsed) {
        let behind = (parsed.l4_len() - 4) as u16;
        let sctp: &mut [u8; 12] = l4(frame, parsed);
        let (Self { src: [a, b], dst: [c, d] }, [ports @ .., _, _, _, _, _, _, _, _]) = (self, *sctp);
        let new = [a, b, c, d];
        let delta = crc32c::delta(ports, new, behind).to_le_bytes();
        sctp[..4].copy_from_slice(&new);
        for (byte, delta) in sctp[8..].iter_mut().zip(delta) {
            *byte ^= delta;
        }
    }
}

/// Takes one hop off the time to live or hop limit; `false`, and nothing changed, if that leaves none: the
/// packet must be dropped and "time exceeded" answered. Also `false` for what is not IP.
#[inline(always)]
pub fn decrement_ttl(frame: &mut [u8], parsed: &Parsed) -> bool {
    match parsed.l3 {
        L3::Ipv4 => {
            let header = ipv4(frame, parsed);
            if header[8] <= 1 {
                return false;
            }
            header[8] -= 1;
            patch(&mut header[10..12], |checksum| Delta::TTL.apply(checksum));
        }
        L3::Ipv6 => {
            let header = ipv6(frame, parsed);
            if header[7] <= 1 {
                return false;
            }
            header[7] -= 1;
        }
        L3::Arp | L3::Other(_) => return false,
    }
    true
}

/// Sets DSCP and ECN; no effect on what is not IP.
#[inline]
pub fn set_traffic_class(frame: &mut [u8], parsed: &Parsed, traffic_class: u8) {
    match parsed.l3 {
        L3::Ipv4 => {
            let header = ipv4(frame, parsed);
            let delta = Delta::of_word(u16::from(header[1]), u16::from(traffic_class));
            header[1] = traffic_class;
            patch(&mut header[10..12], |checksum| delta.apply(checksum));
        }
        L3::Ipv6 => {
            let header = ipv6(frame, parsed);
            header[0] = header[0] & 0xf0 | traffic_class >> 4;
            header[1] = header[1] & 0x0f | traffic_class << 4;
        }
        L3::Arp | L3::Other(_) => {}
    }
}

pub(crate) const OTHER_FRAME: &str = "a frame comes with the Parsed that was made from it";

#[inline(always)]
fn ipv4<'a>(frame: &'a mut [u8], parsed: &Parsed) -> &'a mut [u8; 20] {
    frame[usize::from(parsed.l3_offset)..].first_chunk_mut().expect(OTHER_FRAME)
}

#[inline]
fn ipv6<'a>(frame: &'a mut [u8], parsed: &Parsed) -> &'a mut [u8; 40] {
    frame[usize::from(parsed.l3_offset)..].first_chunk_mut().expect(OTHER_FRAME)
}

#[inline(always)]
fn l4<'a, const N: usize>(frame: &'a mut [u8], parsed: &Parsed) -> &'a mut [u8; N] {
    frame[usize::from(parsed.l4_offset)..].first_chunk_mut().expect(OTHER_FRAME)
}

#[inline(always)]
pub(crate) fn patch(field: &mut [u8], change: impl Fn(u16) -> u16) {
    let checksum = u16::from_be_bytes([field[0], field[1]]);
    field.copy_from_slice(&change(checksum).to_be_bytes());
}

#[cfg(test)]
mod tests;
