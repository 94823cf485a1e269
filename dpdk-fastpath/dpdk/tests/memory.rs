//! Pools, mbufs and bursts: what is taken comes back, exactly once.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::ExitCode;
use std::sync::OnceLock;

use common::{Case, ordinary_pages, pool, run};
use culvert_dpdk::hash::{self, HashTable};
use culvert_dpdk::{Burst, Eal, Mempool, MempoolConfig, MempoolError, lcore, tsc};
use culvert_packet::buf::PacketBuf;

static EAL: OnceLock<Eal> = OnceLock::new();

fn eal() -> &'static Eal {
    EAL.get_or_init(|| Eal::init(&ordinary_pages()).unwrap())
}

fn main() -> ExitCode {
    run(vec![
        Case::new("every_mbuf_comes_back_to_its_pool_exactly_once", accounting),
        Case::new("an_empty_pool_gives_nothing_and_a_burst_gets_all_or_none", exhaustion),
        Case::new("an_mbuf_grows_and_shrinks_on_both_sides_within_its_buffer", edges),
        Case::new("a_bad_pool_is_refused_and_names_the_field", bad_pools),
        Case::new("a_pool_larger_than_the_memory_is_refused_with_what_it_needs", no_memory),
        Case::new("a_pool_is_freed_with_its_last_handle_unless_an_mbuf_is_out", lifetime),
        Case::new("mbufs_freed_by_workers_are_counted_in_their_caches", workers),
        Case::new("a_worker_on_a_cpu_that_is_not_there_is_refused", no_such_cpu),
        Case::new("a_panic_of_a_worker_comes_back_and_its_lcore_is_free_again", worker_panic),
        Case::new("a_hash_table_finds_the_keys_that_were_added_and_no_others", hash_table),
        Case::new("the_counter_runs_at_the_rate_it_says", clock),
    ])
}

fn accounting() {
    let pool = pool(eal(), "accounting", 1023);
    assert_eq!((pool.size(), pool.available(), pool.in_use()), (1023, 1023, 0));
    let one = pool.alloc().unwrap();
    assert_eq!(pool.in_use(), 1);
    let mut burst: Burst<8> = Burst::new();
    burst.push(one).unwrap();
    assert!(pool.alloc_burst(&mut burst, 7));
    assert_eq!((burst.len(), burst.is_full(), pool.in_use()), (8, true, 8));
    let ninth = burst.push(pool.alloc().unwrap()).unwrap_err();
    drop(ninth);
    assert_eq!(pool.in_use(), 8);
    drop(burst.pop());
    let mut taken = burst.drain();
    let (first, second) = (taken.next().unwrap(), taken.next().unwrap());
    assert_eq!(taken.len(), 5);
    drop(taken);
    assert_eq!((burst.len(), pool.in_use()), (0, 2));
    burst.push(first).unwrap();
    drop((burst, second));
    assert_eq!(pool.in_use(), 0);
}

fn hash_table() {
    let before = hash::memory_used(eal());
    let table: HashTable<16> = HashTable::create(eal(), "keys", 1000).unwrap();
    assert!(hash::memory_used(eal()) >= before + 1000 * 16);
    let key = |n: u128| n.to_be_bytes();
    for n in 0..1000 {
        table.add(&key(n), 1).unwrap();
        // It is there already.
        table.add(&key(n), n as usize + 5).unwrap();
    }
    for first in (0..1000_usize).step_by(40) {
        // As many that are there as are not.
        let keys: Vec<_> =
            (first..first + 40).flat_map(|n| [key(n as u128), key(n as u128 + 1000)]).collect();
        let keys: Vec<_> = keys.iter().collect();
        let mut values = [0; 80];
        // No more than BULK at once.
        assert_eq!(table.lookup_bulk(&keys, &mut values), u64::MAX / 3);
        assert_eq!(table.lookup_bulk(&keys[hash::BULK..], &mut values[hash::BULK..]), 0x5555);
        for (n, values) in values.chunks(2).enumerate() {
            assert_eq!(values, [first + n + 5, 0]);
        }
    }
    assert_eq!(table.lookup_bulk(&[], &mut []), 0);
    let taken = HashTable::<16>::create(eal(), "keys", 10).unwrap_err();
    assert!(taken.to_string().starts_with("hash keys: create: File exists"), "{taken}");
    drop(table);
    assert_eq!(hash::memory_used(eal()), before);
}

fn exhaustion() {
    let pool = pool(eal(), "exhaustion", 63);
    let mut burst: Burst<64> = Burst::new();
    assert!(!pool.alloc_burst(&mut burst, 64), "64 of 63");
    assert!(burst.is_empty());
    assert!(pool.alloc_burst(&mut burst, 63));
    assert!(pool.alloc().is_none());
    assert!(!pool.alloc_burst(&mut burst, 2), "more than the burst has room for");
    burst.clear();
    assert_eq!(pool.available(), 63);
}

