//! Ports without hardware and without root: what holds for all of them.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::ExitCode;
use std::sync::OnceLock;

use common::{Case, ordinary_pages, pool, run};
use culvert_dpdk::{Burst, Eal, Mempool, MempoolConfig, Port, PortConfig, PortError, Queues, Vdev, lcore};
use culvert_packet::buf::PacketBuf;

static EAL: OnceLock<Eal> = OnceLock::new();

fn eal() -> &'static Eal {
    EAL.get_or_init(|| Eal::init(&ordinary_pages()).unwrap())
}

fn main() -> ExitCode {
    run(vec![
        Case::new("what_a_ring_transmits_it_receives_in_order", ring),
        Case::new("a_port_cannot_be_stopped_or_removed_while_a_queue_is_held", held_queues),
        Case::new("a_port_dropped_before_its_queues_goes_with_the_last_of_them", dropped_early),
        Case::new("a_port_can_be_started_again_with_other_queues", restart),
        Case::new("a_port_keeps_the_pool_it_receives_into", keeps_pool),
        Case::new("a_device_of_a_name_that_is_taken_is_refused", taken),
        Case::new("a_driver_that_does_not_exist_is_refused_with_dpdks_reason", no_driver),
        Case::new("a_configuration_the_device_cannot_do_is_refused_and_names_the_field", bad_configurations),
        Case::new("packets_written_to_a_capture_file_are_read_back", capture_file),
        Case::new("an_empty_pool_stops_receiving_until_mbufs_come_back", empty_pool),
        Case::new("a_packet_in_several_segments_is_dropped_and_counted", segments),
        Case::new("a_worker_hands_packets_on_and_none_is_lost", worker),
    ])
}

fn start(name: &str, pool: &Mempool) -> (Port, Queues) {
    let mut port = Port::create(eal(), &Vdev::Ring { name: name.into() }).unwrap();
    let queues = port.start(&PortConfig::default(), pool).unwrap();
    (port, queues)
}

fn ring() {
    let pool = pool(eal(), "ring", 1023);
    let (port, mut queues) = start("order", &pool);
    let mut burst: Burst<64> = Burst::new();
    for n in 0..20 {
        burst.push(pool.alloc_with(&[n; 60]).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].tx(&mut burst), 20);
    assert!(burst.is_empty());
    assert_eq!(pool.in_use(), 20);
    // What is there already stays in front.
    burst.push(pool.alloc_with(b"first").unwrap()).unwrap();
    assert_eq!(queues.rx[0].rx(&mut burst), 20);
    assert_eq!(burst[0].data(), b"first");
    assert!(burst[1..].iter().zip(0..).all(|(mbuf, n)| mbuf.data() == [n; 60]));
    let stats = port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets), (20, 20));
    drop((burst, queues));
    port.remove().unwrap();
    assert_eq!(pool.in_use(), 0);
    assert!(matches!(Port::open(eal(), "net_ring_order"), Err(PortError::NoSuchPort { .. })));
}

fn held_queues() {
    let pool = pool(eal(), "held", 63);
    let (mut port, mut queues) = start("held", &pool);
    assert!(matches!(port.stop(), Err(PortError::QueuesInUse { queues: 2, .. })));
    drop(queues.tx.pop());
    let (port, error) = port.remove().unwrap_err();
    assert_eq!(error.to_string(), "port net_ring_held: 1 of its queues are still in use");
    // It runs on.
    let mut burst: Burst = Burst::new();
    assert_eq!(queues.rx[0].rx(&mut burst), 0);
    drop(queues);
    let mut port = port.unwrap();
    port.stop().unwrap();
    port.stop().unwrap();
    port.remove().unwrap();
}

fn dropped_early() {
    let pool = pool(eal(), "early", 63);
    let (port, mut queues) = start("early", &pool);
    drop(port);
    let mut burst: Burst = Burst::new();
    burst.push(pool.alloc().unwrap()).unwrap();
    assert_eq!(queues.tx[0].tx(&mut burst), 1);
    assert_eq!(queues.rx[0].rx(&mut burst), 1);
    assert!(matches!(Port::open(eal(), "net_ring_early"), Err(PortError::Owned { .. })));
    drop(queues);
    assert!(matches!(Port::open(eal(), "net_ring_early"), Err(PortError::NoSuchPort { .. })));
}

