//! What the stand-in knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use culvert_api::kubelet::v1beta1::{Device, DevicePluginOptions};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::KubeletError;
use super::dial::PluginClient;
use super::halt::Halt;

/// A resource of the node.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    /// Devices by id.
    pub devices: BTreeMap<String, DeviceState>,
    /// What the plugin has announced.
    pub options: DevicePluginOptions,
    /// Times the plugin has registered.
    pub registrations: usize,
    /// Lists received.
    pub lists: usize,
    /// Allocatable devices after each list and each loss of the plugin, oldest first.
    pub history: Vec<usize>,
    /// The least capacity that any list had.
    pub least: Option<usize>,
    /// Whether the plugin's list is being followed.
    pub connected: bool,
}

/// A device in the plugin's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// Whether new pods may have it.
    pub healthy: bool,
    /// NUMA nodes it is near.
    pub numa: Vec<i64>,
}

impl Resource {
    /// All devices, as in the node's `status.capacity`.
    pub fn capacity(&self) -> usize {
        self.devices.len()
    }

    /// The healthy ones, as in the node's `status.allocatable`.
    pub fn allocatable(&self) -> usize {
        self.devices.values().filter(|d| d.healthy).count()
    }
}

/// Devices that a pod holds.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// `namespace/name`.
    pub pod: String,
    /// The resource.
    pub resource: String,
    /// Ids of the devices.
    pub ids: Vec<String>,
}

/// Registrations to refuse.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) times: usize,
    pub(super) message: String,
}

/// A plugin that is connected.
#[derive(Debug)]
struct Plugin {
    client: PluginClient,
    follows: AbortHandle,
    /// Tells this connection from a later one of the same resource.
    connection: usize,
}

#[derive(Debug, Default)]
pub(super) struct State {
    resources: watch::Sender<BTreeMap<String, Resource>>,
    plugins: Mutex<BTreeMap<String, Plugin>>,
    allocations: Mutex<Vec<Allocation>>,
    refusal: Mutex<Refusal>,
    halt: Halt,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// A plugin has registered; returns the number of its connection.
    pub(super) fn registered(&self, resource: &str, options: DevicePluginOptions) -> usize {
        let mut connection = 0;
        self.resources.send_modify(|all| {
            let entry = all.entry(resource.to_owned()).or_default();
            entry.registrations += 1;
            entry.options = options;
            connection = entry.registrations;
        });
        connection
    }

    /// Follows the list of a registered plugin by a task that `follow` starts, and that of its predecessor no longer.
    pub(super) fn connected(
        &self,
        resource: &str,
        client: PluginClient,
        connection: usize,
        follow: impl FnOnce() -> AbortHandle,
    ) {
        let mut plugins = lock(&self.plugins);
        let plugin = Plugin { client, follows: follow(), connection };
        if let Some(old) = plugins.insert(resource.to_owned(), plugin) {
            old.follows.abort();
        }
    }

    pub(super) fn list(&self, resource: &str, devices: Vec<Device>) {
        self.resources.send_modify(|all| {
            let entry = all.entry(resource.to_owned()).or_default();
            entry.devices = devices
                .into_iter()
                .map(|d| {
                    let numa = d.topology.map(|t| t.nodes.iter().map(|n| n.id).collect()).unwrap_or_default();
                    (d.id, DeviceState { healthy: d.health == "Healthy", numa })
                })
                .collect();
            entry.least = Some(entry.least.map_or(entry.capacity(), |least| least.min(entry.capacity())));
            entry.lists += 1;
            entry.connected = true;
            entry.history.push(entry.allocatable());
        });
    }

    /// The list has ended: nothing of the resource can be allocated, its capacity is kept.
    pub(super) fn lost(&self, resource: &str, connection: usize) {
        let mut plugins = lock(&self.plugins);
        if plugins.get(resource).is_none_or(|plugin| plugin.connection != connection) {
            return;
        }
        plugins.remove(resource);
        self.resources.send_modify(|all| {
            let entry = all.entry(resource.to_owned()).or_default();
            for device in entry.devices.values_mut() {
                device.healthy = false;
            }
            entry.connected = false;
            entry.history.push(0);
        });
    }

    /// All connections go; resources stay known, without devices.
    pub(super) fn forget_devices(&self) {
        for plugin in std::mem::take(&mut *lock(&self.plugins)).into_values() {
            plugin.follows.abort();
        }
        self.resources.send_modify(|all| {
            for entry in all.values_mut() {
                entry.devices.clear();
                entry.connected = false;
                entry.history.push(0);
            }
        });
    }

    pub(super) fn hang_up(&self, resource: &str) {
        if let Some(plugin) = lock(&self.plugins).remove(resource) {
            plugin.follows.abort();
        }
        self.resources.send_modify(|all| {
            if let Some(entry) = all.get_mut(resource) {
                entry.connected = false;
                entry.devices.values_mut().for_each(|d| d.healthy = false);
                entry.history.push(0);
            }
        });
    }

    pub(super) fn plugin(&self, resource: &str) -> Option<PluginClient> {
        lock(&self.plugins).get(resource).map(|plugin| plugin.client.clone())
    }

    pub(super) fn resource(&self, name: &str) -> Option<Resource> {
        self.resources.borrow().get(name).cloned()
    }

    pub(super) async fn wait(
        &self,
        name: &str,
        limit: Duration,
        wanted: impl Fn(&Resource) -> bool,
    ) -> Result<Resource, KubeletError> {
        let mut resources = self.resources.subscribe();
        let found = resources.wait_for(|all| all.get(name).is_some_and(&wanted));
        if let Ok(Ok(all)) = tokio::time::timeout(limit, found).await
            && let Some(resource) = all.get(name)
        {
            return Ok(resource.clone());
        }
        let state = match self.resource(name) {
            Some(r) => format!(
                "capacity {}, allocatable {}, {} registrations, {} lists, {}",
                r.capacity(),
                r.allocatable(),
                r.registrations,
                r.lists,
                if r.connected { "connected" } else { "not connected" }
            ),
            None => "never registered".to_owned(),
        };
        Err(KubeletError::Late { resource: name.to_owned(), after: limit, state })
    }

    /// The text to refuse this registration with, if it is to be refused.
    pub(super) fn refusal(&self) -> Option<String> {
        let mut refusal = lock(&self.refusal);
        refusal.times = refusal.times.checked_sub(1)?;
        Some(refusal.message.clone())
    }

    /// Where to halt.
    pub(super) fn halt(&self) -> &Halt {
        &self.halt
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        *lock(&self.refusal) = refusal;
    }

    pub(super) fn hold(&self, allocation: Allocation) {
        lock(&self.allocations).push(allocation);
    }

    pub(super) fn release(&self, pod: &str) {
        lock(&self.allocations).retain(|a| a.pod != pod);
    }

    pub(super) fn allocations(&self) -> Vec<Allocation> {
        lock(&self.allocations).clone()
    }

    /// Ids of a resource that pods hold.
    pub(super) fn held(&self, resource: &str) -> BTreeSet<String> {
        self.allocations().into_iter().filter(|a| a.resource == resource).flat_map(|a| a.ids).collect()
    }

    /// All resources, for the pod resources API.
    pub(super) fn resources(&self) -> BTreeMap<String, Resource> {
        self.resources.borrow().clone()
    }
}
