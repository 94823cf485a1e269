//! The table as it fills, and what it takes.

use super::*;

#[test]
fn all_records_are_looked_at_once_in_vain_and_then_not_before_time_goes_on() {
    let mut worker = FlowTables::new(1000).unwrap().worker();
    let (table, arena) = (&worker.tables.v4, &mut worker.arena4);
    for n in 0..1000 {
        table.insert(arena, &record(n, 1), tick(0), State::SynSent).unwrap();
    }
    let sweep = |now| Sweep { now: tick(now), pressure: true, records: 64, flows: 4, ..SWEEP };
    let sweeps = (0..).take_while(|_| {
        let more = !arena.is_in_vain(tick(2));
        assert_eq!(arena.sweep(table, sweep(2), |_| false, |_, _| ()), 0);
        more
    });
    assert_eq!(sweeps.count(), 1024 / 64);
    assert!(!arena.is_in_vain(tick(6)));
    // Then they go, a few at a time.
    for _ in 0..250 {
        assert_eq!(arena.sweep(table, sweep(6), |_| false, |_, _| ()), 4);
        assert!(!arena.is_in_vain(tick(6)));
    }
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn a_growing_index_enters_every_flow_and_keeps_to_the_levels_that_are_written_down() {
    let mut worker = FlowTables::new(200_000).unwrap().worker();
    let table = &worker.tables.v4;
    let mut full_early = 0;
    for n in 0..40_000 {
        let (before, _) = table.levels();
        table.insert(&mut worker.arena4, &record(n, 1), tick(0), State::SynSent).unwrap();
        let (size, reached) = table.levels();
        // Those of a chunk of records are counted when it is claimed.
        full_early += u32::from(size > before && n % arena::CHUNK != 0);
        assert!(
            reached >= size,
            "flow {n}: keys in a level of {size}, of which none beyond {reached} is known"
        );
    }
    assert!(full_early > 0, "no level was without room for a key");
    assert!((0..40_000).all(|n| get(table, &record(n, 1).original).is_some()));
}

#[test]
fn what_one_worker_uses_up_leaves_something_for_the_others_and_the_other_version() {
    let tables = FlowTables::new(64 * arena::CHUNK).unwrap();
    let mut greedy = tables.worker();
    let mut n = 0;
    while tables.v4.insert(&mut greedy.arena4, &record(n, 1), tick(0), State::SynSent).is_ok() {
        n += 1;
    }
    assert_eq!(u64::from(n), tables.capacity());
    assert!(greedy.arena4.is_short(&tables.v4));
    let mut other = tables.worker();
    let more = (n..)
        .take_while(|&n| tables.v4.insert(&mut other.arena4, &record(n, 1), tick(0), State::SynSent).is_ok());
    // An eighth in all, of which each of four arenas may have as much.
    assert_eq!(more.count(), 2 * arena::CHUNK as usize);
    tables.v6.insert(&mut other.arena6, &record6(0), tick(0), State::SynSent).unwrap();
}

/// Flow `n` to a service over IPv6.
fn record6(n: u32) -> Record<FlowKey6> {
    let key = |dst: (&str, u16)| {
        let client =
            (std::net::Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n >> 12)), 1000 + (n & 0xfff) as u16);
        FlowKey6::new(Tenant::DEFAULT, Protocol::TCP, client, (dst.0.parse().unwrap(), dst.1))
    };
    let Record { route, service, backend, .. } = record(n, 1);
    Record {
        original: key(("fd00:96::1", 80)),
        translated: key(("fd00:2::1", 8080)),
        route,
        service,
        backend,
    }
}

