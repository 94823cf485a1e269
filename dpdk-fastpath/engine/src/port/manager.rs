//! Which ports there are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_api::value::{IfName, Mac};

use super::PodPort;

/// What makes ports real: DPDK and the workers, or a fake.
pub trait Backend {
    /// A port that runs.
    type Device;
    /// Why one could not be started or stopped.
    type Error: std::error::Error;

    /// Starts a port: packets flow between its device and the workers from now on, `worker` receiving.
    ///
    /// # Errors
    /// Nothing is left behind then.
    fn open(&mut self, port: &NewPort<'_>) -> Result<Self::Device, Self::Error>;

    /// Stops a port and removes its device.
    ///
    /// # Errors
    /// The workers may still hold the port then.
    fn close(&mut self, slot: u16, device: Self::Device) -> Result<(), Self::Error>;
}

/// What [`Backend::open`] needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPort<'a> {
    /// Index of the port in all tables of the data path.
    pub slot: u16,
    /// Worker that polls the port.
    pub worker: usize,
    /// Name of the kernel interface.
    pub interface: &'a IfName,
    /// Ethernet address of the interface; `None`: the kernel's choice.
    pub mac: Option<Mac>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

/// A port that runs.
#[derive(Debug)]
pub struct Entry<D> {
    /// Index of the port in all tables of the data path.
    pub slot: u16,
    /// Worker that polls the port.
    pub worker: usize,
    /// What it is.
    pub role: Role,
    /// What makes it run.
    pub device: D,
}

/// What a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The port towards the other nodes.
    Uplink(Uplink),
    /// A pod's.
    Pod(PodPort),
}

/// The port towards the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Name of the port.
    pub name: IfName,
    /// The fast path's own Ethernet address there.
    pub mac: Mac,
    /// Ethernet address of the kernel interface, where there is one.
    pub kernel_mac: Option<Mac>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

/// Why a port was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError<E: std::error::Error> {
    /// No slot is free.
    #[error("port {port}: all {limit} ports are in use")]
    Full {
        /// The port.
        port: IfName,
        /// How many there can be.
        limit: u16,
    },
    /// Another pod has the address.
    #[error("port {port}: address {address} belongs to port {holder} already")]
    AddressTaken {
        /// The port.
        port: IfName,
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: IfName,
    },
    /// The uplink is not a pod's, and is never detached.
    #[error("port {port}: is the uplink")]
    IsUplink {
        /// The port.
        port: IfName,
    },
    /// The device could not be started or stopped.
    #[error("port {port}: cannot be {action}")]
    Backend {
        /// The port.
        port: IfName,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: E,
    },
}

/// All ports of the process.
#[derive(Debug)]
pub struct PortManager<B: Backend> {
    backend: B,
    ports: BTreeMap<IfName, Entry<B::Device>>,
    /// By slot: whether it may be given to a new port.
    free: Vec<bool>,
    workers: usize,
}

/// A port that is listed no more and still runs, until [`PortManager::close`].
#[derive(Debug)]
#[must_use = "the port runs on until it is closed"]
pub struct Leaving<D> {
    name: IfName,
    entry: Entry<D>,
}

impl<B: Backend> PortManager<B> {
    /// No ports yet; `limit` at most, polled by `workers` workers.
    pub fn new(backend: B, limit: u16, workers: usize) -> Self {
        Self { backend, ports: BTreeMap::new(), free: vec![true; limit.into()], workers }
    }

