//! Receives from a NIC and sleeps in between: what a receive interrupt does, by itself.
//!
//! `interrupts PCI-ADDRESS PACKETS`, of a NIC whose driver is vfio-pci. Prints its MAC address and how it tells of packets;
//! and, for each packet that ends in `culvert`, how many milliseconds after it went to sleep it was awake again.

use std::error::Error;
use std::time::{Duration, Instant};

use culvert_dpdk::{Burst, Eal, EalConfig, Mempool, MempoolConfig, Notice, Pci, Port, PortConfig, RxQueue};
use culvert_packet::buf::PacketBuf as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Longest sleep: so it is seen when nothing wakes it.
const LONGEST: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(device), Some(packets)) = (arguments.next(), arguments.next()) else {
        return Err("usage: interrupts PCI-ADDRESS PACKETS".into());
    };
    let mut left: u32 = packets.parse()?;
    let config = EalConfig { pci: Pci::Allow(vec![device.clone()]), megabytes: 64, ..EalConfig::default() };
    let eal = Eal::init(&config)?;
    let pool = Mempool::create(&eal, &MempoolConfig { mbufs: 2047, ..MempoolConfig::default() })?;
    let mut port = Port::open(&eal, &device)?;
    let mut queues = port.start(&PortConfig { interrupts: true, ..PortConfig::default() }, &pool)?;
    println!("{} {:?}", port.mac()?.map(|byte| format!("{byte:02x}")).join(":"), port.notice());
    if port.notice() == Notice::Never {
        return Ok(());
    }
    let rx = &mut queues.rx[0];
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let descriptor = rx.descriptor().ok_or("it has no descriptor")?;
    epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
    while left > 0 {
        // In this order: a packet that came before the interrupts were on raises none.
        let armed = rx.arm();
        let mut slept = Duration::ZERO;
        let mut received = receive(rx);
        if received == 0 && armed {
            let asleep = Instant::now();
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::try_from(LONGEST)?)?;
            slept = asleep.elapsed();
            received = receive(rx);
        }
        rx.disarm();
        for _ in 0..received.min(left) {
            println!("{}", slept.as_millis());
        }
        left = left.saturating_sub(received);
    }
    Ok(())
}

/// How many packets are there that are meant.
fn receive(rx: &mut RxQueue) -> u32 {
    let mut burst: Burst<64> = Burst::new();
    let mut count = 0;
    while rx.rx(&mut burst) > 0 {
        count += burst.drain().filter(|packet| packet.data().ends_with(b"culvert")).count() as u32;
    }
    count
}
