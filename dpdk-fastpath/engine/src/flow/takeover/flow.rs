//! One flow that a process left.

use std::sync::atomic::Ordering;

use culvert_packet::ip::Protocol;

use crate::flow::record::{DELTAS_AND_GENERATION, Meta, ROUTE, Words};
use crate::flow::{Key, NO_SERVICE, Out, Record, Route, State};
use crate::table::{BackendId, ServiceKey, Snapshot};

/// What a record that is neither free nor that of an ended flow says.
pub(super) enum Found<K> {
    /// What no process wrote.
    Damaged,
    Flow(Record<K>, Meta, State),
}

pub(super) fn read<K: Key>(line: &K::Line) -> Found<K> {
    let words = line.as_ref();
    let Some((record, meta)) = Words::<K>::of(line).read() else { return Found::Damaged };
    let Some(state) = meta.state() else { return Found::Damaged };
    // Each of these is as it is since the record was written.
    let rest = &words[2 * K::Words::default().as_ref().len()..];
    let high = |word: usize| (rest[word].load(Ordering::Relaxed) >> 32) as u32;
    let Record { original, translated, .. } = &record;
    let sound = high(ROUTE) as u8 == meta.sequence() as u8
        && high(DELTAS_AND_GENERATION) == original.deltas(translated).to_bits()
        && original.tenant() == translated.tenant()
        && original.protocol() == translated.protocol()
        && is_state_of(original.protocol(), state);
    if sound { Found::Flow(record, meta, state) } else { Found::Damaged }
}

fn is_state_of(protocol: Protocol, state: State) -> bool {
    use State as S;
    match state {
        S::SynSent | S::Unwatched | S::SynReceived | S::Established => protocol == Protocol::TCP,
        S::FinFromClient | S::FinFromServer | S::TimeWait | S::Reset => protocol == Protocol::TCP,
        S::CookieWait | S::CookieEchoed | S::Associated => protocol == Protocol::SCTP,
        S::Shutdown | S::ShutdownAck | S::Closed => protocol == Protocol::SCTP,
        S::OneWay | S::TwoWay => !matches!(protocol, Protocol::TCP | Protocol::SCTP),
        S::Ending | S::Ended => false,
    }
}

/// The record with the numbers that its service and endpoint have by these tables; `None` if there are none.
pub(super) fn placed<K: Key>(record: Record<K>, view: &Snapshot) -> Option<Record<K>> {
    let Record { original, translated, .. } = record;
    let protocol = original.protocol();
    let is_ping = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    let port = |port: u16| if is_ping { 0 } else { port };
    let (vip, vip_port) = original.destination();
    let key = ServiceKey { tenant: original.tenant(), vip, protocol, port: port(vip_port) };
    let route = Route { epoch: 0, forward: Out::Nowhere, reply: Out::Nowhere };
    let Some(service) = view.service(&key) else {
        let goes_to_itself = original.destination() == translated.destination();
        return goes_to_itself.then_some(Record {
            route,
            service: NO_SERVICE,
            backend: BackendId::NONE,
            ..record
        });
    };
    let (address, endpoint_port) = translated.destination();
    let backend = service.backend((address, port(endpoint_port)))?;
    // Only connections are kept where the endpoint is not ready.
    if backend.draining && !matches!(protocol, Protocol::TCP | Protocol::SCTP) {
        return None;
    }
    Some(Record { route, service: service.slot(), backend: backend.id, ..record })
}
