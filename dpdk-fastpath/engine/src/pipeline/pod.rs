//! From a pod.
//!
//! In: a frame as the pod sent it. Out: an IP packet that is for the router and has the pod's own source address. On the
//! way ARP and neighbour discovery for the router are answered; what a host sends without meaning the router, such as
//! router solicitations and multicast, goes quietly.

use std::net::Ipv6Addr;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::icmpv6::Icmpv6Type;
use culvert_packet::parse::{L3, L4};
use culvert_packet::{PacketBuf, Parsed, parse};

use super::frame::eth;
use super::stage::{Admitted, Origin, Stage, Step};
use crate::counter::DropReason;
use crate::table::Port;

impl Stage<'_> {
    /// Lets a pod's packet in.
    pub(super) fn admit_from_pod<B: PacketBuf>(&mut self, port: &Port, buf: &mut B) -> Step<Admitted> {
        let parsed = match parse(buf.data()) {
            Ok(parsed) => Parsed { partial: buf.offload().partial, ..parsed },
            Err(malformed) => return self.stop(malformed),
        };
        if parsed.vlan.is_some() {
            return self.stop(DropReason::VLAN_TAG);
        }
        let header = eth(buf.data());
        let dst = header.dst();
        if header.src() != port.mac {
            return self.stop(DropReason::SPOOFED_MAC);
        }
        let admitted = match parsed.l3 {
            L3::Arp => return Step::Break(self.arp_from_pod(port, buf, &parsed)),
            L3::Other(_) => return self.stop(DropReason::ETHER_TYPE),
            _ if is_discovery(&parsed) => return Step::Break(self.discovery_from_pod(port, buf, &parsed)),
            _ if dst.is_multicast() => return self.stop(DropReason::MULTICAST),
            _ if dst != self.local.gateway_mac => return self.stop(DropReason::NOT_OUR_MAC),
            L3::Ipv4 => {
                let Some(key) = FlowKey4::of(buf.data(), &parsed, port.tenant) else {
                    return self.stop(DropReason::ETHER_TYPE);
                };
                if port.v4 != Some(key.src()) {
                    return self.stop(DropReason::SPOOFED_ADDRESS);
                }
                if key.dst().is_multicast() || key.dst().is_broadcast() {
                    return self.stop(DropReason::MULTICAST);
                }
                Admitted::V4(parsed, Origin::Pod, key)
            }
            L3::Ipv6 => {
                let Some(key) = FlowKey6::of(buf.data(), &parsed, port.tenant) else {
                    return self.stop(DropReason::ETHER_TYPE);
                };
                if port.v6 != Some(key.src()) {
                    return self.stop(DropReason::SPOOFED_ADDRESS);
                }
                if key.dst().is_multicast() {
                    return self.stop(DropReason::MULTICAST);
                }
                Admitted::V6(parsed, Origin::Pod, key)
            }
        };
        buf.truncate(parsed.end());
        Step::Continue(admitted)
    }
}

/// Router and neighbour discovery and redirects (RFC 4861): for one link, never forwarded.
pub(super) fn is_discovery(parsed: &Parsed) -> bool {
    const ROUTER_SOLICITATION: u8 = 133;
    parsed.l3 == L3::Ipv6
        && parsed.l4 == L4::Icmp
        && (ROUTER_SOLICITATION..=Icmpv6Type::REDIRECT.0).contains(&parsed.icmp_type)
}

/// Whether a pod may use a source address in neighbour discovery: its own, a link-local one, or none as long as it makes
/// sure that nobody else has its address (RFC 4862).
pub(super) fn may_discover(port: &Port, src: Ipv6Addr) -> bool {
    port.v6 == Some(src) || src.is_unicast_link_local() || src.is_unspecified()
}
