//! What a port is told and what it tells.

use super::{RxQueue, TxQueue};
use crate::tx_offload::TxOffloads;

/// How a port is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues: one for each worker that polls the port. The device spreads packets over them by addresses and
    /// ports, as far as it can: see [`PortInfo::rss`].
    pub rx_queues: u16,
    /// Transmit queues: one for each worker that sends there.
    pub tx_queues: u16,
    /// Packets a receive queue holds, and mbufs it keeps out of the pool; the device may round it. A tap has its own
    /// queue in the kernel, and takes 4.
    pub rx_descriptors: u16,
    /// Packets a transmit queue holds; the device may round it.
    pub tx_descriptors: u16,
    /// Bytes behind the Ethernet header that fit in a frame; `None` leaves the device's own. Frames of this length, with a
    /// VLAN tag, must fit in an mbuf of the pool.
    pub mtu: Option<u16>,
    /// Whether frames for other MAC addresses are received too.
    pub promiscuous: bool,
    /// Whether receive queues are to tell of packets, so that one who waits for them may sleep. What the driver makes of it
    /// says [`RxQueue::notice`].
    pub interrupts: bool,
    /// What the device may be asked to do about packets that are [left](TxQueue::leave) to it.
    pub tx_offloads: TxOffloads,
}

/// How a receive queue tells that it has packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Not at all: one has to look.
    Never,
    /// [`RxQueue::descriptor`] can be read from as long as there are packets.
    Readable,
    /// By a receive interrupt: [`RxQueue::descriptor`] becomes readable when a packet comes after [`RxQueue::arm`]. It stays
    /// readable, since nobody reads what it counts: so only changes count, as epoll's EPOLLET tells them.
    Interrupt,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mtu: None,
            promiscuous: false,
            interrupts: false,
            tx_offloads: TxOffloads::NONE,
        }
    }
}

/// The queues of a started port, to be given to the workers.
#[derive(Debug)]
pub struct Queues {
    /// In the order of their numbers.
    pub rx: Vec<RxQueue>,
    /// In the order of their numbers.
    pub tx: Vec<TxQueue>,
}

/// What a driver can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// The driver's name, as `net_tap`.
    pub driver: String,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most transmit queues.
    pub max_tx_queues: u16,
    /// Least and most bytes behind the Ethernet header.
    pub mtu: (u16, u16),
    /// Index of the kernel interface behind the port, in the namespace it was made in.
    pub if_index: Option<u32>,
    /// `RTE_ETH_RX_OFFLOAD_*` bits.
    pub rx_offloads: u64,
    /// What it can be asked to do about packets that it sends.
    pub tx_offloads: TxOffloads,
    /// `RTE_ETH_RSS_*` bits: what of addresses and ports of TCP, UDP and SCTP, and of addresses of anything else, the
    /// device can spread packets by. 0: it has no RSS; a tap is spread by the kernel all the same.
    pub rss: u64,
}

/// What a port has counted since it was made or reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Dropped by the device, for want of a descriptor.
    pub rx_missed: u64,
    /// Received with errors.
    pub rx_errors: u64,
    /// Not transmitted because of an error.
    pub tx_errors: u64,
    /// Not received because the mempool was empty.
    pub rx_no_mbuf: u64,
}

/// The link, as the driver last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Mbit/s; `None`: unknown.
    pub speed_mbps: Option<u32>,
    /// Both directions at once.
    pub full_duplex: bool,
}
