use std::sync::atomic::Ordering::{Relaxed, Release};
use std::thread;

use super::*;

const HZ: u64 = 1_000_000;
const EPOCH: u32 = 7;

fn key(port: u16) -> FlowKey4 {
    let (client, vip) = (Ipv4Addr::new(10, 244, 1, 3), Ipv4Addr::new(10, 96, 0, 1));
    FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (client, port), (vip, 80))
}

fn direction(port: u16) -> Direction {
    let (client, server) = (Ipv4Addr::new(10, 244, 1, 3), Ipv4Addr::new(10, 244, 2, 3));
    let becomes = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (client, port), (server, 8080));
    Direction { from: End::Door(3), key: key(port), becomes, to: End::Way(5), tunnel_port: 0xc123 }
}

/// So many buckets; with one, every connection is in it.
fn slots(buckets: usize) -> Slots {
    Slots::new(Arc::new(Memory::own(buckets).unwrap()), HZ)
}

/// The slot that a direction is in.
fn slot_of<'a>(slots: &'a Slots, direction: &Direction) -> Option<&'a Slot> {
    slots.slot(direction.from, &direction.key)
}

fn pass(slots: &Slots, port: u16, bytes: u64, flags: TcpFlags) {
    assert!(slots.pass(End::Door(3), &key(port), bytes, flags));
}

/// What is told of all slots.
fn review(slots: &Slots, epoch: u32, now: u64) -> Vec<Passed> {
    let (mut cursor, mut told) = (0, Vec::new());
    slots.review(&mut cursor, usize::MAX, epoch, now, |passed| told.push(*passed));
    told
}

#[test]
fn a_direction_lies_in_a_slot_as_headers_have_it() {
    let slots = slots(64);
    assert!(slots.is_empty());
    assert!(slots.enter(EPOCH, &direction(0x1234), 1));
    let slot = slot_of(&slots, &direction(0x1234)).unwrap();
    let bytes = |word: &AtomicU32| word.load(Relaxed).to_ne_bytes();
    assert_eq!((bytes(&slot.src), bytes(&slot.dst)), ([10, 244, 1, 3], [10, 96, 0, 1]));
    assert_eq!((bytes(&slot.new_src), bytes(&slot.new_dst)), ([10, 244, 1, 3], [10, 244, 2, 3]));
    assert_eq!((bytes(&slot.ports), bytes(&slot.new_ports)), ([0x12, 0x34, 0, 80], [0x12, 0x34, 0x1f, 0x90]));
    assert_eq!(slot.tunnel_port.load(Relaxed).to_ne_bytes(), [0xc1, 0x23]);
    assert_eq!((slot.way_in.load(Relaxed), slot.way_out.load(Relaxed)), (3, IS_WAY | 5));
    assert_eq!(slots.direction(EPOCH, End::Door(3), &key(0x1234)), Some(direction(0x1234)));
    assert_eq!(slots.direction(EPOCH + 1, End::Door(3), &key(0x1234)), None);
    assert_eq!((slots.given(), slots.is_empty()), (1, false));
}

#[test]
fn a_direction_has_one_slot_and_another_decision_is_another_slot() {
    let slots = slots(1);
    let (first, second) = (direction(1), Direction { to: End::Door(9), ..direction(1) });
    assert!(slots.enter(EPOCH, &first, 1));
    assert!(slots.enter(EPOCH, &first, 2));
    assert_eq!(slots.given(), 1);
    assert!(slots.enter(EPOCH, &second, 3));
    assert_eq!(slots.given(), 1);
    assert_eq!(slot_of(&slots, &second).unwrap().way_out.load(Relaxed), 9);
    assert!(slots.enter(EPOCH + 1, &second, 4), "under another epoch");
    assert_eq!(slot_of(&slots, &second).unwrap().epoch.load(Relaxed), EPOCH + 1);
    assert_eq!(slots.given(), 1);
}

