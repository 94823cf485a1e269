//! Files through which others learn of the devices.
//!
//! They stay when the agent ends: a container that is started again meanwhile needs them. What is no longer true goes
//! once the machine has been looked at.

mod cdi;
mod device_info;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_api::config::device_plugin::DevicePlugin;
use culvert_api::value::{ResourceName, ResourcePrefix};

pub(crate) use cdi::{annotation_name, cdi_name};
pub use device_info::information as device_information;

use crate::allocate::Nodes;
use crate::pool::{Inventory, Member, Pool};

/// Writes the files, each whole and in one step. Copies share what they know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publisher {
    cdi: Option<PathBuf>,
    annotations: bool,
    device_info: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Device nodes by pool. One specification has all pools of a prefix: a device that moves from one to the other is
    /// in it once at any time, as two specifications with one device are both void to a runtime.
    nodes: BTreeMap<ResourceName, cdi::Nodes>,
    /// What the specification of a prefix should be; it is long, and does not change with each request.
    texts: BTreeMap<ResourcePrefix, String>,
    /// Resources that are or were on offer.
    offered: BTreeSet<ResourceName>,
}

/// A file that could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub(crate) struct PublishError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Publisher {
    pub(crate) fn new(config: &DevicePlugin) -> Self {
        Self {
            cdi: config.cdi.clone(),
            annotations: config.cdi_annotations,
            device_info: config.device_info.clone(),
            state: Arc::default(),
        }
    }

    /// How containers are told their device nodes.
    pub(crate) fn way(&self) -> Nodes {
        match (&self.cdi, self.annotations) {
            (None, _) => Nodes::Listed,
            (Some(_), false) => Nodes::Cdi,
            (Some(_), true) => Nodes::CdiAnnotated,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings all files up to date with the pools on offer, and removes those of pools and devices that are gone.
    pub(crate) fn follow(&self, pools: &[Arc<Pool>], inventory: &Inventory) -> Vec<PublishError> {
        let mut state = self.state();
        state.nodes = pools.iter().map(|pool| (pool.resource().clone(), cdi::nodes(pool))).collect();
        state.offered.extend(pools.iter().map(|pool| pool.resource().clone()));
        let mut errors = Vec::new();
        if let Some(folder) = &self.cdi {
            errors.extend(state.specifications(folder));
        }
        if let Some(folder) = &self.device_info {
            errors.extend(state.remove_information(folder, pools, inventory));
        }
        errors
    }

    /// Sees to it that the runtime finds what it is told about this pool: the specification is as it should be, even if
    /// somebody removed it.
    pub(crate) fn pool(&self, pool: &Pool) -> Result<(), PublishError> {
        let Some(folder) = &self.cdi else { return Ok(()) };
        let mut state = self.state();
        let (resource, nodes) = (pool.resource(), cdi::nodes(pool));
        match state.texts.get(&resource.prefix) {
            Some(text) if state.nodes.get(resource) == Some(&nodes) => {
                write(&folder.join(specification_name(&resource.prefix)), text)
            }
            _ => {
                state.nodes.insert(resource.clone(), nodes);
                state.specification(folder, &resource.prefix)
            }
        }
    }

    /// Writes the information file of a device that is being given away.
    pub(crate) fn device(&self, pool: &Pool, member: &Member) -> Result<(), PublishError> {
        let Some(folder) = &self.device_info else { return Ok(()) };
        let path = folder.join(device_info::file_name(pool.resource(), member.device.pci));
        write(&path, &device_info::information(&member.device).to_string())
    }
}

impl State {
    /// Writes all specifications and removes those that an agent has left there before.
    fn specifications(&mut self, folder: &Path) -> Vec<PublishError> {
        let prefixes: BTreeSet<ResourcePrefix> =
            self.nodes.keys().map(|resource| resource.prefix.clone()).collect();
        self.texts.retain(|prefix, _| prefixes.contains(prefix));
        let mut errors: Vec<PublishError> =
            prefixes.iter().filter_map(|prefix| self.specification(folder, prefix).err()).collect();
        let current: BTreeSet<String> = prefixes.iter().map(specification_name).collect();
        let stale = names(folder).into_iter().filter(|name| {
            name.starts_with("culvert-") && name.ends_with(".json") && !current.contains(name)
        });
        errors.extend(stale.filter_map(|name| remove(&folder.join(name)).err()));
        errors
    }

    /// Writes the specification of a prefix; one without devices would be void, and is removed.
    fn specification(&mut self, folder: &Path, prefix: &ResourcePrefix) -> Result<(), PublishError> {
        let path = folder.join(specification_name(prefix));
        let pools = self.nodes.iter().filter(|(resource, _)| resource.prefix == *prefix);
        let devices: BTreeMap<_, _> = pools.flat_map(|(_, nodes)| nodes).collect();
        self.texts.remove(prefix);
        if devices.is_empty() {
            return remove(&path);
        }
        let text = cdi::specification(prefix, &devices).to_string();
        write(&path, &text)?;
        self.texts.insert(prefix.clone(), text);
        Ok(())
    }

    /// Removes information files of devices that have left their resource. That of a device that a pod holds stays.
    fn remove_information(
        &self,
        folder: &Path,
        pools: &[Arc<Pool>],
        inventory: &Inventory,
    ) -> Vec<PublishError> {
        let names = names(folder);
        let mut errors = Vec::new();
        for resource in &self.offered {
            let pool = pools.iter().find(|pool| pool.resource() == resource);
            for name in &names {
                let Some(pci) = device_info::device_of(resource, name) else { continue };
                let member = pool.and_then(|pool| pool.get(pci));
                let held =
                    member.map(|m| &m.device).or_else(|| inventory.get(&pci).map(|(_, device)| device));
                let kept =
                    member.is_some_and(|member| member.present) || held.is_some_and(|device| device.held);
                if !kept {
                    errors.extend(remove(&folder.join(name)).err());
                }
            }
        }
        errors
    }
}

fn specification_name(prefix: &ResourcePrefix) -> String {
    format!("culvert-{prefix}.json")
}

/// Names in a folder; none if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove(path: &Path) -> Result<(), PublishError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PublishError { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Replaces a file in one step, and only if it is to change.
fn write(path: &Path, text: &str) -> Result<(), PublishError> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    // No reader takes a file with this ending for one of his.
    let made = path.with_extension("new");
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&made, text))
        .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(0o444)))
        .and_then(|()| fs::rename(&made, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&made);
        PublishError { action: "write", path: path.to_owned(), source }
    })
}
