//! The usual packet: a whole TCP or UDP packet over IPv4 without options, behind an untagged Ethernet header.
//!
//! Nearly all packets are of this kind, and all their headers have a fixed place. So they are read with a handful of loads
//! and one branch, and changed with a handful of stores. What is unusual is for [`parse`](crate::parse::parse) and
//! [`rewrite`](crate::rewrite).

use crate::checksum::{Delta, Sum, header_is_valid};
use crate::eth::{EthHeader, EtherType};
use crate::flow::{FlowKey4, Tenant};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::parse::{Fragment, L3, L4, Parsed};
use crate::rewrite::Translation4;
use crate::tcp::{TcpFlags, TcpHeader};
use crate::udp::UdpHeader;

const IP: usize = EthHeader::LEN;
const TRANSPORT: usize = IP + Ipv4Header::LEN;
/// Bytes of the headers of the shortest usual packet.
const HEAD: usize = TRANSPORT + UdpHeader::LEN;
/// Checksum of TCP.
const TCP_CHECKSUM: usize = TRANSPORT + 16;

/// A packet of the usual kind: the fields that forwarding needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// Source and destination as in the header.
    addresses: u64,
    /// Source and destination as in the header.
    ports: u32,
    /// Length of the IP packet in bytes.
    pub len: u16,
    /// [`Protocol::TCP`] or [`Protocol::UDP`].
    pub protocol: Protocol,
    /// Time to live, as received.
    pub ttl: u8,
    /// DSCP and ECN, as received.
    pub traffic_class: u8,
    /// Control bits of TCP, else none.
    pub tcp_flags: TcpFlags,
    /// Whether routers must not fragment the packet.
    pub dont_fragment: bool,
}

impl Usual {
    /// What [`parse`](crate::parse::parse) verifies and says, much faster. `None` for packets of another kind, and for
    /// whatever is wrong.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        const FIRST: u32 = u32::from_ne_bytes([8, 0, 0x45, 0]);
        const _: () = assert!(EtherType::IPV4.0 == 0x0800);
        let head: &[u8; HEAD] = frame.first_chunk()?;
        let len = u16::from_be_bytes([head[16], head[17]]);
        // Evaluated without a branch for each.
        let plain = (u32::from_ne_bytes([head[12], head[13], head[14], 0]) == FIRST)
            & (u16::from_be_bytes([head[20] & 0x3f, head[21]]) == 0)
            & (usize::from(len) >= HEAD - IP)
            & (usize::from(len) <= frame.len() - IP)
            & header_is_valid(head[IP..].first_chunk()?);
        if !plain {
            return None;
        }
        let usual = Self {
            addresses: u64::from_ne_bytes(*head[26..].first_chunk()?),
            ports: u32::from_ne_bytes(*head[TRANSPORT..].first_chunk()?),
            len,
            protocol: Protocol(head[23]),
            ttl: head[22],
            traffic_class: head[15],
            tcp_flags: TcpFlags(0),
            dont_fragment: head[20] & 0x40 != 0,
        };
        let payload = usize::from(len) - Ipv4Header::LEN;
        match usual.protocol {
            Protocol::TCP => {
                let &[offset, flags] = frame.get(TRANSPORT + 12..)?.first_chunk()?;
                let header = usize::from(offset >> 4) * 4;
                (TcpHeader::LEN <= header && header <= payload)
                    .then_some(Self { tcp_flags: TcpFlags(flags), ..usual })
            }
            Protocol::UDP => {
                let length = usize::from(u16::from_be_bytes([head[38], head[39]]));
                (UdpHeader::LEN <= length && length <= payload).then_some(usual)
            }
            _ => None,
        }
    }

    /// The key of the packet's flow.
    #[inline(always)]
    pub const fn key(&self, tenant: Tenant) -> FlowKey4 {
        FlowKey4::of_words(tenant, self.protocol, self.addresses, self.ports)
    }

    /// Destination port.
    #[inline(always)]
    pub const fn dst_port(&self) -> u16 {
        let [.., a, b] = self.ports.to_ne_bytes();
        u16::from_be_bytes([a, b])
    }

    /// Where the frame ends without its padding.
    #[inline(always)]
    pub const fn end(&self) -> usize {
        IP + self.len as usize
    }

    /// The same as [`parse`](crate::parse::parse) has it.
    #[inline]
    pub fn parsed(&self) -> Parsed {
        let key = self.key(Tenant::DEFAULT);
        Parsed {
            l3: L3::Ipv4,
            vlan: None,
            l3_offset: IP as u8,
            l4_offset: TRANSPORT as u16,
            l3_len: self.len.into(),
            protocol: self.protocol,
            l4: if self.protocol == Protocol::TCP { L4::Tcp } else { L4::Udp },
            src_port: key.src_port(),
            dst_port: key.dst_port(),
            tcp_flags: self.tcp_flags,
            icmp_type: 0,
            fragment: Fragment::Whole,
            ttl: self.ttl,
            traffic_class: self.traffic_class,
            dont_fragment: self.dont_fragment,
        }
    }

    /// Takes one hop off the packet's time to live, which must be more than one.
    ///
    /// # Panics
    /// If `frame` is shorter than the one that this was read from; as with all that changes frames.
    #[inline(always)]
    pub fn hop(&self, frame: &mut [u8]) {
        self.change_header(head(frame), Delta::NONE);
    }

    /// Takes one hop off, and makes the packet one of another flow.
    ///
    /// # Panics
    /// As [`hop`](Self::hop).
    #[inline(always)]
    pub fn hop_and_translate(&self, frame: &mut [u8], to: &Translation4) {
        let (addresses, ports) = to.words();
        let (header, transport) = to.deltas();
        let head = head(frame);
        self.change_header(head, header);
        head[26..34].copy_from_slice(&addresses);
        head[TRANSPORT..TRANSPORT + 4].copy_from_slice(&ports);
        if self.protocol == Protocol::TCP {
            let field: &mut [u8; 2] = frame[TCP_CHECKSUM..].first_chunk_mut().expect(OTHER_FRAME);
            *field = transport.apply(u16::from_be_bytes(*field)).to_be_bytes();
        } else {
            let checksum = transport.apply_udp(u16::from_be_bytes([head[40], head[41]]));
            head[40..42].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    #[inline(always)]
    fn change_header(&self, head: &mut [u8; HEAD], delta: Delta) {
        head[22] = self.ttl.wrapping_sub(1);
        let before = u16::from_be_bytes([head[24], head[25]]);
        let sum = Sum::ZERO.word(!before).word(Delta::TTL.to_bits()).word(delta.to_bits());
        head[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
    }
}

const OTHER_FRAME: &str = "a frame comes with the Usual that was read from it";

#[inline(always)]
fn head(frame: &mut [u8]) -> &mut [u8; HEAD] {
    frame.first_chunk_mut().expect(OTHER_FRAME)
}

#[cfg(test)]
mod tests;
