//! Taps of our own: a kernel interface in front of which we are the NIC.
//!
//! Unlike DPDK's net_tap they take over what a kernel leaves to a NIC: it hands over packets of up to 64 KB without their
//! checksums, and takes such packets. See [`offload`](culvert_packet::offload) for what becomes of them. There may be any
//! number of taps, where DPDK has room for 32 devices.
//!
//! - *Receive*: one `readv` per packet, into an mbuf of the ordinary size and, behind it, one of 64 KB: what fits into the
//!   first stays there, and of what does not the first 2 KB are copied.
//! - *Transmit to a pod*: segments of a flow that follow each other are merged without a copy: one `writev` gathers the
//!   headers and all payloads.
//! - *Transmit to the wire*: a super-packet in a tunnel is cut here; but one `writev` hands over as many segments as fit
//!   into one UDP packet, which the kernel is told to cut between them.
//!
//! A tap has one queue, or one for each worker. Of several the kernel chooses by a hash of addresses and ports that is the
//! same for both directions, or takes the one through which it last got a packet of the flow. Several cost: the kernel makes
//! room for 256, some MB for each tap, and looks into every packet that it gets.
//!
//! A tap can be moved to another network namespace, and goes when its last descriptor is closed: those of another process
//! count, by which a tap [outlives](crate::keep) the one that made it.

mod budget;
mod kernel;
mod rx;
mod tx;
mod wire;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use culvert_api::value::{IfName, Mac};
use culvert_dpdk::Mempool;
use culvert_packet::offload::vnet::VnetHeader;

pub use self::budget::Budget;
pub use self::rx::{Ending, Spare, TapRx};
pub use self::tx::TapTx;

/// What is behind a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// A kernel that is the last to see the packets: they may be super-packets.
    Host,
    /// Something that ends in a wire: no packet is longer than the MTU, and each has its checksum.
    Wire,
    /// The same behind a [packet socket](super::packet_socket).
    Socket,
}

impl Behind {
    /// Length of the header in front of each frame.
    const fn header(self) -> usize {
        match self {
            Self::Host | Self::Wire => VnetHeader::LEN,
            Self::Socket => VnetHeader::SHORT,
        }
    }
}

/// Why a tap could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The interface is there already, and may be somebody else's.
    #[error(
        "tap {interface}: an interface of this name exists: remove it (`ip link del {interface}`) or take another name"
    )]
    Exists {
        /// Its name.
        interface: IfName,
    },
    /// No tap device.
    #[error(
        "tap {interface}: /dev/net/tun does not exist: load the kernel module (`modprobe tun`), and in a container pass \
         the device in"
    )]
    NoTun {
        /// The tap that was to be made.
        interface: IfName,
    },
    /// Not allowed to make taps.
    #[error("tap {interface}: no permission: run as root, or with CAP_NET_ADMIN and access to /dev/net/tun")]
    NotPermitted {
        /// The tap that was to be made.
        interface: IfName,
    },
    /// The kernel refuses.
    #[error("tap {interface}: cannot be {action}")]
    Refused {
        /// The tap.
        interface: IfName,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl TapError {
    fn new(interface: &IfName, action: &'static str, source: io::Error) -> Self {
        let interface = interface.clone();
        match source.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => Self::Exists { interface },
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => Self::NoTun { interface },
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { interface },
            _ => Self::Refused { interface, action, source },
        }
    }
}

/// Gives the tap `name` of another maker its address and MTU, and sets it up.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn configure(name: &IfName, mac: Mac, mtu: u16) -> Result<(), TapError> {
    kernel::configure(name, mac, mtu).map_err(|source| TapError::new(name, "set up", source))
}

/// A tap.
#[derive(Debug)]
pub struct Tap {
    /// One for each queue.
    descriptors: Vec<Arc<OwnedFd>>,
    behind: Behind,
}

/// Where a tap's packets live.
#[derive(Debug, Clone)]
pub struct TapMemory {
    /// Those up to the MTU.
    pub packets: Mempool,
    /// Longer ones.
    pub super_packets: Mempool,
}

const fn offloads(behind: Behind) -> kernel::Offloads {
    match behind {
        Behind::Host => kernel::Offloads::All,
        Behind::Wire | Behind::Socket => kernel::Offloads::Checksum,
    }
}

impl Tap {
    /// Makes the interface `name` in this network namespace, with this address on its kernel's side and this many queues,
    /// and sets it up.
    ///
    /// # Errors
    /// When there is an interface of that name, or the process may make none.
    pub fn create(
        name: &IfName,
        mac: Mac,
        mtu: u16,
        behind: Behind,
        queues: usize,
    ) -> Result<Self, TapError> {
        let descriptors = kernel::create(name, VnetHeader::LEN, offloads(behind), queues)
            .map_err(|source| TapError::new(name, "made", source))?;
        configure(name, mac, mtu)?;
        Ok(Self { descriptors: descriptors.into_iter().map(Arc::new).collect(), behind })
    }

    /// The tap that another process made as `name`, with as many queues as there are descriptors; in its pod it has another
    /// name by now.
    ///
    /// # Errors
    /// When it is gone, with its pod.
    pub fn resume(name: &IfName, descriptors: Vec<OwnedFd>, behind: Behind) -> Result<Self, TapError> {
        let failed = |source| TapError::new(name, "taken over", source);
        let first = descriptors.first().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        kernel::resume(first, VnetHeader::LEN, offloads(behind)).map_err(failed)?;
        Ok(Self { descriptors: descriptors.into_iter().map(Arc::new).collect(), behind })
    }

    /// What keeps the tap, each queue of it, while it is held open.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(|queue| queue.as_fd()).collect()
    }

    /// The first queue, for as long as it lives.
    pub fn first_queue(&self) -> Weak<OwnedFd> {
        self.descriptors.first().map(Arc::downgrade).unwrap_or_default()
    }

    /// The receiving ends, one for each queue, each of which there must be once. Each hands over as much in a round as the
    /// budget allows.
    pub fn rx(&self, memory: &TapMemory, budget: Budget) -> Vec<TapRx> {
        let rx = |queue: &Arc<_>| TapRx::new(Arc::clone(queue), self.behind, memory.clone(), budget);
        self.descriptors.iter().map(rx).collect()
    }

    /// So many transmitting ends, which take turns at the queues; each worker may have one.
    pub fn tx(&self, workers: usize) -> Vec<TapTx> {
        let queues = self.descriptors.iter().cycle().take(workers);
        queues.map(|queue| TapTx::new(Arc::clone(queue), self.behind)).collect()
    }
}
