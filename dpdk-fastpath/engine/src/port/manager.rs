//! Which ports there are.

use std::collections::BTreeMap;

use culvert_api::value::{IfName, IfNameError, Mac};

use crate::table::{Port, PortIndex, PortKind, Socket};
use crate::worker::Polling;

/// What makes ports real: DPDK and the workers, or a fake.
pub trait Backend {
    /// A port that runs.
    type Device;
    /// Why one could not be started or stopped.
    type Error: std::error::Error + 'static;

    /// Starts a port: packets flow between its device and the workers from now on.
    ///
    /// # Errors
    /// Nothing is left behind then.
    fn open(&mut self, port: &NewPort<'_>) -> Result<Self::Device, Self::Error>;

    /// Stops a port and removes its device.
    ///
    /// # Errors
    /// The workers may still hold the port then.
    fn close(&mut self, index: PortIndex, device: Self::Device) -> Result<(), Self::Error>;
}

/// What [`Backend::open`] needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPort<'a> {
    /// Number of the port.
    pub index: PortIndex,
    /// Who polls the port.
    pub polling: Polling,
    /// Name of the kernel interface.
    pub interface: &'a IfName,
    /// Ethernet address of the kernel interface.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// What is behind the port.
    pub kind: PortKind,
    /// Where a program in the pod finds the port; without it the port is a kernel interface.
    pub socket: Option<&'a Socket>,
}

/// A port that runs.
#[derive(Debug)]
pub struct Entry<D> {
    /// Number of the port.
    pub index: PortIndex,
    /// Worker that polls the port, and sends what the control thread has for it; of those that all poll, the first.
    pub worker: usize,
    /// What packets need to know of it.
    pub port: Port,
    /// What makes it run.
    pub device: D,
}

/// Why a port was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError<E: std::error::Error + 'static> {
    /// The name is no interface's.
    #[error("port {port:?}")]
    Name {
        /// The name as asked for.
        port: String,
        /// What is wrong with it.
        source: IfNameError,
    },
    /// No number is free.
    #[error("port {port}: all {limit} ports are in use")]
    Full {
        /// The port.
        port: IfName,
        /// How many there can be.
        limit: usize,
    },
    /// The uplink is nobody's, and is never detached.
    #[error("port {port}: is the uplink")]
    IsUplink {
        /// The port.
        port: String,
    },
    /// It runs, made by something else.
    #[error("port {port}: is there with another device, socket or kind: detach it first")]
    OtherDevice {
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
    /// By number: whether it may be given to a new port.
    free: Vec<bool>,
    /// The number that the next new port gets if it is free.
    preferred: Option<PortIndex>,
    workers: usize,
}

/// A port that is listed no more and still runs, until [`PortManager::close`].
#[derive(Debug)]
#[must_use = "the port runs on until it is closed"]
pub struct Leaving<D> {
    name: IfName,
    entry: Entry<D>,
}

impl<D> Leaving<D> {
    /// Number of the port.
    pub fn index(&self) -> PortIndex {
        self.entry.index
    }
}

impl<B: Backend> PortManager<B> {
    /// No ports yet; `limit` at most, polled by `workers` workers.
    pub fn new(backend: B, limit: usize, workers: usize) -> Self {
        Self { backend, ports: BTreeMap::new(), free: vec![true; limit], preferred: None, workers }
    }

    /// From now on new ports get this number, unless another port has it.
    pub fn prefer(&mut self, number: Option<PortIndex>) {
        self.preferred = number;
    }

    /// The number that a port of this name has, or would get.
    ///
    /// # Errors
    /// When no interface can have the name, or no number is free.
    pub fn index_for(&self, name: &str) -> Result<PortIndex, ManagerError<B::Error>> {
        if let Some(entry) = self.ports.get(name) {
            return Ok(entry.index);
        }
        let port = parse(name)?;
        let preferred = self.preferred.map(|PortIndex(number)| usize::from(number));
        let preferred = preferred.filter(|number| self.free.get(*number) == Some(&true));
        match preferred.or_else(|| self.free.iter().position(|free| *free)) {
            Some(number) => Ok(PortIndex(number as u16)),
            None => Err(ManagerError::Full { port, limit: self.free.len() }),
        }
    }

