//! Rates for people.

use std::cmp::Reverse;

use super::super::or_dash;
use super::{Interval, PortRates, WorkerRates};
use crate::output::{Block, View};

const WORKERS: [&str; 9] = [
    "WORKER",
    "CPU",
    "BUSY",
    "PACKETS/S",
    "CYCLES/PACKET",
    "HEADROOM/S",
    "SLEEPS/S",
    "PREEMPTED/S",
    "WAITED",
];

const PORTS: [&str; 10] = [
    "PORT",
    "OWNER",
    "WORKER",
    "RX PACKETS/S",
    "RX GBIT/S",
    "TX PACKETS/S",
    "TX GBIT/S",
    "DEFERRED/S",
    "DROPPED/S",
    "DROPPED FOR",
];

impl View for Interval {
    fn blocks(&self) -> Vec<Block> {
        let head = format!(
            "{}, {:.1} s: {} packets/s received, {} sent, {} dropped{}",
            self.at,
            self.seconds,
            short(self.total.rx),
            short(self.total.tx),
            short(self.total.dropped),
            self.by_short_cut(),
        );
        let mut blocks = vec![
            Block::Lines(vec![head]),
            Block::Table(WORKERS.to_vec(), self.workers.iter().map(WorkerRates::row).collect()),
            Block::Table(PORTS.to_vec(), self.ports.iter().map(PortRates::row).collect()),
        ];
        if self.more > 0 {
            blocks.push(Block::Lines(vec![format!("and {} more", self.more)]));
        }
        blocks
    }
}

impl Interval {
    /// Which share of what was received the workers had nothing to do with.
    fn by_short_cut(&self) -> String {
        let packets = self.short_cut.packets_per_second;
        if packets == 0.0 {
            return String::new();
        }
        // Its packets are in the counters of ports a moment earlier than in its own.
        format!("; {} by the short cut", percent((packets / self.total.rx).min(1.0)))
    }
}

impl WorkerRates {
    fn row(&self) -> Vec<String> {
        let known = |rate: Option<f64>| or_dash(&rate.map(short).unwrap_or_default());
        vec![
            self.worker.to_string(),
            self.cpu.to_string(),
            percent(self.busy),
            short(self.packets_per_second),
            known(self.cycles_per_packet),
            known(self.headroom_packets_per_second),
            known(self.sleeps_per_second),
            known(self.preemptions_per_second),
            or_dash(&self.waited.map(percent).unwrap_or_default()),
        ]
    }
}

impl PortRates {
    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            or_dash(&self.owner),
            self.worker.to_string(),
            short(self.rx_packets_per_second),
            gigabits(self.rx_bits_per_second),
            short(self.tx_packets_per_second),
            gigabits(self.tx_bits_per_second),
            short(self.rx_deferred_per_second),
            short(self.dropped()),
            or_dash(&self.reasons()),
        ]
    }

    /// What most were dropped for, most first.
    fn reasons(&self) -> String {
        const SHOWN: usize = 2;
        let mut reasons: Vec<_> = self.drops_per_second.iter().map(|(r, rate)| (r.as_str(), *rate)).collect();
        if self.tx_dropped_per_second > 0.0 {
            reasons.push(("transmit queue full", self.tx_dropped_per_second));
        }
        reasons.sort_by_key(|(_, rate)| Reverse((rate * 1000.0) as u64));
        let shown = reasons.iter().take(SHOWN).map(|(reason, rate)| format!("{reason} {}", short(*rate)));
        let more = if reasons.len() > SHOWN { ", ..." } else { "" };
        shown.collect::<Vec<_>>().join(", ") + more
    }
}

/// Three or four digits that mean something, and what they are multiplied by.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 9.9995e9 => (v / 1e9, "G"),
        v if v >= 9.9995e6 => (v / 1e6, "M"),
        v if v >= 9999.5 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = match value {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{unit}")
}

fn gigabits(bits: f64) -> String {
    format!("{:.3}", bits / 1e9)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}
