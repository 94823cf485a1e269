//! What flows take, as the control thread sees to it.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use culvert_api::config::fastpath::TunnelSegmentation;
use culvert_dpdk::{Eal, Mempool, MempoolConfig};
use culvert_engine::clock::Clock;
use culvert_engine::control::FastPath;
use culvert_engine::counter::counters;
use culvert_engine::flow::{FlowTables, NO_SERVICE, Out, Record, Route, State, Tick};
use culvert_engine::port::tap::{Budget, TapMemory};
use culvert_engine::port::{Devices, Drivers, PortDriver};
use culvert_engine::quiescent::channel;
use culvert_engine::table::{BackendId, PortIndex, Snapshot};
use culvert_engine::worker::Resting;
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;

/// Enough for an index of 4 MB, after levels of 1.4 MB, which may be in hugepages.
const FLOWS: u32 = 60_000;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * PAGE
}

/// A flow from one pod to another.
fn flow(number: u32) -> Record<FlowKey4> {
    let client = (Ipv4Addr::new(10, 244, 1, 1), number as u16);
    let key = FlowKey4::new(Tenant::DEFAULT, Protocol::UDP, client, ([10, 244, 1, 2].into(), 80));
    let out = |port| Out::Pod(PortIndex(port));
    let route = Route { epoch: 1, forward: out(2), reply: out(1) };
    Record { original: key, translated: key, route, service: NO_SERVICE, backend: BackendId::NONE }
}

pub(super) fn given_back(eal: &Eal) {
    let config = MempoolConfig { name: "given-back".into(), mbufs: 1023, cache: 32, ..Default::default() };
    let pool = Mempool::create(eal, &config).unwrap();
    let memory = TapMemory { packets: pool.clone(), super_packets: pool };
    // No port is made.
    let drivers = Drivers {
        uplink: PortDriver::Tap,
        tunnel_segmentation: TunnelSegmentation::default(),
        pods: PortDriver::Tap,
        spread_pods: false,
        pod_budget: Budget::UNLIMITED,
    };
    let resting = Resting { idle_sleep: Duration::ZERO, busy_poll: Duration::ZERO };
    let clock = Clock::start(eal);
    let devices = Devices::start(eal, memory, drivers, vec![], clock, resting).unwrap();
    let flows = FlowTables::new(1 << 20).unwrap();
    let mut worker = flows.worker();
    let (tables, _readers) = channel(Snapshot::default(), 0);
    let mut fast_path = FastPath::new("test".to_owned(), devices, tables, counters(0).0, flows, clock);
    for number in 0..FLOWS {
        let now = Tick::at(Duration::ZERO);
        worker.tables.v4.insert(&mut worker.arena4, &flow(number), now, State::OneWay).unwrap();
    }
    let before = resident();
    fast_path.turn(Instant::now()).unwrap();
    let given_back = before.saturating_sub(resident());
    assert!(given_back > 1 << 20, "{given_back} bytes");
    fast_path.shut_down(true);
}
