//! The usual packet: a whole TCP or UDP packet over IPv4 without options, behind an untagged Ethernet header.
//!
//! Nearly all packets are of this kind, and all their headers have a fixed place. So they are read with a handful of loads
//! and one branch, and changed with a handful of stores. What is unusual is for [`parse`](crate::parse::parse) and
//! [`rewrite`](crate::rewrite).

use zerocopy::FromBytes;

use crate::checksum::{Delta, Sum, header_is_valid};
use crate::encap::OVERHEAD_V4;
use crate::eth::{EthHeader, EtherType};
use crate::flow::{FlowKey4, Tenant};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::rewrite::Translation4;
use crate::tcp::{TcpFlags, TcpHeader};
use crate::udp::UdpHeader;
use crate::vxlan::VxlanHeader;

const IP: usize = EthHeader::LEN;
const TRANSPORT: usize = IP + Ipv4Header::LEN;
/// Bytes of the headers of the shortest usual packet.
const HEAD: usize = TRANSPORT + UdpHeader::LEN;
/// Checksum of TCP.
const TCP_CHECKSUM: usize = TRANSPORT + 16;

/// A packet of the usual kind: what it takes to find out where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// Source and destination as in the header.
    addresses: u64,
    /// Source and destination as in the header.
    ports: u32,
    /// Length of the IP packet in bytes, at least 28.
    pub len: u16,
    /// [`Protocol::TCP`] or [`Protocol::UDP`].
    pub protocol: Protocol,
    /// Control bits of TCP, else none.
    pub tcp_flags: TcpFlags,
}

impl Usual {
    /// Reads a frame; verified is all that [`parse`](crate::parse::parse) verifies. `None` for packets of another kind, and
    /// for whatever is wrong.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        const FIRST: u32 = u32::from_ne_bytes([8, 0, 0x45, 0]);
        const FIRST_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
        const _: () = assert!(EtherType::IPV4.0 == 0x0800);
        let head: &[u8; HEAD] = frame.first_chunk()?;
        let len = u16::from_be_bytes([head[16], head[17]]);
        // Evaluated without a branch for each.
        let plain = (u32::from_ne_bytes(*head[12..].first_chunk()?) & FIRST_MASK == FIRST)
            & (u16::from_be_bytes([head[20], head[21]]) & 0x3fff == 0)
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
            tcp_flags: TcpFlags(0),
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

    /// Where the frame ends without its padding.
    #[inline(always)]
    pub const fn end(&self) -> usize {
        IP + self.len as usize
    }
}

/// The VXLAN network identifier and the inner frame of a usual packet that is a VXLAN packet, as
/// [`decap`](crate::encap::decap) has them; the frame begins at [`OVERHEAD_V4`](crate::encap::OVERHEAD_V4). `None` if it is
/// none.
#[inline(always)]
pub fn decap(frame: &[u8]) -> Option<(u32, &[u8])> {
    let (outer, _) = frame.split_first_chunk::<OVERHEAD_V4>()?;
    let end = TRANSPORT + usize::from(u16::from_be_bytes([outer[38], outer[39]]));
    let inner = frame.get(OVERHEAD_V4..end)?;
    let (vxlan, _) = VxlanHeader::ref_from_prefix(&outer[HEAD..]).ok()?;
    (vxlan.vni_is_valid() && inner.len() >= EthHeader::LEN).then_some((vxlan.vni(), inner))
}

/// Time to live and traffic class of a usual packet; `None` if the frame is too short to be one.
#[inline(always)]
pub fn ttl_and_traffic_class(frame: &[u8]) -> Option<(u8, u8)> {
    let head: &[u8; HEAD] = frame.first_chunk()?;
    Some((head[22], head[15]))
}

/// Takes one hop off the time to live of a usual packet, which must be more than one.
///
/// # Panics
/// If the frame is shorter than any usual one; as with all that changes frames.
#[inline(always)]
pub fn hop(frame: &mut [u8]) {
    change_header(head(frame), Delta::NONE);
}

/// Takes one hop off, and makes the packet, which is of `protocol`, one of another flow.
///
/// # Panics
/// As [`hop`].
#[inline(always)]
pub fn hop_and_translate(frame: &mut [u8], protocol: Protocol, to: &Translation4) {
    let (addresses, ports) = to.words();
    let (header, transport) = to.deltas();
    let head = head(frame);
    change_header(head, header);
    head[26..34].copy_from_slice(&addresses);
    head[TRANSPORT..TRANSPORT + 4].copy_from_slice(&ports);
    if protocol == Protocol::TCP {
        let field: &mut [u8; 2] = frame[TCP_CHECKSUM..].first_chunk_mut().expect(OTHER_FRAME);
        *field = transport.apply(u16::from_be_bytes(*field)).to_be_bytes();
    } else {
        let checksum = transport.apply_udp(u16::from_be_bytes([head[40], head[41]]));
        head[40..42].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[inline(always)]
fn change_header(head: &mut [u8; HEAD], delta: Delta) {
    head[22] = head[22].wrapping_sub(1);
    let before = u16::from_be_bytes([head[24], head[25]]);
    let sum = Sum::ZERO.word(!before).word(Delta::TTL.to_bits()).word(delta.to_bits());
    head[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
}

const OTHER_FRAME: &str = "a frame that was read as a usual one";

#[inline(always)]
fn head(frame: &mut [u8]) -> &mut [u8; HEAD] {
    frame.first_chunk_mut().expect(OTHER_FRAME)
}

#[cfg(test)]
mod tests;
