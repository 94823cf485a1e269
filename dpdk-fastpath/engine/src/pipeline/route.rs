//! A packet that belongs to no tracked flow.
//!
//! In: a packet with its key. Out: it goes to a pod, here or on another node; or it is for this node itself, or for a
//! service, whose stages are next. Its sender is told when there is no such destination.

use std::net::{IpAddr, Ipv4Addr};

use culvert_packet::PacketBuf;
use culvert_packet::answer::{IcmpError, echo_reply};
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::parse::L4;

use super::stage::{Origin, Packet, Stage};
use super::verdict::Verdict;
use crate::counter::{Answered, DropReason};
use crate::flow::{Key, Out, OutBits, Signal};
use crate::table::{LocalNode, Snapshot, Target};

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

/// A [`Destination`] in one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DestinationBits(u32);

impl DestinationBits {
    const LOCAL: Self = Self(0x1_ffff);
    const VIP: Self = Self(0x2_ffff);

    /// Whether it is some service's.
    #[inline(always)]
    pub(super) fn is_vip(self) -> bool {
        self == Self::VIP
    }

    /// The way to it; none to what is no pod.
    #[inline(always)]
    pub(super) const fn out(self) -> OutBits {
        OutBits::from_bits(self.0 as u16)
    }
}

impl From<Destination> for DestinationBits {
    fn from(destination: Destination) -> Self {
        match destination {
            Destination::Local => Self::LOCAL,
            Destination::Vip => Self::VIP,
            Destination::Pod(out) => Self(OutBits::from(out).to_bits().into()),
        }
    }
}

impl From<DestinationBits> for Destination {
    #[inline]
    fn from(bits: DestinationBits) -> Self {
        match bits {
            DestinationBits::LOCAL => Self::Local,
            DestinationBits::VIP => Self::Vip,
            pod => Self::Pod(pod.out().into()),
        }
    }
}

impl Stage<'_> {
    /// Forwards by destination address.
    #[inline]
    pub(super) fn route<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> Verdict {
        let (tenant, dst) = (key.tenant(), key.destination().0);
        let out = match self.destination(tenant, dst) {
            Destination::Local => return self.local(packet),
            Destination::Vip if packet.origin == Origin::Pod => return self.open(packet, key),
            Destination::Vip => self.out(tenant, dst),
            Destination::Pod(out) => out,
        };
        let looks_alike =
            packet.origin == Origin::Pod && Signal::from(packet.parsed).opens() && !self.gives_way(key);
        match out {
            Out::Nowhere => self.nowhere(packet, tenant, dst),
            out if looks_alike => self.open_beside(packet, key, out),
            out => self.send(packet, out, |_, _| {}),
        }
    }

    /// What an address is.
    #[inline]
    pub(super) fn destination(&mut self, tenant: Tenant, address: IpAddr) -> Destination {
        match address {
            IpAddr::V4(address) => {
                let nobody = (Ipv4Addr::UNSPECIFIED, 0);
                self.recent_destination(&FlowKey4::new(tenant, Protocol(0), nobody, (address, 0))).into()
            }
            IpAddr::V6(_) => ask(self.view, self.local, tenant, address),
        }
    }

    /// What a flow's destination address is.
    #[inline(always)]
    pub(super) fn recent_destination(&mut self, key: &FlowKey4) -> DestinationBits {
        let Self { view, local, destinations, .. } = self;
        destinations.get(key.destination_bits(), || ask(view, local, key.tenant(), key.dst().into()).into())
    }

    /// Where a pod's address is.
    #[inline]
    pub(super) fn out(&mut self, tenant: Tenant, address: IpAddr) -> Out {
        match self.destination(tenant, address) {
            Destination::Pod(out) => out,
            Destination::Local | Destination::Vip => way(self.view, tenant, address),
        }
    }

    /// Ends a packet whose destination does not exist.
    pub(super) fn nowhere<B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        tenant: Tenant,
        dst: IpAddr,
    ) -> Verdict {
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
    fn local<B: PacketBuf>(&mut self, packet: Packet<'_, B>) -> Verdict {
        if packet.parsed.l4 != L4::Echo {
            return self.refuse(packet, DropReason::NOT_SERVED);
        }
        self.pinged(packet, DropReason::NOT_SERVED)
    }

    /// Answers a ping; for another echo, `otherwise` is the reason to drop it.
    pub(super) fn pinged<B: PacketBuf>(
        &mut self,
        mut packet: Packet<'_, B>,
        otherwise: DropReason,
    ) -> Verdict {
        match echo_reply(packet.buf.data_mut(), packet.parsed) {
            Ok(()) => {
                let answer = self.answer(&mut packet, Answered::EchoReply);
                answer.unwrap_or_else(|reason| self.drop(reason))
            }
            Err(_) => self.drop(otherwise),
        }
    }
}

/// What an address is, by the tables.
#[inline(never)]
fn ask(view: &Snapshot, local: &LocalNode, tenant: Tenant, address: IpAddr) -> Destination {
    if local.is_own(tenant, address) {
        Destination::Local
    } else if view.is_vip(tenant, address) {
        Destination::Vip
    } else {
        Destination::Pod(way(view, tenant, address))
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
