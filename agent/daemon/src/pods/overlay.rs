//! Pods on the overlay: each has a port of the fast path whose kernel end is moved into the pod.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use culvert_api::config::agent;
use culvert_api::fastpath::{AttachPortRequest, PortDevice, PortKind};
use culvert_api::value::{Mac, Vni};
use culvert_host::netns::{Netns, NetnsError};
use futures::StreamExt as _;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::{JoinError, spawn_blocking};
use tracing::{info, warn};

use super::host;
use super::interface::{InterfaceError, PodInterface};
use super::ipam::{self, IpamError, Wish};
use super::record::{Key, Lease, Phase, PodName, Record};
use super::socket::{Socket, SocketError};
use super::store::{Store, StoreError};
use crate::errors::chain;
use crate::fastpath::{FastPath, FastPathError};
use crate::kube::Snapshot;
use crate::tables::{NodeAddresses, octets};

/// How many ports are put back at once after a restart of the fast path.
const RESTORE_AT_ONCE: usize = 8;

/// Attaches pods to the fast path and detaches them.
#[derive(Debug)]
pub struct Overlay {
    node: String,
    config: agent::Overlay,
    fastpath: FastPath,
    store: Arc<Store>,
    objects: watch::Receiver<Arc<Snapshot>>,
    boot: String,
    /// One at a time for each attachment; different ones may share a lock.
    locks: [Mutex<()>; 64],
}

/// What the runtime asks for.
#[derive(Debug, Clone)]
pub struct OverlayRequest {
    /// Whose it will be.
    pub key: Key,
    /// Name of the CNI network.
    pub network: String,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The pod, if the runtime told.
    pub pod: Option<PodName>,
    /// Addresses that it is to have.
    pub wish: Wish,
    /// MAC address that the runtime wants it to have.
    pub mac: Option<Mac>,
    /// Where a program in the pod is to find the port, in place of an interface.
    pub socket: Option<Socket>,
}

/// A pod on the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What it was given.
    pub lease: Lease,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Where a program in it finds the port, in place of an interface.
    pub socket: Option<Socket>,
}

