use std::collections::HashSet;

use culvert_packet::Malformed;

use super::*;
use crate::port::Asked;

#[test]
fn every_reason_has_its_own_kebab_case_name_and_counter() {
    let names: HashSet<_> = DropReason::all().map(DropReason::name).collect();
    assert_eq!(names.len(), DropReason::COUNT);
    assert!(
        names
            .iter()
            .all(|name| { name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') })
    );
    assert_eq!(DropReason::from(Malformed::UdpLength).name(), "udp-length");
    assert_eq!(DropReason::SPOOFED_MAC.name(), "spoofed-mac");
    for (i, kind) in Answered::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, i);
    }
}

#[test]
fn workers_are_added_up() {
    let (set, mut writers) = counters(2);
    set.reserve_services(2);
    let port = PortIndex(3);
    for writer in &mut writers {
        writer.received(port, 2, 120);
        writer.sent(port, 1, 60, 4);
        writer.dropped(port, DropReason::NO_ROUTE);
        writer.deferred(port);
        for asked in [Asked::Left, Asked::No, Asked::Refused] {
            writer.finished(port, asked);
        }
        writer.answered(Answered::EchoReply);
        writer.service_flow(1);
        writer.service_packet(1, 40);
        writer.service_rejected(1);
        writer.flows_expired(5);
        writer.client_forgotten();
        writer.shortcut(3, 90);
    }
    writers[1].polled(0, 10);
    writers[1].polled(2, 30);
    let counts = PortCounts {
        rx_packets: 4,
        rx_bytes: 240,
        tx_packets: 2,
        tx_bytes: 120,
        rx_dropped: 2,
        tx_dropped: 8,
        rx_deferred: 2,
    };
    assert_eq!(set.port(port), counts);
    assert_eq!(set.finished(port), FinishCounts { by_device: 2, by_us: 4, refused: 2 });
    assert_eq!(set.service(1), ServiceCounts { packets: 2, bytes: 80, new_flows: 2, rejected: 2 });
    assert_eq!(set.flows(), FlowCounts { created: 2, expired: 10, stateless: 0, forgotten: 2 });
    assert_eq!(set.shortcut(), ShortcutCounts { packets: 6, bytes: 180 });
    assert_eq!(set.dropped(DropReason::NO_ROUTE), 2);
    assert!(set.drops().contains(&("no-route", 2)));
    assert!(set.answered().contains(&("echo-reply", 2)));
    assert_eq!(set.worker(0), LoopCounts::default());
    assert_eq!(
        set.worker(1),
        LoopCounts { polls: 2, empty_polls: 1, packets: 2, busy_cycles: 30, total_cycles: 40 }
    );
}

#[test]
fn a_new_occupant_of_a_slot_begins_at_zero() {
    let (mut set, mut writers) = counters(1);
    set.reserve_services(1);
    set.restart_port(PortIndex(0));
    writers[0].received(PortIndex(0), 7, 700);
    writers[0].finished(PortIndex(0), Asked::Left);
    writers[0].dropped(PortIndex(0), DropReason::VLAN_TAG);
    writers[0].service_packet(0, 100);
    set.lost(PortIndex(0), 0);
    assert_eq!(set.port_drops(PortIndex(0)), [("vlan-tag", 1)]);
    set.lost(PortIndex(0), 3);
    assert_eq!(set.port_drops(PortIndex(0)), [("rx-ring-full", 3), ("vlan-tag", 1)]);
    assert_eq!((set.port(PortIndex(0)).rx_dropped, set.dropped(DropReason::RX_RING_FULL)), (4, 3));
    set.restart_port(PortIndex(0));
    set.restart_service(0);
    assert!(set.port_drops(PortIndex(0)).is_empty());
    assert_eq!(set.port(PortIndex(0)), PortCounts::default());
    assert_eq!(set.finished(PortIndex(0)), FinishCounts::default());
    assert_eq!(set.service(0), ServiceCounts::default());
    writers[0].received(PortIndex(0), 1, 60);
    writers[0].dropped(PortIndex(0), DropReason::SPOOFED_MAC);
    assert_eq!(set.port_drops(PortIndex(0)), [("spoofed-mac", 1)]);
    writers[0].service_packet(0, 40);
    assert_eq!((set.port(PortIndex(0)).rx_packets, set.service(0).bytes), (1, 40));
}

#[test]
fn slots_out_of_reach_are_not_counted_and_do_no_harm() {
    let (set, mut writers) = counters(1);
    writers[0].service_packet(5, 40);
    writers[0].service_packet(u32::MAX, 40);
    writers[0].dropped(PortIndex(u16::MAX), DropReason::NO_SUCH_PORT);
    assert_eq!(set.service(5), ServiceCounts::default());
    assert_eq!(set.dropped(DropReason::NO_SUCH_PORT), 1);
}
