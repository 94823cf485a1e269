//! Tap ports, with the kernel at the other end.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::net::{self, Netns, RawSocket, index, ip};
use common::{Case, ordinary_pages, pool, run, within};
use culvert_dpdk::{Burst, Eal, Mempool, Port, PortConfig, PortError, Queues, RxQueue, Vdev, lcore};
use culvert_packet::buf::PacketBuf;

static EAL: OnceLock<Eal> = OnceLock::new();

fn eal() -> &'static Eal {
    EAL.get_or_init(|| Eal::init(&ordinary_pages()).unwrap())
}

fn main() -> ExitCode {
    if common::is_root() {
        net::alone();
    }
    run(vec![
        Case::root("a_tap_carries_frames_both_ways_and_keeps_no_mbuf", both_ways),
        Case::root("the_mac_and_mtu_of_a_tap_are_its_interfaces", mac_and_mtu),
        Case::root("a_tap_works_on_in_another_namespace_and_leaves_it_when_removed", moved),
        Case::root("a_tap_whose_namespace_was_deleted_can_still_be_removed", namespace_deleted),
        Case::root("a_frame_longer_than_an_mbuf_is_counted_and_lost_alone", oversize_received),
        Case::root("a_packet_that_cannot_be_sent_does_not_take_those_behind_it_along", oversize_sent),
        Case::root("a_tap_with_two_queues_receives_on_both_together_all_frames", two_queues),
        Case::root("a_tap_that_cannot_be_made_is_refused_with_the_reason", refused),
        Case::root("when_dpdk_has_no_port_left_the_error_says_so", too_many),
        Case::root("taps_come_and_go_while_a_worker_polls_others", come_and_go),
        Case::root("frames_raise_no_signals", no_signals),
    ])
}

fn tap(interface: &str) -> Vdev {
    Vdev::Tap { interface: interface.into(), mac: None }
}

fn start(interface: &str, pool: &Mempool) -> (Port, Queues) {
    let mut port = Port::create(eal(), &tap(interface)).unwrap();
    let queues = port.start(&PortConfig { mtu: Some(1500), ..PortConfig::default() }, pool).unwrap();
    (port, queues)
}

fn remove(port: Port, pool: &Mempool) {
    let then = Instant::now();
    port.remove().unwrap();
    assert!(then.elapsed() < Duration::from_secs(10), "took {:?}", then.elapsed());
    assert_eq!(pool.in_use(), 0);
}

fn frame(n: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![n; length];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    frame
}

/// The next `n` packets.
fn receive(rx: &mut RxQueue, n: usize) -> Vec<Vec<u8>> {
    let (mut burst, mut all): (Burst<64>, _) = (Burst::new(), Vec::new());
    within(5, "frames reach the port", || {
        rx.rx(&mut burst);
        all.extend(burst.drain().map(|mbuf| mbuf.data().to_vec()));
        (all.len() >= n).then_some(())
    });
    all
}

fn both_ways() {
    let pool = pool(eal(), "both-ways", 1023);
    let (port, mut queues) = start("cvt-a", &pool);
    ip("link set cvt-a up");
    let kernel = RawSocket::on("cvt-a");
    for n in 0..100 {
        kernel.send(&frame(n, 60 + usize::from(n)));
    }
    let received = receive(&mut queues.rx[0], 100);
    assert!(received.iter().zip(0..).all(|(packet, n)| *packet == frame(n, 60 + usize::from(n))));
    let mut burst: Burst = Burst::new();
    for n in 0..50 {
        burst.push(pool.alloc_with(&frame(n, 1514)).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].tx(&mut burst), 50);
    for n in 0..50 {
        assert_eq!(kernel.receive(), frame(n, 1514));
    }
    let stats = port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.tx_bytes), (100, 50, 50 * 1514));
    assert!(port.link().unwrap().up);
    drop(queues);
    remove(port, &pool);
    assert_eq!(index("cvt-a"), None);
}

fn mac_and_mtu() {
    let pool = pool(eal(), "mac", 1023);
    let vdev = Vdev::Tap { interface: "cvt-mac".into(), mac: Some([2, 0, 0, 0, 0xc0, 1]) };
    let mut port = Port::create(eal(), &vdev).unwrap();
    let queues = port.start(&PortConfig { mtu: Some(1450), ..PortConfig::default() }, &pool).unwrap();
    assert_eq!(port.mac().unwrap(), [2, 0, 0, 0, 0xc0, 1]);
    let shown = ip("-o link show cvt-mac");
    assert!(shown.contains("mtu 1450") && shown.contains("02:00:00:00:c0:01"), "{shown}");
    port.set_mac([2, 0, 0, 0, 0xc0, 2]).unwrap();
    port.set_mtu(1400).unwrap();
    assert_eq!(port.mtu().unwrap(), 1400);
    let shown = ip("-o link show cvt-mac");
    assert!(shown.contains("mtu 1400") && shown.contains("02:00:00:00:c0:02"), "{shown}");
    assert_eq!(port.info().unwrap().if_index, index("cvt-mac"));
    drop(queues);
    remove(port, &pool);
}

