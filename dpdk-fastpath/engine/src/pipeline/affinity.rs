//! The first packet of a flow to a service whose clients keep their endpoints.
//!
//! In: a client. Out: the endpoint that it used last, if that was not too long ago and the endpoint takes new flows, else
//! one as for any flow. kube-proxy keeps that for each port of a Service by itself, and so do we; in addition a port that
//! the client has not used takes the address that it used last on another, so that all its ports go to one pod.

use culvert_packet::ip::Protocol;

use super::stage::Stage;
use crate::balance::Client;
use crate::flow::Key;
use crate::table::{Backend, Service, Stickiness};

impl Stage<'_> {
    /// The endpoint of a client, which is noted.
    pub(super) fn choose_for_client<'s, K: Key>(
        &mut self,
        service: &'s Service,
        affinity: &Stickiness,
        key: &K,
    ) -> Option<&'s Backend> {
        let &Stickiness { seconds, port, service: shared } = affinity;
        let address = key.source().0;
        let client = K::between(key.tenant(), Protocol(0), (address, 0), (address, 0))?.hash64();
        let on_port = Client::new(port, client);
        let on_any = shared.map(|service| Client::new(service, client));
        let (now, known) = (self.flows.calendar.at(self.now), &self.tables.affinity);
        let held = known.find(on_port, now, seconds).and_then(|endpoint| service.taker(endpoint));
        let elsewhere = || {
            let (address, _) = known.find(on_any?, now, seconds)?;
            service.taker_at(address)
        };
        // A client that was forgotten most likely gets the same endpoint again if that is chosen by hash.
        let hash = (client ^ shared.unwrap_or(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let backend = match held.or_else(elsewhere) {
            Some(backend) => backend,
            None => self.choose_anew(service, hash)?,
        };
        let endpoint = (backend.address, backend.port);
        let kept = known.keep(on_port, endpoint, now, seconds, |other| service.taker(other).is_some());
        let mut forgotten = kept.evicted;
        if let Some(on_any) = on_any {
            forgotten |= known.keep(on_any, kept.endpoint, now, seconds, |_| false).evicted;
        }
        if forgotten {
            self.counters.client_forgotten();
        }
        service.taker(kept.endpoint)
    }
}
