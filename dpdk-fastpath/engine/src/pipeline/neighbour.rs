//! ARP and neighbour discovery, on both sides.
//!
//! Towards pods we are their router and answer for its addresses only. Towards the underlay we answer for the tunnel
//! endpoint's addresses, and pass on what others say of theirs.

use std::net::IpAddr;

use culvert_packet::answer::{arp_reply, neighbour_advertisement};
use culvert_packet::arp::{Arp, ArpOperation};
use culvert_packet::flow::{FlowKey6, Tenant};
use culvert_packet::icmpv6::{
    Icmpv6Type, Neighbour as NeighbourMessage, OVERRIDE, ROUTER, SOLICITED, TARGET_LINK_LAYER,
};
use culvert_packet::parse::verify_transport;
use culvert_packet::{Malformed, PacketBuf, Parsed};

use super::frame::eth;
use super::pod::may_discover;
use super::stage::Stage;
use super::verdict::{Learned, Neighbour, Verdict};
use crate::counter::{Answered, DropReason};
use crate::table::Port;

/// Hop limit of neighbour discovery: less means that a router was between (RFC 4861, section 7.1).
const HOP_LIMIT: u8 = 255;

impl Stage<'_> {
    /// In: a pod's ARP packet. Out: a reply, if it asks for the router.
    pub(super) fn arp_from_pod<B: PacketBuf>(
        &mut self,
        port: &Port,
        buf: &mut B,
        parsed: &Parsed,
    ) -> Verdict {
        let arp = match Arp::new(&buf.data()[usize::from(parsed.l3_offset)..]) {
            Ok(arp) => *arp,
            Err(malformed) => return self.drop(malformed),
        };
        if arp.sender_mac() != port.mac {
            return self.drop(DropReason::SPOOFED_MAC);
        }
        // A probe (RFC 5227) has no sender address yet.
        if !arp.sender_ip().is_unspecified() && port.v4 != Some(arp.sender_ip()) {
            return self.drop(DropReason::SPOOFED_ADDRESS);
        }
        if !self.local.is_gateway(port.tenant, arp.target_ip().into()) {
            return self.drop(DropReason::NEIGHBOUR_IGNORED);
        }
        buf.truncate(parsed.end());
        let reply = arp_reply(buf.data_mut(), parsed, self.local.gateway_mac);
        self.answered(reply, Answered::ArpReply, DropReason::NEIGHBOUR_IGNORED)
    }

    /// In: a pod's discovery message. Out: an advertisement, if it asks for the router's address.
    pub(super) fn discovery_from_pod<B: PacketBuf>(
        &mut self,
        port: &Port,
        buf: &mut B,
        parsed: &Parsed,
    ) -> Verdict {
        let Some(key) = FlowKey6::of(buf.data(), parsed, port.tenant) else {
            return self.drop(DropReason::ETHER_TYPE);
        };
        if !may_discover(port, key.src()) {
            return self.drop(DropReason::SPOOFED_ADDRESS);
        }
        let target = solicited_target(buf.data(), parsed);
        if !target.is_some_and(|target| self.local.is_gateway(port.tenant, target)) {
            return self.drop(DropReason::NEIGHBOUR_IGNORED);
        }
        let advertised = neighbour_advertisement(buf, parsed, self.local.gateway_mac, ROUTER | OVERRIDE);
        self.answered(advertised, Answered::NeighbourAdvertisement, DropReason::NEIGHBOUR_IGNORED)
    }

    /// In: the underlay's ARP packet. Out: a reply, if it asks for our address; a [`Neighbour`], if it says who has
    /// another.
    pub(super) fn arp_from_uplink<B: PacketBuf>(
        &mut self,
        port: &Port,
        buf: &mut B,
        parsed: &Parsed,
    ) -> Verdict {
        let arp = match Arp::new(&buf.data()[usize::from(parsed.l3_offset)..]) {
            Ok(arp) => *arp,
            Err(malformed) => return self.drop(malformed),
        };
        let sender = IpAddr::V4(arp.sender_ip());
        if self.local.is_vtep(sender) && arp.sender_mac() != port.mac {
            return self.drop(DropReason::ADDRESS_CONFLICT);
        }
        if arp.operation() == ArpOperation::REQUEST && self.local.is_vtep(arp.target_ip().into()) {
            buf.truncate(parsed.end());
            let reply = arp_reply(buf.data_mut(), parsed, port.mac);
            return self.answered(reply, Answered::ArpReply, DropReason::NEIGHBOUR_IGNORED);
        }
        let announcement = arp.sender_ip() == arp.target_ip();
        let reply = arp.operation() == ArpOperation::REPLY;
        let plausible =
            arp.sender_mac().is_unicast() && !arp.sender_ip().is_unspecified() && !self.local.is_vtep(sender);
        if !plausible || !reply && !announcement {
            return self.drop(DropReason::NEIGHBOUR_IGNORED);
        }
        let solicited = reply && !announcement && eth(buf.data()).dst() == port.mac;
        self.learn(Learned::Neighbour(Neighbour { ip: sender, mac: arp.sender_mac(), solicited }))
    }

    /// In: the underlay's discovery message. Out: an advertisement, if it asks for our address; a [`Neighbour`], if it
    /// says who has another.
    pub(super) fn discovery_from_uplink<B: PacketBuf>(
        &mut self,
        port: &Port,
        buf: &mut B,
        parsed: &Parsed,
    ) -> Verdict {
        if let Some(target) = solicited_target(buf.data(), parsed) {
            if !self.local.is_vtep(target) {
                return self.drop(DropReason::NEIGHBOUR_IGNORED);
            }
            let advertised = neighbour_advertisement(buf, parsed, port.mac, OVERRIDE);
            return self.answered(
                advertised,
                Answered::NeighbourAdvertisement,
                DropReason::NEIGHBOUR_IGNORED,
            );
        }
        if parsed.icmp_type != Icmpv6Type::NEIGHBOUR_ADVERTISEMENT.0 {
            return self.drop(DropReason::NEIGHBOUR_IGNORED);
        }
        match advertised(buf.data(), parsed) {
            Ok(Some(neighbour)) if self.local.is_vtep(neighbour.ip) => {
                self.drop(DropReason::ADDRESS_CONFLICT)
            }
            Ok(Some(neighbour)) => self.learn(Learned::Neighbour(neighbour)),
            Ok(None) => self.drop(DropReason::NEIGHBOUR_IGNORED),
            Err(malformed) => self.drop(malformed),
        }
    }
}