/// Fills a table of so many flows, and ends all of them.
fn live_and_die<K: Key>(
    tables: &Arc<FlowTables>,
    flows: u32,
    record: impl Fn(u32) -> Record<K>,
) -> (usize, u32) {
    let mut worker = tables.worker();
    let (table, arena, _) = K::parts(&mut worker);
    assert!(table.resident() < 1 << 20, "an empty table takes memory");
    let mut filled = [0; 2];
    for (part, filled) in filled.iter_mut().enumerate() {
        for n in part as u32 * flows / 2..(part as u32 + 1) * flows / 2 {
            table.insert(arena, &record(n), tick(0), State::SynSent).unwrap();
        }
        table.give_back();
        *filled = table.resident();
    }
    println!("{flows} connections: {:.0} bytes each", filled[1] as f64 / f64::from(flows));
    // Records are taken as they fill.
    assert!(filled[1] - filled[0] > flows as usize * size_of::<K::Line>() / 3, "{filled:?}");
    // None of them goes too early, and all go at the end, a bounded number at a time.
    let sweep = |now| Sweep { now: tick(now), pressure: false, records: 256, flows: 32, ..SWEEP };
    for _ in 0..flows / 256 {
        assert_eq!(arena.sweep(table, sweep(240), |_| false, |_, _| ()), 0);
    }
    let mut sweeps = 0;
    let mut left = flows;
    while left > 0 {
        let ended = arena.sweep(table, sweep(250), |_| false, |_, _| ());
        assert!((1..=32).contains(&ended));
        left -= ended as u32;
        sweeps += 1;
    }
    assert_eq!(table.iter().count(), 0);
    // The records are used again.
    for n in 0..1000 {
        table.insert(arena, &record(flows + n), tick(260), State::SynSent).unwrap();
    }
    assert!(table.resident() <= filled[1] + (1 << 21));
    (filled[1], sweeps)
}

#[test]
fn a_million_connections_take_no_more_than_128_bytes_each_and_go_in_bounded_steps() {
    const FLOWS: u32 = 1 << 20;
    let (bytes, sweeps) = live_and_die(&FlowTables::new(FLOWS).unwrap(), FLOWS, |n| record(n, 1));
    assert!(bytes / FLOWS as usize <= 128, "{} bytes per connection", bytes as f64 / f64::from(FLOWS));
    assert_eq!(sweeps, FLOWS / 32);
}

#[test]
fn connections_of_a_million_take_no_more_than_128_bytes_each_unless_the_index_has_just_grown() {
    let (own, shared) = (FlowTables::new(1 << 20), FlowTables::shared(1 << 20, 64, false));
    for (tables, kind) in [(own, "own"), (shared, "shared")] {
        let mut worker = tables.unwrap().worker();
        let table = &worker.tables.v4;
        for n in 1..=550_000 {
            table.insert(&mut worker.arena4, &record(n, 1), tick(0), State::SynSent).unwrap();
            let most = match n {
                // The index takes 4 MB.
                100_000 => 128,
                // It grows to 8 MB, and not all keys have been moved.
                140_000 => 176,
                200_000 => 128,
                // It has grown to 32 MB.
                400_000 => 160,
                550_000 => 128,
                _ => continue,
            };
            worker.tables.give_back();
            let bytes = table.resident() as f64 / f64::from(n);
            println!("{n} connections, {kind}: {bytes:.0} bytes each");
            assert!(bytes <= f64::from(most), "{n} connections, {kind}: {bytes} bytes each");
        }
    }
}

#[test]
fn a_new_flow_moves_one_bucket_and_no_level_is_full_before_the_one_before_it_is_empty() {
    let mut worker = FlowTables::new(100_000).unwrap().worker();
    let table = &worker.tables.v4;
    let mut sizes = vec![table.levels().0];
    for n in 0..100_000 {
        let emptied = table.emptied();
        table.insert(&mut worker.arena4, &record(n, 1), tick(0), State::SynSent).unwrap();
        match (emptied, table.emptied()) {
            (Some(before), Some(now)) => assert_eq!(now - before, 1, "flow {n}"),
            (None, Some(now)) => assert!(now <= 1, "flow {n} moved {now} buckets"),
            (_, None) => {}
        }
        let (size, _) = table.levels();
        if size != sizes[sizes.len() - 1] {
            assert_eq!(emptied, None, "flow {n}: grown to {size} while keys were being moved");
            sizes.push(size);
        }
    }
    assert_eq!(sizes, [1024, 4096, 16_384, 65_536]);
}

#[test]
fn ipv6_connections_take_no_more_than_192_bytes_each_also_where_another_process_can_take_them_over() {
    const FLOWS: u32 = 1 << 18;
    let own = FlowTables::new(FLOWS).unwrap();
    let shared = FlowTables::shared(FLOWS, 64, false).unwrap();
    for tables in [own, shared] {
        let (bytes, _) = live_and_die(&tables, FLOWS, record6);
        assert!(bytes / FLOWS as usize <= 192, "{} bytes per connection", bytes as f64 / f64::from(FLOWS));
    }
}
