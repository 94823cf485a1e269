use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use culvert_api::fastpath as proto;
use culvert_packet::flow::Tenant;
use culvert_packet::ip::Protocol;
use proptest::prelude::*;

use super::*;
use crate::flow::index::Index;
use crate::flow::segment::{Head, LAYOUT};
use crate::flow::{InsertError, Out, Record, Route, State};
use crate::table::{BackendId, Builder, octets};

mod killed;
mod way;

const RECORDS: u32 = 1024;
const CLIENTS: u32 = 64;

/// A node with one service over TCP, one over UDP, with these endpoints; `first` pads the tables, so that numbers differ.
fn view(first: u32, endpoints: &[IpAddr], draining: &[IpAddr]) -> Snapshot {
    let service =
        |name: String, protocol: proto::Protocol, vip: IpAddr, endpoints: &[IpAddr]| proto::Service {
            namespace: "default".to_owned(),
            name,
            protocol: protocol.into(),
            vip: octets(vip),
            port: 80,
            backends: endpoints
                .iter()
                .map(|&address| proto::Backend {
                    address: octets(address),
                    port: 8080,
                    draining: draining.contains(&address),
                    ..proto::Backend::default()
                })
                .collect(),
            ..proto::Service::default()
        };
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = endpoints.iter().partition(|address| address.is_ipv4());
    let padding = (0..first).map(|n| {
        let vip = IpAddr::from([10, 95, 0, n as u8]);
        service(format!("a{n}"), proto::Protocol::Tcp, vip, &v4)
    });
    let web = [proto::Protocol::Tcp, proto::Protocol::Udp].into_iter().flat_map(|protocol| {
        [(vip(false), &v4), (vip(true), &v6)]
            .map(|(vip, endpoints)| service("web".to_owned(), protocol, vip, endpoints))
    });
    let tables = proto::Tables {
        revision: 1,
        synced: true,
        node: Some(proto::LocalNode {
            name: "node-a".to_owned(),
            gateways: vec![vec![10, 1, 0, 1]],
            gateway_mac: vec![2, 0, 0, 0, 0, 1],
            vtep_mac: vec![2, 0, 0, 0, 0, 2],
            vni: 4096,
            ..proto::LocalNode::default()
        }),
        services: padding.chain(web).collect(),
        ..proto::Tables::default()
    };
    let mut builder = Builder::new();
    builder.apply(&tables).unwrap();
    builder.snapshot()
}

fn vip(v6: bool) -> IpAddr {
    if v6 { "fd00:96::10".parse().unwrap() } else { [10, 96, 0, 10].into() }
}

fn endpoint(v6: bool, n: u8) -> IpAddr {
    if v6 { format!("fd00:2::{n:x}").parse().unwrap() } else { [10, 2, 0, n].into() }
}

/// All endpoints, of both IP versions.
fn endpoints(count: u8) -> Vec<IpAddr> {
    [false, true].into_iter().flat_map(|v6| (1..=count).map(move |n| endpoint(v6, n))).collect()
}

fn at(seconds: u64) -> (Tick, Moment) {
    let elapsed = Duration::from_secs(seconds);
    (Tick::at(elapsed), Moment::after(elapsed))
}

/// Flow `n` to endpoint `to`, with numbers that mean nothing to anybody else.
fn record<K: Key>(n: u16, protocol: Protocol, to: u8) -> Record<K> {
    let v6 = K::VERSION == 1;
    let client: IpAddr = if v6 { "fd00:1::5".parse().unwrap() } else { [10, 1, 0, 5].into() };
    let key = |dst| K::between(Tenant::DEFAULT, protocol, (client, 1000 + n), dst).unwrap();
    Record {
        original: key((vip(v6), 80)),
        translated: key((endpoint(v6, to), 8080)),
        route: Route { epoch: 9, forward: Out::Remote(3), reply: Out::Remote(4) },
        service: 77,
        backend: BackendId { slot: 66, generation: 5 },
    }
}

fn insert<K: Key>(worker: &mut FlowWorker, record: &Record<K>, now: Tick, state: State) {
    let (table, arena, _) = K::parts(worker);
    let inserted = table.insert(arena, record, now, state);
    assert!(matches!(inserted, Ok(()) | Err(InsertError::Full)), "{inserted:?}");
}

fn left(tables: &FlowTables) -> Left {
    Left::open(tables.segment().unwrap().as_fd()).unwrap()
}

/// Takes over all of that, and tells what became of it.
fn take_over(
    tables: &FlowTables,
    workers: &mut [FlowWorker],
    left: Left,
    view: &Snapshot,
    now: (Tick, Moment),
) -> TakenOver {
    let takeover = tables.take_over(workers, vec![left], view, now).unwrap();
    finish(&takeover, workers, view, now.0)
}

