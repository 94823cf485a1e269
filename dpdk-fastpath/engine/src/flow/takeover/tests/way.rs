//! While not all is entered.

use super::*;

/// Tables with so many flows of TCP over IPv4.
fn with_flows(flows: u16) -> Arc<FlowTables> {
    let tables = some_tables();
    let mut worker = tables.worker();
    for n in 0..flows {
        insert(&mut worker, &flow(n), at(100).0, State::Established);
    }
    tables
}

fn flow(n: u16) -> Record<FlowKey4> {
    record(n, Protocol::TCP, 1)
}

#[test]
fn a_flow_goes_on_with_its_first_packet_in_either_direction() {
    let before = with_flows(600);
    let view = view(3, &endpoints(1), &[]);
    let tables = some_tables();
    let mut workers = [tables.worker(), tables.worker()];
    let takeover = tables.take_over(&mut workers, vec![left(&before)], &view, at(110)).unwrap();
    for (n, worker) in [(599, 0), (17, 1), (300, 0)] {
        let Record { original, translated, .. } = flow(n);
        let key = if n == 17 { translated.reversed() } else { original };
        let hash = key.hash64();
        assert!(tables.v4.lookup(&key, hash).is_none());
        let burst = tables.v4.burst();
        assert!(!burst.probe(hash).is_absent() && !burst.clarify(hash).is_absent(), "nobody is sure of it");
        assert!(workers[worker].recall(&key, hash, &view, at(110).0));
        let hit = tables.v4.lookup(&key, hash).unwrap();
        assert_eq!((hit.state(), hit.seen(), hit.reply), (State::Established, at(100).0, n == 17));
        assert!(!workers[1 - worker].recall(&key, hash, &view, at(110).0), "once");
        // Were it entered again later, it would be a ghost.
        if n == 300 {
            assert_eq!(tables.v4.remove(&hit), Some(State::Established));
        }
    }
    let unknown = flow(600).original;
    assert!(!workers[0].recall(&unknown, unknown.hash64(), &view, at(110).0));
    let taken = finish(&takeover, &mut workers, &view, at(110).0);
    assert_eq!(taken, TakenOver { flows: 600, ..TakenOver::default() });
    assert_eq!(check::<FlowKey4>(&tables, &view), 599);
    assert!(tables.v4.burst().clarify(unknown.hash64()).is_absent(), "now it is sure");
}

#[test]
fn many_workers_enter_each_flow_once() {
    const FLOWS: u16 = 1000;
    let before = with_flows(FLOWS);
    let view = view(0, &endpoints(1), &[]);
    let tables = FlowTables::shared(4 * RECORDS, CLIENTS, false).unwrap();
    let mut workers: Vec<_> = (0..4).map(|_| tables.worker()).collect();
    let takeover = tables.take_over(&mut workers, vec![left(&before)], &view, at(110)).unwrap();
    std::thread::scope(|scope| {
        for (first, worker) in workers.iter_mut().enumerate() {
            let (tables, view) = (&tables, &view);
            scope.spawn(move || {
                let mut n = first as u16 * 250;
                while worker.takes_over() {
                    worker.take_over_some(view, at(110).0);
                    let key = flow(n % FLOWS).original;
                    worker.recall(&key, key.hash64(), view, at(110).0);
                    assert!(tables.v4.lookup(&key, key.hash64()).is_some(), "{n}");
                    n += 1;
                }
            });
        }
    });
    assert_eq!(takeover.taken(), TakenOver { flows: FLOWS.into(), ..TakenOver::default() });
    assert_eq!(check::<FlowKey4>(&tables, &view), u64::from(FLOWS));
    assert_eq!(tables.loads.of(tables.v4.iter().next().unwrap().record.backend), u32::from(FLOWS));
}

#[test]
fn a_process_killed_meanwhile_leaves_each_flow_in_one_place() {
    let first = with_flows(500);
    let view = view(0, &endpoints(1), &[]);
    let second = some_tables();
    let mut workers = [second.worker()];
    let takeover = second.take_over(&mut workers, vec![left(&first)], &view, at(110)).unwrap();
    workers[0].take_over_some(&view, at(110).0);
    let key = flow(400).original;
    assert!(workers[0].recall(&key, key.hash64(), &view, at(110).0));
    // One has ended since, one is new, and one was entered but is not marked yet.
    let hit = second.v4.lookup(&key, key.hash64()).unwrap();
    second.v4.remove(&hit).unwrap();
    insert(&mut workers[0], &flow(501), at(120).0, State::SynReceived);
    insert(&mut workers[0], &flow(450), at(120).0, State::FinFromClient);
    let entered = takeover.taken().flows;
    assert!((33..500).contains(&entered), "{entered}");

    let third = some_tables();
    let mut workers = [third.worker(), third.worker()];
    // In whatever order they come.
    for lefts in [vec![left(&first), left(&second)], Vec::new()] {
        let takeover = third.take_over(&mut workers, lefts, &view, at(130)).unwrap();
        assert!(takeover.is_done(), "two at once are entered before the first packet");
        if third.v4.claimed() > 0 {
            let taken = takeover.taken();
            assert_eq!(taken, TakenOver { flows: 500, ..TakenOver::default() });
            break;
        }
    }
    assert_eq!(check::<FlowKey4>(&third, &view), 500);
    assert!(third.v4.lookup(&key, key.hash64()).is_none(), "it had ended");
    let key = flow(450).original;
    assert_eq!(third.v4.lookup(&key, key.hash64()).unwrap().state(), State::FinFromClient, "the later state");
}

#[test]
fn what_was_entered_by_another_hash_function_is_entered_before_the_first_packet() {
    let before = with_flows(300);
    let segment = before.segment().unwrap();
    let hashes = std::mem::offset_of!(Head, hashes) as u64;
    File::from(segment.try_clone().unwrap()).write_all_at(&[0x55; 8], hashes).unwrap();
    let view = view(0, &endpoints(1), &[]);
    let tables = some_tables();
    let mut workers = [tables.worker(), tables.worker()];
    let takeover = tables.take_over(&mut workers, vec![left(&before)], &view, at(110)).unwrap();
    assert!(takeover.is_done());
    assert_eq!(check::<FlowKey4>(&tables, &view), 300);
}

#[test]
fn new_flows_leave_room_for_those_that_are_not_entered_yet() {
    let before = with_flows(1024);
    let view = view(0, &endpoints(1), &[]);
    let tables = some_tables();
    let mut workers = [tables.worker(), tables.worker()];
    let takeover = tables.take_over(&mut workers, vec![left(&before)], &view, at(110)).unwrap();
    for n in 2000..3024 {
        insert(&mut workers[1], &flow(n), at(110).0, State::SynSent);
    }
    let taken = finish(&takeover, &mut workers, &view, at(110).0);
    // One chunk is anybody's.
    assert_eq!((taken.flows, taken.no_room), (768, 256));
}
