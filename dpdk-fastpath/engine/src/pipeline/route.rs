//! A packet that belongs to no tracked flow.
//!
//! In: a packet with its key. Out: it goes to a pod, here or on another node; or it is for this node itself, or for a
//! service, whose stages are next. Its sender is told when there is no such destination.

use std::net::IpAddr;

use culvert_packet::PacketBuf;
use culvert_packet::answer::{IcmpError, echo_reply};
use culvert_packet::flow::Tenant;
use culvert_packet::parse::L4;

use super::stage::{Origin, Packet, Stage};
use super::verdict::End;
use crate::counter::{Answered, DropReason};
use crate::flow::{Key, Out};
use crate::table::Target;

impl Stage<'_> {
    /// Forwards by destination address.
    #[inline]
    pub(super) fn route<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> End {
        let (tenant, dst) = (key.tenant(), key.destination().0);
        if self.local.is_gateway(dst) || self.local.is_vtep(dst) {
            return self.local(packet);
        }
        if packet.origin == Origin::Pod && self.view.is_vip(tenant, dst) {
            return self.open(packet, key);
        }
        match self.out(tenant, dst) {
            Out::Nowhere => self.nowhere(packet, tenant, dst),
            out => self.send(packet, out, |_, _| {}),
        }
    }

    /// Where a pod's address is.
    #[inline]
    pub(super) fn out(&self, tenant: Tenant, address: IpAddr) -> Out {
        if let Some(port) = self.view.pod(tenant, address) {
            return Out::Pod(port);
        }
        match self.view.route(tenant, address) {
            Some(Target::Remote(slot)) => Out::Remote(slot),
            Some(Target::Local) | None => Out::Nowhere,
        }
    }

    /// Ends a packet whose destination does not exist.
    pub(super) fn nowhere<B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        tenant: Tenant,
        dst: IpAddr,
    ) -> End {
        if is_martian(dst) {
            return self.drop(DropReason::MARTIAN);
        }
        if self.view.route(tenant, dst) == Some(Target::Local) {
            return self.report(packet, DropReason::NO_SUCH_POD, IcmpError::HostUnreachable);
        }
        match packet.origin {
            Origin::Pod => self.report(packet, DropReason::NO_ROUTE, IcmpError::NetUnreachable),
            // It should not have come here: to say so might start a quarrel.
            Origin::Tunnel(_) => self.drop(DropReason::TUNNEL_NOT_LOCAL),
        }
    }

    /// A packet to one of this node's own addresses: ping is answered, nothing else is served there.
    fn local<B: PacketBuf>(&mut self, mut packet: Packet<'_, B>) -> End {
        if packet.parsed.l4 != L4::Echo {
            return self.refuse(packet, DropReason::NOT_SERVED);
        }
        match echo_reply(packet.buf.data_mut(), packet.parsed) {
            Ok(()) => {
                let answer = self.answer(&mut packet, Answered::EchoReply);
                answer.unwrap_or_else(|reason| self.drop(reason))
            }
            Err(_) => self.drop(DropReason::NOT_SERVED),
        }
    }
}

/// Whether an address must not be beyond a router (RFC 6890): this network, loopback, link-local, class E.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0 || v4.is_loopback() || v4.is_link_local() || v4.octets()[0] >= 240
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}
