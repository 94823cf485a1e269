//! An aligned table.

use super::{Figure, Machine, short};
use crate::columns::aligned;
use crate::measure::Misses;
use crate::work::Goal;

const HEADING: [&str; 11] = [
    "WORK",
    "FLOWS",
    "WORKERS",
    "MPPS min/med/max",
    "CYCLES min/med/max",
    "NS",
    "IO MPPS",
    "IO CYCLES",
    "SHARE",
    "MUST",
    "AIM",
];

/// The table, with the machine above it and what was missed below.
pub(crate) fn table(machine: &Machine, figures: &[Figure]) -> String {
    let mut rows = vec![HEADING.map(str::to_owned)];
    rows.extend(figures.iter().map(|figure| row(machine, figure)));
    let mut text = format!("{}\n\n{}", machine.line(), aligned(&rows, &[0]));
    let checked: usize = figures.iter().map(|figure| figure.checked).sum();
    text += &format!("\n{checked} packets compared with the reference, all right\n");
    let misses = |figure: &Figure| figure.misses.map(|misses| (name(figure), short(figure.flows), misses));
    for (work, flows, Misses { l1, llc, tlb }) in figures.iter().filter_map(misses) {
        text +=
            &format!("{work}, {flows} flows: misses per packet: L1 {l1:.2}, LLC {llc:.2}, TLB {tlb:.2}\n");
    }
    for figure in figures.iter().filter(|figure| figure.workers > 1) {
        let same = |one: &&Figure| (one.work, one.flows, one.workers) == (figure.work, figure.flows, 1);
        if let Some(one) = figures.iter().find(same) {
            let times = figure.mpps.median / one.mpps.median;
            text += &format!(
                "{}, {} flows: {} workers do {times:.2} times as much as one\n",
                name(figure),
                short(figure.flows),
                figure.workers
            );
        }
    }
    for missed in figures.iter().filter(|figure| !figure.is_met()) {
        text += &format!("missed: {} {}, {} flows\n", name(missed), missed.title(), short(missed.flows));
    }
    text
}

fn name(figure: &Figure) -> String {
    format!("{:?}", figure.work)
}

fn row(machine: &Machine, figure: &Figure) -> [String; HEADING.len()] {
    let Figure { mpps, cycles, io_mpps, io_cycles, share_of_io, .. } = figure;
    let (must, aim) = match figure.goal() {
        None => (String::new(), String::new()),
        Some(Goal::Share { must, aim }) => (format!("{must:.2}"), format!("{aim:.2}")),
        Some(Goal::Cycles { must, aim }) => (format!("{must:.0} cycles"), format!("{aim:.0} cycles")),
    };
    [
        format!("{} {}", name(figure), figure.title()),
        short(figure.flows),
        figure.workers.to_string(),
        format!("{:.1} / {:.1} / {:.1}", mpps.min, mpps.median, mpps.max),
        format!("{:.0} / {:.0} / {:.0}", cycles.min, cycles.median, cycles.max),
        format!("{:.1}", cycles.median / machine.hz as f64 * 1e9),
        format!("{:.1}", io_mpps.median),
        format!("{:.0}", io_cycles.median),
        format!("{share_of_io:.2}"),
        must,
        aim,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::figure;
    use super::*;
    use crate::work::Work;

    #[test]
    fn columns_are_aligned_and_what_was_missed_is_named() {
        let machine = Machine { cpu: "CPU".into(), cpus: 2, hz: 2_000_000_000, dpdk: "DPDK 22.11".into() };
        let figures =
            [figure(Work::W1, 1000, [40; 3], [80; 3]), figure(Work::W4, 1_000_000, [100; 3], [700; 3])];
        let expected = "\
CPU, 2 CPUs, TSC 2.00 GHz, DPDK 22.11

WORK          FLOWS  WORKERS    MPPS min/med/max  CYCLES min/med/max     NS  IO MPPS  IO CYCLES  SHARE        MUST         AIM
W1 encap         1k        1  25.0 / 25.0 / 25.0        80 / 80 / 80   40.0     50.0         40   0.50        0.42        0.57
W4 new flows     1M        1     2.9 / 2.9 / 2.9     700 / 700 / 700  350.0     20.0        100   0.14  650 cycles  330 cycles

16384 packets compared with the reference, all right
missed: W4 new flows, 1M flows
";
        assert_eq!(table(&machine, &figures), expected);
    }
}
