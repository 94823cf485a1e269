//! The usual packet in the usual tunnel: VXLAN over IPv4, to one endpoint and network.

use std::net::Ipv4Addr;

use super::{Front, HEAD, IP, Usual, is_filled, plain_len, ttl_and_traffic_class, word};
use crate::encap::OVERHEAD_V4;
use crate::eth::EthAddr;
use crate::ip::Protocol;

/// Where the VXLAN header begins, behind that of UDP.
const VXLAN: usize = HEAD;

/// What the usual tunnel packets to one endpoint have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnelled {
    outer: Front,
    inner: Front,
    /// Endpoint, any source port, and destination port, as they lie in memory.
    destination: u64,
    /// The VXLAN header, as it lies in memory.
    vxlan: u64,
}

impl Tunnelled {
    /// To UDP port `port` of an endpoint, whose Ethernet addresses outside and inside of the tunnel are these, in the
    /// network with this VNI.
    pub const fn new(outer: EthAddr, endpoint: Ipv4Addr, port: u16, vni: u32, inner: EthAddr) -> Self {
        let [_, a, b, c] = vni.to_be_bytes();
        let vxlan = u64::from_ne_bytes([8, 0, 0, 0, a, b, c, 0]);
        let ([d, e, f, g], [h, i]) = (endpoint.octets(), port.to_be_bytes());
        let destination = u64::from_ne_bytes([d, e, f, g, 0, 0, h, i]);
        Self { outer: Front::to(outer), inner: Front::to(inner), destination, vxlan }
    }
}

/// Reads a tunnel packet; verified is all that [`parse`](crate::parse::parse) and
/// [`decap`](crate::encap::decap) verify. Returned are the tunnel's other end, and the packet inside, whose frame begins at
/// [`OVERHEAD_V4`]. `None` for packets of another kind, among them those whose traffic class would change, and for whatever
/// is wrong.
#[inline(always)]
pub fn tunnelled(frame: &[u8], expected: &Tunnelled) -> Option<(Ipv4Addr, Usual)> {
    /// The flag that says that the VNI counts, and the VNI; the rest is reserved and ignored (RFC 7348, section 5).
    const COUNTS: u64 = u64::from_ne_bytes([8, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
    /// Protocol; and all but the source port.
    const PROTOCOL: u64 = u64::from_ne_bytes([0, 0xff, 0, 0, 0, 0, 0, 0]);
    const DESTINATION: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    const UDP: u64 = u64::from_ne_bytes([0, Protocol::UDP.0, 0, 0, 0, 0, 0, 0]);
    let head: &[u8; HEAD] = frame.first_chunk()?;
    let difference = expected.outer.difference(head)
        | (word(head, IP + 8) & PROTOCOL ^ UDP)
        | (word(head, IP + 16) ^ expected.destination) & DESTINATION;
    let len = plain_len(head, frame.len(), difference)?;
    if usize::from(len) < OVERHEAD_V4 + HEAD - IP || !is_filled(head, len) {
        return None;
    }
    // The datagram fills its packet.
    let (headers, inner) = frame.get(..IP + usize::from(len))?.split_first_chunk::<OVERHEAD_V4>()?;
    let usual = Usual::read(inner, &expected.inner)?;
    let ((_, outer_class), (_, class)) = (ttl_and_traffic_class(frame)?, ttl_and_traffic_class(inner)?);
    let src = Ipv4Addr::from([head[26], head[27], head[28], head[29]]);
    let mark = outer_class & 3;
    let usual_mark = (mark == 0) | (mark == class & 3);
    ((word(headers, VXLAN) ^ expected.vxlan) & COUNTS == 0 && usual_mark).then_some((src, usual))
}
