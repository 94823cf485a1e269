//! Tunnels: VXLAN (RFC 7348) or Geneve (RFC 8926), and what their outer headers take from the packet inside and give back:
//! DSCP by one of three models (RFC 2983), congestion marks (RFC 6040), hops.
//!
//! Outer headers have our address, don't-fragment and identification 0, a dynamic source port that is the same for all
//! packets of a flow. Over IPv4 there is no UDP checksum, over IPv6 there is unless both ends know better (RFC 6935). Geneve
//! has no options; with any that must be understood, and as a control message, it is dropped.

use std::net::IpAddr;

use super::Model;
use super::tables::{Dscp, Tunnels};
use crate::wire::dissect::Packet;
use crate::wire::make::{self, Ip, checked};
use crate::wire::{ETH, UDP, checksum, get16};

/// A tunnel packet without its outer headers.
pub(crate) struct Read {
    pub(crate) vni: u32,
    pub(crate) frame: Vec<u8>,
}

impl Model {
    /// Reads what is behind UDP.
    pub(crate) fn read_tunnel(&self, frame: &[u8], outer: &Packet) -> Result<Read, &'static str> {
        if outer.is_fragment() {
            return Err("tunnel-fragment");
        }
        let tunnels = self.node().tunnels;
        let datagram = &frame[outer.upper_at..outer.upper_at + usize::from(get16(frame, outer.upper_at + 4))];
        let tunnel = &datagram[8..];
        let header = if tunnels.geneve { geneve(tunnel)? } else { vxlan(tunnel)? };
        let vni = u32::from_be_bytes([0, tunnel[4], tunnel[5], tunnel[6]]);
        Ok(Read { vni, frame: tunnel[header..].to_vec() })
    }

    /// Over IPv6 the UDP checksum is all that protects the addresses.
    pub(crate) fn verify_tunnel(&self, frame: &[u8], outer: &Packet) -> Result<(), &'static str> {
        let datagram = &frame[outer.upper_at..outer.upper_at + usize::from(get16(frame, outer.upper_at + 4))];
        match get16(datagram, 6) {
            _ if outer.src.is_ipv4() => Ok(()),
            0 if self.node().tunnels.accept_zero_checksum6 => Ok(()),
            0 => Err("tunnel-no-checksum"),
            _ if checksum::is_right(outer.src, outer.dst, UDP, datagram) => Ok(()),
            _ => Err("udp-checksum"),
        }
    }
}

/// Length of a VXLAN header, if nothing is wrong with it.
fn vxlan(tunnel: &[u8]) -> Result<usize, &'static str> {
    if tunnel.len() < 8 {
        return Err("vxlan-truncated");
    }
    if tunnel[0] & 8 == 0 {
        return Err("vxlan-flags");
    }
    if tunnel.len() < 8 + ETH { Err("vxlan-truncated") } else { Ok(8) }
}

/// Length of a Geneve header with its options, if nothing is wrong with it.
fn geneve(tunnel: &[u8]) -> Result<usize, &'static str> {
    if tunnel.len() < 8 {
        return Err("geneve-truncated");
    }
    if tunnel[0] >> 6 != 0 {
        return Err("geneve-version");
    }
    let len = 8 + usize::from(tunnel[0] & 0x3f) * 4;
    if len > tunnel.len() {
        return Err("geneve-truncated");
    }
    if tunnel[1] & 0x80 != 0 {
        return Err("tunnel-control");
    }
    if tunnel[1] & 0x40 != 0 {
        return Err("tunnel-critical-option");
    }
    if get16(tunnel, 2) != 0x6558 {
        return Err("tunnel-protocol");
    }
    if tunnel.len() < len + ETH { Err("geneve-truncated") } else { Ok(len) }
}

/// A tunnel packet.
pub(crate) fn wrap(
    tunnels: Tunnels,
    ends: (IpAddr, IpAddr),
    port: u16,
    inside: (u8, u8),
    vni: u32,
    inner: &[u8],
) -> Vec<u8> {
    let (class, hops) = inside;
    let header = if tunnels.geneve { [0, 0, 0x65, 0x58] } else { [8, 0, 0, 0] };
    let datagram = make::udp((port, tunnels.port), &[&header[..], &(vni << 8).to_be_bytes(), inner].concat());
    let datagram = match ends.0 {
        IpAddr::V6(_) if !tunnels.send_zero_checksum6 => checked(ends.0, ends.1, UDP, datagram),
        _ => datagram,
    };
    let outer = Ip { protocol: UDP, hops: tunnels.hops.unwrap_or(hops), class: outer_class(tunnels, class) };
    make::ip(ends.0, ends.1, outer, &datagram)
}

/// RFC 6040, section 4.1.
fn outer_class(tunnels: Tunnels, inner: u8) -> u8 {
    let ecn = if tunnels.compatibility { 0 } else { inner & 3 };
    match tunnels.dscp {
        Dscp::Pipe(dscp) => dscp << 2 | ecn,
        Dscp::Copy | Dscp::Uniform => inner & !3 | ecn,
    }
}

/// RFC 6040, section 4.2, by the codes not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3; `None` where the packet must be dropped.
pub(crate) fn inner_class(tunnels: Tunnels, inner: u8, outer: u8) -> Option<u8> {
    const TABLE: [[Option<u8>; 4]; 4] = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    let ecn = TABLE[usize::from(inner & 3)][usize::from(outer & 3)]?;
    let dscp = if tunnels.dscp == Dscp::Uniform { outer } else { inner };
    Some(dscp & !3 | ecn)
}
