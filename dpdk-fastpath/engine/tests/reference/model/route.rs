//! Where a packet goes: by its flow, if it belongs to one; else to ourselves, to a service, to a pod here or elsewhere.
//!
//! A request of a flow counts as one only from the client's own port, where its address was checked. Every tenant has addresses
//! and ranges of its own. The longest range that holds an address wins, and among equals our own.

use std::net::IpAddr;

use super::answer::Error;
use super::beside::Beside;
use super::choice::Trial;
use super::state::Signal;
use super::tables::{Range, ServiceKey};
use super::{End, Inside, Model, Origin};
use crate::wire::dissect::Upper;

/// Where a pod's address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    Pod(u16),
    Remote(String),
    /// In our own range, but there is no such pod.
    Nobody,
    Unknown,
}

impl Model {
    pub(crate) fn forward(&mut self, inside: &Inside, trial: &mut Trial<'_>) -> End {
        if inside.packet.is_fragment()
            && let Err(end) = self.fragment(inside, trial)
        {
            return end;
        }
        if Self::is_icmp(inside) {
            return self.error(inside, trial);
        }
        let echo = matches!(inside.packet.upper, Upper::Echo { .. });
        // Both ends may ping each other with the same identifier.
        let is_of = |&(_, reply): &(usize, bool)| !echo || reply != inside.packet.is_ping();
        let may_be = echo || has_ports(inside.packet.upper);
        match self.flow_of(&inside.key).filter(is_of).filter(|_| may_be) {
            Some((at, reply)) if reply || inside.origin == Origin::Pod => {
                self.tracked(inside, at, reply, trial)
            }
            None if let Some((to, served)) = self.answered(inside.key, trial) => {
                self.pass(inside, to, served, trial)
            }
            _ => self.route(inside, trial),
        }
    }

    pub(crate) fn route(&mut self, inside: &Inside, trial: &mut Trial<'_>) -> End {
        let (tenant, dst) = (inside.key.tenant, inside.packet.dst);
        // For another tenant an address of the underlay may be a pod's.
        if self.is_gateway(tenant, dst) || tenant == 0 && self.is_vtep(dst) {
            return self.ourselves(inside, trial);
        }
        if self.is_served(tenant, dst) && inside.origin == Origin::Pod {
            let port = if inside.packet.is_ping() { 0 } else { inside.key.dst.1 };
            let service = ServiceKey { tenant, vip: dst, protocol: inside.key.protocol, port };
            return self.open(inside, service, trial);
        }
        let opens = inside.origin == Origin::Pod && Signal::of(inside.packet.upper).opens();
        let beside = opens && self.gives_way(&inside.key) == Beside::Another;
        let way = self.way(tenant, dst);
        match self.clear(inside, &way, dst, trial) {
            Ok(()) if beside => self.open_beside(inside, &way, trial),
            Ok(()) => self.transmit(inside, &way, inside.frame.clone(), trial),
            Err(end) => end,
        }
    }

    /// Whether it is a service's address.
    pub(crate) fn is_served(&self, tenant: u32, address: IpAddr) -> bool {
        self.tables.services.iter().any(|service| (service.key.tenant, service.key.vip) == (tenant, address))
    }

    /// Ping is answered; nothing else is served at our addresses.
    fn ourselves(&mut self, inside: &Inside, trial: &mut Trial<'_>) -> End {
        match inside.packet.upper {
            Upper::Echo { .. } => self.pinged(inside, "not-served", trial),
            _ => self.refuse(inside, "not-served", trial),
        }
    }

    /// Answers a ping; any other echo is dropped.
    pub(crate) fn pinged(&mut self, inside: &Inside, otherwise: &'static str, trial: &mut Trial<'_>) -> End {
        match super::answer::echo(&inside.frame, &inside.packet) {
            Ok(reply) => match self.back(inside, reply, trial) {
                Ok(frame) => self.answer(inside.port, "echo-reply", frame),
                Err(why) => self.drop(inside.port, why),
            },
            Err(_) => self.drop(inside.port, otherwise),
        }
    }

    pub(crate) fn way(&self, tenant: u32, address: IpAddr) -> Way {
        let pod = self
            .tables
            .ports
            .iter()
            .find(|(_, port)| port.tenant == tenant && port.addresses.contains(&address));
        if let Some((index, _)) = pod {
            return Way::Pod(*index);
        }
        let Some(domain) = self.domain(tenant) else { return Way::Unknown };
        let own = domain.ranges.into_iter().map(|range| (range, Way::Nobody));
        let others = self.tables.remotes.iter().flat_map(|(name, remote)| {
            let ranges = if tenant == 0 { Some(&remote.ranges) } else { remote.tenants.get(&tenant) };
            ranges.into_iter().flatten().map(move |range| (*range, Way::Remote(name.clone())))
        });
        let mut best: Option<(u8, Way)> = None;
        for (range, way) in own.chain(others) {
            if holds(range, address) && best.as_ref().is_none_or(|(len, _)| range.1 > *len) {
                best = Some((range.1, way));
            }
        }
        best.map_or(Way::Unknown, |(_, way)| way)
    }

    /// Ends a packet whose destination does not exist.
    pub(crate) fn nowhere(&mut self, inside: &Inside, way: &Way, dst: IpAddr, trial: &mut Trial<'_>) -> End {
        if is_martian(dst) {
            return self.drop(inside.port, "martian");
        }
        match (way, &inside.origin) {
            (Way::Nobody, _) => self.report(inside, "no-such-pod", Error::Host, trial),
            (_, Origin::Pod) => self.report(inside, "no-route", Error::Net, trial),
            // It should not have come here: to say so might start a quarrel.
            (_, Origin::Tunnel(_)) => self.drop(inside.port, "tunnel-not-local"),
        }
    }
}

/// Whether packets of this kind can belong to a flow.
pub(crate) fn has_ports(upper: Upper) -> bool {
    matches!(upper, Upper::Tcp { .. } | Upper::Udp | Upper::Sctp { .. })
}

/// Whether a range holds an address.
pub(crate) fn holds((net, len): Range, address: IpAddr) -> bool {
    let cut = |bits: u128, width: u32| if len == 0 { 0 } else { bits >> (width - u32::from(len)) };
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            cut(net.to_bits().into(), 32) == cut(address.to_bits().into(), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => cut(net.to_bits(), 128) == cut(address.to_bits(), 128),
        _ => false,
    }
}

/// Multicast, and the limited broadcast of IPv4.
pub(crate) fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::from([255; 4])
}

/// What must not be beyond a router (RFC 6890): this network, loopback, link-local, class E.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 0 || a == 127 || (a, b) == (169, 254) || a >= 240
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback() || v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}
