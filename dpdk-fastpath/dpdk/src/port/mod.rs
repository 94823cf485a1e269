//! Ports: devices that packets come from and go to.
//!
//! # Taps
//!
//! What to know about net_tap, tried with DPDK 22.11, 24.11 and 25.11:
//!
//! - Creating one takes a millisecond or two, removing it about ten; workers go on polling other ports meanwhile.
//! - The interface may be moved to another network namespace and renamed: packets and counters go on, stop and removal
//!   work, and removal takes the interface away from wherever it is. So does the end of the process. When the namespace
//!   is deleted, nothing is received any more, and what is sent is dropped and counted as `tx_errors`.
//! - Except in newer releases (25.11), the driver asks and changes the interface by its first name in its first
//!   namespace. So set MAC and MTU before it is moved; afterwards [`Port::link`] says "down", and [`Port::set_mac`] and
//!   [`Port::set_mtu`] fail. When it is removed, an interface that has taken over the name is set down: never give a
//!   name to another interface while the port lives. For the same reason a port cannot be stopped and started again
//!   once its interface was moved.
//! - MAC and MTU are the interface's; the driver looks at neither when it receives. A frame longer than an mbuf is
//!   counted in `rx_errors` and lost; one longer than the MTU is not sent, see [`TxQueue::tx_or_drop`].
//! - Each receive poll is a system call (see [`PortConfig::rx_descriptors`] and `tap.rs` on why signals are kept off).
//! - A DPDK program has at most `RTE_MAX_ETHPORTS` ports: 32 in Debian's builds. [`Port::create`] says so when they are
//!   used up.

mod device;
mod error;
mod queue;
mod tap;
mod types;
mod vdev;

use std::cell::Cell;
use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::Arc;

use device::{OwnedDevice, Started};

pub(crate) use device::{Claims, exists};
pub use error::PortError;
pub use queue::{RxQueue, TxQueue};
pub use types::{Link, Notice, PortConfig, PortInfo, PortStats, Queues};
pub use vdev::Vdev;

use crate::eal::{Eal, is_address};
use crate::error::call;
use crate::mempool::Mempool;
use crate::tx_offload::TxOffloads;

/// Bytes of a frame that the MTU does not count: Ethernet header and one VLAN tag.
const L2_OVERHEAD: u16 = 14 + 4;

/// A port: its control side, for one thread at a time. Its data side are the queues that [`start`](Self::start) gives.
///
/// When it is dropped, or when the last of its queues is, if that is later, the device is stopped, closed, and, if
/// [`create`](Self::create) made it, removed. So let the workers drop their queues first; otherwise a worker has to do all
/// that.
pub struct Port {
    /// Before `device`, so that a drop stops first.
    started: Option<Arc<Started>>,
    /// What all of its receive queues have.
    notice: Notice,
    device: Arc<OwnedDevice>,
    /// Control calls on one port must not overlap.
    _one_thread: PhantomData<Cell<()>>,
}

impl Port {
    /// Makes a device; others may be polled meanwhile. A tap is made in the network namespace of the calling thread.
    pub fn create(eal: &Eal, vdev: &Vdev) -> Result<Self, PortError> {
        vdev.check()?;
        if let Vdev::Tap { interface, .. } = vdev {
            tap::preflight(interface)?;
        }
        Ok(Self::new(OwnedDevice::make(eal, &vdev.device())?))
    }

    /// Takes the NIC of a PCI address, whose kernel driver is one that leaves it to programs (vfio-pci), of an EAL that was
    /// started with [`Pci::Later`](crate::Pci::Later). When the port is dropped, the NIC is let go.
    pub fn plug(eal: &Eal, address: &str) -> Result<Self, PortError> {
        if !is_address(address) {
            return Err(PortError::NoSuchPort { port: address.to_owned() });
        }
        Ok(Self::new(OwnedDevice::take(eal, address)?))
    }

    /// Takes a device that is there since EAL's start, by its name: a PCI address, or that of a vdev. It is closed when
    /// dropped, but not removed.
    pub fn open(eal: &Eal, device: &str) -> Result<Self, PortError> {
        Ok(Self::new(OwnedDevice::claim(eal, device)?))
    }

    fn new(device: OwnedDevice) -> Self {
        Self { started: None, notice: Notice::Never, device: Arc::new(device), _one_thread: PhantomData }
    }

    /// Its number, which [`Mbuf::port`](crate::mbuf::Mbuf::port) gives for what is received there.
    pub fn id(&self) -> u16 {
        self.device.id
    }

