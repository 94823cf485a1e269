//! Follows the inventory and keeps one resource per pool on offer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::device_plugin::{Allocations, DevicePlugin, Registration};
use culvert_api::errors::chain;
use culvert_api::value::{ResourceName, ResourcePrefix};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::allocate::environment_name;
use crate::kubelet::{Folder, Offer, Way, remove_stale, serve};
use crate::memory::{Keeper, Memory};
use crate::pool::{Inventory, Member, Pool};
use crate::publish::Publisher;
use crate::{Device, Health};

/// How long writing down may take at the end.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// The running device plugin. Dropping it ends it without waiting.
#[derive(Debug)]
pub struct Plugin {
    statuses: watch::Receiver<Statuses>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// State of every resource on offer.
pub type Statuses = BTreeMap<ResourceName, PoolStatus>;

/// State of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// Devices in the pool: the node's capacity.
    pub devices: usize,
    /// Those that new pods may have.
    pub healthy: usize,
    /// Why kubelet does not watch the list, while it does not.
    pub waiting: Option<String>,
}

impl Plugin {
    /// Starts to offer the pools that the devices name; to be called within a tokio runtime.
    ///
    /// Nothing here fails for good: what stands in the way (no kubelet, no folder, a refusal) is tried again and shown
    /// by [`Plugin::statuses`] meanwhile. When the sender of `devices` goes away, the last list stays in force.
    pub fn start(config: &DevicePlugin, devices: watch::Receiver<Vec<Device>>) -> Self {
        Self::begin(config, None, devices)
    }

    /// Like [`Plugin::start`], and offers what `memory` holds at once, if anything: until `devices` has its first list,
    /// or one that is not empty already. Devices are given from then on only.
    pub fn resume(config: &DevicePlugin, memory: Memory, devices: watch::Receiver<Vec<Device>>) -> Self {
        Self::begin(config, Some(memory), devices)
    }

    fn begin(config: &DevicePlugin, memory: Option<Memory>, devices: watch::Receiver<Vec<Device>>) -> Self {
        let way = match config.registration {
            Registration::Kubelet => Way::Call,
            Registration::Watcher => Way::Found,
            Registration::Auto if config.plugins_registry.is_dir() => Way::Found,
            Registration::Auto => Way::Call,
        };
        let path = if way == Way::Call { &config.kubelet_dir } else { &config.plugins_registry };
        tracing::info!(folder = %path.display(), ?way, "device plugin starts");
        let stop = CancellationToken::new();
        let statuses = watch::Sender::new(Statuses::new());
        let receiver = statuses.subscribe();
        let (keeper, writer) = Keeper::open(memory);
        let offers = Offers {
            prefix: config.resource_prefix.clone(),
            way,
            publisher: Publisher::new(config),
            allocation: config.allocation.clone(),
            folder: Folder::watch(path, stop.clone()),
            statuses: Arc::new(statuses),
            stop: stop.clone(),
            keeper,
            seen: watch::Sender::new(false),
            offers: BTreeMap::new(),
        };
        let writer = tokio::spawn(writer);
        let task = tokio::spawn(async move {
            offers.run(devices).await;
            // What nobody has written until now was told in vain.
            if timeout(WRITE_DEADLINE, writer).await.is_err() {
                tracing::warn!("the devices on offer could not be written down in time");
            }
        });
        Self { statuses: receiver, stop: stop.drop_guard(), task }
    }

    /// Follows the state of all resources.
    pub fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.clone()
    }

    /// Ends the lists, removes the sockets and waits until that is done.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "device plugin");
        }
    }
}

/// Where a pool's task tells how it fares.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    resource: ResourceName,
    statuses: Arc<watch::Sender<Statuses>>,
}

impl Report {
    /// Kubelet watches the list, or why it does not. True if that is news.
    pub(crate) fn waiting(&self, reason: Option<&str>) -> bool {
        self.statuses.send_if_modified(|statuses| {
            let Some(status) = statuses.get_mut(&self.resource) else { return false };
            let news = status.waiting.as_deref() != reason;
            status.waiting = reason.map(str::to_owned);
            news
        })
    }
}

struct Offers {
    prefix: ResourcePrefix,
    way: Way,
    publisher: Publisher,
    allocation: Allocations,
    folder: Folder,
    statuses: Arc<watch::Sender<Statuses>>,
    stop: CancellationToken,
    keeper: Keeper,
    /// Whether the devices are those of the machine, and not those remembered.
    seen: watch::Sender<bool>,
    offers: BTreeMap<ResourceName, Running>,
}

