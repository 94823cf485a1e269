//! Ports made while the program runs: no packet lost, no mbuf lost, nothing left behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::ExitCode;
use std::sync::OnceLock;

use common::{Case, Netns, ip, ordinary_pages, pool, run, within};
use culvert_dpdk::{Burst, Eal, Port, PortConfig, PortError, Vdev};
use culvert_packet::buf::PacketBuf;

static EAL: OnceLock<Eal> = OnceLock::new();

fn eal() -> &'static Eal {
    EAL.get_or_init(|| Eal::init(&ordinary_pages()).unwrap())
}

fn main() -> ExitCode {
    run(vec![
        Case::new("what_a_ring_transmits_it_receives", ring),
        Case::root("a_tap_carries_frames_both_ways", tap),
    ])
}

fn ring() {
    let pool = pool(eal(), "ring", 1023);
    let mut port = Port::create(eal(), &Vdev::Ring { name: "r".into() }).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    let mut burst: Burst<64> = Burst::new();
    for n in 0..20_u8 {
        burst.push(pool.alloc_with(&[n; 60]).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].tx(&mut burst), 20);
    assert!(burst.is_empty());
    assert_eq!(pool.in_use(), 20);
    assert_eq!(queues.rx[0].rx(&mut burst), 20);
    assert!(burst.iter().zip(0..).all(|(mbuf, n)| mbuf.data() == [n; 60]));
    drop(burst);
    assert_eq!(pool.in_use(), 0);
    let (port, error) = port.remove().unwrap_err();
    assert!(matches!(error, PortError::QueuesInUse { queues: 2, .. }), "{error}");
    drop(queues);
    port.unwrap().remove().unwrap();
    assert!(matches!(Port::open(eal(), "net_ring_r"), Err(PortError::NoSuchPort { .. })));
}

fn tap() {
    let pool = pool(eal(), "tap", 4095);
    let mac = [2, 0, 0, 0, 0xc0, 1];
    let vdev = Vdev::Tap { interface: "cvtest0".into(), mac: Some(mac) };
    let mut port = Port::create(eal(), &vdev).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    assert_eq!(port.mac().unwrap(), mac);
    println!("{:?} {:?} mtu {:?} in use {}", port.info(), port.link(), port.mtu(), pool.in_use());
    let ns = Netns::new("cvtest");
    ip(&format!("link set cvtest0 netns {}", ns.0));
    ip(&format!("-n {} link set cvtest0 up", ns.0));
    let mut burst: Burst<64> = Burst::new();
    within(5, "the kernel sends something", || (queues.rx[0].rx(&mut burst) > 0).then_some(()));
    println!("{burst:?} {:?} {:?}", port.stats(), port.link());
    burst.clear();
    drop(queues);
    port.remove().unwrap();
    assert_eq!(pool.in_use(), 0);
}
