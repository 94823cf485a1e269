//! The ends of ports that workers hold, whatever makes the port.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use culvert_dpdk::{Burst, Mbuf, Mempool, Notice, RxQueue, TxQueue};
use culvert_packet::PacketBuf as _;
use culvert_packet::offload::Offload;

use super::cut::Cutting;
use super::packet_socket::PacketRx;
use super::segmentation::{Asked, Asking};
use super::tap::{Ending, Spare, TapRx, TapTx};
use crate::worker::BURST;

/// Where a worker receives.
#[derive(Debug)]
pub enum Rx {
    /// A device of DPDK.
    Device(RxQueue),
    /// A tap.
    Tap(TapRx),
    /// A packet socket.
    Packet(Box<PacketRx>),
}

/// Where a worker sends.
#[derive(Debug)]
pub enum Tx {
    /// A device of DPDK.
    Device(DeviceTx),
    /// The only queue of a device of DPDK, for all workers.
    Shared(SharedTx),
    /// A tap, or a packet socket.
    Tap(TapTx),
}

/// The ends of one port.
#[derive(Debug)]
pub struct Queues {
    /// For the workers that poll the port: one, or each of them.
    pub rx: Vec<Rx>,
    /// One for each worker.
    pub tx: Vec<Tx>,
}

/// A transmit queue of a device that sends packets as they are, or as it is asked to.
#[derive(Debug)]
pub struct DeviceTx {
    queue: TxQueue,
    asking: Option<Asking>,
    cutting: Cutting,
}

/// The transmit queue of a device that has no other, or whose other end may have no other. Workers take turns, by a lock
/// for each burst.
#[derive(Debug, Clone)]
pub struct SharedTx {
    queue: Arc<Mutex<TxQueue>>,
    cutting: Cutting,
}

impl Queues {
    /// Those of a device of DPDK. `tunnels`: it is the uplink. `pool` is for segments of what is too long for it.
    pub fn of_device(queues: culvert_dpdk::Queues, tunnels: bool, pool: &Mempool) -> Self {
        Self::asking(queues, tunnels, None, pool)
    }

    /// The same of an uplink whose device may be asked to cut.
    pub fn of_uplink(queues: culvert_dpdk::Queues, asking: &Asking, pool: &Mempool) -> Self {
        Self::asking(queues, true, Some(asking), pool)
    }

    fn asking(queues: culvert_dpdk::Queues, tunnels: bool, asking: Option<&Asking>, pool: &Mempool) -> Self {
        let cutting = Cutting { tunnels, pool: pool.clone() };
        let tx = |queue| Tx::Device(DeviceTx { queue, asking: asking.cloned(), cutting: cutting.clone() });
        Self {
            rx: queues.rx.into_iter().map(Rx::Device).collect(),
            tx: queues.tx.into_iter().map(tx).collect(),
        }
    }
}

impl Queues {
    /// Those of a pod's device of DPDK that has one queue for each direction.
    pub fn of_narrow_device(queues: culvert_dpdk::Queues, workers: usize, pool: &Mempool) -> Self {
        if workers == 1 {
            return Self::of_device(queues, false, pool);
        }
        let cutting = Cutting { tunnels: false, pool: pool.clone() };
        let shared = queues.tx.into_iter().next().map(|queue| Arc::new(Mutex::new(queue)));
        let tx = |queue: &Arc<_>| Tx::Shared(SharedTx { queue: Arc::clone(queue), cutting: cutting.clone() });
        Self {
            rx: queues.rx.into_iter().map(Rx::Device).collect(),
            tx: shared.iter().cycle().take(workers).map(tx).collect(),
        }
    }
}

impl Rx {
    /// How it tells that there is something to be received.
    pub fn notice(&self) -> Notice {
        match self {
            Self::Device(queue) => queue.notice(),
            Self::Tap(_) | Self::Packet(_) => Notice::Readable,
        }
    }

    /// At what it tells so.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Device(queue) => queue.descriptor(),
            Self::Tap(tap) => Some(tap.descriptor()),
            Self::Packet(socket) => Some(socket.descriptor()),
        }
    }

    /// Has the next packet raise an interrupt, if it has [`Notice::Interrupt`]; `false` if that is refused.
    pub fn arm(&mut self) -> bool {
        match self {
            Self::Device(queue) => queue.arm(),
            Self::Tap(_) | Self::Packet(_) => false,
        }
    }

    /// Takes that back.
    pub fn disarm(&mut self) {
        if let Self::Device(queue) = self {
            queue.disarm();
        }
    }

    /// How the last turn ended.
    #[inline]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Device(_) => Ending::default(),
            Self::Tap(tap) => tap.ending(),
            Self::Packet(socket) => socket.ending(),
        }
    }

    /// Adds what has been received, as far as `burst` has room, and returns how many packets that is.
    #[inline]
    pub fn rx(&mut self, spare: &mut Spare, burst: &mut Burst<BURST>) -> usize {
        match self {
            Self::Device(queue) => queue.rx(burst),
            Self::Tap(tap) => tap.rx(spare, burst, BURST),
            Self::Packet(socket) => socket.rx(spare, burst),
        }
    }
}

impl Tx {
    /// Whether a packet fits for this end as it is.
    #[inline]
    pub fn takes(&self, packet: &Mbuf) -> bool {
        packet.offload() == Offload::NONE || matches!(self, Self::Tap(_))
    }

    /// Leaves what is to be done about a packet that does not to the device, if that can be.
    pub fn leave(&mut self, packet: &mut Mbuf) -> Asked {
        match self {
            Self::Device(DeviceTx { queue, asking: Some(asking), .. }) => asking.leave(queue, packet),
            _ => Asked::No,
        }
    }

    /// What it takes to make it fit; `None` if any does.
    pub fn cutting(&self) -> Option<Cutting> {
        match self {
            Self::Device(device) => Some(device.cutting.clone()),
            Self::Shared(device) => Some(device.cutting.clone()),
            Self::Tap(_) => None,
        }
    }

    /// Sends what the device takes, frees the rest, and returns how many were freed; each is shown to `dropping` before.
    #[inline]
    pub fn tx_or_drop_with(&mut self, burst: &mut Burst<BURST>, dropping: impl FnMut(&Mbuf)) -> usize {
        match self {
            Self::Device(device) => device.queue.tx_or_drop_with(burst, dropping),
            // A worker that panicked while it held the lock has ended the process.
            Self::Shared(device) => {
                let mut queue = device.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.tx_or_drop_with(burst, dropping)
            }
            Self::Tap(tap) => tap.tx_or_drop_with(burst, dropping),
        }
    }
}
