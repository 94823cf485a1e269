//! From the underlay.
//!
//! In: a frame that came in at the uplink. Out: an IP packet that another node's pod sent through the tunnel, with the
//! outer headers gone. On the way ARP, neighbour discovery and ping for the tunnel endpoint's addresses are answered, and
//! neighbours are learned, and what routers say about packets of ours. Nothing else of the underlay is ours; it is dropped
//! without a word.

use std::net::IpAddr;

use culvert_packet::answer::echo_reply;
use culvert_packet::encap::{Decap, Encapsulation, decap, decap_geneve};
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::parse::{L3, L4, verify_transport};
use culvert_packet::rewrite::set_traffic_class;
use culvert_packet::{PacketBuf, Parsed, parse};

use super::frame::eth;
use super::pod::is_discovery;
use super::stage::{Admitted, Origin, Stage, Step};
use crate::counter::{Answered, DropReason};
use crate::table::Port;

/// Place of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;

impl Stage<'_> {
    /// Lets in what comes through a tunnel.
    pub(super) fn admit_from_uplink<B: PacketBuf>(&mut self, port: &Port, buf: &mut B) -> Step<Admitted> {
        let outer = match parse(buf.data()) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.stop(malformed),
        };
        if outer.vlan.is_some() {
            return self.stop(DropReason::VLAN_TAG);
        }
        let dst = eth(buf.data()).dst();
        if !dst.is_multicast() && dst != port.mac {
            return self.stop(DropReason::NOT_OUR_MAC);
        }
        match outer.l3 {
            L3::Arp => return Step::Break(self.arp_from_uplink(port, buf, &outer)),
            L3::Other(_) => return self.stop(DropReason::ETHER_TYPE),
            _ if is_discovery(&outer) => return Step::Break(self.discovery_from_uplink(port, buf, &outer)),
            _ if dst.is_multicast() => return self.stop(DropReason::MULTICAST),
            L3::Ipv4 | L3::Ipv6 => {}
        }
        let Some((src, dst)) = addresses(buf.data(), &outer) else {
            return self.stop(DropReason::ETHER_TYPE);
        };
        if !self.local.is_vtep(dst) {
            return self.stop(DropReason::UNDERLAY_NOT_FOR_US);
        }
        if outer.l4 == L4::Echo {
            buf.truncate(outer.end());
            let reply = echo_reply(buf.data_mut(), &outer);
            return Step::Break(self.answered(reply, Answered::EchoReply, DropReason::UNDERLAY_NOT_FOR_US));
        }
        if outer.l4 == L4::Icmp {
            return Step::Break(self.error_from_underlay(buf.data(), &outer));
        }
        // Only the first fragment would have a port; later ones are told by their protocol to be no tunnel packets.
        if outer.l4 != L4::Udp || outer.dst_port != self.local.tunnels.port {
            return self.stop(DropReason::UNDERLAY_NOT_FOR_US);
        }
        self.admit_from_tunnel(src, buf, &outer)
    }

    /// Takes a packet out of its tunnel.
    #[inline]
    fn admit_from_tunnel<B: PacketBuf>(
        &mut self,
        src: IpAddr,
        buf: &mut B,
        outer: &Parsed,
    ) -> Step<Admitted> {
        let tunnel = match self.read_tunnel(buf.data(), outer) {
            Ok(tunnel) => tunnel,
            Err(reason) => return self.stop(reason),
        };
        let Some(tenant) = self.local.tenant_of(tunnel.vni) else {
            return self.stop(DropReason::TUNNEL_WRONG_VNI);
        };
        let Some(slot) = self.view.remote_of_tenant(tenant, src) else {
            return self.stop(DropReason::TUNNEL_UNKNOWN_SOURCE);
        };
        if let Err(reason) = self.verify_outer(buf.data(), outer) {
            return self.stop(reason);
        }
        tunnel.strip(buf);
        let parsed = match parse(buf.data()) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.stop(malformed),
        };
        let dst = eth(buf.data()).dst();
        if dst.is_multicast() {
            return self.stop(DropReason::MULTICAST);
        }
        if dst != self.local.vtep_mac {
            return self.stop(DropReason::TUNNEL_NOT_OUR_MAC);
        }
        if parsed.vlan.is_some() {
            return self.stop(DropReason::VLAN_TAG);
        }
        let origin = Origin::Tunnel(slot);
        let (admitted, multicast) = match parsed.l3 {
            L3::Ipv4 => match FlowKey4::of(buf.data(), &parsed, tenant) {
                Some(key) => {
                    let multicast = key.dst().is_multicast() || key.dst().is_broadcast();
                    (Admitted::V4(parsed, origin, key), multicast)
                }
                None => return self.stop(DropReason::ETHER_TYPE),
            },
            L3::Ipv6 => match FlowKey6::of(buf.data(), &parsed, tenant) {
                Some(key) => (Admitted::V6(parsed, origin, key), key.dst().is_multicast()),
                None => return self.stop(DropReason::ETHER_TYPE),
            },
            L3::Arp => return self.stop(DropReason::NEIGHBOUR_IGNORED),
            L3::Other(_) => return self.stop(DropReason::ETHER_TYPE),
        };
        if is_discovery(&parsed) {
            return self.stop(DropReason::NEIGHBOUR_IGNORED);
        }
        if multicast {
            return self.stop(DropReason::MULTICAST);
        }
        match self.local.tunnels.marking.inner(parsed.traffic_class, tunnel.traffic_class) {
            None => return self.stop(DropReason::TUNNEL_CONGESTION),
            Some(same) if same == parsed.traffic_class => {}
            Some(marked) => set_traffic_class(buf.data_mut(), &parsed, marked),
        }
        buf.truncate(parsed.end());
        Step::Continue(admitted)
    }

    /// Where the inner frame of a tunnel packet is.
    #[inline]
    fn read_tunnel(&self, frame: &[u8], outer: &Parsed) -> Result<Decap, DropReason> {
        match self.local.tunnels.encapsulation {
            Encapsulation::Vxlan => Ok(decap(frame, outer)?),
            Encapsulation::Geneve => Ok(decap_geneve(frame, outer)?),
        }
    }

    /// The checksum of an outer packet over IPv6, where nothing else protects the addresses.
    #[inline]
    fn verify_outer(&self, frame: &[u8], outer: &Parsed) -> Result<(), DropReason> {
        if outer.l3 != L3::Ipv6 {
            return Ok(());
        }
        let checksum = &frame[usize::from(outer.l4_offset) + UDP_CHECKSUM..][..2];
        match (checksum, self.local.tunnels.accept_zero_checksum6) {
            ([0, 0], true) => Ok(()),
            ([0, 0], false) => Err(DropReason::TUNNEL_NO_CHECKSUM),
            _ => Ok(verify_transport(frame, outer)?),
        }
    }
}

/// Source and destination of an IP packet.
#[inline]
fn addresses(frame: &[u8], parsed: &Parsed) -> Option<(IpAddr, IpAddr)> {
    if let Some(key) = FlowKey4::of(frame, parsed, Tenant::DEFAULT) {
        return Some((key.src().into(), key.dst().into()));
    }
    FlowKey6::of(frame, parsed, Tenant::DEFAULT).map(|key| (key.src().into(), key.dst().into()))
}