fn moved() {
    let pool = pool(eal(), "moved", 1023);
    let (mut port, mut queues) = start("cvt-b", &pool);
    let pod = Netns::new("cvt-pod");
    pod.take("cvt-b");
    // As a pod sees it.
    ip(&format!("-n {} link set cvt-b down", pod.name()));
    ip(&format!("-n {} link set cvt-b name eth0", pod.name()));
    ip(&format!("-n {} link set eth0 up", pod.name()));
    let kernel = pod.within(|| RawSocket::on("eth0"));
    kernel.send(&frame(1, 60));
    assert_eq!(receive(&mut queues.rx[0], 1), [frame(1, 60)]);
    let mut burst: Burst = Burst::new();
    burst.push(pool.alloc_with(&frame(2, 60)).unwrap()).unwrap();
    assert_eq!(queues.tx[0].tx(&mut burst), 1);
    assert_eq!(kernel.receive(), frame(2, 60));
    let stats = port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets), (1, 1));
    // Some releases look the interface up by its old name in the old namespace, and cannot; none may hang or act elsewhere.
    port.link().unwrap();
    if port.set_mtu(1400).is_ok() {
        let shown = ip(&format!("-n {} -o link show eth0", pod.name()));
        assert!(shown.contains("mtu 1400"), "{shown}");
    }
    drop(queues);
    remove(port, &pool);
    assert_eq!(pod.within(|| index("eth0")), None);
    // The name is free for the next pod.
    let (port, queues) = start("cvt-b", &pool);
    drop(queues);
    remove(port, &pool);
}

fn namespace_deleted() {
    let pool = pool(eal(), "deleted", 1023);
    let (port, mut queues) = start("cvt-c", &pool);
    let pod = Netns::new("cvt-gone");
    pod.take("cvt-c");
    drop(pod);
    // The kernel takes a namespace apart some time later; the port must bear it before and after.
    let mut burst: Burst = Burst::new();
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        assert_eq!(queues.rx[0].rx(&mut burst), 0);
        for n in 0..4 {
            burst.push(pool.alloc_with(&frame(n, 60)).unwrap()).unwrap();
        }
        queues.tx[0].tx_or_drop(&mut burst);
    }
    assert!(port.stats().unwrap().tx_errors > 0);
    drop(queues);
    remove(port, &pool);
}

fn oversize_received() {
    let pool = pool(eal(), "long-rx", 1023);
    let (port, mut queues) = start("cvt-d", &pool);
    ip("link set cvt-d mtu 9000 up");
    let kernel = RawSocket::on("cvt-d");
    kernel.send(&frame(1, 60));
    kernel.send(&frame(2, 3000));
    kernel.send(&frame(3, 2048));
    assert_eq!(receive(&mut queues.rx[0], 2), [frame(1, 60), frame(3, 2048)]);
    assert_eq!(port.stats().unwrap().rx_errors + queues.rx[0].oversize(), 1);
    drop(queues);
    remove(port, &pool);
}

fn oversize_sent() {
    let pool = pool(eal(), "long-tx", 1023);
    let (port, mut queues) = start("cvt-e", &pool);
    ip("link set cvt-e up");
    let kernel = RawSocket::on("cvt-e");
    let mut burst: Burst = Burst::new();
    for (n, length) in (0..).zip([2000, 60, 60, 2000, 60]) {
        burst.push(pool.alloc_with(&frame(n, length)).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].tx_or_drop(&mut burst), 2);
    assert!(burst.is_empty());
    for n in [1, 2, 4] {
        assert_eq!(kernel.receive(), frame(n, 60));
    }
    // Down, it takes nothing.
    ip("link set cvt-e down");
    for n in 0..3 {
        burst.push(pool.alloc_with(&frame(n, 60)).unwrap()).unwrap();
    }
    let mut lengths = Vec::new();
    assert_eq!(queues.tx[0].tx_or_drop_with(&mut burst, |packet| lengths.push(packet.len())), 3);
    assert_eq!(lengths.len(), 3, "each dropped packet is shown");
    drop(queues);
    remove(port, &pool);
}

