//! Listing of tracked flows.

use culvert_api::fastpath as proto;
use culvert_packet::ip::Protocol;

use super::FastPath;
use super::listing::octets;
use crate::flow::{Hit, Key, Tick};

impl FastPath {
    /// Tracked flows, both directions of each, `limit` at most.
    pub fn list_flows(&self, limit: usize) -> proto::ListFlowsResponse {
        let now = self.clock.tick();
        let v4 = self.flows.v4.iter().flat_map(|hit| self.show_flow(&hit, now));
        let v6 = self.flows.v6.iter().flat_map(|hit| self.show_flow(&hit, now));
        let flows = v4.chain(v6).take(limit).collect();
        proto::ListFlowsResponse { flows, total: 2 * self.flow_count() }
    }

    /// Tracked connections. Counted, not looked at one by one.
    pub(super) fn flow_count(&self) -> u64 {
        let counts = self.counters.flows();
        counts.created.saturating_sub(counts.expired)
    }

    fn show_flow<K: Key>(&self, hit: &Hit<K>, now: Tick) -> [proto::Flow; 2] {
        let record = &hit.record;
        let service = self.tables.current().service_in(record.service);
        let service = service.map(crate::table::Service::full_name).unwrap_or_default();
        let (original, translated) = (record.original, record.translated);
        [(false, original, translated), (true, translated.reversed(), original.reversed())].map(
            |(reply, arrives, becomes)| {
                let ((source, source_port), (destination, destination_port)) =
                    (arrives.source(), arrives.destination());
                let ((new_source, new_source_port), (new_destination, new_destination_port)) =
                    (becomes.source(), becomes.destination());
                proto::Flow {
                    tenant: arrives.tenant().get(),
                    protocol: shown(arrives.protocol()).into(),
                    source: octets(source),
                    source_port: source_port.into(),
                    destination: octets(destination),
                    destination_port: destination_port.into(),
                    new_source: octets(new_source),
                    new_source_port: new_source_port.into(),
                    new_destination: octets(new_destination),
                    new_destination_port: new_destination_port.into(),
                    reply,
                    state: hit.state().name().to_owned(),
                    idle_seconds: now.seconds_since(hit.seen()),
                    service: service.clone(),
                }
            },
        )
    }
}

fn shown(protocol: Protocol) -> proto::Protocol {
    match protocol {
        Protocol::TCP => proto::Protocol::Tcp,
        Protocol::UDP => proto::Protocol::Udp,
        Protocol::SCTP => proto::Protocol::Sctp,
        _ => proto::Protocol::Unspecified,
    }
}
