//! What makes ports real.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use culvert_api::config::fastpath::TunnelSegmentation;
use culvert_api::value::{IfName, Mac, PciAddress};
use culvert_dpdk::{Eal, Mempool, Notice, Port, PortConfig, PortError, TxOffloads, Vdev};

use super::af_xdp::{self, AfXdpError};
use super::memif::{self, MemifError};
use super::nic::NicError;
use super::packet_socket::{Losses, PacketSocketError, PacketSockets, Sees};
use super::release::once_released;
use super::segmentation::{Asking, Segmentation};
use super::tap::{self, Behind, Budget, Tap, TapError, TapMemory};
use super::vhost_net::{self, VhostNetError};
use super::vhost_user;
use super::{Backend, Interface, InterfaceError, NewPort, Queues, Rx, Tx};
use crate::clock::Clock;
use crate::keep::{Inheritance, Keep};
use crate::table::{PortIndex, PortKind, Sharing, Socket};
use crate::worker::{Polling, Recruit, Resting, Team, WorkerError};

/// What makes a port's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortDriver {
    /// A kernel tap interface.
    Tap,
    /// A kernel tap interface, through DPDK's net_tap.
    NetTap,
    /// A kernel tap interface whose packets the kernel's vhost-net moves, through DPDK's virtio_user.
    VhostNet,
    /// An interface that the kernel keeps, by packet sockets.
    AfPacket,
    /// An interface whose queues the kernel hands over, by DPDK's net_af_xdp.
    AfXdp,
    /// A NIC that the kernel has given away.
    Nic,
}

/// What makes ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drivers {
    /// The uplink.
    pub uplink: PortDriver,
    /// Whether the uplink's device may be asked to cut super-packets.
    pub tunnel_segmentation: TunnelSegmentation,
    /// The pods' ports.
    pub pods: PortDriver,
    /// Whether a pod's port has a queue for each worker, and not one worker alone polls it.
    pub spread_pods: bool,
    /// Of each pod's port and the host's, what it may hand over in a round, if it is a tap of our own.
    pub pod_budget: Budget,
}

/// A port's device.
#[derive(Debug)]
pub enum Device {
    /// One of DPDK's.
    Dpdk {
        /// Its control side.
        port: Port,
        /// How many packets it has missed for all that was asked.
        missed: u64,
        /// Of the uplink: who cuts super-packets.
        segmentation: Option<Segmentation>,
    },
    /// The tap of this name, which goes with its last queue and once its descriptors are not kept; its first queue.
    Tap(IfName, Weak<OwnedFd>),
    /// Packet sockets, which go with the last queue.
    Sockets(Losses),
}

impl Device {
    /// Packets that came since the last call while there was no room for them, as far as the device tells. A tap's wait with
    /// whoever sends them.
    pub fn lost(&mut self) -> u64 {
        match self {
            Self::Dpdk { port, missed: before, .. } => {
                let missed = port.stats().map_or(*before, |stats| stats.rx_missed);
                missed.saturating_sub(std::mem::replace(before, missed))
            }
            Self::Tap(..) => 0,
            Self::Sockets(losses) => losses.take(),
        }
    }
}

impl Device {
    /// How a worker that sleeps hears of its packets.
    pub fn notice(&self) -> Notice {
        match self {
            Self::Dpdk { port, .. } => port.notice(),
            Self::Tap(..) | Self::Sockets(..) => Notice::Readable,
        }
    }

    /// Of an uplink by DPDK: who cuts super-packets.
    pub fn segmentation(&self) -> Option<&Segmentation> {
        match self {
            Self::Dpdk { segmentation, .. } => segmentation.as_ref(),
            Self::Tap(..) | Self::Sockets(..) => None,
        }
    }
}