fn two_queues() {
    let pool = pool(eal(), "two", 1023);
    let mut port = Port::create(eal(), &tap("cvt-f")).unwrap();
    let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
    let uneven = PortConfig { tx_queues: 1, ..config.clone() };
    assert!(matches!(port.start(&uneven, &pool), Err(PortError::UnevenQueues { rx: 2, tx: 1, .. })));
    let mut queues = port.start(&config, &pool).unwrap();
    ip("link set cvt-f up");
    let kernel = RawSocket::on("cvt-f");
    for n in 0..64 {
        // UDP, from as many ports as frames: the kernel spreads flows.
        let mut packet = frame(0, 60);
        packet[12..14].copy_from_slice(&[8, 0]);
        packet[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet[34..42].copy_from_slice(&[0, n, 0, 9, 0, 26, 0, 0]);
        kernel.send(&packet);
    }
    let mut burst: Burst<64> = Burst::new();
    let mut counts = [0; 2];
    within(5, "all frames reach the port", || {
        for (queue, count) in queues.rx.iter_mut().zip(&mut counts) {
            *count += queue.rx(&mut burst);
            burst.clear();
        }
        (counts[0] + counts[1] == 64).then_some(())
    });
    for (n, queue) in (1..).zip(&mut queues.tx) {
        burst.push(pool.alloc_with(&frame(n, 60)).unwrap()).unwrap();
        assert_eq!(queue.tx(&mut burst), 1);
        assert_eq!(kernel.receive(), frame(n, 60));
    }
    drop((queues, burst));
    remove(port, &pool);
}

fn refused() {
    let (there, error) = {
        ip("tuntap add dev cvt-there mode tap");
        (index("cvt-there"), Port::create(eal(), &tap("cvt-there")).unwrap_err())
    };
    assert!(matches!(error, PortError::InterfaceExists { .. }), "{error}");
    assert_eq!(index("cvt-there"), there, "it is not ours to touch");
    ip("link del cvt-there");
    let error = Port::create(eal(), &tap("much-too-long-for-linux")).unwrap_err();
    assert!(matches!(error, PortError::BadDevice { field: "interface", .. }), "{error}");
    // A thread without CAP_NET_ADMIN.
    let error = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                drop_capabilities();
                Port::create(eal(), &tap("cvt-g")).unwrap_err()
            })
            .join()
            .unwrap()
    });
    assert!(matches!(error, PortError::TunNotPermitted { .. }), "{error}");
    assert_eq!(index("cvt-g"), None);
}

/// Gives up this thread's capabilities.
fn drop_capabilities() {
    #[repr(C)]
    struct Header(u32, i32);
    // Version 3 of the interface (linux/capability.h), this thread; effective, permitted and inheritable, twice.
    let (header, none) = (Header(0x2008_0522, 0), [0_u32; 6]);
    // SAFETY: reads the two structs, which are as version 3 wants them.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }, 0);
}

fn too_many() {
    let mut ports = Vec::new();
    let error = loop {
        match Port::create(eal(), &tap(&format!("cvt-n{}", ports.len()))) {
            Ok(port) => ports.push(port),
            Err(error) => break error.to_string(),
        }
        assert!(ports.len() < 1024, "this DPDK has no limit that a test could reach");
    };
    assert!(error.contains("maximum number of Ethernet ports"), "{error}");
    assert_eq!(index(&format!("cvt-n{}", ports.len())), None, "the one refused left its interface");
    ports.pop().unwrap().remove().unwrap();
    drop(Port::create(eal(), &tap("cvt-fits")).unwrap());
}

fn come_and_go() {
    let pool = pool(eal(), "come-and-go", 2047);
    let (port, mut queues) = start("cvt-stays", &pool);
    ip("link set cvt-stays up");
    let stop = Arc::new(AtomicBool::new(false));
    let worker = lcore::spawn(eal(), "echo", 0, {
        let (stop, mut rx, mut tx) = (stop.clone(), queues.rx.remove(0), queues.tx.remove(0));
        move |_| {
            let mut burst: Burst<32> = Burst::new();
            while !stop.load(Ordering::Relaxed) {
                rx.rx(&mut burst);
                assert_eq!(tx.tx_or_drop(&mut burst), 0);
            }
        }
    })
    .unwrap();
    let kernel = RawSocket::on("cvt-stays");
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for n in 0..30 {
        kernel.send(&frame(n, 60));
        let (other, mut others) = start("cvt-goes", &pool);
        ip("link set cvt-goes up");
        RawSocket::on("cvt-goes").send(&frame(n, 60));
        receive(&mut others.rx[0], 1);
        drop(others);
        other.remove().unwrap();
        assert_eq!(kernel.receive(), frame(n, 60));
        // The first round opens what is kept.
        match n {
            0 => before = open(),
            _ => assert_eq!(open(), before, "file descriptors open after round {n}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    worker.join().unwrap();
    remove(port, &pool);
}

fn no_signals() {
    let pool = pool(eal(), "signals", 1023);
    let (port, mut queues) = start("cvt-s", &pool);
    ip("link set cvt-s up");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
    let caught = u64::from_str_radix(&caught, 16).unwrap();
    let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).filter(|signal| caught >> (signal - 1) & 1 == 1);
    assert_eq!(real_time.collect::<Vec<_>>(), [0_i32; 0], "real-time signals with handlers");
    RawSocket::on("cvt-s").send(&frame(1, 60));
    assert_eq!(receive(&mut queues.rx[0], 1).len(), 1);
    drop(queues);
    remove(port, &pool);
}
