//! What is counted.

use std::collections::BTreeMap;

use super::tables::ServiceKey;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// By reason.
    pub(crate) drops: BTreeMap<&'static str, u64>,
    /// By kind.
    pub(crate) answered: BTreeMap<&'static str, u64>,
    pub(crate) ports: BTreeMap<u16, PortCount>,
    /// Of the services that there are.
    pub(crate) services: BTreeMap<ServiceKey, ServiceCount>,
    pub(crate) created: u64,
    pub(crate) expired: u64,
    pub(crate) stateless: u64,
    /// ICMP errors: passed on, and not sent since there were too many.
    pub(crate) errors_translated: u64,
    pub(crate) errors_limited: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortCount {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServiceCount {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) flows: u64,
    pub(crate) rejected: u64,
}

impl Counters {
    pub(crate) fn received(&mut self, port: u16, bytes: usize) {
        let count = self.ports.entry(port).or_default();
        count.packets += 1;
        count.bytes += bytes as u64;
    }

    pub(crate) fn dropped(&mut self, port: u16, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
        self.ports.entry(port).or_default().dropped += 1;
    }

    pub(crate) fn answered(&mut self, kind: &'static str) {
        *self.answered.entry(kind).or_default() += 1;
    }

    /// A packet of a service's flow was translated; `bytes` from the IP header on.
    pub(crate) fn translated(&mut self, service: ServiceKey, bytes: usize) {
        let count = self.services.entry(service).or_default();
        count.packets += 1;
        count.bytes += bytes as u64;
    }
}
