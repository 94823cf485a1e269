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
use crate::table::{Snapshot, Target};

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// One of this node's own.
    Local,
    /// Some service's; nobody but pods is served there.
    Vip,
    /// A pod's, if there is a way to it.
    Pod(Out),
}

impl Stage<'_> {
    /// Forwards by destination address.
    #[inline]
    pub(super) fn route<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> End {
        let (tenant, dst) = (key.tenant(), key.destination().0);
        let out = match self.destination(tenant, dst) {
            Destination::Local => return self.local(packet),
            Destination::Vip if packet.origin == Origin::Pod => return self.open(packet, key),
            Destination::Vip => self.out(tenant, dst),
            Destination::Pod(out) => out,
        };
        match out {
            Out::Nowhere => self.nowhere(packet, tenant, dst),
            out => self.send(packet, out, |_, _| {}),
        }
    }

    /// What an address is.
    #[inline(always)]
    pub(super) fn destination(&mut self, tenant: Tenant, address: IpAddr) -> Destination {
        let Self { view, local, destinations, .. } = self;
        let ask = || {
            if local.is_gateway(address) || local.is_vtep(address) {
                Destination::Local
            } else if view.is_vip(tenant, address) {
                Destination::Vip
            } else {
                Destination::Pod(way(view, tenant, address))
            }
        };
        match address {
            IpAddr::V4(v4) => destinations.get(u64::from(tenant.get()) << 32 | u64::from(v4.to_bits()), ask),
            IpAddr::V6(_) => ask(),
        }
    }

    /// Where a pod's address is.
    #[inline]
    pub(super) fn out(&self, tenant: Tenant, address: IpAddr) -> Out {
        way(self.view, tenant, address)
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

/// Where a pod's address is.
fn way(view: &Snapshot, tenant: Tenant, address: IpAddr) -> Out {
    if let Some(port) = view.pod(tenant, address) {
        return Out::Pod(port);
    }
    match view.route(tenant, address) {
        Some(Target::Remote(slot)) => Out::Remote(slot),
        Some(Target::Local) | None => Out::Nowhere,
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
