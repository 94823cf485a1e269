//! The first packet of a flow to a service whose clients keep their endpoint.
//!
//! In: a client. Out: the endpoint that it used last, if that was not too long ago and the endpoint takes new flows, else
//! one as for any flow.

use super::stage::Stage;
use crate::balance::Visit;
use crate::flow::Key;
use crate::table::{Backend, Service, Stickiness};

impl Stage<'_> {
    /// The endpoint that the hash chooses, whatever the balancing, unless the client keeps another. Nothing is noted.
    pub(super) fn by_hash<'s, K: Key>(
        &mut self,
        service: &'s Service,
        key: &K,
        hash: u64,
    ) -> Option<&'s Backend> {
        let Some(affinity) = service.affinity() else { return service.pick(hash) };
        let visit = Visit::new(affinity, key)?;
        let now = self.flows.calendar.at(self.now);
        visit.held(&self.tables.affinity, service, now).or_else(|| service.pick(visit.hash()))
    }

    /// The endpoint of a client, which is noted.
    pub(super) fn choose_for_client<'s, K: Key>(
        &mut self,
        service: &'s Service,
        affinity: &Stickiness,
        key: &K,
    ) -> Option<&'s Backend> {
        let visit = Visit::new(affinity, key)?;
        let (now, known) = (self.flows.calendar.at(self.now), &self.tables.affinity);
        let backend = match visit.held(known, service, now) {
            Some(backend) => backend,
            None => self.choose_anew(service, visit.hash())?,
        };
        let (backend, forgotten) = visit.keep(known, service, backend, now);
        if forgotten {
            self.counters.client_forgotten();
        }
        Some(backend)
    }
}