    /// Starts a port whose kernel interface has the address `mac`. One that runs under that name stays, and takes over
    /// the new addresses, owner and the rest; its kernel interface, which may lie in a pod by then, is left as it is.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn attach(&mut self, port: Port, mac: Mac) -> Result<&Entry<B::Device>, ManagerError<B::Error>> {
        let name = parse(&port.name)?;
        match self.ports.get_mut(&name) {
            Some(entry) if entry.port.kind != PortKind::Uplink => {
                if (entry.port.kind, &entry.port.socket) != (port.kind, &port.socket) {
                    return Err(ManagerError::OtherDevice { port: name });
                }
                entry.port = port;
            }
            Some(_) => return Err(ManagerError::IsUplink { port: port.name }),
            None => {
                let entry = self.start(&name, port, mac)?;
                self.ports.insert(name.clone(), entry);
            }
        }
        Ok(&self.ports[&name])
    }

    /// Takes a port off the list; `None` if there is none of that name. It is to be closed once no table names it.
    ///
    /// # Errors
    /// When it is the uplink.
    pub fn detach(&mut self, name: &str) -> Result<Option<Leaving<B::Device>>, ManagerError<B::Error>> {
        match self.ports.get(name).map(|entry| entry.port.kind) {
            Some(PortKind::Uplink) => Err(ManagerError::IsUplink { port: name.to_owned() }),
            Some(PortKind::Pod | PortKind::Host) | None => {
                Ok(self.ports.remove_entry(name).map(|(name, entry)| Leaving { name, entry }))
            }
        }
    }

    /// Stops a port that was detached.
    ///
    /// # Errors
    /// Its number is not used again then, since workers may still hold the port.
    pub fn close(&mut self, leaving: Leaving<B::Device>) -> Result<(), ManagerError<B::Error>> {
        let Leaving { name, entry: Entry { index, device, .. } } = leaving;
        self.backend.close(index, device).map_err(|source| ManagerError::Backend {
            port: name,
            action: "stopped",
            source,
        })?;
        self.free[usize::from(index.0)] = true;
        Ok(())
    }

    /// Stops every port, the uplink last, and goes on where one fails.
    pub fn close_all(&mut self) -> Vec<ManagerError<B::Error>> {
        self.close_those(|_| true)
    }

    /// Stops the ports with such a device, in the same way.
    pub fn close_those(&mut self, such: impl Fn(&B::Device) -> bool) -> Vec<ManagerError<B::Error>> {
        let (ports, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.ports).into_iter().partition(|(_, entry)| such(&entry.device));
        self.ports = others;
        let (attached, uplink): (Vec<_>, Vec<_>) =
            ports.into_iter().partition(|(_, entry)| entry.port.kind != PortKind::Uplink);
        let leaving = attached.into_iter().chain(uplink).map(|(name, entry)| Leaving { name, entry });
        leaving.filter_map(|leaving| self.close(leaving).err()).collect()
    }

    /// All ports, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<B::Device>> + '_ {
        self.ports.values()
    }

    /// All devices, and their ports' numbers.
    pub fn devices(&mut self) -> impl Iterator<Item = (PortIndex, &mut B::Device)> + '_ {
        self.ports.values_mut().map(|entry| (entry.index, &mut entry.device))
    }

    /// The port of a name.
    pub fn get(&self, name: &str) -> Option<&Entry<B::Device>> {
        self.ports.get(name)
    }

    /// The uplink, once attached.
    pub fn uplink(&self) -> Option<&Entry<B::Device>> {
        self.iter().find(|entry| entry.port.kind == PortKind::Uplink)
    }

    /// What makes the ports real.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// What makes the ports real, to be changed.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    fn start(
        &mut self,
        name: &IfName,
        port: Port,
        mac: Mac,
    ) -> Result<Entry<B::Device>, ManagerError<B::Error>> {
        let index = self.index_for(name.as_str())?;
        let (worker, polling) = match port.kind {
            PortKind::Uplink | PortKind::Host => (0, Polling::ByAll),
            PortKind::Pod => {
                let worker = self.least_busy_worker();
                (worker, Polling::By(worker))
            }
        };
        let Port { mtu, kind, ref socket, .. } = port;
        let new = NewPort { index, polling, interface: name, mac, mtu, kind, socket: socket.as_ref() };
        let device = self.backend.open(&new).map_err(|source| {
            let port = name.clone();
            ManagerError::Backend { port, action: "started", source }
        })?;
        self.free[usize::from(index.0)] = false;
        Ok(Entry { index, worker, port, device })
    }

    /// The worker with the fewest pods' ports to poll; the first of them.
    fn least_busy_worker(&self) -> usize {
        let polls = |entry: &Entry<_>, worker| entry.port.kind == PortKind::Pod && entry.worker == worker;
        let load = |worker: &usize| self.iter().filter(|entry| polls(entry, *worker)).count();
        (0..self.workers).min_by_key(load).unwrap_or(0)
    }
}

fn parse<E: std::error::Error + 'static>(name: &str) -> Result<IfName, ManagerError<E>> {
    name.parse().map_err(|source| ManagerError::Name { port: name.to_owned(), source })
}
