mod room;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use culvert_packet::flow::{FlowKey6, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::tcp::TcpFlags;
use proptest::prelude::*;

use super::*;
use crate::table::{BackendId, PortIndex};

fn tick(seconds: u64) -> Tick {
    Tick::at(Duration::from_secs(seconds))
}

/// Flow `n` of a client to a service, and what it becomes with backend `b`.
fn record(n: u32, b: u8) -> Record<FlowKey4> {
    let client = (Ipv4Addr::from(0x0a01_0000 | n >> 12), 1000 + (n & 0xfff) as u16);
    let vip = (Ipv4Addr::new(10, 96, 0, 10), 80);
    let backend = (Ipv4Addr::new(10, 2, 0, b), 8080);
    Record {
        original: FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, client, vip),
        translated: FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, client, backend),
        route: Route { epoch: 1, forward: Out::Remote(7), reply: Out::Pod(PortIndex(3)) },
        service: n,
        backend: BackendId { slot: b.into(), generation: n },
    }
}

fn get<K: Key>(table: &Table<K>, key: &K) -> Option<Hit<K>> {
    table.lookup(key, key.hash64())
}

#[test]
fn a_flow_is_found_by_both_directions_and_by_nothing_else() {
    let mut worker = FlowTables::new(1000).unwrap().worker();
    let table = &worker.tables.v4;
    let flow = record(1, 1);
    table.insert(&mut worker.arena4, &flow, tick(10), State::SynSent).unwrap();
    let forward = get(table, &flow.original).unwrap();
    let reply = get(table, &flow.translated.reversed()).unwrap();
    assert_eq!((forward.record, forward.reply, forward.state()), (flow, false, State::SynSent));
    assert_eq!((reply.record, reply.reply, reply.seen()), (flow, true, tick(10)));
    assert_eq!(get(table, &flow.translated), None);
    assert_eq!(get(table, &flow.original.reversed()), None);
    let of = |tenant, protocol| {
        let (src, dst) = (flow.original.src(), flow.original.dst());
        FlowKey4::new(tenant, protocol, (src, flow.original.src_port()), (dst, flow.original.dst_port()))
    };
    assert!(get(table, &of(Tenant::DEFAULT, Protocol::TCP)).is_some());
    assert_eq!(get(table, &of(Tenant::new(1).unwrap(), Protocol::TCP)), None);
    assert_eq!(get(table, &of(Tenant::DEFAULT, Protocol::UDP)), None);
}

#[test]
fn an_answer_may_come_as_long_as_there_is_a_flow_with_such_addresses() {
    let mut worker = FlowTables::new(1000).unwrap().worker();
    let table = &worker.tables.v4;
    let flows = [record(1, 1), record(2, 1)];
    let [answer, other] = [flows[0].translated.reversed(), record(1, 2).translated.reversed()];
    let may_come = |others| [answer, other].map(|key| table.answers(others).may_have(&key));
    assert_eq!(may_come(false), [false; 2]);
    for flow in &flows {
        table.insert(&mut worker.arena4, flow, tick(0), State::SynSent).unwrap();
        assert_eq!(may_come(false), [true, false]);
    }
    assert_eq!(may_come(true), [true; 2]);
    table.set_partial(true);
    assert_eq!(may_come(false), [true; 2], "flows that are not entered yet have answers, too");
    table.set_partial(false);
    for (flow, is_left) in flows.iter().zip([true, false]) {
        table.remove(&get(table, &flow.original).unwrap());
        assert_eq!(may_come(false), [is_left, false]);
    }
}

#[test]
fn ipv6_flows_have_a_table_of_their_own() {
    let mut worker = FlowTables::new(1000).unwrap().worker();
    let (client, vip) = (("fd00::1".parse().unwrap(), 1000), ("fd00:96::1".parse().unwrap(), 53));
    let flow = Record {
        original: FlowKey6::new(Tenant::DEFAULT, Protocol::UDP, client, vip),
        translated: FlowKey6::new(Tenant::DEFAULT, Protocol::UDP, client, ("fd00::2".parse().unwrap(), 5353)),
        route: Route { epoch: 0xff_ffff, forward: Out::Nowhere, reply: Out::Remote(0) },
        service: u32::MAX,
        backend: BackendId { slot: u32::MAX, generation: u32::MAX },
    };
    let table = &worker.tables.v6;
    table.insert(&mut worker.arena6, &flow, tick(0), State::OneWay).unwrap();
    assert_eq!(get(table, &flow.original).unwrap().record, flow);
    assert!(get(table, &flow.translated.reversed()).unwrap().reply);
    assert_eq!((table.iter().count(), worker.tables.v4.iter().count()), (1, 0));
}