/// Has the workers enter what is left.
fn finish(takeover: &Takeover, workers: &mut [FlowWorker], view: &Snapshot, now: Tick) -> TakenOver {
    while workers.iter().any(FlowWorker::takes_over) {
        for worker in &mut *workers {
            worker.take_over_some(view, now);
        }
    }
    assert!(takeover.is_done());
    takeover.taken()
}

fn some_tables() -> Arc<FlowTables> {
    FlowTables::shared(RECORDS, CLIENTS, false).unwrap()
}

/// Where all that lies in the segment of [`some_tables`].
fn places() -> Places {
    Places::new(RECORDS, Index::buckets_for(2 * RECORDS as usize).unwrap(), CLIENTS as usize).unwrap()
}

/// All flows of a table, by both keys, with what tables say of their endpoints.
fn check<K: Key>(tables: &FlowTables, view: &Snapshot) -> u64 {
    let table = K::table(tables);
    let mut flows = 0;
    for hit in table.iter() {
        flows += 1;
        let Record { original, translated, backend, service, .. } = hit.record;
        for (key, reply) in [(original, false), (translated.reversed(), true)] {
            let found = table.lookup(&key, key.hash64()).expect("a flow is found by both keys");
            assert_eq!((found.record, found.reply), (hit.record, reply));
        }
        let service = view.service_in(service).expect("its service is there");
        assert_eq!(service.backend(translated.destination()).map(|b| b.id), Some(backend));
        assert!(view.has_backend(backend));
    }
    flows
}

#[test]
fn flows_go_on_with_the_numbers_that_their_endpoints_have_now() {
    let before = some_tables();
    let mut worker = before.worker();
    insert(&mut worker, &record::<FlowKey4>(1, Protocol::TCP, 1), at(100).0, State::Established);
    insert(&mut worker, &record::<FlowKey4>(2, Protocol::UDP, 2), at(100).0, State::TwoWay);
    insert(&mut worker, &record::<FlowKey6>(3, Protocol::TCP, 2), at(90).0, State::TimeWait);
    let view = view(5, &endpoints(2), &[]);
    // Another size, and more workers.
    let tables = FlowTables::shared(4 * RECORDS, 4 * CLIENTS, false).unwrap();
    let mut workers: Vec<_> = (0..3).map(|_| tables.worker()).collect();
    let taken = take_over(&tables, &mut workers, left(&before), &view, at(110));
    assert_eq!(taken, TakenOver { flows: 3, ..TakenOver::default() });
    assert_eq!((check::<FlowKey4>(&tables, &view), check::<FlowKey6>(&tables, &view)), (2, 1));
    let key = record::<FlowKey4>(1, Protocol::TCP, 1).original;
    let hit = tables.v4.lookup(&key, key.hash64()).unwrap();
    assert_eq!((hit.state(), hit.seen(), hit.record.route.epoch), (State::Established, at(100).0, 0));
    assert_ne!(view.epoch(), 0, "it is checked at its next packet");
    assert_eq!(tables.loads.of(hit.record.backend), 1);
    let key = record::<FlowKey6>(3, Protocol::TCP, 2).original;
    let closed = tables.v6.lookup(&key, key.hash64()).unwrap();
    assert_eq!(tables.loads.of(closed.record.backend), 0, "a flow that is not open does not count");
}

#[test]
fn what_is_over_gone_or_not_ready_does_not_go_on() {
    let before = some_tables();
    let mut worker = before.worker();
    insert(&mut worker, &record::<FlowKey4>(1, Protocol::UDP, 1), at(100).0, State::OneWay);
    insert(&mut worker, &record::<FlowKey4>(2, Protocol::TCP, 3), at(200).0, State::Established);
    insert(&mut worker, &record::<FlowKey4>(3, Protocol::UDP, 2), at(200).0, State::TwoWay);
    insert(&mut worker, &record::<FlowKey4>(4, Protocol::TCP, 2), at(200).0, State::Established);
    let view = view(0, &endpoints(2), &[endpoint(false, 2)]);
    let tables = some_tables();
    let taken = take_over(&tables, &mut [tables.worker()], left(&before), &view, at(200));
    assert_eq!(taken, TakenOver { flows: 1, over: 1, gone: 2, ..TakenOver::default() });
    assert_eq!(check::<FlowKey4>(&tables, &view), 1);
}