    /// Name of the device.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// Configures the device, sets its queues up and starts it. The queues are the only way to packets, so nobody polls a
    /// port that is not started. `pool` provides the mbufs of received packets.
    pub fn start(&mut self, config: &PortConfig, pool: &Mempool) -> Result<Queues, PortError> {
        if self.started.is_some() {
            return Err(PortError::Started { port: self.name().to_owned() });
        }
        let tap = self.check(config, pool)?;
        let notice = match (config.interrupts, tap) {
            (false, _) => Notice::Never,
            // Its queues are descriptors of taps, of which the kernel tells at any time.
            (true, true) => Notice::Readable,
            (true, false) => Notice::Interrupt,
        };
        match self.start_with(config, pool, tap, notice) {
            // A driver may refuse to be configured for receive interrupts, or to start then.
            Err(_) if notice != Notice::Never => self.start_with(config, pool, tap, Notice::Never),
            result => result,
        }
    }

    fn start_with(
        &mut self,
        config: &PortConfig,
        pool: &Mempool,
        tap: bool,
        notice: Notice,
    ) -> Result<Queues, PortError> {
        let mut setup = dpdk_sys::shim_port_config {
            rx_queues: config.rx_queues,
            tx_queues: config.tx_queues,
            rx_descriptors: if tap { tap::RX_DESCRIPTORS } else { config.rx_descriptors },
            tx_descriptors: config.tx_descriptors,
            mtu: config.mtu.unwrap_or(0),
            rx_interrupts: notice != Notice::Never,
            tx_offloads: config.tx_offloads.bits(),
        };
        self.device.setup(&mut setup, pool)?;
        if let Some(mtu) = config.mtu {
            // Configuring tells most drivers; net_tap passes only this on to the kernel.
            if_supported(self.set_mtu(mtu))?;
        }
        let started = Arc::new(Started::start(&self.device)?);
        let promiscuous = self.set_promiscuous(config.promiscuous);
        // Some drivers without hardware receive everything anyway.
        let promiscuous = if config.promiscuous { promiscuous } else { if_supported(promiscuous) };
        promiscuous?;
        let queues = Queues {
            rx: (0..config.rx_queues).map(|queue| RxQueue::new(started.clone(), queue, notice)).collect(),
            tx: (0..config.tx_queues).map(|queue| TxQueue::new(started.clone(), queue)).collect(),
        };
        self.notice = notice;
        if queues.rx.iter().any(|queue| queue.notice() == Notice::Never) {
            self.notice = Notice::Never;
        }
        self.started = Some(started);
        Ok(queues)
    }

    /// Stops the device, so that it can be started differently. Refused while a queue is held by somebody.
    pub fn stop(&mut self) -> Result<(), PortError> {
        let Some(started) = self.started.take() else { return Ok(()) };
        match Arc::try_unwrap(started) {
            Ok(mut started) => Ok(started.finish()?),
            Err(started) => {
                let queues = Arc::strong_count(&started) - 1;
                self.started = Some(started);
                Err(PortError::QueuesInUse { port: self.name().to_owned(), queues })
            }
        }
    }

    /// Stops, closes and removes the device, as a drop does, but tells what went wrong. While a queue is held by somebody
    /// nothing is done, and the port comes back with the error.
    pub fn remove(mut self) -> Result<(), (Option<Self>, PortError)> {
        let mut errors = Vec::new();
        match self.stop() {
            Ok(()) => {}
            Err(error @ PortError::QueuesInUse { .. }) => return Err((Some(self), error)),
            Err(PortError::Dpdk(error)) => errors.push(error),
            Err(error) => return Err((None, error)),
        }
        let port = self.name().to_owned();
        // Stopped, so no queue holds it: this handle is the last.
        if let Some(mut device) = Arc::into_inner(self.device) {
            errors.extend(device.finish());
        }
        if errors.is_empty() { Ok(()) } else { Err((None, PortError::Teardown { port, errors })) }
    }

    /// How its receive queues have told of packets since it was started; [`Notice::Never`] if one of them does not.
    pub fn notice(&self) -> Notice {
        self.notice
    }

    /// What the driver can do.
    pub fn info(&self) -> Result<PortInfo, PortError> {
        let info: dpdk_sys::shim_port_info = self.get("read capabilities", |out| {
            // SAFETY: EAL is running; `out` has room for the struct.
            unsafe { dpdk_sys::shim_port_info(self.id(), out) }
        })?;
        // SAFETY: the shim terminates the text within the array.
        let driver = unsafe { CStr::from_ptr(info.driver.as_ptr()) };
        Ok(PortInfo {
            driver: driver.to_string_lossy().into_owned(),
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            mtu: (info.min_mtu, info.max_mtu),
            if_index: Some(info.if_index).filter(|index| *index != 0),
            rx_offloads: info.rx_offload_capa,
            tx_offloads: TxOffloads::from_bits(info.tx_offload_capa),
            rss: info.rss_capa,
        })
    }

