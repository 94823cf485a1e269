//! What a device does about packets before it sends them, and how it is asked to.

use std::fmt;

use culvert_packet::encap::Encapsulation;
use culvert_packet::offload::request::{Outer, Request};
use culvert_packet::parse::L4;

#[cfg(test)]
mod tests;

/// `RTE_ETH_TX_OFFLOAD_*`: what a device can do to packets that it sends, or has been configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxOffloads(u64);

impl TxOffloads {
    /// Packets are sent as they are.
    pub const NONE: Self = Self(0);
    /// IPv4 header checksum, the inner one in a tunnel.
    pub const IPV4_CKSUM: Self = Self(dpdk_sys::SHIM_OFFLOAD_IPV4_CKSUM as u64);
    /// UDP checksum, the inner one in a tunnel.
    pub const UDP_CKSUM: Self = Self(dpdk_sys::SHIM_OFFLOAD_UDP_CKSUM as u64);
    /// TCP checksum, the inner one in a tunnel.
    pub const TCP_CKSUM: Self = Self(dpdk_sys::SHIM_OFFLOAD_TCP_CKSUM as u64);
    /// TCP is cut.
    pub const TCP_TSO: Self = Self(dpdk_sys::SHIM_OFFLOAD_TCP_TSO as u64);
    /// UDP is cut: into datagrams or into fragments, that depends on the driver.
    pub const UDP_TSO: Self = Self(dpdk_sys::SHIM_OFFLOAD_UDP_TSO as u64);
    /// Outer IPv4 header checksum.
    pub const OUTER_IPV4_CKSUM: Self = Self(dpdk_sys::SHIM_OFFLOAD_OUTER_IPV4_CKSUM as u64);
    /// Outer UDP checksum.
    pub const OUTER_UDP_CKSUM: Self = Self(dpdk_sys::SHIM_OFFLOAD_OUTER_UDP_CKSUM as u64);
    /// Packets in VXLAN are cut.
    pub const VXLAN_TNL_TSO: Self = Self(dpdk_sys::SHIM_OFFLOAD_VXLAN_TNL_TSO as u64);
    /// Packets in Geneve are cut.
    pub const GENEVE_TNL_TSO: Self = Self(dpdk_sys::SHIM_OFFLOAD_GENEVE_TNL_TSO as u64);