#[test]
fn what_cannot_be_entered_leaves_nothing_behind() {
    let mut worker = FlowTables::new(1).unwrap().worker();
    let tables = Arc::clone(&worker.tables);
    let (table, arena) = (&tables.v4, &mut worker.arena4);
    let capacity = table.capacity() as u32;
    let flow = record(0, 1);
    table.insert(arena, &flow, tick(0), State::SynSent).unwrap();

    for _ in 0..2 * capacity {
        // The same flow, but another worker chose another backend.
        let exists = table.insert(arena, &record(0, 2), tick(0), State::SynSent);
        assert!(matches!(exists, Err(InsertError::Exists(hit)) if hit.record == flow));
        // Another flow that would become the same.
        let original = FlowKey4::new(
            Tenant::DEFAULT,
            Protocol::TCP,
            (flow.original.src(), flow.original.src_port()),
            (Ipv4Addr::new(10, 96, 0, 11), 80),
        );
        let taken = table.insert(arena, &Record { original, ..flow }, tick(0), State::SynSent);
        assert_eq!(taken, Err(InsertError::ReplyTaken));
        assert_eq!(get(table, &original), None);
        assert_eq!(get(table, &record(0, 2).translated.reversed()), None);
    }
    for n in 1..capacity {
        table.insert(arena, &record(n, 1), tick(0), State::SynSent).unwrap();
    }
    assert_eq!(table.insert(arena, &record(capacity, 1), tick(0), State::SynSent), Err(InsertError::Full));
    assert!((0..capacity).all(|n| get(table, &record(n, 1).original).unwrap().record == record(n, 1)));
    assert_eq!(table.iter().count(), capacity as usize);
    assert!(table.knows_its_answers());
}

#[test]
fn both_versions_share_one_limit() {
    let mut worker = FlowTables::new(256).unwrap().worker();
    let v6 = |port| {
        FlowKey6::new(
            Tenant::DEFAULT,
            Protocol::UDP,
            ("fd00::1".parse().unwrap(), port),
            ("fd00::2".parse().unwrap(), 2),
        )
    };
    worker.tables.v4.insert(&mut worker.arena4, &record(0, 1), tick(0), State::SynSent).unwrap();
    let flow = record(0, 1);
    let flow =
        Record { original: v6(1), translated: v6(2), route: flow.route, service: 0, backend: flow.backend };
    let full = worker.tables.v6.insert(&mut worker.arena6, &flow, tick(0), State::OneWay);
    assert_eq!(full, Err(InsertError::Full));
}

#[test]
fn a_full_table_of_the_bench_size_finds_every_flow() {
    let mut worker = FlowTables::new(65_536).unwrap().worker();
    let table = &worker.tables.v4;
    let flow = |n: u32| record(n, (n % 251) as u8);
    for n in 0..65_536 {
        table.insert(&mut worker.arena4, &flow(n), tick(0), State::SynSent).unwrap();
    }
    for n in 0..65_536 {
        let flow = flow(n);
        assert_eq!(get(table, &flow.original).unwrap().record, flow);
        assert_eq!(get(table, &flow.translated.reversed()).unwrap().record, flow);
    }
}

#[test]
fn packets_move_time_and_state_on() {
    let mut worker = FlowTables::new(1).unwrap().worker();
    let table = &worker.tables.v4;
    let flow = record(0, 1);
    table.insert(&mut worker.arena4, &flow, tick(0), State::SynSent).unwrap();
    let stale = get(table, &flow.original).unwrap();
    table.touch(&get(table, &flow.translated.reversed()).unwrap(), tick(4), TcpFlags::SYN | TcpFlags::ACK);
    table.touch(&stale, tick(6), TcpFlags::ACK);
    let hit = get(table, &flow.original).unwrap();
    assert_eq!((hit.state(), hit.seen()), (State::Established, tick(6)));
    let route = Route { epoch: 2, forward: Out::Pod(PortIndex(9)), reply: Out::Nowhere };
    table.reroute(&hit, route);
    assert_eq!(get(table, &flow.original).unwrap().record.route, route);
    table.reroute(&hit, Route { epoch: 3, ..route });
    assert_eq!(get(table, &flow.original).unwrap().record.route, route, "a late change of route was made");
}