/// Why a pod could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Nothing is known yet of this node's addresses.
    #[error("overlay not ready: {0}")]
    NotReady(String),
    /// No address.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Another pod of the node, and of the same tenant, has it.
    #[error("mac {mac}: is that of pod {holder}, too; give each pod of a node its own")]
    MacTaken {
        /// The MAC.
        mac: Mac,
        /// Who has it.
        holder: String,
    },
    /// No record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The fast path.
    #[error(transparent)]
    FastPath(#[from] FastPathError),
    /// No such namespace.
    #[error("CNI_NETNS")]
    Netns(#[source] NetnsError),
    /// The pod's namespace.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The socket of its port.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A task of the agent broke.
    #[error("the agent's own task failed")]
    Task(#[from] JoinError),
}

/// Why an attachment is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is none.
    #[error("no record of {0}")]
    Unknown(Key),
    /// There is, but not as it should be.
    #[error("{}", .0.join("; "))]
    Faults(Vec<String>),
    /// It could not be looked at.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl Overlay {
    /// The overlay of node `node`. Records come from `store`, addresses and annotations from `objects`.
    pub fn new(
        node: String,
        config: agent::Overlay,
        fastpath: FastPath,
        store: Arc<Store>,
        objects: watch::Receiver<Arc<Snapshot>>,
        boot: String,
    ) -> Self {
        Self { node, config, fastpath, store, objects, boot, locks: [const { Mutex::const_new(()) }; 64] }
    }

    /// The records.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Gives a pod a port, or, when it has one that is as it should be, says what it has.
    ///
    /// # Errors
    /// When any step fails; what was done before is undone then.
    pub async fn attach(&self, request: &OverlayRequest) -> Result<Attached, AttachError> {
        let _lock = self.lock(&request.key).await;
        let netns = Netns::open(&request.netns).map_err(AttachError::Netns)?;
        let mut before = Vec::new();
        if let Some(record) = self.store.get(&request.key) {
            if let Some(attached) = self.reusable(&record, request, &netns).await? {
                return Ok(attached);
            }
            before.clone_from(&record.lease.addresses);
            self.undo(record).await?;
        }
        let record = self.reserve(request, before).await?;
        match self.carry_out(&record, &netns).await {
            Ok(attached) => Ok(attached),
            Err(e) => {
                if let Err(undo) = self.undo(record).await {
                    warn!("{}: not undone, DEL has to do it: {undo}", request.key);
                }
                Err(e)
            }
        }
    }

    /// Takes a pod's port away. That there is none is no error.
    ///
    /// While the fast path is away the port stays recorded: it is not made again, and detached when the fast path is
    /// back, should it still be there.
    pub async fn detach(&self, key: &Key) -> Result<(), AttachError> {
        let _lock = self.lock(key).await;
        match self.store.get(key) {
            Some(record) => self.undo(record).await,
            None => Ok(()),
        }
    }

    /// Whether an attachment is as `attach` left it.
    pub async fn check(&self, key: &Key, netns: &Path) -> Result<Attached, CheckError> {
        let _lock = self.lock(key).await;
        let Some(record) = self.store.get(key) else { return Err(CheckError::Unknown(key.clone())) };
        let netns = Netns::open(netns).map_err(AttachError::Netns)?;
        let faults = self.faults(&record, &netns).await?;
        if !faults.is_empty() {
            return Err(CheckError::Faults(faults));
        }
        Ok(record.into())
    }

    /// Whether a pod could be attached now.
    pub async fn status(&self) -> Result<(), AttachError> {
        self.addresses()?;
        self.fastpath.info().await?;
        Ok(())
    }

    /// Brings ports and records together after the fast path or the agent was started: `ports` are those there are.
    /// Recorded ones that are missing are made again and moved into their pods, where those still live; what was half
    /// done is undone. Returns what did not work.
    pub async fn restore(&self, ports: &HashSet<String>) -> Vec<String> {
        let keys: Vec<Key> = self.store.all().into_iter().map(|r| r.key).collect();
        let restored = futures::stream::iter(keys).map(|key| async move {
            let result = self.restore_one(&key, ports).await;
            result.err().map(|e| format!("{key}: {}", chain(&e)))
        });
        restored.buffer_unordered(RESTORE_AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn restore_one(&self, key: &Key, ports: &HashSet<String>) -> Result<(), AttachError> {
        let _lock = self.lock(key).await;
        // It may have changed while the lock was waited for.
        let Some(record) = self.store.get(key) else { return Ok(()) };
        let lease = &record.lease;
        match record.phase {
            Phase::Attaching | Phase::Detaching => {
                info!("{key}: was not finished, undone");
                self.undo(record).await
            }
            Phase::Attached if ports.contains(lease.port.as_str()) => Ok(()),
            Phase::Attached => match Netns::open(&record.netns) {
                Ok(netns) => {
                    if let Err(e) = self.carry_out(&record, &netns).await {
                        // Half a port would be in the way of the next attempt.
                        let _ = self.fastpath.detach_port(lease.port.as_str()).await;
                        return Err(e);
                    }
                    info!(pod = record.owner(), port = %lease.port, "port made again");
                    Ok(())
                }
                Err(e) if e.is_absent() => {
                    info!(pod = record.owner(), "namespace is gone, its port is not made again");
                    Ok(())
                }
                Err(e) => Err(AttachError::Netns(e)),
            },
        }
    }

    async fn reusable(
        &self,
        record: &Record,
        request: &OverlayRequest,
        netns: &Netns,
    ) -> Result<Option<Attached>, AttachError> {
        let same = record.phase == Phase::Attached
            && record.netns == request.netns
            && record.socket == request.socket;
        if !same || !self.faults(record, netns).await?.is_empty() {
            return Ok(None);
        }
        Ok(Some(record.clone().into()))
    }

    async fn faults(&self, record: &Record, netns: &Netns) -> Result<Vec<String>, AttachError> {
        let lease = &record.lease;
        let mut faults = match record.socket {
            None => PodInterface::open(netns, &record.key.ifname, lease)?.faults().await?,
            Some(_) => Vec::new(),
        };
        if !self.fastpath.ports().await?.ports.iter().any(|p| p.name == lease.port.as_str()) {
            faults.push(format!("port {} is missing in the fast path", lease.port));
        }
        Ok(faults)
    }

    /// Chooses addresses and writes the record.
    async fn reserve(&self, request: &OverlayRequest, before: Vec<IpAddr>) -> Result<Record, AttachError> {
        let tenant = request.pod.as_ref().and_then(|pod| self.config.tenant_of(&pod.namespace));
        let node = self.addresses()?;
        let cidrs = node.ranges_of(tenant.map(|tenant| tenant.vni)).to_vec();
        if let Some(tenant) = tenant.filter(|_| cidrs.is_empty()) {
            let (name, node) = (&tenant.name, &self.node);
            return Err(AttachError::NotReady(format!("node {node}: no pod range of tenant {name}")));
        }
        let tenant = tenant.map(|tenant| tenant.vni);
        // What it had a moment ago is what it should have again.
        let mut wish = request.wish.clone();
        wish.preferred.splice(..0, before);
        let (store, request, boot) = (self.store.clone(), request.clone(), self.boot.clone());
        let mtu = self.pod_mtu(&node);
        let host_port = self.config.host_port.as_ref().filter(|_| tenant.is_none());
        let of_host: Vec<_> = host_port.into_iter().flat_map(|port| host::addresses(port, &cidrs)).collect();
        let make = move |records: &BTreeMap<Key, Record>| {
            let of_tenant = || records.values().filter(|record| record.tenant == tenant);
            let mut used = leases(of_tenant());
            used.extend(of_host.iter().map(|address| (*address, "the host port".to_owned())));
            let addresses = ipam::assign(&wish, &cidrs, &used, &newest(of_tenant()))?;
            let mac = request.mac.unwrap_or_else(|| derived_mac(&addresses));
            let mut others = of_tenant().filter(|r| r.key != request.key);
            if let Some(other) = others.find(|r| r.lease.mac == mac) {
                return Err(AttachError::MacTaken { mac, holder: other.owner() });
            }
            let port = request.key.port_name();
            let gateways = cidrs.iter().map(NodeAddresses::gateway).collect();
            Ok::<_, AttachError>(Record {
                network: request.network,
                pod: request.pod,
                netns: request.netns,
                boot,
                created: milliseconds_since_1970(),
                phase: Phase::Attaching,
                tenant,
                socket: request.socket,
                lease: Lease { port, addresses, gateways, mac, mtu },
                key: request.key,
            })
        };
        spawn_blocking(move || store.reserve(make)).await?
    }

    /// Makes the port and moves it into the pod, then marks the record as complete.
    async fn carry_out(&self, record: &Record, netns: &Netns) -> Result<Attached, AttachError> {
        let (lease, socket) = (&record.lease, record.socket.as_ref());
        let interface = match socket {
            None => Some(PodInterface::open(netns, &record.key.ifname, lease)?),
            Some(_) => None,
        };
        if let Some(interface) = &interface {
            interface.ensure_absent().await?;
        }
        let port = AttachPortRequest {
            name: lease.port.to_string(),
            addresses: lease.addresses.iter().map(|a| octets(*a)).collect(),
            mac: lease.mac.octets().to_vec(),
            mtu: lease.mtu.into(),
            tenant: record.tenant.map_or(0, Vni::get),
            owner: record.owner(),
            device: socket.map_or(PortDevice::Unspecified, Socket::device).into(),
            socket: socket.map(|socket| socket.path.display().to_string()).unwrap_or_default(),
            kind: PortKind::Pod.into(),
        };
        self.fastpath.attach_port(port).await?;
        if let Some(interface) = &interface {
            interface.set_up().await?;
        }
        if let Some(socket) = socket {
            socket.describe(lease)?;
        }
        if record.phase != Phase::Attached {
            self.put(Record { phase: Phase::Attached, ..record.clone() }).await?;
        }
        Ok(record.clone().into())
    }

    async fn undo(&self, record: Record) -> Result<(), AttachError> {
        let (key, port) = (record.key.clone(), record.lease.port.clone());
        self.put(Record { phase: Phase::Detaching, ..record }).await?;
        match self.fastpath.detach_port(port.as_str()).await {
            Ok(_) => {}
            Err(e) if e.is_away() => {
                warn!("{key}: port {port} is detached once the fast path is back: {e}");
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
        let store = self.store.clone();
        spawn_blocking(move || store.remove(&key)).await??;
        Ok(())
    }

    async fn put(&self, record: Record) -> Result<(), AttachError> {
        let store = self.store.clone();
        Ok(spawn_blocking(move || store.put(&record)).await??)
    }

    /// This node's addresses, as its Node object has them now.
    pub(super) fn addresses(&self) -> Result<NodeAddresses, AttachError> {
        let snapshot = self.objects.borrow();
        let node = snapshot.objects.nodes.get(self.node.as_str()).ok_or_else(|| {
            AttachError::NotReady(format!("there is no Node object {}, the name of this node", self.node))
        })?;
        NodeAddresses::of(node, &self.config.tenants, &mut Vec::new()).map_err(AttachError::NotReady)
    }

    /// Largest IP packet of a port, in bytes.
    pub(super) fn pod_mtu(&self, node: &NodeAddresses) -> u16 {
        self.config.pod_mtu(node.is_over_ipv4())
    }

    async fn lock(&self, key: &Key) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        self.locks[hash as usize % self.locks.len()].lock().await
    }
}

impl From<Record> for Attached {
    fn from(Record { lease, netns, socket, .. }: Record) -> Self {
        Self { lease, netns, socket }
    }
}

/// Who of one tenant's pods holds which address.
pub(super) fn leases<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeMap<IpAddr, String> {
    let of = |r: &Record| {
        let owner = r.owner();
        r.lease.addresses.clone().into_iter().map(move |address| (address, owner.clone()))
    };
    records.flat_map(of).collect()
}

/// The addresses that were given out last.
fn newest<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<IpAddr> {
    records.max_by_key(|r| r.created).map(|r| r.lease.addresses.clone()).unwrap_or_default()
}

/// The same MAC address whenever a pod gets the same address: 02:70 and the last four bytes of the first one.
pub(super) fn derived_mac(addresses: &[IpAddr]) -> Mac {
    let octets = addresses.first().map(|a| octets(*a)).unwrap_or_else(|| vec![0; 4]);
    let tail = octets[octets.len() - 4..].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    Mac::local_from(0x0270 << 32 | tail)
}

fn milliseconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
