//! Flows as people see them.

use culvert_api::fastpath as proto;
use culvert_packet::ip::Protocol;

use super::table::Hit;
use super::{FlowTables, Key, Tick};
use crate::table::{Service, Snapshot, octets};

impl FlowTables {
    /// Both directions of every flow, at most `limit` of these in all. `total` counts those left out, too.
    pub fn list(&self, view: &Snapshot, now: Tick, limit: usize) -> proto::ListFlowsResponse {
        let mut response = proto::ListFlowsResponse::default();
        self.v4.iter().for_each(|hit| add(&mut response, &hit, view, now, limit));
        self.v6.iter().for_each(|hit| add(&mut response, &hit, view, now, limit));
        response
    }
}

fn add<K: Key>(
    response: &mut proto::ListFlowsResponse,
    hit: &Hit<K>,
    view: &Snapshot,
    now: Tick,
    limit: usize,
) {
    for reply in [false, true] {
        response.total += 1;
        if response.flows.len() < limit {
            response.flows.push(flow(hit, reply, view, now));
        }
    }
}

fn flow<K: Key>(hit: &Hit<K>, reply: bool, view: &Snapshot, now: Tick) -> proto::Flow {
    let (original, translated) = (hit.record.original, hit.record.translated);
    let (from, to) =
        if reply { (translated.reversed(), original.reversed()) } else { (original, translated) };
    let protocol = match from.protocol() {
        Protocol::TCP => proto::Protocol::Tcp,
        Protocol::UDP => proto::Protocol::Udp,
        Protocol::SCTP => proto::Protocol::Sctp,
        Protocol::ICMP | Protocol::ICMPV6 => proto::Protocol::Icmp,
        _ => proto::Protocol::Unspecified,
    };
    proto::Flow {
        tenant: from.tenant().get(),
        protocol: protocol.into(),
        source: octets(from.source().0),
        source_port: from.source().1.into(),
        destination: octets(from.destination().0),
        destination_port: from.destination().1.into(),
        new_source: octets(to.source().0),
        new_source_port: to.source().1.into(),
        new_destination: octets(to.destination().0),
        new_destination_port: to.destination().1.into(),
        reply,
        state: hit.state().name().to_owned(),
        idle_seconds: now.seconds_since(hit.seen()),
        // A slot may have a new occupant; the flow is that one's only if its endpoint still exists.
        service: view
            .service_in(hit.record.service)
            .filter(|_| view.has_backend(hit.record.backend))
            .map(Service::full_name)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use culvert_packet::flow::{FlowKey4, Tenant};

    use super::*;
    use crate::flow::{Out, Record, Route, State};
    use crate::table::BackendId;

    #[test]
    fn a_flow_is_listed_in_both_directions_up_to_the_limit() {
        let tables = FlowTables::new(1).unwrap();
        let mut worker = tables.worker();
        let client = (Ipv4Addr::new(10, 1, 0, 5), 1000);
        let key = |dst| FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, client, dst);
        let record = Record {
            original: key((Ipv4Addr::new(10, 96, 0, 1), 80)),
            translated: key((Ipv4Addr::new(10, 2, 0, 7), 8080)),
            route: Route { epoch: 1, forward: Out::Nowhere, reply: Out::Nowhere },
            service: 0,
            backend: BackendId::default(),
        };
        let at = |seconds| Tick::at(Duration::from_secs(seconds));
        tables.v4.insert(&mut worker.arena4, &record, at(10), State::SynSent).unwrap();

        let list = tables.list(&Snapshot::default(), at(16), 10);
        assert_eq!((list.flows.len(), list.total), (2, 2));
        let [forward, reply] = &list.flows[..] else { panic!("{list:?}") };
        assert_eq!((forward.reply, &forward.state[..], forward.idle_seconds), (false, "syn-sent", 6));
        assert_eq!((&forward.destination[..], forward.destination_port), (&[10, 96, 0, 1][..], 80));
        assert_eq!((&forward.new_destination[..], forward.new_destination_port), (&[10, 2, 0, 7][..], 8080));
        assert_eq!((&forward.source, forward.source_port), (&forward.new_source, forward.new_source_port));
        assert!(reply.reply);
        assert_eq!((&reply.source, reply.source_port), (&forward.new_destination, 8080));
        assert_eq!((&reply.new_source, reply.new_source_port), (&forward.destination, 80));

        let short = tables.list(&Snapshot::default(), at(16), 1);
        assert_eq!((short.flows.len(), short.total), (1, 2));
    }
}