#[test]
fn answers_are_awaited_until_one_may_be_the_first_or_they_are_entered_as_others_are() {
    let is_awaited = |slots: &Slots| slots.is_awaited(EPOCH, End::Door(3), &key(1)).unwrap();
    for first in [TcpFlags::SYN | TcpFlags::ACK, TcpFlags::RST | TcpFlags::ACK] {
        let slots = slots(1);
        assert!(slots.enter_awaited(EPOCH, &direction(1), 1, || {}) && is_awaited(&slots));
        assert_eq!(slots.is_awaited(EPOCH + 1, End::Door(3), &key(1)), None, "under another epoch");
        assert!(!slots.pass(End::Door(3), &key(1), 40, TcpFlags::ACK));
        assert_eq!(review(&slots, EPOCH, 2), []);
        assert!(is_awaited(&slots));
        pass(&slots, 1, 40, first);
        assert!(!is_awaited(&slots));
        assert_eq!(review(&slots, EPOCH, 3)[0].flags, first, "and nothing else");
    }
    let slots = slots(1);
    assert!(slots.enter_awaited(EPOCH, &direction(1), 1, || {}) && slots.enter(EPOCH, &direction(1), 2));
    assert!(!is_awaited(&slots));
    pass(&slots, 1, 40, TcpFlags::ACK);
    assert_eq!(slots.given(), 1);
}

#[test]
fn what_comes_first_is_done_before_answers_go_and_only_if_they_do() {
    let slots = slots(1);
    for port in 1..=SLOTS as u16 {
        let mut done = false;
        let is_there = || slots.direction(EPOCH, End::Door(3), &key(port)).is_some();
        assert!(slots.enter_awaited(EPOCH, &direction(port), 1, || done = !is_there()));
        assert!(done && is_there());
    }
    assert!(!slots.enter_awaited(EPOCH, &direction(9), 1, || panic!("there is no room")));
    // One that is there already, as when the kernel has given it.
    let mut done = false;
    assert!(slots.enter_awaited(EPOCH, &direction(1), 1, || done = true) && done);
}

#[test]
fn a_slot_that_is_kept_waits_for_a_packet_as_long_as_one_of_an_answered_connection() {
    for kept in [false, true] {
        let slots = slots(1);
        assert!(slots.enter_awaited(EPOCH, &direction(1), 1, || {}));
        if kept {
            slots.keep(&direction(1));
        }
        for (seconds, is_there) in [(UNANSWERED, true), (UNANSWERED + 1, kept), (IDLE + 1, false)] {
            review(&slots, EPOCH, seconds * HZ + 1);
            assert_eq!(slots.given() == 1, is_there, "{seconds} s, kept: {kept}");
        }
    }
    let slots = slots(1);
    assert!(slots.enter(EPOCH, &direction(1), 1) && slots.enter(EPOCH, &direction(1), 2 * HZ));
    review(&slots, EPOCH, 3 * HZ);
    assert_eq!(slots.given(), 1, "entered once more, it counts from then on");
}

#[test]
fn a_slot_that_the_kernel_has_given_is_counted_from_when_a_worker_enters_it() {
    let slots = slots(1);
    assert!(slots.enter(EPOCH, &direction(1), 1));
    // As it is when the kernel has written it.
    slots.given.store(0, Relaxed);
    *slots.watches[0].lock().unwrap() = Default::default();
    assert!(slots.enter(EPOCH, &direction(1), 2));
    assert_eq!(slots.given(), 1);
    slots.forget(&key(1), 3);
    assert_eq!(slots.given(), 0);
}

#[test]
fn what_comes_from_a_pod_and_from_another_node_are_two_directions() {
    let slots = slots(1);
    let other = Direction { from: End::Way(5), to: End::Door(3), ..direction(1) };
    assert!(slots.enter(EPOCH, &direction(1), 1) && slots.enter(EPOCH, &other, 1));
    assert_eq!(slots.given(), 2);
    slots.forget(&key(1), 2);
    assert_eq!(slots.given(), 0);
}

#[test]
fn a_full_bucket_refuses_and_a_slot_is_nobodys_until_it_has_rested() {
    let slots = slots(1);
    for port in 0..4 {
        assert!(slots.enter(EPOCH, &direction(port), 1));
    }
    assert!(!slots.enter(EPOCH, &direction(4), 1));
    slots.forget(&key(2), 10);
    assert!(slot_of(&slots, &direction(2)).is_none());
    assert!(!slots.enter(EPOCH, &direction(4), 10 + HZ / REST));
    review(&slots, EPOCH, 10 + HZ / REST);
    assert!(!slots.enter(EPOCH, &direction(4), 10 + HZ / REST));
    review(&slots, EPOCH, 11 + HZ / REST);
    assert!(slots.enter(EPOCH, &direction(4), 11 + HZ / REST));
}

