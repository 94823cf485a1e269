//! What was measured, for people and for programs.

mod html;
mod table;

use serde::Serialize;

pub(crate) use self::html::html;
pub(crate) use self::table::table;
use crate::measure::{Measured, Misses, Run};
use crate::stats::Spread;
use crate::work::{Goal, Work};

/// The figures of one work with one number of flows. Serialized, it is one element of what `-o json` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) work: Work,
    pub(crate) flows: usize,
    pub(crate) workers: usize,
    /// Cycles that each packet was kept waiting in place of the work, which was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause: Option<u16>,
    /// Million packets per second of all workers together.
    pub(crate) mpps: Spread,
    /// TSC cycles per packet, receive and transmit included.
    pub(crate) cycles: Spread,
    /// Of what the machine does without work on the same packets: median over the pairs of runs.
    pub(crate) share_of_io: f64,
    /// Misses of caches per packet; only where the CPU counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) misses: Option<Misses>,
    /// Million packets per second without work.
    #[serde(skip)]
    pub(crate) io_mpps: Spread,
    /// TSC cycles per packet without work.
    #[serde(skip)]
    pub(crate) io_cycles: Spread,
    /// Packets that were compared with the reference.
    #[serde(skip)]
    pub(crate) checked: usize,
}

impl Figure {
    /// `hz`: TSC cycles per second.
    pub(crate) fn new(work: Work, flows: usize, workers: usize, hz: u64, measured: &Measured) -> Self {
        // All workers begin and end at the same time.
        let mpps = |run: &Run| workers as f64 * hz as f64 / run.cycles_per_packet() / 1e6;
        let cycles = |run: &Run| run.cycles_per_packet();
        let pairs = measured.io.iter().zip(&measured.work);
        Self {
            work,
            flows,
            workers,
            pause: None,
            mpps: Spread::of(measured.work.iter().map(mpps)),
            cycles: Spread::of(measured.work.iter().map(cycles)),
            share_of_io: Spread::of(pairs.map(|(io, work)| cycles(io) / cycles(work))).median,
            io_mpps: Spread::of(measured.io.iter().map(mpps)),
            io_cycles: Spread::of(measured.io.iter().map(cycles)),
            misses: measured.misses,
            checked: measured.checked,
        }
    }

    /// What is demanded, of one worker that works.
    pub(crate) fn goal(&self) -> Option<Goal> {
        self.work.goal(self.flows).filter(|_| self.workers == 1 && self.pause.is_none())
    }

    /// What was done, in a few words.
    pub(crate) fn title(&self) -> String {
        match self.pause {
            None => self.work.title().to_owned(),
            Some(cycles) => format!("pause of {cycles} cycles"),
        }
    }

    /// Whether what is demanded was reached, if anything is.
    pub(crate) fn is_met(&self) -> bool {
        self.goal().is_none_or(|goal| goal.is_met(self.share_of_io, self.cycles.median))
    }
}

/// The machine that figures are of.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) hz: u64,
    pub(crate) dpdk: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this(hz: u64, dpdk: String) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: model.map_or("unknown CPU", |(_, model)| model.trim()).to_owned(),
            cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
            hz,
            dpdk,
        }
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        format!("{}, {} CPUs, TSC {:.2} GHz, {}", self.cpu, self.cpus, self.hz as f64 / 1e9, self.dpdk)
    }
}

/// A number of flows as people write it: 1k, 100k, 1M.
pub(crate) fn short(flows: usize) -> String {
    match flows {
        n if n >= 1_000_000 && n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n if n >= 1_000 && n % 1_000 == 0 => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn figure(work: Work, flows: usize, io: [u64; 3], cycles: [u64; 3]) -> Figure {
        let runs = |cycles: [u64; 3]| cycles.map(|cycles| Run { packets: 10, cycles: cycles * 10 }).to_vec();
        let measured = Measured { io: runs(io), work: runs(cycles), misses: None, checked: 8192 };
        Figure::new(work, flows, 1, 2_000_000_000, &measured)
    }

    #[test]
    fn the_share_is_the_median_of_pairs_of_runs_not_of_medians() {
        // The machine was twice as slow in the second pair.
        let figure = figure(Work::W3, 1000, [40, 80, 40], [80, 160, 100]);
        assert_eq!(figure.share_of_io, 0.5);
        assert_eq!((figure.cycles.median, figure.mpps.median), (100.0, 20.0));
    }

    #[test]
    fn a_goal_missed_by_little_is_missed() {
        assert!(figure(Work::W3, 1000, [38; 3], [100; 3]).is_met());
        assert!(!figure(Work::W3, 1000, [37; 3], [100; 3]).is_met());
        assert!(figure(Work::W4, 1_000_000, [100; 3], [650; 3]).is_met());
        assert!(!figure(Work::W4, 1_000_000, [100; 3], [651; 3]).is_met());
        assert!(figure(Work::W3, 1, [1; 3], [100; 3]).is_met());
    }

    #[test]
    fn nothing_is_demanded_of_a_pause() {
        let pause = Figure { pause: Some(40), ..figure(Work::W3, 1000, [37; 3], [100; 3]) };
        assert!(pause.is_met());
        assert_eq!(pause.title(), "pause of 40 cycles");
    }

    #[test]
    fn json_has_the_fields_that_programs_expect() {
        let figure = figure(Work::W1, 1000, [40; 3], [80; 3]);
        let json = serde_json::to_value([figure]).unwrap();
        let expected = serde_json::json!([{
            "work": "W1", "flows": 1000, "workers": 1,
            "mpps": { "min": 25.0, "median": 25.0, "max": 25.0 },
            "cycles": { "min": 80.0, "median": 80.0, "max": 80.0 },
            "share_of_io": 0.5,
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn misses_are_there_only_if_they_were_counted() {
        let misses = Some(Misses { l1: 2.5, llc: 0.5, tlb: 0.0 });
        let json = serde_json::to_value(Figure { misses, ..figure(Work::W1, 1, [1; 3], [1; 3]) }).unwrap();
        assert_eq!(json["misses"], serde_json::json!({ "l1": 2.5, "llc": 0.5, "tlb": 0.0 }));
    }

    #[test]
    fn flows_are_written_short() {
        assert_eq!([1, 1000, 1024, 100_000, 1_000_000].map(short), ["1", "1k", "1024", "100k", "1M"]);
    }
}
