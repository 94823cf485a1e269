use culvert_api::fastpath::{NamedCounter, PortCounters, Scheduling};

use super::table::short;
use super::*;
use crate::output::{Block, View};

const HZ: u64 = 2_000_000_000;

fn sample(seconds: u64, workers: Vec<WorkerCounters>, ports: Vec<Port>) -> Counters {
    Counters {
        cycles: 5 * HZ + seconds * HZ,
        cycles_per_second: HZ,
        instance: "one".into(),
        workers,
        ports,
        ..Counters::default()
    }
}

fn worker(packets: u64, busy_cycles: u64, sleeps: u64) -> WorkerCounters {
    let scheduling = Scheduling {
        sleeps,
        preemptions: sleeps / 2,
        waited_nanoseconds: sleeps * 1_000_000,
        ..Scheduling::default()
    };
    WorkerCounters {
        lcore: 3,
        packets,
        busy_cycles,
        scheduling: Some(scheduling),
        ..WorkerCounters::default()
    }
}

fn port(name: &str, packets: u64) -> Port {
    let counters = PortCounters {
        rx_packets: packets,
        rx_bytes: packets * 125,
        tx_packets: 2 * packets,
        tx_bytes: packets * 1250,
        rx_dropped: packets / 10,
        tx_dropped: packets / 20,
        rx_deferred: packets / 5,
        ..PortCounters::default()
    };
    let drops = [("vlan-tag", packets / 10), ("spoofed-mac", 0)]
        .map(|(name, value)| NamedCounter { name: name.into(), value })
        .to_vec();
    Port {
        name: name.into(),
        owner: format!("default/{name}"),
        counters: Some(counters),
        drops,
        ..Port::default()
    }
}

fn between(before: &Counters, after: &Counters) -> Option<Interval> {
    Interval::between(before, after, "now".into())
}

#[test]
fn a_worker_that_is_busy_a_fifth_of_the_time_carries_four_times_as_much_besides() {
    let before = sample(0, vec![worker(1000, 7, 10)], vec![]);
    let after = sample(2, vec![worker(401_000, 4 * HZ / 10 + 7, 110)], vec![]);
    let interval = between(&before, &after).expect("the same process");
    let expected = WorkerRates {
        worker: 0,
        cpu: 3,
        busy: 0.1 * 2.0,
        packets_per_second: 200_000.0,
        cycles_per_packet: Some(2000.0),
        headroom_packets_per_second: Some(800_000.0),
        sleeps_per_second: Some(50.0),
        preemptions_per_second: Some(25.0),
        waited: Some(0.05),
    };
    assert_eq!((interval.seconds, interval.workers.as_slice()), (2.0, [expected].as_slice()));
}

#[test]
fn what_is_not_known_is_no_number() {
    let idle = WorkerCounters { scheduling: None, ..worker(5, 10, 0) };
    let interval =
        between(&sample(0, vec![idle], vec![]), &sample(1, vec![idle], vec![])).expect("the same process");
    let json = serde_json::to_value(&interval).expect("is JSON");
    let worker = &json["workers"][0];
    for (key, value) in [
        ("busy", serde_json::json!(0.0)),
        ("packetsPerSecond", serde_json::json!(0.0)),
        ("cyclesPerPacket", serde_json::Value::Null),
        ("headroomPacketsPerSecond", serde_json::Value::Null),
        ("sleepsPerSecond", serde_json::Value::Null),
        ("waited", serde_json::Value::Null),
    ] {
        assert_eq!(worker[key], value, "{key}");
    }
    let Block::Table(_, rows) = &interval.blocks()[1] else { panic!("the workers are a table") };
    assert_eq!(rows[0], ["0", "3", "0.0%", "0", "-", "-", "-", "-", "-"]);
}

#[test]
fn a_port_has_rates_of_both_directions_and_of_each_reason() {
    let interval =
        between(&sample(0, vec![], vec![port("a", 1000)]), &sample(2, vec![], vec![port("a", 3000)]));
    let rates = &interval.expect("the same process").ports[0];
    let expected = PortRates {
        name: "a".into(),
        owner: "default/a".into(),
        worker: 0,
        rx_packets_per_second: 1000.0,
        rx_bits_per_second: 1_000_000.0,
        tx_packets_per_second: 2000.0,
        tx_bits_per_second: 10_000_000.0,
        rx_deferred_per_second: 200.0,
        rx_dropped_per_second: 100.0,
        tx_dropped_per_second: 50.0,
        drops_per_second: BTreeMap::from([("vlan-tag".to_owned(), 100.0)]),
    };
    assert_eq!(*rates, expected);
    assert_eq!(rates.row()[8..], ["150", "vlan-tag 100, transmit queue full 50.0"]);
}