/// A pool on offer.
struct Running {
    pool: watch::Sender<Arc<Pool>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Offers {
    async fn run(mut self, mut devices: watch::Receiver<Vec<Device>>) {
        remove_stale(&self.folder.path).await;
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            // An empty list at the start says that nobody has looked at the machine yet.
            if devices.borrow().is_empty() {
                self.follow(&self.inventory(&self.keeper.devices()));
                if devices.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
            loop {
                let inventory = self.inventory(&devices.borrow_and_update());
                self.follow(&inventory);
                self.publish(&inventory);
                self.seen.send_replace(true);
                self.keeper.offered(self.offered());
                if devices.changed().await.is_err() {
                    tracing::debug!("no more news of devices");
                    return std::future::pending().await;
                }
            }
        })
        .await;
        for (_, running) in self.offers {
            if let Err(error) = running.task.await {
                tracing::error!(%error, "pool");
            }
        }
    }

    fn inventory(&self, devices: &[Device]) -> Inventory {
        devices.iter().map(|d| (d.pci, (d.resource(&self.prefix), d.clone()))).collect()
    }

    /// The devices as they are on offer: those that are gone, too, as long as kubelet is told of them.
    fn offered(&self) -> Vec<Device> {
        let pools = self.offers.values().map(|running| running.pool.borrow().clone());
        let device = |member: &Member| Device {
            health: member.problem().map_or(Health::Healthy, |problem| Health::Unhealthy(problem.to_owned())),
            ..member.device.clone()
        };
        pools.flat_map(|pool| pool.members().map(device).collect::<Vec<_>>()).collect()
    }

    fn follow(&mut self, inventory: &Inventory) {
        for resource in inventory.values().filter_map(|(resource, _)| resource.as_ref()) {
            if !self.offers.contains_key(resource) {
                let running = self.offer(resource, inventory);
                self.offers.insert(resource.clone(), running);
            }
        }
        let statuses = &self.statuses;
        self.offers.retain(|resource, running| {
            running.pool.send_if_modified(|pool| {
                let mut next = (**pool).clone();
                next.update(inventory);
                let news = next != **pool;
                *pool = Arc::new(next);
                news
            });
            let pool = running.pool.borrow().clone();
            let (devices, healthy) =
                (pool.members().count(), pool.members().filter(|m| m.problem().is_none()).count());
            let kept = devices > 0;
            statuses.send_if_modified(|statuses| {
                if !kept {
                    return statuses.remove(resource).is_some();
                }
                let Some(status) = statuses.get_mut(resource) else { return false };
                let news = (status.devices, status.healthy) != (devices, healthy);
                (status.devices, status.healthy) = (devices, healthy);
                news
            });
            if !kept {
                tracing::info!(%resource, "all devices were withdrawn; no longer on offer");
                running.stop.cancel();
            }
            kept
        });
    }

    /// Writes the files by which others know the devices.
    fn publish(&self, inventory: &Inventory) {
        let pools: Vec<Arc<Pool>> =
            self.offers.values().map(|running| running.pool.borrow().clone()).collect();
        for error in self.publisher.follow(&pools, inventory) {
            tracing::error!(error = chain(&error), "files about devices");
        }
    }

    fn offer(&self, resource: &ResourceName, inventory: &Inventory) -> Running {
        let variable = environment_name(resource);
        for other in self.offers.keys().filter(|other| environment_name(other) == variable) {
            tracing::warn!(%resource, %other, variable, "a container with devices of both sees only one of them");
        }
        let first = PoolStatus { waiting: Some("not yet offered".to_owned()), ..PoolStatus::default() };
        self.statuses.send_modify(|statuses| drop(statuses.insert(resource.clone(), first)));
        let mut pool = Pool::new(resource.clone());
        pool.update(inventory);
        let pool = watch::Sender::new(Arc::new(pool));
        let stop = self.stop.child_token();
        let task = tokio::spawn(serve(Offer {
            resource: resource.clone(),
            pool: pool.subscribe(),
            folder: self.folder.clone(),
            way: self.way,
            publisher: self.publisher.clone(),
            allocation: self.allocation.of(&resource.pool),
            keeper: self.keeper.clone(),
            seen: self.seen.subscribe(),
            report: Report { resource: resource.clone(), statuses: self.statuses.clone() },
            stop: stop.clone(),
        }));
        Running { pool, stop, task }
    }
}
