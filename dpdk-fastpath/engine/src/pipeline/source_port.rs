//! The source port of a flow.
//!
//! In: a flow, as it would be with a port that is given. Out: it is in the table, if need be with another port. An endpoint answers
//! to address and port, so that no two flows may look the same to it; nor may a flow look like a connection that a client has to the
//! endpoint itself, as far as such are known.

use culvert_packet::ip::Protocol;

use super::shortcut;
use super::stage::Stage;
use super::upkeep::make_room;
use crate::flow::{InsertError, Key, Record, State};

/// Source ports that are tried before a flow is refused.
const TRIED: u16 = 32;

impl Stage<'_> {
    /// Enters a flow with the first port that can be had, from the given one on, as long as it does not become what it is `not` to.
    /// Returns what it becomes.
    ///
    /// # Errors
    /// [`ReplyTaken`](InsertError::ReplyTaken) if there is no such port.
    pub(super) fn enter_by_port<K: Key>(
        &mut self,
        mut record: Record<K>,
        not: Option<&K>,
        state: State,
    ) -> Result<K, InsertError<K>> {
        let Record { original, translated: wanted, route, service, backend } = record;
        // Where it begins depends on what it has now: what is in use then is not tried again and again.
        let hash = original.hash64().wrapping_add(u64::from(wanted.source().1) << 32);
        let (mut tried, mut swept) = (0, false);
        while tried < TRIED {
            let Some(translated) = with_source_port(&wanted, hash, tried) else { break };
            record.translated = translated;
            let is_taken = |slots| shortcut::is_taken(slots, route.epoch, &translated, route.forward);
            if not == Some(&translated) || self.slots.is_some_and(is_taken) {
                tried += 1;
                continue;
            }
            if self.flows.takes_over() {
                // The answers may be those of a flow that another process left.
                let answers = translated.reversed();
                let _ = self.flow(&answers, answers.hash64());
            }
            let (table, arena, loads) = K::parts(self.flows);
            match table.insert(arena, &record, self.now, state) {
                Ok(()) => {
                    loads.add(backend, 1);
                    self.counters.service_flow(service);
                    return Ok(translated);
                }
                Err(InsertError::ReplyTaken) => tried += 1,
                Err(InsertError::Full) if !swept => {
                    swept = true;
                    let ended = make_room(arena, table, (loads, self.slots), self.view, self.now);
                    self.counters.flows_expired(ended);
                }
                Err(error) => return Err(error),
            }
        }
        Err(InsertError::ReplyTaken)
    }
}

/// The flow with the source port of that try: first the given one, then any from 1024 on.
fn with_source_port<K: Key>(wanted: &K, hash: u64, tried: u16) -> Option<K> {
    const FIRST: u64 = 1024;
    if tried == 0 {
        return Some(*wanted);
    }
    let spread = hash.wrapping_add(u64::from(tried).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32;
    let port = (FIRST + spread % (65_536 - FIRST)) as u16;
    let (source, mut target) = (wanted.source().0, wanted.destination());
    if matches!(wanted.protocol(), Protocol::ICMP | Protocol::ICMPV6) {
        // An echo has its identifier in both places.
        target.1 = port;
    }
    K::between(wanted.tenant(), wanted.protocol(), (source, port), target)
}