fn restart() {
    let (first, second) = (pool(eal(), "first", 1023), pool(eal(), "second", 1023));
    let mut port = Port::create(eal(), &Vdev::Null { name: "again".into(), packet: 64 }).unwrap();
    let queues = port.start(&PortConfig::default(), &first).unwrap();
    assert_eq!((queues.rx.len(), queues.tx.len()), (1, 1));
    assert!(matches!(port.start(&PortConfig::default(), &first), Err(PortError::Started { .. })));
    drop(queues);
    port.stop().unwrap();
    let config = PortConfig { rx_queues: 2, tx_queues: 3, ..PortConfig::default() };
    let mut queues = port.start(&config, &second).unwrap();
    assert_eq!((queues.rx.len(), queues.tx.len()), (2, 3));
    let mut burst: Burst<8> = Burst::new();
    assert_eq!(queues.rx[1].rx(&mut burst), 8);
    assert_eq!((first.in_use(), second.in_use()), (0, 8));
    assert!(burst.iter().all(|mbuf| mbuf.len() == 64 && mbuf.port() == port.id()));
    drop((burst, queues));
    // The first pool is not held any more: its name can be used again.
    drop(first);
    drop(pool(eal(), "first", 63));
    port.remove().unwrap();
}

fn keeps_pool() {
    let config = MempoolConfig { name: "kept".into(), mbufs: 63, cache: 0, ..MempoolConfig::default() };
    let pool = Mempool::create(eal(), &config).unwrap();
    let mut port = Port::create(eal(), &Vdev::Null { name: "keeps".into(), packet: 64 }).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    drop(pool);
    let mut burst: Burst<8> = Burst::new();
    assert_eq!(queues.rx[0].rx(&mut burst), 8);
    burst.clear();
    assert!(Mempool::create(eal(), &config).is_err(), "the pool must still be there");
    drop(queues);
    port.remove().unwrap();
    Mempool::create(eal(), &config).unwrap();
}

fn taken() {
    let ring = Vdev::Ring { name: "taken".into() };
    let port = Port::create(eal(), &ring).unwrap();
    assert!(matches!(Port::create(eal(), &ring), Err(PortError::Owned { .. })));
    assert!(matches!(Port::open(eal(), "net_ring_taken"), Err(PortError::Owned { .. })));
    assert!(matches!(Port::open(eal(), "0000:99:00.0"), Err(PortError::NoSuchPort { .. })));
    drop(port);
    drop(Port::create(eal(), &ring).unwrap());
}

fn no_driver() {
    let vdev = Vdev::Other { name: "net_nothing0".into(), arguments: String::new() };
    let error = Port::create(eal(), &vdev).unwrap_err().to_string();
    assert!(error.starts_with("net_nothing0: create the device: "), "{error}");
    assert!(error.contains("DPDK says: "), "{error}");
}