#[test]
fn an_ended_flow_is_gone_and_what_still_points_to_it_does_no_harm() {
    let mut worker = FlowTables::new(1).unwrap().worker();
    let tables = Arc::clone(&worker.tables);
    let (table, arena) = (&tables.v4, &mut worker.arena4);
    let flow = record(0, 1);
    table.insert(arena, &flow, tick(0), State::SynSent).unwrap();
    let old = get(table, &flow.original).unwrap();
    assert!(table.remove(&old).is_some());
    assert_eq!(table.remove(&old), None);
    assert_eq!((get(table, &flow.original), get(table, &flow.translated.reversed())), (None, None));
    assert_eq!(table.iter().count(), 0);

    // The sweep makes the record usable again, for another flow with the same route.
    let sweep = SWEEP;
    assert_eq!(arena.sweep(table, sweep, |_| false, |_, _| ()), 0);
    for n in 1..=table.capacity() as u32 {
        table.insert(arena, &record(n, 1), tick(0), State::SynSent).unwrap();
    }
    table.touch(&old, tick(8), TcpFlags::RST);
    table.reroute(&old, Route { epoch: 9, ..flow.route });
    assert_eq!(table.remove(&old), None);
    for n in 1..=table.capacity() as u32 {
        let hit = get(table, &record(n, 1).original).unwrap();
        assert_eq!((hit.record, hit.seen(), hit.state()), (record(n, 1), tick(0), State::SynSent));
    }
    assert!(table.knows_its_answers());
}

const SWEEP: Sweep = Sweep {
    now: Tick::from_bits(0),
    pressure: false,
    records: arena::CHUNK + 10,
    flows: u64::MAX,
    timeouts: Timeouts::DEFAULT,
};

#[test]
fn silent_flows_end_by_the_timeout_of_their_state() {
    for (state, timeout) in
        [(State::SynSent, 240), (State::OneWay, 30), (State::TwoWay, 120), (State::Established, 86_400)]
    {
        let mut worker = FlowTables::new(1).unwrap().worker();
        let (table, arena) = (&worker.tables.v4, &mut worker.arena4);
        table.insert(arena, &record(0, 1), tick(100), state).unwrap();
        let mut sweep = |now| arena.sweep(table, Sweep { now: tick(now), ..SWEEP }, |_| false, |_, _| ());
        assert_eq!(sweep(100 + timeout), 0, "{state:?}");
        assert_eq!(sweep(100 + timeout + 2), 1, "{state:?}");
        assert_eq!(sweep(100 + timeout + 2), 0, "{state:?}");
        assert_eq!(get(table, &record(0, 1).original), None);
    }
}

#[test]
fn under_pressure_embryonic_flows_go_and_established_ones_stay() {
    let mut worker = FlowTables::new(1).unwrap().worker();
    let (table, arena) = (&worker.tables.v4, &mut worker.arena4);
    table.insert(arena, &record(0, 1), tick(0), State::SynSent).unwrap();
    table.insert(arena, &record(1, 1), tick(0), State::Established).unwrap();
    let mut sweep =
        |pressure| arena.sweep(table, Sweep { now: tick(10), pressure, ..SWEEP }, |_| false, |_, _| ());
    assert_eq!((sweep(false), sweep(true)), (0, 1));
    assert!(get(table, &record(1, 1).original).is_some());
}

