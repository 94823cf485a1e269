//! What kubelet is offered: pools of the NIC policy, and resources of a configuration file of
//! sriov-network-device-plugin beside them.
//!
//! A device belongs to one resource at a time. The policy goes before the file, and what a pod holds stays where the pod
//! got it from, whatever policy and file say meanwhile: kubelet knows the device under that name until the pod ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::nic::NicPolicy;
use culvert_api::value::{PciAddress, ResourcePrefix};
use culvert_device_plugin::Device;
use culvert_device_plugin::resource_list::{Finding, ResourceList};
use culvert_host::HostRoot;
use culvert_host::guard::{ApiServer, Claims};
use culvert_host::netlink::Netlink;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

mod ddp;
mod facts;
mod memory;
mod offer;
#[cfg(test)]
mod tests;

use super::devices::{Given, devices};
use super::identity::Leases;
use super::look::{Look, Shared};
use super::observe::{ObserveError, observe};
use super::wanted::{Holds, Wanted, wanted};
use crate::errors::chain;
use crate::pod_resources::GivenDevice;
use ddp::Packages;
use facts::Facts;
use memory::Memory;
use offer::{Offered, Scene};

/// How old kubelet's word may be on who has which device, while nothing speaks against it.
const KUBELET_AGE: Duration = Duration::from_secs(5);
/// How long kubelet may take to say it; the news that wait for it are of the same kubelet.
const KUBELET_PATIENCE: Duration = Duration::from_millis(500);

/// What is offered to kubelet beside the NIC policy.
#[derive(Debug, Clone)]
pub struct ResourceConfig {
    /// Prefix of the policy's pools.
    pub prefix: ResourcePrefix,
    /// The file's content, whenever there is another one; `None` while there is none that can be used.
    pub list: watch::Receiver<Option<Arc<ResourceList>>>,
}

/// Makes devices of what is seen, with a memory.
pub(super) struct Resources {
    config: ResourceConfig,
    memory: Memory,
    /// What was last read of the machine for selectors.
    facts: Facts,
    packages: Packages,
    /// What kubelet has given to pods, and when it was asked.
    given: Given,
    asked: Option<Instant>,
    /// It did not answer then.
    away: bool,
    /// What was said of the file last, on this machine.
    said: Vec<Finding>,
}

impl Resources {
    pub(super) fn new(config: ResourceConfig, state_dir: &Path) -> Self {
        let memory = Memory::load(state_dir).unwrap_or_else(|e| {
            warn!(
                "{}: what was offered before is not known: {e}",
                state_dir.join("resources.json").display()
            );
            Memory::empty(state_dir)
        });
        Self {
            config,
            memory,
            facts: Facts::default(),
            packages: Packages::default(),
            given: Given::new(),
            asked: None,
            away: false,
            said: Vec::new(),
        }
    }

    /// Waits for another list.
    pub(super) async fn changed(&mut self) {
        if self.config.list.changed().await.is_err() {
            // There will be no other.
            std::future::pending::<()>().await;
        }
        self.asked = None;
    }

    /// The policy changed: what pods hold has to be known for certain.
    pub(super) fn ask_again(&mut self) {
        self.asked = None;
    }

    /// The devices on offer now.
    pub(super) async fn offer(&mut self, shared: &Shared, look: &Look<'_>) -> Vec<Device> {
        self.ask_kubelet(shared, look).await;
        let list = self.config.list.borrow_and_update().clone();
        if list.is_some() {
            let (root, observed) = (shared.host.root.clone(), look.observed.clone());
            let read = tokio::task::spawn_blocking(move || Facts::read(&root, &observed));
            match read.await.expect("does not panic") {
                Ok(facts) => self.facts = facts,
                Err(e) => warn!("what selectors ask for is not current: {}", chain(&e)),
            }
        }
        if let Some(list) = &list {
            self.facts.ddp = self.packages.read(list, &look.observed).await;
        }
        let facts = &self.facts;
        let claimed = claimed(&shared.host.netlink, facts).await;
        let carved = carved(&look.wanted());
        let given = self.given(look);
        let scene = Scene {
            prefix: &self.config.prefix,
            observed: &look.observed,
            facts,
            policy: look.devices(&given),
            carved: &carved,
            held: &look.held(&given),
            known: &look.known(&given),
            claimed: &claimed,
            list: list.as_deref(),
            memory: &self.memory,
        };
        let Offered { devices, remembered, findings } = scene.offer();
        if let Err(e) = self.memory.replace(remembered) {
            warn!("what is offered cannot be recorded: {e}");
        }
        self.say(findings);
        devices
    }

