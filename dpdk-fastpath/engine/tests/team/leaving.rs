//! How packets leave.

use culvert_api::fastpath as proto;
use culvert_dpdk::{Burst, Eal, Mbuf, Mempool, MempoolConfig, Port, PortConfig, RxQueue, TxQueue, Vdev};
use culvert_engine::counter::counters;
use culvert_engine::flow::{FlowTables, Tick};
use culvert_engine::pipeline::Pipeline;
use culvert_engine::port::{Queues, Rx};
use culvert_engine::table::{self, Builder, PortIndex, Snapshot};
use culvert_engine::worker::{BURST, Forwarder, WorkerPort};
use culvert_packet::eth::EthAddr;
use culvert_packet::{PacketBuf, testkit};

const GATEWAY_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xfe]);

const SENDERS: [u8; 2] = [1, 2];
const RECEIVERS: [u8; 3] = [3, 4, 5];

/// A packet's sender and receiver, and its number.
type Known = (u8, u8, u16);

/// A port of each of the pods.
fn snapshot() -> Snapshot {
    let mut builder = Builder::new();
    for pod in SENDERS.into_iter().chain(RECEIVERS) {
        let request = proto::AttachPortRequest {
            name: format!("pod{pod}"),
            addresses: vec![vec![10, 244, 1, pod]],
            mac: vec![2, 0, 0, 0, 1, pod],
            mtu: 1450,
            ..proto::AttachPortRequest::default()
        };
        builder.attach(PortIndex(pod.into()), table::Port::try_from(&request).unwrap()).unwrap();
    }
    let node = proto::LocalNode {
        name: "node".into(),
        gateways: vec![vec![10, 244, 1, 254]],
        gateway_mac: GATEWAY_MAC.0.to_vec(),
        underlay: vec![proto::UnderlayAddress {
            address: vec![192, 168, 0, 1],
            prefix_len: 24,
            router: vec![],
        }],
        vtep_mac: vec![2, 0, 0, 0, 2, 1],
        vni: 1,
        pod_cidrs: vec![proto::Prefix { address: vec![10, 244, 1, 0], prefix_len: 24 }],
        ..proto::LocalNode::default()
    };
    let tables = proto::Tables { revision: 1, synced: true, node: Some(node), ..proto::Tables::default() };
    builder.apply(&tables).unwrap();
    builder.snapshot()
}

fn frame((from, to, n): Known) -> Vec<u8> {
    let at = |pod: u8| (std::net::Ipv4Addr::from([10, 244, 1, pod]), 7).into();
    let frame = testkit::udp(at(from), at(to), &n.to_be_bytes());
    testkit::with_macs(frame, GATEWAY_MAC, EthAddr([2, 0, 0, 0, 1, from]))
}

fn read(packet: &Mbuf) -> Known {
    let bytes = packet.data();
    (bytes[29], bytes[33], u16::from_be_bytes([bytes[42], bytes[43]]))
}

/// Rings: what is put into a sender's comes from it, and what a receiver gets is in its own.
struct Pods {
    devices: Vec<Port>,
    senders: Vec<TxQueue>,
    receivers: Vec<RxQueue>,
    forwarder: Forwarder,
    snapshot: Snapshot,
}

impl Pods {
    fn new(eal: &Eal, pool: &Mempool, pipeline: Pipeline) -> Self {
        let (mut devices, mut senders, mut receivers) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = |vdev: &Vdev, tx_queues| {
            let mut port = Port::create(eal, vdev).unwrap();
            let queues = port.start(&PortConfig { tx_queues, ..PortConfig::default() }, pool).unwrap();
            devices.push(port);
            queues
        };
        // Nothing is sent to those who send.
        let null = start(&Vdev::Null { name: "leaving".into(), packet: 0 }, SENDERS.len() as u16);
        let mut nulls = Queues::of_device(null, false, pool).tx.into_iter();
        let mut forwarder = Forwarder::new(pipeline);
        for pod in SENDERS.into_iter().chain(RECEIVERS) {
            let mut queues = start(&Vdev::Ring { name: format!("leaving{pod}") }, 1);
            let rx = queues.rx.remove(0);
            let (rx, tx) = if SENDERS.contains(&pod) {
                senders.append(&mut queues.tx);
                (vec![Rx::Device(rx)], nulls.next().unwrap())
            } else {
                receivers.push(rx);
                (vec![], Queues::of_device(queues, false, pool).tx.remove(0))
            };
            forwarder.take(WorkerPort::new(PortIndex(pod.into()), rx, tx));
        }
        Self { devices, senders, receivers, forwarder, snapshot: snapshot() }
    }

