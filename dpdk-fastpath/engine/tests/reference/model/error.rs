//! ICMP errors about packets of tracked flows (RFC 792, 4443, 5508): they go to whoever sent the packet, as if they were about
//! what was sent. An error opens no flow, keeps none alive and ends none, and nothing is reported about it.
//!
//! It may come from the client or the endpoint, as far as these are here, or from anybody on the way to an endpoint elsewhere.
//! The client knows the service, not its endpoint; routers it may know.

use std::net::IpAddr;

use super::choice::Trial;
use super::flow::Key;
use super::{End, Inside, Model, Origin};
use crate::wire::dissect::Upper;
use crate::wire::quote::{Quote, rewritten};
use crate::wire::{ICMP, ICMPV6, checksum};

impl Model {
    pub(crate) fn error(&mut self, inside: &Inside, trial: &mut Trial<'_>) -> End {
        let Some(quote) = Quote::of(&inside.frame, &inside.packet) else { return self.route(inside, trial) };
        let quoted =
            Key { tenant: inside.key.tenant, protocol: quote.protocol, src: quote.src, dst: quote.dst };
        // The flow that an answer to the quoted packet would be of.
        let Some((at, reply)) = self.flow_of(&quoted.reversed()) else { return self.route(inside, trial) };
        let flow = self.flows[at];
        let (reporter, to) = (inside.packet.src, inside.packet.dst);
        let may_report = match inside.origin {
            Origin::Pod if reply => reporter == flow.translated.dst.0,
            Origin::Pod => reporter == flow.original.src.0,
            Origin::Tunnel(_) => reply,
        };
        if to != quoted.src.0 || !may_report {
            return self.drop(inside.port, "icmp-unrelated");
        }
        let v4 = reporter.is_ipv4();
        let protocol = if v4 { ICMP } else { ICMPV6 };
        if !checksum::is_right(reporter, to, protocol, &inside.frame[inside.packet.upper_at..]) {
            return self.drop(inside.port, "icmp-checksum");
        }
        let (sent, from, to) = if reply {
            let is_endpoint = reporter == flow.translated.dst.0;
            let from = if is_endpoint { flow.original.dst.0 } else { reporter };
            (flow.original, from, flow.original.src.0)
        } else if self.is_alive(&flow) {
            (flow.translated.reversed(), flow.translated.src.0, flow.translated.dst.0)
        } else {
            return self.drop(inside.port, "flow-endpoint-gone");
        };
        let way = self.way(inside.key.tenant, to);
        if let Err(end) = self.clear(inside, &way, to, trial) {
            return end;
        }
        self.counters.errors_translated += 1;
        let frame = rewritten(&inside.frame, &inside.packet, &quote, (from, to), (sent.src, sent.dst));
        self.transmit(inside, &way, frame, trial)
    }

    /// Whether the message is an error or something like it: no echo.
    pub(crate) fn is_icmp(inside: &Inside) -> bool {
        matches!(inside.packet.upper, Upper::Icmp { .. })
    }

    /// Whether one more error of ours may go to a port in this tick.
    pub(crate) fn may_tell(&mut self, port: u16) -> bool {
        let per_tick = u64::from(self.node().policy.errors_per_second) * 2;
        let now = self.tick();
        let (tick, sent) = self.told.get(&port).copied().unwrap_or((now, 0));
        let left = tick != now || sent < per_tick;
        self.counters.errors_limited += u64::from(!left);
        left
    }

    /// Whether so many packets may cause more errors than may be sent.
    pub(crate) fn may_tell_little(&self, packets: usize) -> bool {
        let told = self.told.values().filter(|(tick, _)| *tick == self.tick()).map(|(_, sent)| *sent);
        let per_tick =
            self.tables.node.as_ref().map_or(0, |node| u64::from(node.policy.errors_per_second) * 2);
        told.max().unwrap_or(0) + packets as u64 > per_tick
    }

    /// Notes that an error goes to a port.
    pub(crate) fn tell(&mut self, port: u16) {
        let now = self.tick();
        let told = self.told.entry(port).or_insert((now, 0));
        *told = if told.0 == now { (now, told.1 + 1) } else { (now, 1) };
    }

    /// The packet's ends, as an identifier is in both places.
    pub(crate) fn with_identifier(key: Key, identifier: u16) -> Key {
        let end = |(address, _): (IpAddr, u16)| (address, identifier);
        Key { src: end(key.src), dst: end(key.dst), ..key }
    }
}
