//! What the fast path did in an interval.

mod rate;
mod table;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use culvert_api::fastpath::{Counters, Port, WorkerCounters};
use serde::Serialize;

use self::rate::Span;
use crate::args::Sort;

/// `top`: rates between two samples of the fast path's counters.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Interval {
    /// When it ended, as RFC 3339 has it.
    at: String,
    seconds: f64,
    workers: Vec<WorkerRates>,
    ports: Vec<PortRates>,
    /// What went by the short cut: in the rates of ports, too, but not in those of workers.
    short_cut: ShortCutRates,
    #[serde(skip)]
    total: Total,
    /// Ports that are left out.
    #[serde(skip)]
    more: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShortCutRates {
    packets_per_second: f64,
    /// From the IP header on.
    bits_per_second: f64,
}

/// Packets per second of all ports, also of those that are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Total {
    rx: f64,
    tx: f64,
    dropped: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerRates {
    worker: u32,
    cpu: u32,
    /// Share of the interval in which it had packets: 0 to 1.
    busy: f64,
    packets_per_second: f64,
    /// Of rounds that had packets, by the time stamp counter.
    cycles_per_packet: Option<f64>,
    /// What it could carry besides, at as many cycles per packet.
    headroom_packets_per_second: Option<f64>,
    sleeps_per_second: Option<f64>,
    /// How often it had to leave its CPU to others.
    preemptions_per_second: Option<f64>,
    /// Share of the interval in which it was ready and others had its CPU: 0 to 1.
    waited: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PortRates {
    name: String,
    owner: String,
    worker: u32,
    rx_packets_per_second: f64,
    rx_bits_per_second: f64,
    tx_packets_per_second: f64,
    tx_bits_per_second: f64,
    rx_deferred_per_second: f64,
    rx_dropped_per_second: f64,
    tx_dropped_per_second: f64,
    /// Of those received, by reason; reasons that there were.
    drops_per_second: BTreeMap<String, f64>,
}

impl Interval {
    /// What happened from one sample to the next, which was taken `at`. `None` if there is nothing to compare: another
    /// process counts.
    pub(crate) fn between(before: &Counters, after: &Counters, at: String) -> Option<Self> {
        let span = Span::between(before, after)?;
        let workers: HashMap<_, _> = before.workers.iter().map(|worker| (worker.worker, worker)).collect();
        let ports: HashMap<_, _> = before.ports.iter().map(|port| (port.name.as_str(), port)).collect();
        let worker = |now: &WorkerCounters| {
            WorkerRates::between(span, workers.get(&now.worker).copied().copied().unwrap_or_default(), *now)
        };
        // One that came since has counted from zero.
        let port = |now: &Port| PortRates::between(span, ports.get(now.name.as_str()).copied(), now);
        let ports: Vec<_> = after.ports.iter().map(port).collect();
        let sum = |rate: fn(&PortRates) -> f64| ports.iter().map(rate).sum();
        Some(Self {
            at,
            seconds: rate::rounded(span.seconds()),
            workers: after.workers.iter().map(worker).collect(),
            short_cut: ShortCutRates {
                packets_per_second: span.rate(before.short_cut_packets, after.short_cut_packets),
                bits_per_second: span.bit_rate(before.short_cut_bytes, after.short_cut_bytes),
            },
            total: Total {
                rx: sum(|p| p.rx_packets_per_second),
                tx: sum(|p| p.tx_packets_per_second),
                dropped: sum(PortRates::dropped),
            },
            ports,
            more: 0,
        })
    }

    /// With ports in this order, and so many at most.
    pub(crate) fn arranged(mut self, sort: Sort, limit: Option<usize>) -> Self {
        self.ports.sort_by(|a, b| {
            let by = |amount: fn(&PortRates) -> f64| amount(b).total_cmp(&amount(a));
            let names = || (&a.owner, &a.name).cmp(&(&b.owner, &b.name));
            match sort {
                Sort::Packets => by(|p| p.rx_packets_per_second + p.tx_packets_per_second),
                Sort::Bits => by(|p| p.rx_bits_per_second + p.tx_bits_per_second),
                Sort::Drops => by(PortRates::dropped),
                Sort::Deferred => by(|p| p.rx_deferred_per_second),
                Sort::Name => Ordering::Equal,
            }
            .then_with(names)
        });
        let limit = limit.unwrap_or(usize::MAX);
        self.more += self.ports.len().saturating_sub(limit);
        self.ports.truncate(limit);
        self
    }
}

impl WorkerRates {
    fn between(span: Span, before: WorkerCounters, after: WorkerCounters) -> Self {
        let packets = rate::grown(before.packets, after.packets) as f64;
        let cycles = rate::grown(before.busy_cycles, after.busy_cycles) as f64;
        let busy = (cycles / span.cycles()).min(1.0);
        let cycles_per_packet = (packets > 0.0).then(|| cycles / packets);
        let spare = (1.0 - busy) * span.cycles_per_second();
        let kernel = before.scheduling.zip(after.scheduling);
        let waited = |nanoseconds: u64| (nanoseconds as f64 / 1e9 / span.seconds()).min(1.0);
        Self {
            worker: after.worker,
            cpu: after.lcore,
            busy: rate::rounded(busy),
            packets_per_second: rate::rounded(packets / span.seconds()),
            cycles_per_packet: cycles_per_packet.map(rate::rounded),
            headroom_packets_per_second: cycles_per_packet.map(|cycles| (spare / cycles).round()),
            sleeps_per_second: kernel.map(|(then, now)| span.rate(then.sleeps, now.sleeps)),
            preemptions_per_second: kernel.map(|(then, now)| span.rate(then.preemptions, now.preemptions)),
            waited: kernel.map(|(then, now)| {
                rate::rounded(waited(rate::grown(then.waited_nanoseconds, now.waited_nanoseconds)))
            }),
        }
    }
}

impl PortRates {
    fn between(span: Span, before: Option<&Port>, after: &Port) -> Self {
        let then = before.and_then(|port| port.counters).unwrap_or_default();
        let now = after.counters.unwrap_or_default();
        let drops_before = |reason: &str| {
            let drops = before.map_or(&[][..], |port| &port.drops);
            drops.iter().find(|drop| drop.name == reason).map_or(0, |drop| drop.value)
        };
        let drops = after.drops.iter().map(|d| (d.name.clone(), span.rate(drops_before(&d.name), d.value)));
        Self {
            name: after.name.clone(),
            owner: after.owner.clone(),
            worker: after.worker,
            rx_packets_per_second: span.rate(then.rx_packets, now.rx_packets),
            rx_bits_per_second: span.bit_rate(then.rx_bytes, now.rx_bytes),
            tx_packets_per_second: span.rate(then.tx_packets, now.tx_packets),
            tx_bits_per_second: span.bit_rate(then.tx_bytes, now.tx_bytes),
            rx_deferred_per_second: span.rate(then.rx_deferred, now.rx_deferred),
            rx_dropped_per_second: span.rate(then.rx_dropped, now.rx_dropped),
            tx_dropped_per_second: span.rate(then.tx_dropped, now.tx_dropped),
            drops_per_second: drops.filter(|(_, rate)| *rate > 0.0).collect(),
        }
    }

    fn dropped(&self) -> f64 {
        self.rx_dropped_per_second + self.tx_dropped_per_second
    }
}

#[cfg(test)]
mod tests;