    /// Counters; may be read while workers poll.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let stats: dpdk_sys::shim_port_stats = self.get("read statistics", |out| {
            // SAFETY: EAL is running; `out` has room for the struct.
            unsafe { dpdk_sys::shim_port_stats(self.id(), out) }
        })?;
        Ok(PortStats {
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_no_mbuf: stats.rx_no_mbuf,
        })
    }

    /// Sets the counters to zero.
    pub fn reset_stats(&mut self) -> Result<(), PortError> {
        // SAFETY: EAL is running, and the port is ours.
        self.call("reset statistics", || unsafe { dpdk_sys::rte_eth_stats_reset(self.id()) })
    }

    /// The link as last seen; does not wait for negotiation.
    pub fn link(&self) -> Result<Link, PortError> {
        let link: dpdk_sys::shim_port_link = self.get("read the link", |out| {
            // SAFETY: EAL is running; `out` has room for the struct.
            unsafe { dpdk_sys::shim_port_link(self.id(), out) }
        })?;
        Ok(Link {
            up: link.up,
            speed_mbps: Some(link.speed_mbps).filter(|speed| *speed != u32::MAX && *speed != 0),
            full_duplex: link.full_duplex,
        })
    }

    /// The MAC address.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        self.get("read the mac", |out: *mut [u8; 6]| {
            // SAFETY: EAL is running; `out` has room for six bytes.
            unsafe { dpdk_sys::shim_port_get_mac(self.id(), out.cast()) }
        })
    }

    /// Changes the MAC address; that of a tap is its kernel interface's.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), PortError> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(PortError::BadMac { port: self.name().to_owned(), mac });
        }
        let operation = format!("set mac {}", vdev::mac_text(mac));
        // SAFETY: EAL is running, and the port is ours; six bytes are read.
        self.call(operation, || unsafe { dpdk_sys::shim_port_set_mac(self.id(), mac.as_ptr()) })
    }

    /// Bytes behind the Ethernet header that fit in a frame.
    pub fn mtu(&self) -> Result<u16, PortError> {
        self.get("read the mtu", |out| {
            // SAFETY: EAL is running; `out` has room for the number.
            unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id(), out) }
        })
    }

    /// Changes the MTU; some drivers refuse while started.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: EAL is running, and the port is ours.
        self.call(format!("set mtu {mtu}"), || unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id(), mtu) })
    }

    /// Whether frames for other MAC addresses are received too.
    pub fn promiscuous(&self) -> bool {
        // SAFETY: EAL is running, and the port is ours.
        unsafe { dpdk_sys::rte_eth_promiscuous_get(self.id()) == 1 }
    }

    /// Receives frames for other MAC addresses too, or not.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        if on == self.promiscuous() {
            return Ok(());
        }
        // SAFETY: EAL is running, and the port is ours.
        self.call(format!("set promiscuous {on}"), || unsafe {
            if on {
                dpdk_sys::rte_eth_promiscuous_enable(self.id())
            } else {
                dpdk_sys::rte_eth_promiscuous_disable(self.id())
            }
        })
    }

    /// Holds the configuration against what the device can; returns whether it is a tap.
    fn check(&self, config: &PortConfig, pool: &Mempool) -> Result<bool, PortError> {
        let info = self.info()?;
        let tap = info.driver == tap::DRIVER;
        let mtu = config.mtu.map_or_else(|| self.mtu(), Ok)?;
        let max_mtu = info.mtu.1.min(pool.frame().saturating_sub(L2_OVERHEAD));
        for (field, value, min, max) in [
            ("rx_queues", config.rx_queues, 1, info.max_rx_queues),
            ("tx_queues", config.tx_queues, 1, info.max_tx_queues),
            ("rx_descriptors", config.rx_descriptors, 1, u16::MAX),
            ("tx_descriptors", config.tx_descriptors, 1, u16::MAX),
            ("mtu", mtu, info.mtu.0, max_mtu),
        ] {
            if !(min..=max).contains(&value) {
                let (port, value, min, max) = (self.name().to_owned(), value.into(), min.into(), max.into());
                return Err(PortError::BadConfig { port, field, value, min, max });
            }
        }
        if tap && config.rx_queues != config.tx_queues {
            let (rx, tx) = (config.rx_queues, config.tx_queues);
            return Err(PortError::UnevenQueues { port: self.name().to_owned(), rx, tx });
        }
        Ok(tap)
    }

    fn call(&self, operation: impl Into<String>, function: impl FnOnce() -> i32) -> Result<(), PortError> {
        Ok(call(self.name(), operation, function)?)
    }

    /// Reads a value that `function` writes if it succeeds.
    fn get<T>(&self, operation: &str, function: impl FnOnce(*mut T) -> i32) -> Result<T, PortError> {
        let mut value = MaybeUninit::uninit();
        self.call(operation, || function(value.as_mut_ptr()))?;
        // SAFETY: on success all these functions fill the whole value.
        Ok(unsafe { value.assume_init() })
    }
}

/// Takes it as done if the driver does not have it.
fn if_supported(result: Result<(), PortError>) -> Result<(), PortError> {
    match result {
        Err(PortError::Dpdk(error)) if error.errno.0 == libc::ENOTSUP => Ok(()),
        result => result,
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({} {})", self.id(), self.name())
    }
}
