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

/// Two pods that send, and one that both send to.
const PODS: [u8; 3] = [1, 2, 3];
const RECEIVER: u8 = 3;

/// A port of each of the pods.
fn snapshot() -> Snapshot {
    let mut builder = Builder::new();
    for pod in PODS {
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

/// Packet `n` of a pod's.
fn frame(from: u8, n: u16) -> Vec<u8> {
    let at = |pod: u8| (std::net::Ipv4Addr::from([10, 244, 1, pod]), 7).into();
    let frame = testkit::udp(at(from), at(RECEIVER), &n.to_be_bytes());
    testkit::with_macs(frame, GATEWAY_MAC, EthAddr([2, 0, 0, 0, 1, from]))
}

/// Whose packet it is, and its number.
fn read(packet: &Mbuf) -> (u8, u16) {
    let bytes = packet.data();
    (bytes[29], u16::from_be_bytes([bytes[42], bytes[43]]))
}

/// Rings: what is put into a sender's comes from it, and what the receiver gets is in its own.
struct Pods {
    devices: Vec<Port>,
    senders: Vec<TxQueue>,
    receiver: RxQueue,
    forwarder: Forwarder,
}

impl Pods {
    fn new(eal: &Eal, pool: &Mempool, pipeline: Pipeline) -> Self {
        let mut devices = Vec::new();
        let mut start = |vdev: &Vdev, tx_queues| {
            let mut port = Port::create(eal, vdev).unwrap();
            let queues = port.start(&PortConfig { tx_queues, ..PortConfig::default() }, pool).unwrap();
            devices.push(port);
            queues
        };
        let ends = PODS.map(|pod| {
            let mut queues = start(&Vdev::Ring { name: format!("leaving{pod}") }, 1);
            (queues.rx.remove(0), queues.tx)
        });
        // Nothing is sent to those who send.
        let null = start(&Vdev::Null { name: "leaving".into(), packet: 0 }, 2);
        let mut nulls = Queues::of_device(null, false, pool).tx.into_iter();
        let mut forwarder = Forwarder::new(pipeline);
        let mut senders = Vec::new();
        let [first, second, (receiver, tx)] = ends;
        for (pod, (rx, mut tx)) in PODS.into_iter().zip([first, second]) {
            senders.append(&mut tx);
            let null = nulls.next().unwrap();
            forwarder.take(WorkerPort::new(PortIndex(pod.into()), vec![Rx::Device(rx)], null));
        }
        let tx = Queues::of_device(culvert_dpdk::Queues { rx: vec![], tx }, false, pool).tx.remove(0);
        forwarder.take(WorkerPort::new(PortIndex(RECEIVER.into()), vec![], tx));
        Self { devices, senders, receiver, forwarder }
    }

    /// Has packets of a sender come, from number `from` on.
    fn come(&mut self, pool: &Mempool, sender: usize, from: u16, count: u16) {
        let mut burst: Burst<BURST> = Burst::new();
        for n in from..from + count {
            burst.push(pool.alloc_with(&frame(PODS[sender], n)).unwrap()).unwrap();
        }
        assert_eq!(self.senders[sender].tx(&mut burst), usize::from(count));
    }

    /// What the receiver has got.
    fn gone(&mut self) -> Vec<(u8, u16)> {
        let mut all = Vec::new();
        let mut burst: Burst<BURST> = Burst::new();
        while self.receiver.rx(&mut burst) > 0 {
            all.extend(burst.drain().map(|packet| read(&packet)));
        }
        all
    }
}

pub(super) fn in_order(eal: &Eal) {
    let config = MempoolConfig { name: "leaving".into(), mbufs: 4095, cache: 32, ..MempoolConfig::default() };
    let pool = Mempool::create(eal, &config).unwrap();
    let flows = FlowTables::new(1024).unwrap();
    let (counters, mut writers) = counters(1);
    let mut pods = Pods::new(eal, &pool, Pipeline::new(flows.worker(), writers.remove(0)));
    let (snapshot, now) = (snapshot(), Tick::at(std::time::Duration::ZERO));
    let index = PortIndex(RECEIVER.into());
    let most = BURST as u16;
    let (mut next, mut sent) = ([0; 2], 0);
    // Few are put aside and many are not: both in all orders.
    for counts in
        [[5, 0], [31, 32], [32, 31], [most, 1], [1, most], [20, 110], [most, most], [64, 64], [0, 3]]
    {
        let mut expected = Vec::new();
        for (sender, count) in counts.into_iter().enumerate() {
            pods.come(&pool, sender, next[sender], count);
            expected.extend((next[sender]..next[sender] + count).map(|n| (PODS[sender], n)));
            next[sender] += count;
        }
        sent += expected.len() as u64;
        assert_eq!(pods.forwarder.round(&snapshot, now, |_| {}), expected.len() as u64);
        assert_eq!(pods.gone(), expected, "{counts:?}");
        assert_eq!(counters.port(index).tx_packets, sent, "{counts:?}");
    }
    let length = frame(1, 0).len() as u64;
    assert_eq!(counters.port(index).tx_bytes, sent * length);
    // A ring of 1024 that nobody empties.
    for count in [most; 9] {
        pods.come(&pool, 0, 0, count);
        sent += u64::from(count);
        pods.forwarder.round(&snapshot, now, |_| {});
    }
    let counts = counters.port(index);
    assert!(
        counts.tx_dropped >= u64::from(most) && counts.tx_packets + counts.tx_dropped == sent,
        "{counts:?}"
    );
    assert_eq!(counts.tx_bytes, counts.tx_packets * length);
    pods.gone();
    assert_eq!(pool.in_use(), 0);
    let Pods { devices, senders, receiver, forwarder } = pods;
    drop((senders, receiver, forwarder));
    devices.into_iter().for_each(|port| port.remove().map_err(|(_, error)| error).unwrap());
}
