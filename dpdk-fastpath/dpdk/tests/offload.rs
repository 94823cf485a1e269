//! What is left to a device is what DPDK and its drivers expect.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::sync::OnceLock;

use common::net::{RawSocket, alone, ip};
use common::{Case, ordinary_pages, run};
use culvert_dpdk::{Burst, Eal, Mbuf, Mempool, MempoolConfig, Port, PortConfig, TxOffloads, Vdev};
use culvert_packet::buf::PacketBuf;
use culvert_packet::offload::Offload;
use culvert_packet::offload::request::Request;
use culvert_packet::offload::segment::Segments;
use culvert_packet::parse::parse;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::testkit;

static EAL: OnceLock<Eal> = OnceLock::new();

fn eal() -> &'static Eal {
    EAL.get_or_init(|| Eal::init(&ordinary_pages()).unwrap())
}

fn main() -> ExitCode {
    if common::is_root() {
        alone();
    }
    run(vec![
        Case::new("a_driver_gets_what_dpdk_holds_valid_and_what_its_helper_makes", as_dpdk_says),
        Case::root("net_tap_makes_the_segments_that_we_would", cut_by_net_tap),
    ])
}

fn pool(name: &str) -> Mempool {
    let config = MempoolConfig { name: name.into(), mbufs: 511, frame: 8192, ..MempoolConfig::default() };
    Mempool::create(eal(), &config).unwrap()
}

const SIZE: NonZeroU16 = NonZeroU16::new(1000).unwrap();

/// The packet of a pod, with whatever in place of its checksum.
fn inner(v6: bool, udp: bool, flags: TcpFlags) -> Vec<u8> {
    let ends = match v6 {
        true => ["[fd00::5]:40000", "[fd00:1::7]:8080"],
        false => ["10.244.1.5:40000", "10.244.2.7:8080"],
    };
    let [src, dst] = ends.map(|end| end.parse::<SocketAddr>().unwrap());
    let payload: Vec<u8> = (0..3500).map(|i| (i * 7 + i / 251) as u8).collect();
    match udp {
        true => testkit::udp(src, dst, &payload),
        false => testkit::tcp(src, dst, flags, &payload),
    }
}

/// The same in a tunnel with an outer UDP checksum, or none.
fn outer(v6: bool, geneve: bool, inner: &[u8]) -> Vec<u8> {
    let ends =
        if v6 { ["[fd00:9::1]:50000", "[fd00:9::2]:1"] } else { ["192.168.0.1:50000", "192.168.0.2:1"] };
    let [src, dst] = ends.map(|end| end.parse::<SocketAddr>().unwrap());
    let mut frame = match geneve {
        true => testkit::geneve(src, dst.ip(), 7, &[], inner),
        false => testkit::vxlan(src, dst.ip(), 7, inner),
    };
    if !v6 {
        frame[40..42].fill(0);
    }
    frame
}

/// What DPDK's own helper for drivers makes of the checksum fields of a packet.
fn helped(mut packet: Mbuf) -> Vec<u8> {
    // SAFETY: an mbuf is a pointer to one (repr(transparent)), which lives as long as `packet`; the helper changes its
    // bytes only.
    let result = unsafe {
        let pointer = std::mem::transmute_copy::<Mbuf, *mut dpdk_sys::rte_mbuf>(&packet);
        dpdk_sys::shim_tx_checksums(pointer)
    };
    assert_eq!(result, 0);
    packet.data_mut().to_vec()
}

fn as_dpdk_says() {
    let pool = pool("as-dpdk-says");
    let mut port = Port::create(eal(), &Vdev::Null { name: "valid".into(), packet: 0 }).unwrap();
    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    for case in 0..64 {
        let [udp, v6, tunnels, outer_v6, geneve, whole] = [0, 1, 2, 3, 4, 5].map(|bit| case >> bit & 1 == 1);
        let inner = inner(v6, udp, TcpFlags::ACK | TcpFlags::PSH);
        let frame = if tunnels { outer(outer_v6, geneve, &inner) } else { inner };
        let offload = Offload { segment: (!whole).then_some(SIZE), partial: true };
        let request = Request::of(&frame, offload, tunnels).unwrap();
        let mut packet = pool.alloc_with(&frame).unwrap();
        packet.set_offload(offload);
        assert!(queues.tx[0].leave(&mut packet, &request), "{request:?}");
        let mut ours = packet.data().to_vec();
        let mut theirs = helped(packet);
        let field = ours.len() - 3500 - if udp { 2 } else { 4 };
        if udp && !whole {
            // Whether the length is in the sum depends on the release.
            ours[field..field + 2].fill(0);
            theirs[field..field + 2].fill(0);
        }
        if whole {
            // Of a packet that stays whole it is the pod's kernel that fills it in.
            request.prepare(&mut ours);
            request.restore(&mut ours);
        }
        assert!(ours == theirs, "{request:?}");
    }
    drop(queues);
    port.remove().map_err(|(_, error)| error).unwrap();
    assert_eq!(pool.in_use(), 0);
}

/// DPDK's GSO library, which net_tap has in place of hardware, reads an mbuf as a NIC does.
fn cut_by_net_tap() {
    let pool = pool("net-tap");
    let mut port = Port::create(eal(), &Vdev::Tap { interface: "cvt-t".into(), mac: None }).unwrap();
    let asked = TxOffloads::TCP_TSO.and(TxOffloads::TCP_CKSUM).and(TxOffloads::IPV4_CKSUM);
    assert!(port.info().unwrap().tx_offloads.contains(asked));
    let config = PortConfig { mtu: Some(1500), tx_offloads: asked, ..PortConfig::default() };
    let mut queues = port.start(&config, &pool).unwrap();
    ip("link set cvt-t up");
    let socket = RawSocket::on("cvt-t");

    let frame = inner(false, false, TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN);
    let offload = Offload { segment: Some(SIZE), partial: true };
    let request = Request::of(&frame, offload, false).unwrap();
    assert_eq!(TxOffloads::needed(&request), asked);
    let mut packet = pool.alloc_with(&frame).unwrap();
    assert!(queues.tx[0].leave(&mut packet, &request));
    let mut burst: Burst<1> = Burst::new();
    burst.push(packet).unwrap();
    assert_eq!(queues.tx[0].tx_or_drop(&mut burst), 0);

    let parsed = parse(&frame).unwrap();
    let segments = Segments::new(&frame, &parsed, SIZE).unwrap();
    for nth in 0..segments.count() {
        let mut ours = vec![0; segments.len(nth)];
        segments.write(nth, &mut ours);
        assert!(socket.receive() == ours, "segment {nth}");
    }
    assert!(socket.try_receive().is_none());
    drop(queues);
    port.remove().map_err(|(_, error)| error).unwrap();
}