/// Whom a neighbour solicitation asks for; `None` for anything else. Nothing else of it is checked.
fn solicited_target(frame: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    if parsed.icmp_type != Icmpv6Type::NEIGHBOUR_SOLICITATION.0 || parsed.is_fragment() {
        return None;
    }
    let message = NeighbourMessage::new(&frame[usize::from(parsed.l4_offset)..parsed.end()]).ok()?;
    Some(message.target().into())
}

/// What a neighbour advertisement says, with the checks of RFC 4861, section 7.1.2; `None` if it names no Ethernet
/// address.
fn advertised(frame: &[u8], parsed: &Parsed) -> Result<Option<Neighbour>, Malformed> {
    if parsed.is_fragment() || parsed.ttl != HOP_LIMIT {
        return Err(Malformed::NdInvalid);
    }
    verify_transport(frame, parsed)?;
    let message = NeighbourMessage::new(&frame[usize::from(parsed.l4_offset)..parsed.end()])?;
    let solicited = message.flags() & SOLICITED != 0;
    let to_all = FlowKey6::of(frame, parsed, Tenant::DEFAULT).is_none_or(|key| key.dst().is_multicast());
    if solicited && to_all {
        return Err(Malformed::NdInvalid);
    }
    let mac = message.link_layer(TARGET_LINK_LAYER)?.filter(|mac| mac.is_unicast());
    Ok(mac.map(|mac| Neighbour { ip: message.target().into(), mac, solicited }))
}
