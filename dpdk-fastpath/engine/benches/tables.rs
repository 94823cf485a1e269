//! What single look-ups cost: `cargo bench -p culvert-engine`. `culvert-bench lookup` measures bursts of them.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use culvert_engine::flow::{FlowTables, FlowWorker, Out, Record, Route, State, Tick};
use culvert_engine::table::{BackendId, Choice, Maglev, PortIndex};
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;

const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 80);
const ENDPOINT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 244, 2, 10), 8080);

fn key(n: u32, dst: (Ipv4Addr, u16)) -> FlowKey4 {
    let client = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + n / 50_000);
    FlowKey4::new(Tenant::DEFAULT, Protocol::UDP, (client, 10_000 + (n % 50_000) as u16), dst)
}

/// A table with so many flows.
fn filled(flows: u32) -> Option<FlowWorker> {
    let mut worker = FlowTables::new(flows).ok()?.worker();
    for n in 0..flows {
        let record = Record {
            original: key(n, SERVICE),
            translated: key(n, ENDPOINT),
            route: Route { epoch: 1, forward: Out::Remote(0), reply: Out::Pod(PortIndex(1)) },
            service: 0,
            backend: BackendId { slot: 0, generation: 0 },
        };
        let FlowWorker { tables, arena4, .. } = &mut worker;
        tables.v4.insert(arena4, &record, Tick::at(Duration::ZERO), State::TwoWay).ok()?;
    }
    Some(worker)
}

fn flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow");
    for flows in [1_000, 1_000_000] {
        let Some(worker) = filled(flows) else { continue };
        let table = &worker.tables.v4;
        let mut n = 0_u32;
        // A stride that is prime to the number of flows, so that all have their turn in no order of use to a cache.
        let mut next = || {
            n = (n + 386_117) % flows;
            n
        };
        group.bench_function(format!("found, of {flows}"), |b| {
            b.iter(|| {
                let key = key(next(), SERVICE);
                table.lookup(black_box(&key), key.hash64())
            });
        });
        group.bench_function(format!("not found, of {flows}"), |b| {
            b.iter(|| {
                let key = key(next(), (SERVICE.0, 81));
                table.lookup(black_box(&key), key.hash64())
            });
        });
    }
    group.finish();
}

fn maglev(c: &mut Criterion) {
    let mut group = c.benchmark_group("maglev");
    for endpoints in [10_u16, 1_000] {
        let choice = |index: u16| {
            let identity = key(index.into(), ENDPOINT).hash64();
            Choice { index, identity, weight: 1 }
        };
        let choices: Vec<_> = (0..endpoints).map(choice).collect();
        let table = Maglev::new(&choices);
        let mut hash = 0_u64;
        group.bench_function(format!("pick, of {endpoints}"), |b| {
            b.iter(|| {
                hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
                table.pick(black_box(hash))
            });
        });
        group.bench_function(format!("build, of {endpoints}"), |b| {
            b.iter(|| Maglev::new(black_box(&choices)));
        });
        group.bench_function(format!("one less, of {endpoints}"), |b| {
            b.iter(|| table.successor(black_box(&choices[1..])));
        });
    }
    group.finish();
}

criterion_group!(benches, flows, maglev);
criterion_main!(benches);