#[test]
fn a_review_that_began_earlier_takes_nothing_for_old() {
    let slots = slots(1);
    assert!(slots.enter(EPOCH, &direction(1), 100) && slots.enter(EPOCH, &direction(2), 100));
    slots.forget(&key(2), 100);
    review(&slots, EPOCH, 99);
    assert!(slot_of(&slots, &direction(1)).is_some());
    let epochs = slots.memory.buckets()[0].slots.iter().map(|slot| slot.epoch.load(Relaxed));
    assert_eq!(epochs.collect::<Vec<_>>(), [EPOCH, RESTING, 0, 0]);
}

#[test]
fn there_is_no_slot_for_ends_that_have_no_place_in_the_maps() {
    let slots = slots(1);
    assert!(!slots.enter(EPOCH, &Direction { from: End::Door(DOORS as u16), ..direction(1) }, 1));
    assert!(!slots.enter(EPOCH, &Direction { to: End::Way(WAYS), ..direction(1) }, 1));
    assert!(slots.is_empty());
}

#[test]
fn what_went_by_is_told_once() {
    let slots = slots(16);
    assert!(slots.enter(EPOCH, &direction(1), 1) && slots.enter(EPOCH, &direction(2), 1));
    assert_eq!(review(&slots, EPOCH, 2), []);
    pass(&slots, 1, 52, TcpFlags::ACK);
    pass(&slots, 1, 1452, TcpFlags::ACK | TcpFlags::SYN);
    let flags = TcpFlags::ACK | TcpFlags::SYN;
    let passed = Passed { from: End::Door(3), key: key(1), to: End::Way(5), packets: 2, bytes: 1504, flags };
    assert_eq!(review(&slots, EPOCH, 3), [passed]);
    assert_eq!(review(&slots, EPOCH, 4), []);
    pass(&slots, 1, 60, TcpFlags::ACK);
    // A program that found the slot just before.
    let slot = slot_of(&slots, &direction(1)).unwrap();
    slots.forget(&key(1), 5);
    slot.bytes.fetch_add(61, Relaxed);
    slot.packets.fetch_add(1, Relaxed);
    assert_eq!(review(&slots, EPOCH, 6), [], "as long as a program may be at it");
    let rested = review(&slots, EPOCH, 6 + HZ / REST);
    assert_eq!(rested, [Passed { packets: 2, bytes: 121, flags: TcpFlags::ACK, ..passed }]);
}

#[test]
fn slots_are_taken_back_when_their_connection_is_over_or_silent_or_of_another_epoch() {
    let second = HZ;
    for (flags, epoch, after, expected) in [
        (TcpFlags::ACK, EPOCH, IDLE * second, true),
        (TcpFlags::ACK, EPOCH, IDLE * second + 1, false),
        (TcpFlags::SYN, EPOCH, UNANSWERED * second, true),
        (TcpFlags::SYN, EPOCH, UNANSWERED * second + 1, false),
        (TcpFlags::SYN | TcpFlags::ACK, EPOCH, UNANSWERED * second, true),
        (TcpFlags::SYN | TcpFlags::ACK, EPOCH, UNANSWERED * second + 1, false),
        (TcpFlags::ACK | TcpFlags::FIN, EPOCH, 1, false),
        (TcpFlags::ACK | TcpFlags::RST, EPOCH, 1, false),
        (TcpFlags::ACK, EPOCH + 1, 1, false),
    ] {
        let slots = slots(4);
        assert!(slots.enter(EPOCH, &direction(1), 1));
        pass(&slots, 1, 52, flags);
        assert_eq!(review(&slots, EPOCH, 10).len(), 1);
        assert_eq!(review(&slots, epoch, 10 + after), []);
        assert_eq!(slot_of(&slots, &direction(1)).is_some(), expected, "{flags:?} {epoch} {after}");
        assert_eq!(slots.given(), usize::from(expected));
    }
}

/// As [`direction`], of UDP.
fn datagrams(port: u16) -> Direction {
    let of_udp = |key: FlowKey4| {
        FlowKey4::new(
            Tenant::DEFAULT,
            Protocol::UDP,
            (key.src(), key.src_port()),
            (key.dst(), key.dst_port()),
        )
    };
    let Direction { key, becomes, .. } = direction(port);
    Direction { key: of_udp(key), becomes: of_udp(becomes), ..direction(port) }
}