#[test]
fn a_sweep_goes_on_where_the_last_one_stopped_and_ends_what_is_over() {
    let mut worker = FlowTables::new(3 * arena::CHUNK).unwrap().worker();
    let (table, arena) = (&worker.tables.v4, &mut worker.arena4);
    let flows = 2 * arena::CHUNK + 5;
    for n in 0..flows {
        table.insert(arena, &record(n, 1), tick(0), State::Established).unwrap();
    }
    let sweep = Sweep { records: 100, ..SWEEP };
    let mut ended = 0;
    for _ in 0..8 {
        let some = arena.sweep(table, sweep, |record| record.service % 2 == 0, |_, _| ());
        assert!(some <= 50);
        ended += some;
    }
    assert_eq!(ended, u64::from(flows.div_ceil(2)));
    assert!((0..flows).all(|n| get(table, &record(n, 1).original).is_some() == (n % 2 == 1)));
    assert!(table.knows_its_answers());
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    // 2^31 records of 192 bytes in all: address space that the system may well give; what matters is that it is no panic.
    if let Err(error) = FlowTables::new(u32::MAX) {
        let text = "flows 4294967295, affinityClients 65536: no memory for so many; choose fewer";
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn workers_that_open_the_same_flows_agree() {
    const WORKERS: u8 = 4;
    const FLOWS: u32 = 4000;
    let tables = FlowTables::new(FLOWS * 2).unwrap();
    let start = Barrier::new(WORKERS.into());
    let created = AtomicU64::new(0);
    let views: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let open = |worker_number: u8| {
            let (tables, start, created) = (&tables, &start, &created);
            move || {
                let mut worker = tables.worker();
                start.wait();
                let mut choice = |n: u32| match tables.v4.insert(
                    &mut worker.arena4,
                    &record(n, worker_number),
                    tick(0),
                    State::SynSent,
                ) {
                    Ok(()) => {
                        created.fetch_add(1, Ordering::Relaxed);
                        worker_number
                    }
                    Err(InsertError::Exists(hit)) => hit.record.translated.dst().octets()[3],
                    Err(error) => panic!("{error:?}"),
                };
                (0..FLOWS).map(&mut choice).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..WORKERS).map(|number| scope.spawn(open(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(views.iter().all(|view| *view == views[0]));
    assert_eq!(created.load(Ordering::Relaxed), u64::from(FLOWS));
    for n in 0..FLOWS {
        for choice in 0..WORKERS {
            let flow = record(n, choice);
            let found = get(&tables.v4, &flow.translated.reversed()).is_some();
            assert_eq!(found, choice == views[0][n as usize], "flow {n} has replies of a choice that lost");
        }
    }
    assert!(tables.v4.knows_its_answers());
}

#[test]
fn readers_never_see_another_flow_while_flows_come_and_go() {
    const FLOWS: u32 = 300;
    let tables = FlowTables::new(FLOWS * 4).unwrap();
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for seed in 1..=3_u32 {
            let (tables, start) = (&tables, &start);
            scope.spawn(move || {
                let mut worker = tables.worker();
                let table = &tables.v4;
                start.wait();
                let mut random = seed;
                for turn in 0..200_000_u32 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let n = (random >> 8) % FLOWS;
                    let flow = record(n, seed as u8);
                    match get(table, &flow.original) {
                        Some(hit) => {
                            assert_eq!(hit.record.original, flow.original);
                            assert_eq!((hit.record.service, hit.record.backend.generation), (n, n));
                            let backend = hit.record.backend.slot as u8;
                            assert_eq!(hit.record.translated, record(n, backend).translated, "a torn record");
                            table.touch(&hit, tick(turn.into()), TcpFlags::ACK);
                            if random >> 30 == 0 {
                                table.remove(&hit);
                            }
                        }
                        None => match table.insert(&mut worker.arena4, &flow, tick(0), State::SynSent) {
                            Ok(()) | Err(InsertError::Exists(_)) => {}
                            Err(error) => panic!("{error:?}"),
                        },
                    }
                    let sweep = Sweep { records: 4, ..SWEEP };
                    worker.arena4.sweep(table, sweep, |_| false, |_, _| ());
                }
            });
        }
    });
    // What is left is found by both keys, once.
    let left: Vec<_> = tables.v4.iter().collect();
    let keys: std::collections::HashSet<_> = left.iter().map(|hit| hit.record.original.hash64()).collect();
    assert_eq!(keys.len(), left.len());
    for hit in left {
        assert_eq!(get(&tables.v4, &hit.record.original).map(|h| h.record), Some(hit.record));
        assert!(get(&tables.v4, &hit.record.translated.reversed()).is_some_and(|h| h.reply));
    }
    assert!(tables.v4.knows_its_answers());
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32, u8),
    Remove(u32),
    Sweep,
}

proptest! {
    /// The table against a map, with few keys and fewer records, so that flows and their replies collide often.
    #[test]
    fn the_table_is_a_map_of_two_directions(
        steps in prop::collection::vec(
            prop_oneof![
                4 => (0_u32..400, 0_u8..3).prop_map(|(n, b)| Step::Insert(n, b)),
                2 => (0_u32..400).prop_map(Step::Remove),
                1 => Just(Step::Sweep),
            ],
            1..1500,
        ),
    ) {
        let mut worker = FlowTables::new(1).unwrap().worker();
        let (table, arena) = (&worker.tables.v4, &mut worker.arena4);
        let mut model = HashMap::new();
        for step in steps {
            match step {
                Step::Insert(n, b) => match table.insert(arena, &record(n, b), tick(0), State::SynSent) {
                    Ok(()) => prop_assert_eq!(model.insert(n, b), None),
                    Err(InsertError::Exists(hit)) => {
                        prop_assert_eq!(model.get(&n).map(|b| record(n, *b)), Some(hit.record));
                    }
                    // The same client port and backend: these are the same flow here.
                    Err(InsertError::ReplyTaken) => prop_assert_eq!(model.get(&n), Some(&b)),
                    Err(InsertError::Full) => {
                        arena.sweep(table, Sweep { records: 256, ..SWEEP }, |_| false, |_, _| ());
                    }
                },
                Step::Remove(n) => {
                    let hit = get(table, &record(n, 0).original);
                    prop_assert_eq!(hit.is_some(), model.remove(&n).is_some());
                    prop_assert!(hit.is_none_or(|hit| table.remove(&hit).is_some()));
                }
                Step::Sweep => {
                    arena.sweep(table, Sweep { records: 50, ..SWEEP }, |_| false, |_, _| ());
                }
            }
        }
        prop_assert_eq!(table.iter().count(), model.len());
        prop_assert!(table.knows_its_answers());
        for n in 0..400 {
            let found = get(table, &record(n, 0).original).map(|hit| hit.record);
            prop_assert_eq!(found, model.get(&n).map(|b| record(n, *b)));
        }
    }
}
