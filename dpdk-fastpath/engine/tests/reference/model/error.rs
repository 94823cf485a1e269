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
        let answer = quoted.reversed();
        let Some((at, reply)) = self.flow_of(&answer) else {
            return match self.answered(answer, trial) {
                Some((to, _)) => self.error_about_overflow(inside, &quote, answer, to, trial),
                None => self.route(inside, trial),
            };
        };
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
        if !has_right_checksum(inside) {
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
        self.pass_on(inside, &quote, sent, (from, to), trial)
    }

    /// An error about a packet that went without being tracked, whose answer would become `to`.
    fn error_about_overflow(
        &mut self,
        inside: &Inside,
        quote: &Quote,
        answer: Key,
        to: Key,
        trial: &mut Trial<'_>,
    ) -> End {
        let reporter = inside.packet.src;
        let is_endpoint = reporter == answer.src.0;
        if inside.packet.dst != answer.dst.0 || inside.origin == Origin::Pod && !is_endpoint {
            return self.drop(inside.port, "icmp-unrelated");
        }
        if !has_right_checksum(inside) {
            return self.drop(inside.port, "icmp-checksum");
        }
        let from = if is_endpoint { to.src.0 } else { reporter };
        self.pass_on(inside, quote, to.reversed(), (from, to.dst.0), trial)
    }

    /// Sends an error as one about a packet of the flow `sent`.
    fn pass_on(
        &mut self,
        inside: &Inside,
        quote: &Quote,
        sent: Key,
        (from, to): (IpAddr, IpAddr),
        trial: &mut Trial<'_>,
    ) -> End {
        let way = self.way(inside.key.tenant, to);
        if let Err(end) = self.clear(inside, &way, to, trial) {
            return end;
        }
        self.counters.errors_translated += 1;
        let frame = rewritten(&inside.frame, &inside.packet, quote, (from, to), (sent.src, sent.dst));
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

fn has_right_checksum(inside: &Inside) -> bool {
    let (from, to) = (inside.packet.src, inside.packet.dst);
    let protocol = if from.is_ipv4() { ICMP } else { ICMPV6 };
    checksum::is_right(from, to, protocol, &inside.frame[inside.packet.upper_at..])
}