fn edges() {
    let pool = pool(eal(), "edges", 63);
    let mut mbuf = pool.alloc().unwrap();
    let (head, tail) = (mbuf.headroom(), mbuf.tailroom());
    assert_eq!((mbuf.len(), head, tail), (0, 128, usize::from(pool.frame())));
    mbuf.append(tail).unwrap().fill(7);
    assert!(mbuf.append(1).is_none());
    assert!(mbuf.prepend(head + 1).is_none());
    mbuf.prepend(head).unwrap()[..head].fill(9);
    assert_eq!((mbuf.len(), mbuf.headroom(), mbuf.tailroom()), (head + tail, 0, 0));
    assert_eq!((mbuf.data()[head - 1], mbuf.data()[head]), (9, 7));
    assert!(!mbuf.trim_front(head + tail + 1));
    assert!(mbuf.trim_front(head + 1));
    mbuf.truncate(usize::MAX);
    assert_eq!(mbuf.len(), tail - 1);
    mbuf.truncate(3);
    assert_eq!(mbuf.data(), [7, 7, 7]);
    assert_eq!((mbuf.headroom(), mbuf.tailroom()), (head + 1, tail - 4));
    // One that went back in a strange state comes out fresh.
    drop(mbuf);
    let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(all.len(), 63);
    assert!(all.iter().all(|mbuf| mbuf.is_empty() && mbuf.headroom() == head));
    assert!(pool.alloc_with(&[0; 9]).is_none(), "the pool is empty");
    drop(all);
    assert_eq!(pool.alloc_with(b"abc").unwrap().data(), b"abc");
    assert!(pool.alloc_with(&vec![0; tail + 1]).is_none(), "longer than a frame");
    assert_eq!(pool.in_use(), 0);
}

fn bad_pools() {
    let good = MempoolConfig { name: "bad".into(), mbufs: 255, cache: 0, ..MempoolConfig::default() };
    for (config, field) in [
        (MempoolConfig { name: String::new(), ..good.clone() }, "name"),
        (MempoolConfig { name: "x".repeat(25), ..good.clone() }, "name"),
        (MempoolConfig { name: "a\0b".into(), ..good.clone() }, "name"),
        (MempoolConfig { mbufs: 0, ..good.clone() }, "mbufs"),
        (MempoolConfig { cache: 171, ..good.clone() }, "cache"),
        (MempoolConfig { cache: 513, mbufs: 8191, ..good.clone() }, "cache"),
        (MempoolConfig { frame: 0, ..good.clone() }, "frame"),
        (MempoolConfig { frame: u16::MAX, ..good.clone() }, "frame"),
    ] {
        let error = Mempool::create(eal(), &config).unwrap_err();
        assert!(
            matches!(&error, MempoolError::BadConfig { field: f, .. } if *f == field),
            "{field}: {error}"
        );
    }
    let most = Mempool::create(eal(), &MempoolConfig { cache: 170, ..good.clone() }).unwrap();
    let twice = Mempool::create(eal(), &good).unwrap_err();
    assert!(twice.to_string().contains("File exists"), "{twice}");
    drop(most);
}

fn no_memory() {
    let config = MempoolConfig { name: "huge".into(), mbufs: 1 << 20, ..MempoolConfig::default() };
    let error = Mempool::create(eal(), &config).unwrap_err();
    assert!(matches!(error, MempoolError::NoMemory { megabytes: 2368, .. }), "{error}");
}

fn lifetime() {
    let first = pool(eal(), "lifetime", 63);
    let second = first.clone();
    drop(first);
    drop(second.alloc());
    drop(second);
    // The name is free again, so the pool is gone.
    let again = pool(eal(), "lifetime", 63);
    let mut out = again.alloc_with(b"still here").unwrap();
    drop(again);
    assert!(
        Mempool::create(eal(), &MempoolConfig { name: "lifetime".into(), ..Default::default() }).is_err()
    );
    out.data_mut()[0] = b'S';
    assert_eq!(out.data(), b"Still here");
}

fn workers() {
    let pool = pool(eal(), "workers", 1023);
    let ids: Vec<u32> = (0..2)
        .map(|n| {
            let pool = pool.clone();
            // Both on one CPU, which every machine has; the lcore numbers differ all the same.
            lcore::spawn(eal(), &format!("worker-{n}"), 0, move |lcore| {
                assert_eq!(lcore.cpu(), 0);
                let mut burst: Burst<32> = Burst::new();
                for _ in 0..1000 {
                    assert!(pool.alloc_burst(&mut burst, 32));
                    burst.clear();
                }
                // Nobody gets this number before both workers have theirs.
                std::thread::sleep(std::time::Duration::from_millis(50));
                lcore.id()
            })
            .unwrap()
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|worker| worker.join().unwrap())
        .collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(pool.in_use(), 0);
}

fn no_such_cpu() {
    let error = lcore::spawn(eal(), "nowhere", 1023, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "worker nowhere: cpu 1023: not online, or not allowed to this process");
    assert!(lcore::spawn(eal(), "nowhere", u32::MAX, |_| ()).is_err());
}

fn worker_panic() {
    // More often than there are lcore numbers.
    for _ in 0..200 {
        let worker =
            lcore::spawn(eal(), "fails", 0, |_| std::panic::resume_unwind(Box::new("on purpose"))).unwrap();
        let panic: Result<(), _> = worker.join();
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }
}

fn clock() {
    let (start, then) = (tsc::now(), std::time::Instant::now());
    std::thread::sleep(std::time::Duration::from_millis(200));
    let seconds = (tsc::now() - start) as f64 / tsc::hz(eal()) as f64;
    let real = then.elapsed().as_secs_f64();
    assert!((seconds / real - 1.0).abs() < 0.05, "{seconds} s counted in {real} s");
}