fn bad_configurations() {
    let pool = pool(eal(), "bad", 63);
    let mut port = Port::create(eal(), &Vdev::Null { name: "bad".into(), packet: 0 }).unwrap();
    let good = PortConfig::default();
    for (config, wrong) in [
        (PortConfig { rx_queues: 0, ..good.clone() }, "rx_queues"),
        (PortConfig { tx_queues: u16::MAX, ..good.clone() }, "tx_queues"),
        (PortConfig { rx_descriptors: 0, ..good.clone() }, "rx_descriptors"),
        (PortConfig { mtu: Some(1), ..good.clone() }, "mtu"),
        // Longer than the pool's mbufs, Ethernet header and VLAN tag included.
        (PortConfig { mtu: Some(2031), ..good.clone() }, "mtu"),
    ] {
        let error = port.start(&config, &pool).unwrap_err();
        assert!(matches!(&error, PortError::BadConfig { field, .. } if *field == wrong), "{wrong}: {error}");
    }
    assert!(matches!(port.set_mac([3, 0, 0, 0, 0, 1]), Err(PortError::BadMac { .. })));
    port.set_mac([2, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(port.mac().unwrap(), [2, 0, 0, 0, 0, 1]);
    // Nothing of that is left.
    let queues = port.start(&good, &pool).unwrap();
    assert!(port.link().unwrap().up);
    drop(queues);
}

fn capture_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("three.pcap");
    let pool = pool(eal(), "pcap", 255);
    let pcap = |name: &str, receive, transmit| Vdev::Pcap { name: name.into(), receive, transmit };
    let mut port = Port::create(eal(), &pcap("w", None, Some(file.clone()))).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    let mut burst: Burst = Burst::new();
    for n in 0..3 {
        burst.push(pool.alloc_with(&[n; 100]).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].tx_or_drop(&mut burst), 0);
    drop(queues);
    port.remove().unwrap();
    let mut port = Port::create(eal(), &pcap("r", Some(file), None)).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    assert_eq!(queues.rx[0].rx(&mut burst), 3);
    assert!(burst.iter().zip(0..).all(|(mbuf, n)| mbuf.data() == [n; 100]));
    drop((queues, burst));
    port.remove().unwrap();
    assert_eq!(pool.in_use(), 0);
}

fn empty_pool() {
    let pool = Mempool::create(
        eal(),
        &MempoolConfig { name: "tight".into(), mbufs: 63, cache: 0, ..MempoolConfig::default() },
    )
    .unwrap();
    let mut port = Port::create(eal(), &Vdev::Null { name: "tight".into(), packet: 64 }).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    let (mut taken, mut burst): (Burst<63>, Burst<8>) = (Burst::new(), Burst::new());
    assert!(pool.alloc_burst(&mut taken, 63));
    assert_eq!(queues.rx[0].rx(&mut burst), 0);
    taken.clear();
    assert_eq!(queues.rx[0].rx(&mut burst), 8);
    drop((queues, port, burst));
    assert_eq!(pool.in_use(), 0);
}

/// net_pcap chains mbufs when a packet is longer than one.
fn segments() {
    let frame = 128;
    let config =
        MempoolConfig { name: "small".into(), mbufs: 255, cache: 0, frame, ..MempoolConfig::default() };
    let pool = Mempool::create(eal(), &config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.pcap");
    // 24 bytes of file header; then for each packet 16 bytes of header with its length.
    let mut bytes = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1].map(u32::to_ne_bytes).concat();
    for length in [60, 300, 61_u32] {
        bytes.extend([0, 0, length, length].map(u32::to_ne_bytes).concat());
        bytes.extend(vec![7; length as usize]);
    }
    std::fs::write(&file, bytes).unwrap();
    let vdev = Vdev::Pcap { name: "long".into(), receive: Some(file), transmit: None };
    let mut port = Port::create(eal(), &vdev).unwrap();
    let config = PortConfig { mtu: Some(110), ..PortConfig::default() };
    let mut queues = port.start(&config, &pool).unwrap();
    let mut burst: Burst = Burst::new();
    assert_eq!(queues.rx[0].rx(&mut burst), 2);
    assert_eq!(burst.iter().map(PacketBuf::len).collect::<Vec<_>>(), [60, 61]);
    assert_eq!(queues.rx[0].oversize(), 1);
    drop((burst, queues));
    port.remove().unwrap();
    assert_eq!(pool.in_use(), 0);
}

fn worker() {
    let pool = pool(eal(), "worker", 4095);
    let (port, mut there) = start("there", &pool);
    let (other, mut back) = start("back", &pool);
    let (mut rx, mut tx) = (there.rx.remove(0), back.tx.remove(0));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let worker = lcore::spawn(eal(), "forward", 0, {
        let stop = stop.clone();
        move |_| {
            let mut burst: Burst<32> = Burst::new();
            let mut moved = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                moved += rx.rx(&mut burst);
                for mbuf in burst.iter_mut() {
                    mbuf.data_mut().reverse();
                }
                let _ = tx.tx(&mut burst);
                std::thread::yield_now();
            }
            moved
        }
    })
    .unwrap();
    let mut burst: Burst<64> = Burst::new();
    let mut received = 0;
    for round in 0..200_u32 {
        for n in 0..64_u32 {
            let packet = [round.to_be_bytes(), n.to_be_bytes()].concat();
            burst.push(pool.alloc_with(&packet).unwrap()).unwrap();
        }
        while !burst.is_empty() {
            let _ = there.tx[0].tx(&mut burst);
        }
        let mut n = 0;
        common::within(10, "all packets of a round come back", || {
            back.rx[0].rx(&mut burst);
            for mbuf in burst.drain() {
                let expected: Vec<u8> =
                    [round.to_be_bytes(), u32::to_be_bytes(n)].concat().into_iter().rev().collect();
                assert_eq!(mbuf.data(), expected);
                n += 1;
            }
            (n == 64).then_some(())
        });
        received += n;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((received, worker.join().unwrap()), (12800, 12800));
    drop((there, back));
    port.remove().unwrap();
    other.remove().unwrap();
    assert_eq!(pool.in_use(), 0);
}