    const NAMES: [(Self, &'static str); 9] = [
        (Self::IPV4_CKSUM, "IPV4_CKSUM"),
        (Self::UDP_CKSUM, "UDP_CKSUM"),
        (Self::TCP_CKSUM, "TCP_CKSUM"),
        (Self::TCP_TSO, "TCP_TSO"),
        (Self::UDP_TSO, "UDP_TSO"),
        (Self::OUTER_IPV4_CKSUM, "OUTER_IPV4_CKSUM"),
        (Self::OUTER_UDP_CKSUM, "OUTER_UDP_CKSUM"),
        (Self::VXLAN_TNL_TSO, "VXLAN_TNL_TSO"),
        (Self::GENEVE_TNL_TSO, "GENEVE_TNL_TSO"),
    ];

    /// Those with these bits, as DPDK numbers them.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As DPDK numbers them.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of the others are among these.
    pub const fn contains(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// These and the others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without the others.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The names that DPDK has for those that are known here.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(offload, _)| self.contains(*offload)).map(|(_, name)| name)
    }

    /// What a device must have been configured for before it can be asked this.
    pub fn needed(request: &Request) -> Self {
        let cut = request.segment.is_some();
        let (checksum, segments) = match request.l4 {
            L4::Tcp => (Self::TCP_CKSUM, Self::TCP_TSO),
            _ => (Self::UDP_CKSUM, Self::UDP_TSO),
        };
        let cutting = if request.v6 { segments } else { segments.and(Self::IPV4_CKSUM) };
        let inner = if cut { checksum.and(cutting) } else { checksum };
        let Some(outer) = request.outer else { return inner };
        // Of inner checksums alone DPDK has no word: a device that cuts packets in such a tunnel makes them, too.
        let tunnel = match outer.encapsulation {
            Encapsulation::Vxlan => Self::VXLAN_TNL_TSO,
            Encapsulation::Geneve => Self::GENEVE_TNL_TSO,
        };
        let header = if cut && !outer.v6 { Self::OUTER_IPV4_CKSUM } else { Self::NONE };
        let datagram = if outer.checksum { Self::OUTER_UDP_CKSUM } else { Self::NONE };
        inner.and(tunnel).and(header).and(datagram)
    }
}

/// Their [names](TxOffloads::names), with commas in between.
impl fmt::Display for TxOffloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, name) in self.names().enumerate() {
            write!(f, "{}{name}", if nth > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// `RTE_MBUF_F_TX_*`, all that are used here.
pub(crate) const FLAGS: u64 = dpdk_sys::SHIM_TX_OUTER_UDP_CKSUM
    | dpdk_sys::SHIM_TX_UDP_SEG
    | dpdk_sys::SHIM_TX_TUNNEL_VXLAN
    | dpdk_sys::SHIM_TX_TUNNEL_GENEVE
    | dpdk_sys::SHIM_TX_TCP_SEG
    | dpdk_sys::SHIM_TX_TCP_CKSUM
    | dpdk_sys::SHIM_TX_UDP_CKSUM
    | dpdk_sys::SHIM_TX_IP_CKSUM
    | dpdk_sys::SHIM_TX_IPV4
    | dpdk_sys::SHIM_TX_IPV6
    | dpdk_sys::SHIM_TX_OUTER_IP_CKSUM
    | dpdk_sys::SHIM_TX_OUTER_IPV4
    | dpdk_sys::SHIM_TX_OUTER_IPV6;

/// The `ol_flags` of an mbuf that ask for it.
pub(crate) fn flags(request: &Request) -> u64 {
    let cut = request.segment.is_some();
    let when = |condition, flag| if condition { flag } else { 0 };
    let ip = match request.v6 {
        false => dpdk_sys::SHIM_TX_IPV4 | when(cut, dpdk_sys::SHIM_TX_IP_CKSUM),
        true => dpdk_sys::SHIM_TX_IPV6,
    };
    let transport = match request.l4 {
        L4::Tcp => dpdk_sys::SHIM_TX_TCP_CKSUM | when(cut, dpdk_sys::SHIM_TX_TCP_SEG),
        _ => dpdk_sys::SHIM_TX_UDP_CKSUM | when(cut, dpdk_sys::SHIM_TX_UDP_SEG),
    };
    let Some(outer) = request.outer else { return ip | transport };
    let tunnel = match outer.encapsulation {
        Encapsulation::Vxlan => dpdk_sys::SHIM_TX_TUNNEL_VXLAN,
        Encapsulation::Geneve => dpdk_sys::SHIM_TX_TUNNEL_GENEVE,
    };
    let outer_ip = match outer.v6 {
        false => dpdk_sys::SHIM_TX_OUTER_IPV4 | when(cut, dpdk_sys::SHIM_TX_OUTER_IP_CKSUM),
        true => dpdk_sys::SHIM_TX_OUTER_IPV6,
    };
    ip | transport | tunnel | outer_ip | when(outer.checksum, dpdk_sys::SHIM_TX_OUTER_UDP_CKSUM)
}

/// The `tx_offload` of that mbuf.
pub(crate) fn fields(request: &Request) -> u64 {
    let outer = request.outer.map_or(0, |outer| {
        (outer.l3_len() as u64) << dpdk_sys::SHIM_OUTER_L3_LEN
            | (Outer::L2_LEN as u64) << dpdk_sys::SHIM_OUTER_L2_LEN
    });
    request.l2_len() as u64
        | (request.l3_len() as u64) << dpdk_sys::SHIM_L3_LEN
        | u64::from(request.l4_len) << dpdk_sys::SHIM_L4_LEN
        | u64::from(request.segment.map_or(0, Into::into)) << dpdk_sys::SHIM_TSO_SEGSZ
        | outer
}