    /// Starts the uplink.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub fn attach_uplink(&mut self, uplink: Uplink) -> Result<(), ManagerError<B::Error>> {
        let (name, mac, mtu) = (uplink.name.clone(), uplink.kernel_mac, uplink.mtu);
        self.start(name, mac, mtu, Role::Uplink(uplink))
    }

    /// Starts a pod's port. One that runs under that name stays, and takes over the new addresses, owner and the rest;
    /// only its kernel interface, which lies in the pod by then, is left as it is.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn attach(&mut self, pod: PodPort) -> Result<&Entry<B::Device>, ManagerError<B::Error>> {
        if let Some((address, holder)) = self.conflict(&pod) {
            return Err(ManagerError::AddressTaken { port: pod.name, address, holder });
        }
        let name = pod.name.clone();
        match self.ports.get_mut(&name) {
            Some(Entry { role: Role::Uplink(_), .. }) => return Err(ManagerError::IsUplink { port: name }),
            Some(Entry { role: role @ Role::Pod(_), .. }) => *role = Role::Pod(pod),
            None => self.start(name.clone(), Some(pod.mac), pod.mtu.get(), Role::Pod(pod))?,
        }
        Ok(&self.ports[&name])
    }

    /// Takes a pod's port off the list; `None` if there is none of that name. It is to be closed once no table names it.
    ///
    /// # Errors
    /// When it is the uplink.
    pub fn detach(&mut self, name: &str) -> Result<Option<Leaving<B::Device>>, ManagerError<B::Error>> {
        match self.ports.get(name) {
            Some(Entry { role: Role::Uplink(uplink), .. }) => {
                Err(ManagerError::IsUplink { port: uplink.name.clone() })
            }
            Some(Entry { role: Role::Pod(_), .. }) | None => {
                Ok(self.ports.remove_entry(name).map(|(name, entry)| Leaving { name, entry }))
            }
        }
    }

    /// Stops a port that was detached.
    ///
    /// # Errors
    /// Its slot is not used again then, since workers may still hold the port.
    pub fn close(&mut self, leaving: Leaving<B::Device>) -> Result<(), ManagerError<B::Error>> {
        let Leaving { name, entry: Entry { slot, device, .. } } = leaving;
        self.backend.close(slot, device).map_err(|source| ManagerError::Backend {
            port: name,
            action: "stopped",
            source,
        })?;
        self.free[usize::from(slot)] = true;
        Ok(())
    }

    /// Stops every port, the uplink last, and goes on where one fails.
    pub fn close_all(&mut self) -> Vec<ManagerError<B::Error>> {
        let ports = std::mem::take(&mut self.ports);
        let (uplink, pods): (Vec<_>, Vec<_>) =
            ports.into_iter().partition(|(_, entry)| matches!(entry.role, Role::Uplink(_)));
        let leaving = pods.into_iter().chain(uplink).map(|(name, entry)| Leaving { name, entry });
        leaving.filter_map(|leaving| self.close(leaving).err()).collect()
    }

    /// All ports, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<B::Device>> + '_ {
        self.ports.values()
    }

    /// The uplink, once attached.
    pub fn uplink(&self) -> Option<(u16, &Uplink)> {
        self.ports.values().find_map(|entry| match &entry.role {
            Role::Uplink(uplink) => Some((entry.slot, uplink)),
            Role::Pod(_) => None,
        })
    }

    /// The pods' ports with their slots.
    pub fn pods(&self) -> impl Iterator<Item = (u16, &PodPort)> + '_ {
        self.ports.values().filter_map(|entry| match &entry.role {
            Role::Uplink(_) => None,
            Role::Pod(pod) => Some((entry.slot, pod)),
        })
    }

    /// What makes the ports real.
    pub fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    fn start(
        &mut self,
        name: IfName,
        mac: Option<Mac>,
        mtu: u16,
        role: Role,
    ) -> Result<(), ManagerError<B::Error>> {
        let Some(slot) = self.free.iter().position(|free| *free) else {
            return Err(ManagerError::Full { port: name, limit: self.free.len() as u16 });
        };
        let worker = self.least_busy_worker();
        let port = NewPort { slot: slot as u16, worker, interface: &name, mac, mtu };
        match self.backend.open(&port) {
            Ok(device) => {
                self.free[slot] = false;
                self.ports.insert(name, Entry { slot: slot as u16, worker, role, device });
                Ok(())
            }
            Err(source) => Err(ManagerError::Backend { port: name, action: "started", source }),
        }
    }

    /// The worker with the fewest ports to poll; the first of them.
    fn least_busy_worker(&self) -> usize {
        let load = |worker: &usize| self.ports.values().filter(|entry| entry.worker == *worker).count();
        (0..self.workers).min_by_key(load).unwrap_or(0)
    }

    fn conflict(&self, new: &PodPort) -> Option<(IpAddr, IfName)> {
        let others =
            self.pods().map(|(_, pod)| pod).filter(|pod| pod.name != new.name && pod.tenant == new.tenant);
        others
            .flat_map(|pod| pod.addresses().map(|address| (address, pod.name.clone())))
            .find(|(address, _)| new.addresses().any(|wanted| wanted == *address))
    }
}
