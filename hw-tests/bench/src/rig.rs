//! The software ports around the engine: net_pcap in front, replaying its input from memory, net_null behind.

use std::io;

use culvert_dpdk::{Eal, Mempool, MempoolConfig, MempoolError, Port, PortConfig, PortError, Vdev};
use culvert_engine::port::{self, Rx, Tx};
use culvert_engine::table::PortIndex;
use tempfile::TempDir;

use crate::input::capture;
use crate::scene::{Scene, UPLINK};

/// Mbufs on top of those that hold the input: what is under way, and what the mempool's caches keep.
const MORE_MBUFS: u32 = 4096;

/// Bytes of an mbuf besides the frame: its header, the mempool's, headroom, and the two last to round up.
const MBUF: u64 = 128 + 64 + 128 + 64;

/// Least room for a frame: DPDK wants an MTU of 68, and 18 bytes more.
const FRAME: usize = 128;

/// Why there are no ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RigError {
    #[error("temporary capture file")]
    File(#[from] io::Error),
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Ports, ready to be polled. The queues must be gone before it is dropped.
pub(crate) struct Rig {
    ports: Vec<Port>,
    /// Each worker's.
    pub(crate) queues: Vec<Queues>,
}

/// One worker's queues.
pub(crate) struct Queues {
    /// The engine's port that each receive queue stands for.
    pub(crate) rx: Vec<(PortIndex, Rx)>,
    /// One transmit queue for each port of the engine.
    pub(crate) tx: Vec<(PortIndex, Tx)>,
}

impl Rig {
    /// Ports for the input of a scene, spread over its workers. `number` tells this rig's devices from those of others.
    pub(crate) fn new(eal: &Eal, scene: &Scene, number: usize) -> Result<Self, RigError> {
        let input = &scene.input;
        let frame = room(input.longest());
        let pool = Mempool::create(
            eal,
            &MempoolConfig {
                name: format!("bench{number}"),
                mbufs: mbufs(input.frames().count(), input.lanes.len() + scene.pipelines.len()),
                cache: 256,
                frame,
                socket: None,
            },
        )?;
        let config = PortConfig { mtu: Some(frame - 18), ..PortConfig::default() };
        let mut rig = Self { ports: Vec::new(), queues: Vec::new() };
        let outs = input.pods.len() as u16 + 1;
        for worker in 0..scene.pipelines.len() {
            // One each: its queues' counters lie side by side, on cache lines that two workers would fight for.
            let device = Vdev::Null { name: format!("bench{number}_{worker}"), packet: 0 };
            let mut null = Port::create(eal, &device)?;
            let queues = null.start(&PortConfig { tx_queues: outs, ..config }, &pool)?;
            let queues = port::Queues::of_device(queues, true, &pool);
            let tx = (UPLINK.0..outs).map(PortIndex).zip(queues.tx).collect();
            rig.queues.push(Queues { rx: Vec::new(), tx });
            rig.ports.push(null);
        }
        let folder = TempDir::with_prefix("culvert-bench-")?;
        for (n, lane) in input.lanes.iter().enumerate() {
            let path = folder.path().join(format!("{n}.pcap"));
            capture::write(&path, lane.frames.iter().map(|frame| &frame[..]))?;
            let device = Vdev::Other {
                name: format!("net_pcap_{number}_{n}"),
                arguments: format!("rx_pcap={},infinite_rx=1", path.display()),
            };
            let mut port = Port::create(eal, &device)?;
            let queues = port.start(&config, &pool)?;
            let worker = n % rig.queues.len();
            rig.queues[worker]
                .rx
                .extend(queues.rx.into_iter().map(|rx| (scene.port(lane.from), Rx::Device(rx))));
            rig.ports.push(port);
            // It is in memory now.
            std::fs::remove_file(&path)?;
        }
        Ok(rig)
    }

    /// Removes the ports, once the queues are gone.
    pub(crate) fn remove(self) -> Result<(), RigError> {
        let Self { ports, queues } = self;
        drop(queues);
        for port in ports {
            port.remove().map_err(|(_, error)| error)?;
        }
        Ok(())
    }
}

/// Hugepages that the packets of an input need, MB.
pub(crate) fn megabytes(packets: usize, longest: usize, lanes: usize) -> u64 {
    let mbufs = u64::from(mbufs(packets, lanes)) * (u64::from(room(longest)) + MBUF);
    // net_pcap keeps them in rings, which are as large as a power of two, like the mempool's own.
    let rings = 3 * 8 * packets.next_power_of_two() as u64;
    (mbufs + rings).div_ceil(1 << 20) + 32
}

fn room(longest: usize) -> u16 {
    // The engine puts outer headers into the headroom, not here.
    longest.next_multiple_of(64).clamp(FRAME, 16_384) as u16
}

fn mbufs(packets: usize, lanes: usize) -> u32 {
    packets as u32 + MORE_MBUFS + lanes as u32 * 64
}