#[test]
fn a_flow_of_udp_and_a_connection_of_tcp_with_the_same_ports_are_two() {
    let slots = slots(1);
    assert!(slots.enter(EPOCH, &direction(1), 1) && slots.enter(EPOCH, &datagrams(1), 1));
    assert_eq!(slot_of(&slots, &datagrams(1)).unwrap().way_in.load(Relaxed), 3 | IS_UDP);
    for direction in [direction(1), datagrams(1)] {
        assert_eq!(slots.direction(EPOCH, direction.from, &direction.key), Some(direction));
        assert!(slots.pass(direction.from, &direction.key, 100, TcpFlags(0)));
    }
    let told: Vec<_> = review(&slots, EPOCH, 2).iter().map(|passed| (passed.from, passed.key)).collect();
    assert_eq!(told, [direction(1), datagrams(1)].map(|direction| (direction.from, direction.key)));
    slots.forget(&datagrams(1).key, 3);
    assert!(slot_of(&slots, &datagrams(1)).is_none());
    assert!(slot_of(&slots, &direction(1)).is_some());
}

#[test]
fn a_flow_of_udp_makes_room_when_it_is_silent_for_as_long_as_what_nobody_answers() {
    let (slots, patience) = (slots(4), UNANSWERED * HZ);
    assert!(slots.enter(EPOCH, &datagrams(1), 1));
    let is_there_at = |now| {
        review(&slots, EPOCH, now);
        slot_of(&slots, &datagrams(1)).is_some()
    };
    assert!(is_there_at(patience));
    assert!(slots.pass(End::Door(3), &datagrams(1).key, 100, TcpFlags(0)));
    assert!(is_there_at(patience + 1) && is_there_at(2 * patience + 1));
    assert!(!is_there_at(2 * patience + 2));
}

#[test]
fn a_slot_that_the_kernel_gave_is_looked_after_like_others() {
    let slots = slots(1);
    let slot = &slots.memory.buckets()[0].slots[1];
    slot.epoch.store(CLAIMED, Release);
    Words { way_in: 3, way_out: IS_WAY | 5, direction: &direction(1) }.write(slot, 0);
    slots.memory.occupied()[0].fetch_or(1, Relaxed);
    assert_eq!(review(&slots, EPOCH, 1), [], "as long as it is written");
    assert!(slots.enter(EPOCH, &direction(2), 1) && slots.enter(EPOCH, &direction(3), 1));
    slot.epoch.store(EPOCH, Release);
    pass(&slots, 1, 60, TcpFlags::SYN);
    assert_eq!(review(&slots, EPOCH, 2).len(), 1);
    assert_eq!(slots.given(), 3);
    review(&slots, EPOCH, 3 + UNANSWERED * HZ);
    assert_eq!(slots.given(), 0);
    review(&slots, EPOCH, 4 + UNANSWERED * HZ + HZ / REST);
    assert!(slots.is_empty());
}

#[test]
fn a_review_goes_on_where_the_last_one_ended() {
    let slots = slots(4096);
    for port in 0..1000 {
        assert!(slots.enter(EPOCH, &direction(port), 1));
        pass(&slots, port, 52, TcpFlags::ACK);
    }
    let (mut cursor, mut told) = (0, Vec::new());
    for _ in 0..64 {
        slots.review(&mut cursor, 32, EPOCH, 2, |passed| told.push(passed.key.src_port()));
    }
    told.sort_unstable();
    assert_eq!(told, (0..1000).collect::<Vec<_>>());
}

#[test]
fn workers_at_the_same_buckets_lose_no_packet_and_give_no_slot_twice() {
    let slots = &slots(4);
    let (passed_by, told) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let tell =
        |now| told.fetch_add(review(slots, EPOCH, now).iter().map(|passed| passed.packets).sum(), Relaxed);
    for round in 1..200 {
        // As long as they are at it no slot has rested.
        let now = round * HZ;
        thread::scope(|scope| {
            for worker in 0..3_u16 {
                scope.spawn(move || {
                    for n in 0..50 {
                        let port = worker * 100 + n % 7;
                        slots.enter(EPOCH, &direction(port), now);
                        let passed = slots.pass(End::Door(3), &key(port), 1, TcpFlags::ACK);
                        passed_by.fetch_add(passed.into(), Relaxed);
                        if n % 3 == 0 {
                            slots.forget(&key(port), now);
                        }
                        tell(now);
                    }
                });
            }
        });
        tell(now + HZ / 2);
        assert_eq!(told.load(Relaxed), passed_by.load(Relaxed));
    }
    assert!(passed_by.load(Relaxed) > 200 * 16, "{passed_by:?}");
}