/// Why a port could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The device.
    #[error(transparent)]
    Device(Box<PortError>),
    /// The tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The packet sockets.
    #[error(transparent)]
    PacketSocket(#[from] PacketSocketError),
    /// AF_XDP.
    #[error(transparent)]
    AfXdp(#[from] AfXdpError),
    /// memif.
    #[error(transparent)]
    Memif(#[from] MemifError),
    /// The NIC.
    #[error(transparent)]
    Nic(#[from] NicError),
    /// vhost-net.
    #[error(transparent)]
    VhostNet(#[from] VhostNetError),
    /// The workers.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl From<PortError> for BackendError {
    fn from(error: PortError) -> Self {
        Self::Device(Box::new(error))
    }
}

/// Devices, handed to the workers.
#[derive(Debug)]
pub struct Devices {
    drivers: Drivers,
    /// `None` once they were stopped.
    team: Option<Team>,
    workers: u16,
    memory: TapMemory,
    eal: Eal,
    keep: Keep,
    /// Descriptors of taps that another process had, by name.
    left: BTreeMap<String, Vec<OwnedFd>>,
    /// Whether there was one.
    succeeds: bool,
    /// The uplink's NIC, from when it is taken until it is started.
    nic: Option<Port>,
    /// What the uplink's packet sockets see.
    sees: Sees,
}

impl Devices {
    /// Starts the workers; no ports yet.
    ///
    /// # Errors
    /// When a worker cannot be started.
    pub fn start(
        eal: &Eal,
        memory: TapMemory,
        drivers: Drivers,
        recruits: Vec<Recruit>,
        clock: Clock,
        resting: Resting,
    ) -> Result<Self, WorkerError> {
        let workers = recruits.len() as u16;
        let team = Team::start(eal, recruits, clock, resting)?;
        let (keep, left) = (Keep::nobody(), BTreeMap::new());
        let (eal, succeeds) = (eal.clone(), false);
        Ok(Self {
            drivers,
            team: Some(team),
            workers,
            memory,
            eal,
            keep,
            left,
            succeeds,
            nic: None,
            sees: Sees::All,
        })
    }

    /// Has the descriptors of taps kept, and goes on with those that another process left.
    pub fn kept_by(&mut self, keep: &Keep, inheritance: &mut Inheritance) {
        self.keep = keep.clone();
        self.succeeds = inheritance.gap().is_some();
        let name = |kept: &String| kept.strip_prefix(TAP).map(str::to_owned);
        let all = std::mem::take(&mut inheritance.items);
        for (kept, descriptors) in all {
            match name(&kept) {
                Some(name) => drop(self.left.insert(name, descriptors)),
                None => drop(inheritance.items.insert(kept, descriptors)),
            }
        }
    }

    /// Takes the uplink's NIC, and returns its MAC address. Its port is [named](super::nic::name) as no interface is.
    ///
    /// # Errors
    /// When DPDK cannot use it.
    pub fn take_nic(&mut self, pci: PciAddress) -> Result<Mac, BackendError> {
        let address = pci.to_string();
        let take = || Port::plug(&self.eal, &address);
        let taken = if self.succeeds { once_released(take) } else { take() };
        let taken = taken.and_then(|port| Ok((port.mac()?, port)));
        let (mac, port) = taken.map_err(|source| NicError::Refused { pci, source: Box::new(source) })?;
        self.nic = Some(port);
        Ok(Mac::try_from(mac).unwrap_or_else(|_| Mac::local_from(0)))
    }

    /// Has the uplink's packet sockets see what they will see, if it is made after that.
    pub fn set_sees(&mut self, sees: Sees) {
        self.sees = sees;
    }

    /// Whether the tap of this name is one that another process left.
    pub fn has_left(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// What is kept by now stays kept, whatever is closed here.
    pub fn let_go(&mut self) {
        self.keep = Keep::nobody();
    }

    /// Lets those go that nobody asked for.
    pub fn drop_left(&mut self) {
        for (name, _) in std::mem::take(&mut self.left) {
            tracing::warn!(port = name, "nobody has this tap any more, and it goes");
            self.keep.forget(&kept_as(&name));
        }
    }

    /// The workers, unless they were stopped.
    pub fn team(&self) -> Option<&Team> {
        self.team.as_ref()
    }

    /// Where packets live.
    pub fn pool(&self) -> &Mempool {
        &self.memory.packets
    }

    /// Stops the workers; no packet moves from now on.
    ///
    /// # Errors
    /// When one of them ended by a panic.
    pub fn stop_workers(&mut self) -> Result<(), WorkerError> {
        self.team.take().map_or(Ok(()), Team::stop)
    }
}

impl Devices {
    /// A port by DPDK, with as many queues of both kinds as there are workers, if it has so many to receive with; see [`worker`](crate::worker) for why.
    fn dpdk(&self, port: &NewPort<'_>, vdev: &Vdev) -> Result<(Device, Queues), PortError> {
        self.start_device(port, Port::create(&self.eal, vdev)?)
    }

    fn start_device(&self, port: &NewPort<'_>, mut device: Port) -> Result<(Device, Queues), PortError> {
        let info = device.info()?;
        let uplink = port.kind == PortKind::Uplink;
        let mut segmentation = uplink.then(|| Segmentation::new(self.drivers.tunnel_segmentation, &info));
        let config = PortConfig {
            rx_queues: self.workers.min(info.max_rx_queues),
            tx_queues: self.workers,
            mtu: Some(port.mtu),
            // Only an interface that was there before has an address of its own; frames for another are wanted all the same.
            promiscuous: device.mac()? != port.mac.octets() && uplink,
            interrupts: true,
            tx_offloads: segmentation.as_ref().map_or(TxOffloads::NONE, |to| to.asked),
            ..PortConfig::default()
        };
        let TapMemory { packets, super_packets } = &self.memory;
        let queues = match device.start(&config, packets) {
            Err(error) if config.tx_offloads != TxOffloads::NONE => {
                segmentation = Some(Segmentation::none(error));
                device.start(&PortConfig { tx_offloads: TxOffloads::NONE, ..config }, packets)?
            }
            queues => queues?,
        };
        let queues = match &segmentation {
            Some(segmentation) => {
                segmentation.log(port.interface.as_str());
                let asking = Asking::new(segmentation.asked, super_packets, self.workers);
                Queues::of_uplink(queues, &asking, packets)
            }
            None => Queues::of_device(queues, false, packets),
        };
        Ok((Device::Dpdk { port: device, missed: 0, segmentation }, queues))
    }

    /// A port by DPDK with one queue for each direction.
    fn narrow(&self, port: &NewPort<'_>, vdev: &Vdev) -> Result<(Device, Queues), PortError> {
        let mut device = Port::create(&self.eal, vdev)?;
        let config = PortConfig { mtu: Some(port.mtu), interrupts: true, ..PortConfig::default() };
        let queues = device.start(&config, &self.memory.packets)?;
        let queues = Queues::of_narrow_device(queues, self.workers.into(), &self.memory.packets);
        Ok((Device::Dpdk { port: device, missed: 0, segmentation: None }, queues))
    }

    /// Memory that is shared with a program in the pod.
    fn shared(&self, port: &NewPort<'_>, socket: &Socket) -> Result<(Device, Queues), BackendError> {
        let vdev = match socket.sharing {
            Sharing::Memif => memif::device(port.interface, &socket.path)?,
            Sharing::VhostUser => vhost_user::device(port.interface, &socket.path),
        };
        Ok(self.narrow(port, &vdev)?)
    }

    fn vhost_net(&self, port: &NewPort<'_>) -> Result<(Device, Queues), BackendError> {
        let opened = self.narrow(port, &vhost_net::device(port)?)?;
        tap::configure(port.interface, port.mac, port.mtu)?;
        Ok(opened)
    }

    /// Packet sockets on an interface, one for each worker.
    fn packet_sockets(&self, port: &NewPort<'_>) -> Result<(Device, Queues), BackendError> {
        let interface = Interface::find(port.interface)?;
        let workers = usize::from(self.workers);
        let sockets = PacketSockets::open(port.interface, &interface, port.mac, workers, self.sees)?;
        let losses = sockets.losses();
        let (rx, tx) = sockets.ends(&self.memory);
        let rx = rx.into_iter().map(|rx| Rx::Packet(Box::new(rx))).collect();
        Ok((Device::Sockets(losses), Queues { rx, tx: tx.into_iter().map(Tx::Tap).collect() }))
    }

    fn tap(&mut self, port: &NewPort<'_>) -> Result<(Device, Queues), TapError> {
        let (behind, budget) = match port.kind {
            PortKind::Uplink => (Behind::Wire, Budget::UNLIMITED),
            PortKind::Pod | PortKind::Host => (Behind::Host, self.drivers.pod_budget),
        };
        let workers = usize::from(self.workers);
        let name = port.interface.as_str();
        let tap = match self.left.remove(name) {
            // With as many queues as it has.
            Some(descriptors) => Tap::resume(port.interface, descriptors, behind)
                .inspect_err(|_| self.keep.forget(&kept_as(name)))?,
            None => {
                let queues = match port.polling {
                    Polling::ByAll => workers,
                    Polling::By(_) => 1,
                };
                Tap::create(port.interface, port.mac, port.mtu, behind, queues)?
            }
        };
        self.keep.store(&kept_as(name), &tap.descriptors());
        let rx = tap.rx(&self.memory, budget).into_iter().map(Rx::Tap).collect();
        let tx = tap.tx(workers).into_iter().map(Tx::Tap).collect();
        Ok((Device::Tap(port.interface.clone(), tap.first_queue()), Queues { rx, tx }))
    }
}

impl Backend for Devices {
    type Device = Device;
    type Error = BackendError;

    fn open(&mut self, port: &NewPort<'_>) -> Result<Device, BackendError> {
        let driver = match port.kind {
            PortKind::Uplink => self.drivers.uplink,
            PortKind::Pod => self.drivers.pods,
            PortKind::Host => PortDriver::Tap,
        };
        let has_queues = port.socket.is_none() && matches!(driver, PortDriver::Tap | PortDriver::NetTap);
        let spread = self.drivers.spread_pods && port.kind == PortKind::Pod && has_queues;
        let port = &NewPort { polling: if spread { Polling::ByAll } else { port.polling }, ..*port };
        let (device, queues) = match (port.socket, driver) {
            (Some(socket), _) => self.shared(port, socket)?,
            (None, PortDriver::Tap) => self.tap(port)?,
            (None, PortDriver::NetTap) => {
                let vdev = Vdev::Tap { interface: port.interface.to_string(), mac: Some(port.mac.octets()) };
                self.dpdk(port, &vdev)?
            }
            (None, PortDriver::VhostNet) => self.vhost_net(port)?,
            (None, PortDriver::AfPacket) => self.packet_sockets(port)?,
            (None, PortDriver::AfXdp) => {
                let vdev = af_xdp::device(port.interface, self.workers)?;
                if self.succeeds {
                    af_xdp::wait_for_queues(port.interface)?;
                }
                self.dpdk(port, &vdev).map_err(|source| AfXdpError::new(port.interface, source))?
            }
            (None, PortDriver::Nic) => {
                let name = || PortError::NoSuchPort { port: port.interface.to_string() };
                let taken = self.nic.take().ok_or_else(name)?;
                self.start_device(port, taken)?
            }
        };
        if let Some(team) = &self.team {
            team.hand_over(port.index, port.polling, queues)?;
        }
        Ok(device)
    }

    fn close(&mut self, index: PortIndex, device: Device) -> Result<(), BackendError> {
        if let Some(team) = &self.team {
            team.take_back(index)?;
        }
        match device {
            // A device that is still in use goes when the last user drops it.
            Device::Dpdk { port, .. } => port.remove().map_err(|(_, error)| error.into()),
            Device::Tap(name, _) => {
                self.keep.close(&kept_as(name.as_str()));
                Ok(())
            }
            Device::Sockets(_) => Ok(()),
        }
    }
}

/// What the names begin with under which the descriptors of taps are kept.
const TAP: &str = "tap.";

fn kept_as(name: &str) -> String {
    format!("{TAP}{name}")
}
