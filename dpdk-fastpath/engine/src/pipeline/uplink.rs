//! From the underlay.
//!
//! In: a frame that came in at the uplink. Out: an IP packet that another node's pod sent through the tunnel, with the
//! outer headers gone. On the way ARP, neighbour discovery and ping for the tunnel endpoint's addresses are answered, and
//! neighbours are learned. Nothing else of the underlay is ours; it is dropped without a word.

use std::net::IpAddr;

use culvert_packet::answer::echo_reply;
use culvert_packet::encap::{decap, inner_traffic_class};
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::parse::{L3, L4};
use culvert_packet::rewrite::set_traffic_class;
use culvert_packet::{PacketBuf, Parsed, parse};

use super::frame::eth;
use super::pod::is_discovery;
use super::stage::{Admitted, Origin, Stage, Step};
use crate::counter::{Answered, DropReason};
use crate::table::Port;

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
        // Only the first fragment would have a port; later ones are told by their protocol to be no tunnel packets.
        if outer.l4 != L4::Udp || outer.dst_port != self.local.vxlan_port {
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
        let Some(slot) = self.view.remote_of_vtep(src) else {
            return self.stop(DropReason::TUNNEL_UNKNOWN_SOURCE);
        };
        let tunnel = match decap(buf.data(), outer) {
            Ok(tunnel) => tunnel,
            Err(malformed) => return self.stop(malformed),
        };
        if tunnel.vni != self.local.vni.get() {
            return self.stop(DropReason::TUNNEL_WRONG_VNI);
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
        let tenant = Tenant::DEFAULT;
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
        match inner_traffic_class(parsed.traffic_class, tunnel.traffic_class) {
            None => return self.stop(DropReason::TUNNEL_CONGESTION),
            Some(same) if same == parsed.traffic_class => {}
            Some(marked) => set_traffic_class(buf.data_mut(), &parsed, marked),
        }
        buf.truncate(parsed.end());
        Step::Continue(admitted)
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
