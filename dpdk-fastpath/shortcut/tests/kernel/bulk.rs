//! What is merged on its way to a pod.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::frame::Segment;
use crate::uplinks::{PORTS, Tunnelled, Uplink, receive_at};
use crate::{Case, within};

/// Bytes of TCP in a segment: a long one, and a short one.
const LONG: usize = 1400;
const SHORT: usize = 100;

/// How many of a kind come in a row.
const ROW: usize = 8;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("short_packets_reach_a_pod_one_by_one", short),
        ("long_packets_reach_a_pod_as_one", long),
        ("short_packets_do_not_overtake_long_ones", mixed),
    ]
}

/// As [`Uplink::new`]; what may be merged waits for more for a while, so that it does not matter when packets come.
fn patient() -> Uplink {
    let uplink = Uplink::new();
    let wait = "echo 50000000 > /sys/class/net/culvert0/gro_flush_timeout";
    let arguments = ["netns", "exec", uplink.pod.netns.name(), "sh", "-c", wait];
    assert!(Command::new("ip").args(arguments).status().unwrap().success());
    uplink
}

/// Lets segments of these lengths come in, one after the other; returns the sequence number, counted from the first one's, and
/// the length of what reaches the pod, in the order in which it does.
fn arrived(uplink: &Uplink, lengths: &[usize]) -> Vec<(usize, usize)> {
    let first = uplink.segment(PORTS[0]).tcp.sequence_number;
    let mut next = 0;
    for len in lengths {
        let mut segment = uplink.segment(PORTS[0]);
        segment.tcp.sequence_number = first + next as u32;
        segment.payload = vec![next as u8; *len];
        uplink.tap.write(&Tunnelled::default().frame(&segment));
        next += len;
    }
    let index = uplink.pod.netns.run("cat /sys/class/net/tap0/ifindex").trim().parse().unwrap();
    let mut all = Vec::new();
    within("all reach the pod", || {
        let frames = std::iter::from_fn(|| receive_at(&uplink.in_pod)).filter(|(at, _)| *at == index);
        let segments = frames.filter_map(|(_, frame)| Segment::parse(&frame));
        let own = segments.filter(|segment| segment.ip.destination == uplink.pod.address.octets());
        all.extend(own.map(|segment| {
            (segment.tcp.sequence_number.wrapping_sub(first) as usize, segment.payload.len())
        }));
        (all.iter().map(|(_, len)| len).sum::<usize>() == next).then_some(())
    });
    all
}

fn short() {
    let uplink = patient();
    let one_by_one: Vec<_> = (0..ROW).map(|n| (n * SHORT, SHORT)).collect();
    assert_eq!(arrived(&uplink, &[SHORT; ROW]), one_by_one);
}

fn long() {
    let uplink = patient();
    // Unless the time that it waits for is over in between.
    within("they are merged", || {
        let all = arrived(&uplink, &[LONG; ROW]);
        assert!(all.is_sorted(), "{all:?}");
        (all.len() < ROW).then_some(())
    });
}

fn mixed() {
    let uplink = patient();
    let all = arrived(&uplink, &[SHORT, LONG, LONG, SHORT, LONG, SHORT, SHORT]);
    assert!(all.is_sorted(), "{all:?}");
    // After a while they go as if there had never been a long one.
    sleep(Duration::from_millis(200));
    assert_eq!(arrived(&uplink, &[SHORT; 2]), [(0, SHORT), (SHORT, SHORT)]);
}
