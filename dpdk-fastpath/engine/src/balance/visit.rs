//! A client of a service whose clients keep their endpoint.

use culvert_packet::ip::Protocol;

use super::{Affinity, Client, Moment};
use crate::flow::Key;
use crate::table::{Backend, Service, Stickiness};

/// A client that opens a flow to a service. kube-proxy keeps endpoints for each port of a Service by itself, and so do we;
/// in addition a port that the client has not used takes the address that it used last on another, so that all its ports
/// go to one pod.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    seconds: u32,
    on_port: Client,
    on_any: Option<Client>,
    hash: u64,
}

impl Visit {
    /// The visit of the client that a flow's key names.
    pub fn new<K: Key>(affinity: &Stickiness, key: &K) -> Option<Self> {
        let &Stickiness { seconds, port, service } = affinity;
        let address = key.source().0;
        let client = K::between(key.tenant(), Protocol(0), (address, 0), (address, 0))?.hash64();
        Some(Self {
            seconds,
            on_port: Client::new(port, client),
            on_any: service.map(|service| Client::new(service, client)),
            hash: (client ^ service.unwrap_or(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// A hash of client and service: one that was forgotten most likely gets the same endpoint again if that is chosen by
    /// this.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The endpoint that the client is to keep, if it takes new flows.
    pub fn held<'s>(&self, known: &Affinity, service: &'s Service, now: Moment) -> Option<&'s Backend> {
        let on_port = known.find(self.on_port, now, self.seconds).and_then(|used| service.taker(used));
        let elsewhere = || service.taker_at(known.find(self.on_any?, now, self.seconds)?.0);
        on_port.or_else(elsewhere)
    }

    /// For how many seconds more the client keeps the endpoint that it used on this port.
    pub fn seconds_left(&self, known: &Affinity, now: Moment) -> Option<u32> {
        known.expires(self.on_port, now, self.seconds)
    }

    /// Notes that the client uses an endpoint now, or another if another worker was faster: that one is returned. With it
    /// comes whether some client was forgotten for that.
    pub fn keep<'s>(
        &self,
        known: &Affinity,
        service: &'s Service,
        backend: &'s Backend,
        now: Moment,
    ) -> (&'s Backend, bool) {
        let fits = |other| service.taker(other).is_some();
        let kept = known.keep(self.on_port, backend.endpoint(), now, self.seconds, fits);
        let mut forgotten = kept.evicted;
        if let Some(on_any) = self.on_any {
            forgotten |= known.keep(on_any, kept.endpoint, now, self.seconds, |_| false).evicted;
        }
        (service.taker(kept.endpoint).unwrap_or(backend), forgotten)
    }
}