#[test]
fn a_connection_whose_handshake_may_have_gone_by_unseen_is_not_over() {
    let view = view(0, &endpoints(2), &[]);
    for (unseen, flows) in [(true, 2), (false, 0)] {
        let before = some_tables();
        let mut worker = before.worker();
        insert(&mut worker, &record::<FlowKey4>(1, Protocol::TCP, 1), at(100).0, State::SynSent);
        insert(&mut worker, &record::<FlowKey4>(2, Protocol::TCP, 1), at(100).0, State::SynReceived);
        insert(&mut worker, &record::<FlowKey4>(3, Protocol::TCP, 1), at(100).0, State::TimeWait);
        insert(&mut worker, &record::<FlowKey4>(4, Protocol::UDP, 1), at(100).0, State::OneWay);
        let tables = some_tables();
        let left = left(&before).unseen(unseen);
        let taken = take_over(&tables, &mut [tables.worker()], left, &view, at(1000));
        assert_eq!(taken, TakenOver { flows, over: 4 - flows, ..TakenOver::default() });
        assert!(tables.v4.iter().all(|hit| hit.seen() == at(1000).0), "it has its whole time yet");
    }
}

#[test]
fn clients_keep_their_endpoints() {
    use crate::balance::Client;
    let (before, tables) = (some_tables(), some_tables());
    let client = |n: u64| Client::new(n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for n in 1..=8 {
        before.affinity.keep(client(n), (endpoint(n % 2 == 0, n as u8), 8080), at(1000 * n).1, 60, |_| true);
    }
    let now = at(89_000);
    let taken = take_over(&tables, &mut [tables.worker()], left(&before), &view(0, &[], &[]), now);
    assert_eq!(taken.clients, 6, "the first two were silent for longer than any timeout");
    for n in 3..=8 {
        let found = tables.affinity.find(client(n), now.1, 86_400);
        assert_eq!(found, Some((endpoint(n % 2 == 0, n as u8), 8080)));
    }
    assert_eq!(tables.affinity.find(client(8), now.1, 60), None, "its age is known");
}

#[test]
fn what_does_not_find_room_is_counted() {
    let before = some_tables();
    let mut worker = before.worker();
    (0..700).for_each(|n| {
        insert(&mut worker, &record::<FlowKey4>(n, Protocol::TCP, 1), at(10).0, State::Established);
    });
    let tables = FlowTables::shared(256, CLIENTS, false).unwrap();
    let view = view(0, &endpoints(1), &[]);
    let taken = take_over(&tables, &mut [tables.worker()], left(&before), &view, at(10));
    assert_eq!(taken, TakenOver { flows: 256, no_room: 444, ..TakenOver::default() });
    assert_eq!(check::<FlowKey4>(&tables, &view), 256);
}

#[test]
fn memory_of_another_layout_or_of_something_else_is_refused_by_what_it_is() {
    let tables = some_tables();
    let segment = tables.segment().unwrap();
    let file = File::from(segment.try_clone().unwrap());
    let refused = || Left::open(segment.as_fd()).unwrap_err();
    assert!(Left::open(segment.as_fd()).is_ok());
    let claimed = std::mem::offset_of!(Head, claimed) as u64;
    file.write_all_at(&u32::MAX.to_le_bytes(), claimed).unwrap();
    assert!(matches!(refused(), LeftError::Bounds { records: RECORDS, .. }));
    file.write_all_at(&0_u32.to_le_bytes(), claimed).unwrap();
    file.write_all_at(&(LAYOUT + 1).to_le_bytes(), 8).unwrap();
    assert!(matches!(refused(), LeftError::Layout { found } if found == LAYOUT + 1));
    file.write_all_at(&[0], 0).unwrap();
    assert!(matches!(refused(), LeftError::Foreign));
    file.set_len(100).unwrap();
    assert!(matches!(refused(), LeftError::Foreign));
    assert!(!segment.is_in_hugepages() && segment.as_fd().try_clone_to_owned().is_ok());
}

/// A worker that was killed while it entered a flow.
#[test]
fn a_flow_that_was_half_entered_is_nothing() {
    let before = some_tables();
    let mut worker = before.worker();
    insert(&mut worker, &record::<FlowKey4>(1, Protocol::TCP, 1), at(10).0, State::Established);
    let view = view(0, &endpoints(1), &[]);
    let line = before.v4.lines[0].words();
    let whole: Vec<_> = line.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    // The word that brings it to life is written last.
    for written in 0..whole.len() {
        let words = whole.iter().enumerate().map(|(n, &word)| if n < written { word } else { 0 });
        line.iter().zip(words).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        let tables = some_tables();
        let taken = take_over(&tables, &mut [tables.worker()], left(&before), &view, at(10));
        assert_eq!(taken, TakenOver::default(), "{written} words");
    }
}

#[test]
fn a_hundred_thousand_flows_go_on_at_once() {
    const FLOWS: u32 = 100_000;
    let tables = || FlowTables::shared(1 << 17, CLIENTS, false).unwrap();
    let before = tables();
    let mut worker = before.worker();
    for n in 0..FLOWS {
        let Record { original, translated, .. } = record::<FlowKey4>(0, Protocol::TCP, (n % 2) as u8 + 1);
        let client = ([10, 1, (n / 50_000) as u8, 5].into(), (n % 50_000) as u16 + 1000);
        let from_client = |key: FlowKey4| {
            FlowKey4::between(Tenant::DEFAULT, Protocol::TCP, client, key.destination()).unwrap()
        };
        let (original, translated) = (from_client(original), from_client(translated));
        let flow = Record { original, translated, ..record(0, Protocol::TCP, 1) };
        insert(&mut worker, &flow, at(100).0, State::Established);
    }
    let view = view(0, &endpoints(2), &[]);
    let (tables, left) = (tables(), left(&before));
    let mut workers = [tables.worker(), tables.worker()];
    let begin = std::time::Instant::now();
    let taken = take_over(&tables, &mut workers, left, &view, at(110));
    let took = begin.elapsed();
    eprintln!("{FLOWS} flows taken over in {took:?}");
    assert_eq!(taken, TakenOver { flows: u64::from(FLOWS), ..TakenOver::default() });
    assert_eq!(check::<FlowKey4>(&tables, &view), u64::from(FLOWS));
    // A hundred times what it takes: packets wait meanwhile.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

proptest! {
    /// Whatever the memory says: what is taken over is a flow to an endpoint that exists, found by both keys, and no more
    /// than there is.
    #[test]
    fn damaged_memory_does_no_harm(
        flows in prop::collection::vec((any::<bool>(), 1_u8..5, 0_usize..2), 1..200),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 8]>(), 1_usize..=8), 0..60),
        head in prop::option::weighted(0.3, (0_u64..64, any::<u8>())),
    ) {
        let before = some_tables();
        let mut worker = before.worker();
        for (n, (v6, to, protocol)) in flows.iter().enumerate() {
            let (protocol, state) =
                [(Protocol::TCP, State::Established), (Protocol::UDP, State::TwoWay)][*protocol];
            if *v6 {
                insert(&mut worker, &record::<FlowKey6>(n as u16, protocol, *to), at(10).0, state);
            } else {
                insert(&mut worker, &record::<FlowKey4>(n as u16, protocol, *to), at(10).0, state);
            }
        }
        let segment = before.segment().unwrap();
        let file = File::from(segment.try_clone().unwrap());
        let len = file.metadata().unwrap().len() as usize;
        let Places { lines4, lines6, index4, index6, .. } = places();
        let used = |place: usize, size| (place..place + flows.len() * size).step_by(8);
        // Where something lies: records, and what leads to them.
        let indices = (index4..index4 + (index6 - index4) * 2).step_by(8);
        let words: Vec<_> = used(lines4, 64).chain(used(lines6, 128)).chain(indices).collect();
        for (index, bytes, count) in &damage {
            file.write_all_at(&bytes[..*count], words[index.index(words.len())].min(len - 8) as u64).unwrap();
        }
        if let Some((at, byte)) = head {
            file.write_all_at(&[byte], at).unwrap();
        }
        let Ok(left) = Left::open(segment.as_fd()) else {
            prop_assert!(head.is_some());
            return Ok(());
        };
        let view = view(1, &endpoints(3), &[]);
        let tables = some_tables();
        let mut workers = [tables.worker(), tables.worker()];
        let takeover = tables.take_over(&mut workers, vec![left], &view, at(20)).unwrap();
        // Packets of some come before the others are entered.
        for (n, (v6, to, protocol)) in flows.iter().enumerate().step_by(2) {
            let protocol = [Protocol::TCP, Protocol::UDP][*protocol];
            if *v6 {
                let key = record::<FlowKey6>(n as u16, protocol, *to).translated.reversed();
                workers[0].recall(&key, key.hash64(), &view, at(20).0);
            } else {
                let key = record::<FlowKey4>(n as u16, protocol, *to).original;
                workers[1].recall(&key, key.hash64(), &view, at(20).0);
            }
        }
        let taken = finish(&takeover, &mut workers, &view, at(20).0);
        let kept = check::<FlowKey4>(&tables, &view) + check::<FlowKey6>(&tables, &view);
        prop_assert_eq!(kept, taken.flows);
        if damage.is_empty() && head.is_none() {
            let gone = flows.iter().filter(|(_, to, _)| *to == 4).count() as u64;
            prop_assert_eq!((taken.flows, taken.gone), (flows.len() as u64 - gone, gone));
            prop_assert_eq!((taken.damaged, taken.over, taken.no_room), (0, 0, 0));
        }
    }
}
