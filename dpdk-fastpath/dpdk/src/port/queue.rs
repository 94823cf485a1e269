//! The two ends of a port that workers hold.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use culvert_packet::PacketBuf as _;
use culvert_packet::offload::request::Request;

use super::Notice;
use super::device::Started;
use crate::burst::Burst;
use crate::mbuf::Mbuf;

/// Moves between threads, but never used by two at once: drivers have no locks.
type OneThread = PhantomData<Cell<()>>;

/// A receive queue of a started port; one worker's own.
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<culvert_dpdk::RxQueue>();
/// ```
pub struct RxQueue {
    started: Arc<Started>,
    queue: u16,
    oversize: u64,
    notice: Notice,
    /// The driver's own, for as long as the device is started; -1 if there is none.
    descriptor: RawFd,
    _one_thread: OneThread,
}

/// A transmit queue of a started port; one worker's own.
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<culvert_dpdk::TxQueue>();
/// ```
pub struct TxQueue {
    started: Arc<Started>,
    queue: u16,
    _one_thread: OneThread,
}

impl RxQueue {
    /// `notice`: how it tells of packets, if there is a descriptor for that.
    pub(super) fn new(started: Arc<Started>, queue: u16, notice: Notice) -> Self {
        let descriptor = match notice {
            Notice::Never => -1,
            // SAFETY: EAL is running, and the port is started (Started).
            _ => unsafe { dpdk_sys::rte_eth_dev_rx_intr_ctl_q_get_fd(started.id(), queue) },
        };
        let mut made = Self { started, queue, oversize: 0, notice, descriptor, _one_thread: PhantomData };
        if descriptor < 0 || notice == Notice::Interrupt && !made.arm() {
            made.notice = Notice::Never;
        }
        made.disarm();
        made
    }

    /// How it tells that it has packets.
    pub fn notice(&self) -> Notice {
        self.notice
    }

    /// With what it tells so.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the driver keeps it open until the device is stopped, and that is not before this queue goes (Started).
        (self.notice != Notice::Never).then(|| unsafe { BorrowedFd::borrow_raw(self.descriptor) })
    }

    /// Has the next packet raise an interrupt. One that is there already need not: so look once more after this, before
    /// going to sleep. `false` if it cannot be had.
    pub fn arm(&mut self) -> bool {
        // SAFETY: EAL is running, and the port is started (Started); nobody else uses this queue (one handle each, &mut).
        self.notice == Notice::Interrupt
            && unsafe { dpdk_sys::rte_eth_dev_rx_intr_enable(self.started.id(), self.queue) } == 0
    }

    /// Takes that back: to be polled without interrupts.
    pub fn disarm(&mut self) {
        if self.notice == Notice::Interrupt {
            // A driver that can do the one can do the other.
            // SAFETY: as above.
            let _ = unsafe { dpdk_sys::rte_eth_dev_rx_intr_disable(self.started.id(), self.queue) };
        }
    }

    /// Number of the port.
    pub fn port(&self) -> u16 {
        self.started.id()
    }

    /// Number among the port's receive queues.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Adds what has been received, as far as `burst` has room, and returns how many packets that is.
    #[inline]
    pub fn rx<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let port = self.started.id();
        let free = burst.free_slots();
        let mut oversize = 0;
        // SAFETY: the port is started (Started) and this queue is polled by nobody else (one handle each, &mut); there is
        // room for as many pointers as said. The shim returns single-segment packets without other owners.
        unsafe {
            let room = free.len() as u16;
            let pointers = free.as_mut_ptr().cast();
            let received = dpdk_sys::shim_rx_burst(port, self.queue, pointers, room, &raw mut oversize);
            self.oversize += u64::from(oversize);
            burst.grow(usize::from(received));
            usize::from(received)
        }
    }

    /// Packets so far that were longer than one mbuf, and therefore dropped.
    pub fn oversize(&self) -> u64 {
        self.oversize
    }
}

impl TxQueue {
    pub(super) fn new(started: Arc<Started>, queue: u16) -> Self {
        Self { started, queue, _one_thread: PhantomData }
    }

    /// Number of the port.
    pub fn port(&self) -> u16 {
        self.started.id()
    }

    /// Number among the port's transmit queues.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Leaves what is to be done about a packet to the device, which must have been
    /// [configured](super::PortConfig::tx_offloads) for what is [needed](crate::TxOffloads::needed). `false`, and the packet
    /// is as it was but for an outer UDP checksum, if the driver says that the device cannot.
    ///
    /// # Panics
    /// If the request was not made of this packet.
    pub fn leave(&mut self, packet: &mut Mbuf, request: &Request) -> bool {
        let offload = packet.offload();
        packet.ask(request);
        // SAFETY: the port is started (Started) and this queue is used by nobody else (one handle each, &mut). The driver
        // looks at the packet, which has one segment and one owner, and changes nothing but its checksum fields.
        let refused =
            unsafe { dpdk_sys::shim_tx_prepare(self.started.id(), self.queue, packet.as_ptr()) != 0 };
        if refused {
            request.restore(packet.data_mut());
            packet.set_offload(offload);
        }
        !refused
    }

    /// Sends packets from the front of `burst` and returns how many the device took; the others stay in the burst.
    #[inline]
    #[must_use = "packets that were not sent are still in the burst"]
    pub fn tx<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        // SAFETY: the port is started (Started) and this queue is used by nobody else (one handle each, &mut); the burst
        // holds as many mbufs as said. The driver owns the first `sent` of them afterwards.
        unsafe {
            let pointers = burst.as_mut_ptr().cast();
            let sent = dpdk_sys::shim_tx_burst(self.started.id(), self.queue, pointers, burst.len() as u16);
            let sent = usize::from(sent);
            burst.forget_front(sent);
            sent
        }
    }

    /// Sends what the device takes, frees the rest, and returns how many were freed.
    ///
    /// A driver stops at a packet it cannot send (net_tap: one that is longer than the MTU, or that the kernel refuses),
    /// just as it stops when its queue is full. So the packet it stopped at is freed and those behind it are tried, until
    /// it refuses twice in a row.
    #[inline]
    pub fn tx_or_drop<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        self.tx_or_drop_with(burst, |_| {})
    }

    /// As [`tx_or_drop`](Self::tx_or_drop), and shows each packet to `dropping` before it is freed.
    #[inline]
    pub fn tx_or_drop_with<const N: usize>(
        &mut self,
        burst: &mut Burst<N>,
        mut dropping: impl FnMut(&Mbuf),
    ) -> usize {
        let mut dropped = 0;
        let mut refused = false;
        while !burst.is_empty() {
            let sent = self.tx(burst);
            let Some(refused_first) = burst.first() else { break };
            if sent == 0 && refused {
                burst.iter().for_each(&mut dropping);
                dropped += burst.len();
                burst.clear();
                break;
            }
            dropping(refused_first);
            burst.drop_front();
            dropped += 1;
            refused = true;
        }
        dropped
    }
}

impl fmt::Debug for RxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RxQueue({} of port {})", self.queue, self.port())
    }
}

impl fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxQueue({} of port {})", self.queue, self.port())
    }
}