#[test]
fn what_goes_by_the_short_cut_has_a_rate_and_a_share_of_all_that_is_received() {
    let counted = |seconds: u64, by_short_cut: u64| Counters {
        short_cut_packets: by_short_cut,
        short_cut_bytes: by_short_cut * 1000,
        ..sample(seconds, vec![], vec![port("a", 2000 * seconds)])
    };
    let interval = between(&counted(1, 7), &counted(3, 3007)).expect("the same process");
    let expected = ShortCutRates { packets_per_second: 1500.0, bits_per_second: 12_000_000.0 };
    assert_eq!(interval.short_cut, expected);
    let head = |interval: &Interval| match interval.blocks().into_iter().next() {
        Some(Block::Lines(lines)) => lines.concat(),
        _ => String::new(),
    };
    let line = "now, 2.0 s: 2000 packets/s received, 4000 sent, 300 dropped";
    assert_eq!(head(&interval), format!("{line}; 75.0% by the short cut"));
    let without = between(&counted(1, 7), &counted(3, 7)).expect("the same process");
    assert_eq!(head(&without), line, "none of it");
    let all = between(&counted(1, 7), &counted(3, 9007)).expect("the same process");
    assert_eq!(head(&all), format!("{line}; 100.0% by the short cut"), "never more than all");
}

#[test]
fn a_port_that_came_or_came_anew_has_counted_from_zero() {
    let before = sample(0, vec![], vec![port("again", 5000)]);
    let after = sample(1, vec![], vec![port("again", 100), port("new", 40)]);
    let ports = between(&before, &after).expect("the same process").ports;
    assert_eq!(ports.iter().map(|p| p.rx_packets_per_second).collect::<Vec<_>>(), [100.0, 40.0]);
    assert_eq!(ports[0].drops_per_second["vlan-tag"], 10.0);
}

#[test]
fn samples_of_two_processes_or_of_one_moment_are_not_compared() {
    let one = sample(1, vec![worker(1, 1, 1)], vec![]);
    assert!(between(&one, &one).is_none());
    assert!(between(&sample(2, vec![], vec![]), &one).is_none(), "backwards");
    let other = Counters { instance: "two".into(), ..sample(2, vec![], vec![]) };
    assert!(between(&one, &other).is_none());
    let untold = Counters { cycles_per_second: 0, ..sample(2, vec![], vec![]) };
    assert!(between(&one, &untold).is_none());
}

#[test]
fn ports_are_sorted_as_asked_and_what_is_left_out_is_counted_and_in_the_total() {
    let few = Port { drops: vec![], ..port("c", 10) };
    let ports = vec![port("b", 200), few, port("a", 100)];
    let interval = between(&sample(0, vec![], vec![]), &sample(1, vec![], ports)).expect("the same process");
    for (sort, names) in [
        (Sort::Packets, ["b", "a", "c"]),
        (Sort::Bits, ["b", "a", "c"]),
        (Sort::Drops, ["b", "a", "c"]),
        (Sort::Deferred, ["b", "a", "c"]),
        (Sort::Name, ["a", "b", "c"]),
    ] {
        let sorted: Vec<_> =
            interval.clone().arranged(sort, None).ports.into_iter().map(|p| p.name).collect();
        assert_eq!(sorted, names, "{sort:?}");
    }
    let cut = interval.clone().arranged(Sort::Packets, Some(1)).arranged(Sort::Name, Some(0));
    assert_eq!((cut.ports.len(), cut.more, cut.total), (0, 3, interval.total));
    assert!(matches!(cut.blocks().last(), Some(Block::Lines(lines)) if *lines == ["and 3 more"]));
}

#[test]
fn numbers_have_the_digits_that_matter() {
    for (value, text) in [
        (0.0, "0"),
        (0.021, "0.02"),
        (9.5, "9.50"),
        (12.34, "12.3"),
        (999.4, "999"),
        (9999.4, "9999"),
        (9999.5, "10.0k"),
        (123_456.0, "123k"),
        (14_880_952.0, "14.9M"),
        (2.5e10, "25.0G"),
    ] {
        assert_eq!(short(value), text, "{value}");
    }
}
