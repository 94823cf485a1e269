//! A safe wrapper over the parts of DPDK that Culvert uses.
//!
//! ```no_run
//! use culvert_dpdk::{Burst, Eal, EalConfig, Mempool, MempoolConfig, Port, PortConfig, Vdev, lcore};
//! use culvert_packet::buf::PacketBuf;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let eal = Eal::init(&EalConfig::default())?;                              // once per process
//! let pool = Mempool::create(&eal, &MempoolConfig::default())?;
//! let mut port = Port::create(&eal, &Vdev::Tap { interface: "cvp0".into(), mac: None })?;
//! let mut queues = port.start(&PortConfig::default(), &pool)?;              // queues exist only while started
//! let (mut rx, mut tx) = (queues.rx.remove(0), queues.tx.remove(0));
//! let worker = lcore::spawn(&eal, "worker-0", 1, move |_lcore| {            // pinned to CPU 1
//!     let mut burst: Burst<64> = Burst::new();
//!     for _ in 0..1_000_000 {
//!         rx.rx(&mut burst);                                                // one call into C per burst
//!         for mbuf in burst.iter_mut() {
//!             if mbuf.len() >= 12 { mbuf.data_mut()[..12].rotate_left(6); }
//!         }
//!         tx.tx_or_drop(&mut burst);                                        // forgets what was sent, frees the rest
//!     }
//! })?;
//! worker.join().expect("worker");                                           // drops the queues
//! port.remove().map_err(|(_, error)| error)?;
//! # Ok(()) }
//! ```
//!
//! - [`Eal`]: starts DPDK from a typed [`EalConfig`]; looks first whether hugepages can be had and says in plain words
//!   what is missing. A cheap handle that everything else keeps; DPDK ends with the last one.
//! - [`Mempool`], [`Mbuf`], [`Burst`]: packets. An [`Mbuf`] owns one buffer, always of one segment, and is a
//!   [`PacketBuf`](culvert_packet::buf::PacketBuf). A [`Burst`] is an array of them.
//! - [`Port`] makes or takes a device and starts it; [`RxQueue`] and [`TxQueue`] are what workers hold. They can be sent
//!   to another thread, but not shared; while one is held the port cannot be stopped.
//! - [`TxOffloads`]: what a device does to packets that are [left](TxQueue::leave) to it.
//! - [`hash`]: DPDK's hash table, to compare others with.
//! - [`lcore::spawn`]: worker threads. [`tsc`]: the clock. [`log`]: where DPDK's own log goes.
//!
//! Who may call what: everything about devices and pools belongs to control threads, and may be done while workers poll
//! other ports. Workers use queues, bursts and pools; none of these allocates, locks or logs.
//!
//! Panics: none on any input or packet. Memory: an mbuf does not keep its pool (that would cost an atomic per packet);
//! instead a pool whose mbufs are not all back is never freed.

mod burst;
mod eal;
mod error;
pub mod hash;
pub mod lcore;
pub mod log;
mod mbuf;
mod mempool;
pub mod port;
pub mod tsc;
mod tx_offload;

pub use burst::{Burst, Drain};
pub use eal::{Eal, EalConfig, EalError, HugepageError, Hugepages, Iova, Pci};
pub use error::{DpdkError, Errno};
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolConfig, MempoolError};
pub use port::{
    Link, Notice, Port, PortConfig, PortError, PortInfo, PortStats, Queues, RxQueue, TxQueue, Vdev,
};
pub use tx_offload::TxOffloads;
