//! An ICMP error about a packet of a tracked flow.
//!
//! In: an error. Out: if it is about a packet that was translated here, it goes to whoever sent that, as if it were about
//! what was sent: its addresses and the packet that it quotes are translated back. Any other error goes where it is sent
//! to, and to a service address none goes. An error opens no flow, keeps none alive and ends none: who sent it cannot be
//! told for sure (RFC 5927). Nothing is ever reported about it.

use std::net::IpAddr;

use culvert_packet::PacketBuf;
use culvert_packet::parse::verify_transport;
use culvert_packet::quote::Quote;

use super::stage::{Origin, Packet, Stage, Step};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::flow::{Hit, Key, Out, Record};

impl Stage<'_> {
    /// Forwards an ICMP message that is no echo.
    pub(super) fn error<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> Verdict {
        let frame = packet.buf.data();
        let quote = Quote::of(frame, packet.parsed);
        let quoted = quote.and_then(|quote| Some((quote, K::quoted(&quote, frame, key.tenant())?)));
        let Some((quote, quoted)) = quoted else { return self.route(packet, key) };
        // The flow that answers to the quoted packet would belong to.
        let answer = quoted.reversed();
        let Some(hit) = self.flow(&answer, answer.hash64()) else {
            return self.error_without_record(packet, key, &quote, &answer);
        };
        if key.destination().0 != quoted.source().0 || !may_report(packet.origin, key.source().0, &hit) {
            return self.drop(DropReason::ICMP_UNRELATED);
        }
        if let Err(malformed) = verify_transport(frame, packet.parsed) {
            return self.drop(malformed);
        }
        self.pass_on(packet, key, &quote, &hit)
    }

    /// Sends an error to the sender of the packet that it is about, which was translated as one of this flow.
    fn pass_on<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        quote: &Quote,
        hit: &Hit<K>,
    ) -> Verdict {
        let Record { original, translated, mut route, backend, .. } = hit.record;
        if route.epoch != self.view.epoch() {
            route = self.ways(hit);
        }
        let reporter = key.source().0;
        let (out, sent, from, to) = if hit.reply {
            // The client knows the service, not its endpoint; routers it may know.
            let is_endpoint = reporter == translated.destination().0;
            let from = if is_endpoint { original.destination().0 } else { reporter };
            (route.reply, original, from, original.source().0)
        } else if self.view.has_backend(backend) {
            (route.forward, translated.reversed(), translated.source().0, translated.destination().0)
        } else {
            return self.drop(DropReason::FLOW_ENDPOINT_GONE);
        };
        self.send_error(packet, quote, &sent, out, (from, to))
    }

    /// Sends an error from `from` to `to`, as one about a packet of the flow `sent`.
    pub(super) fn send_error<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        quote: &Quote,
        sent: &K,
        out: Out,
        (from, to): (IpAddr, IpAddr),
    ) -> Verdict {
        if out == Out::Nowhere {
            return self.nowhere(packet, sent.tenant(), to);
        }
        match self.clear(packet, out) {
            Step::Continue(packet) => {
                self.counters.error_translated();
                self.transmit(packet, out, |frame, parsed| {
                    sent.translate_error(quote, frame, parsed, (from, to));
                })
            }
            Step::Break(end) => end,
        }
    }
}

/// Whether an error about a packet of the flow may come from there: from the client or the endpoint, as far as these are
/// here, or from anybody on the way to an endpoint elsewhere. A pod's source address has been checked before.
fn may_report<K: Key>(origin: Origin, reporter: IpAddr, hit: &Hit<K>) -> bool {
    let Record { original, translated, .. } = &hit.record;
    match (hit.reply, origin) {
        (false, Origin::Pod) => reporter == original.source().0,
        (true, Origin::Pod) => reporter == translated.destination().0,
        (reply, Origin::Tunnel(_)) => reply,
    }
}