    /// Has these packets come, at most a burst of each sender's, and forwards them.
    fn forward(&mut self, pool: &Mempool, packets: &[Known]) {
        for (sender, tx) in SENDERS.into_iter().zip(&mut self.senders) {
            let mut burst: Burst<BURST> = Burst::new();
            for packet in packets.iter().filter(|(from, ..)| *from == sender) {
                burst.push(pool.alloc_with(&frame(*packet)).unwrap()).unwrap();
            }
            let count = burst.len();
            assert_eq!(tx.tx(&mut burst), count);
        }
        let now = Tick::at(std::time::Duration::ZERO);
        assert_eq!(self.forwarder.round(&self.snapshot, now, |_| {}), packets.len() as u64);
    }

    /// What each receiver has got.
    fn gone(&mut self) -> Vec<Vec<Known>> {
        let gone = self.receivers.iter_mut().map(|rx| {
            let (mut all, mut burst): (_, Burst<BURST>) = (Vec::new(), Burst::new());
            while rx.rx(&mut burst) > 0 {
                all.extend(burst.drain().map(|packet| read(&packet)));
            }
            all
        });
        gone.collect()
    }
}

pub(super) fn in_order(eal: &Eal) {
    let config = MempoolConfig { name: "leaving".into(), mbufs: 4095, cache: 32, ..MempoolConfig::default() };
    let pool = Mempool::create(eal, &config).unwrap();
    let flows = FlowTables::new(1024).unwrap();
    let (counters, mut writers) = counters(1);
    let mut pods = Pods::new(eal, &pool, Pipeline::new(flows.worker(), writers.remove(0)));
    let count = |to: u8| counters.port(PortIndex(to.into()));
    let most = BURST as u16;
    let mut sent = [0; RECEIVERS.len()];
    // Few are put aside and many are not: both in all orders, and with one, two or three to deal them out to.
    for receivers in 1..=RECEIVERS.len() as u16 {
        for counts in
            [[5, 0], [31, 32], [32, 31], [most, 1], [1, most], [20, 110], [most, most], [64, 64], [0, 3]]
        {
            let number =
                SENDERS.into_iter().zip(counts).flat_map(|(from, count)| (0..count).map(move |n| (from, n)));
            // In no order that a receiver would come to know.
            let to =
                |n: u16| RECEIVERS[usize::from(n.wrapping_mul(40503) >> 7 & 0xff) % usize::from(receivers)];
            let packets: Vec<_> = number.map(|(from, n)| (from, to(n), n)).collect();
            pods.forward(&pool, &packets);
            for ((to, gone), sent) in RECEIVERS.into_iter().zip(pods.gone()).zip(&mut sent) {
                let expected: Vec<_> = packets.iter().copied().filter(|packet| packet.1 == to).collect();
                assert_eq!(gone, expected, "{counts:?} to {receivers}: what {to} got");
                *sent += gone.len() as u64;
                assert_eq!(count(to).tx_packets, *sent, "{counts:?} to {receivers}: to {to}");
            }
        }
    }
    assert!(sent.iter().all(|sent| *sent > 200), "{sent:?}");
    let length = frame((1, 3, 0)).len() as u64;
    for (to, sent) in RECEIVERS.into_iter().zip(sent) {
        assert_eq!(count(to).tx_bytes, sent * length);
    }
    // A ring of 1024 that nobody empties.
    let (to, before) = (RECEIVERS[0], sent[0]);
    for _ in 0..9 {
        pods.forward(&pool, &(0..most).map(|n| (SENDERS[0], to, n)).collect::<Vec<_>>());
    }
    let (counts, sent) = (count(to), before + 9 * u64::from(most));
    assert!(counts.tx_dropped >= u64::from(most), "{counts:?}");
    assert_eq!((counts.tx_packets + counts.tx_dropped, counts.tx_bytes), (sent, counts.tx_packets * length));
    pods.gone();
    assert_eq!(pool.in_use(), 0);
    let Pods { devices, senders, receivers, forwarder, .. } = pods;
    drop((senders, receivers, forwarder));
    devices.into_iter().for_each(|port| port.remove().map_err(|(_, error)| error).unwrap());
}