    /// Learns from kubelet which devices it has given away, when that was long ago or does not explain what is seen.
    async fn ask_kubelet(&mut self, shared: &Shared, look: &Look<'_>) {
        let Some(api) = &shared.pod_resources else { return };
        let explained = || look.users().all(|vf| self.given.contains_key(&vf));
        if self.asked.is_some_and(|at| at.elapsed() < KUBELET_AGE) && explained() {
            return;
        }
        let answer = timeout(KUBELET_PATIENCE, api.devices()).await;
        self.away = !matches!(answer, Ok(Ok(_)));
        // If it does not say, what it said last stands.
        if let Ok(Ok(given)) = answer {
            let device = |d: GivenDevice| Some((d.id.parse().ok()?, d.resource.parse().ok()));
            self.given = given.into_iter().filter_map(device).collect();
        }
        self.asked = Some(Instant::now());
    }

    /// What kubelet has given to pods, as far as is known. While it does not say, a device in use that was on offer is
    /// taken for given: to call it unhealthy would cost its pod the admission when kubelet comes back.
    fn given(&self, look: &Look<'_>) -> Given {
        let mut given = self.given.clone();
        let offered = |vf: &PciAddress| self.memory.get(*vf).is_some_and(|last| last.resource.is_some());
        if self.away {
            given.extend(look.users().filter(offered).map(|vf| (vf, None)));
        }
        given
    }

    /// Logs what is new.
    fn say(&mut self, findings: Vec<Finding>) {
        for finding in findings.iter().filter(|finding| !self.said.contains(finding)) {
            warn!("resource list: {finding}");
        }
        if findings.is_empty() && !self.said.is_empty() {
            info!("resource list: nothing more to say about it");
        }
        self.said = findings;
    }
}

/// What a policy, whose pools have this prefix, and a list would offer of the machine below `root` if no pod had anything, and what there is to say about the
/// list there. Needs a tokio runtime.
///
/// # Errors
/// When the machine cannot be looked at.
pub async fn preview(
    root: &HostRoot,
    policy: &NicPolicy,
    prefix: &ResourcePrefix,
    list: &ResourceList,
) -> Result<(Vec<Device>, Vec<Finding>), ObserveError> {
    let netlink = Netlink::open()?;
    let observed = observe(root, &netlink, &ApiServer::default()).await?;
    let (holds, nobody) = (Holds::new(), Given::new());
    // The node's name only matters to MACs.
    let wanted = wanted(policy, "", &observed, &holds, &Leases::default());
    let mut facts = Facts::read(root, &observed)?;
    facts.ddp = Packages::default().read(list, &observed).await;
    let scene = Scene {
        prefix,
        observed: &observed,
        facts: &facts,
        policy: devices(&wanted, &holds, &nobody),
        carved: &carved(&wanted),
        held: &nobody,
        known: &nobody,
        claimed: &claimed(&netlink, &facts).await,
        list: Some(list),
        memory: &Memory::empty(Path::new("")),
    };
    let Offered { devices, findings, .. } = scene.offer();
    Ok((devices, findings))
}

/// PFs that the policy gives VFs, or will.
fn carved(wanted: &Wanted<'_>) -> BTreeSet<PciAddress> {
    wanted.pfs.iter().filter(|pf| pf.count > 0).map(|pf| pf.now.pf.pci.address).collect()
}

/// NICs without SR-IOV that the node lives on.
async fn claimed(netlink: &Netlink, facts: &Facts) -> BTreeSet<PciAddress> {
    if facts.nics.is_empty() {
        return BTreeSet::new();
    }
    match Claims::read(netlink).await {
        Ok(claims) => {
            let needed =
                facts.nics.iter().filter(|nic| nic.interfaces.iter().any(|i| !claims.of(i.index).is_empty()));
            needed.map(|nic| nic.pci.address).collect()
        }
        Err(e) => {
            warn!("NICs without SR-IOV are not offered: {}", chain(&e));
            facts.nics.iter().map(|nic| nic.pci.address).collect()
        }
    }
}
