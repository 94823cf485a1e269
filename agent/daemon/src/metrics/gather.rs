//! Asks every part for its numbers when somebody wants them.

use culvert_api::agent::Subsystem;
use culvert_device_plugin::Statuses;
use tokio::sync::watch;
use tracing::debug;

use super::{NicSnapshot, Snapshot};
use crate::errors::chain;
use crate::fastpath::FastPath;
use crate::health::Health;
use crate::nic::NicManager;
use crate::pod_resources::PodResources;

/// Where the numbers come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The state of the agent's parts.
    pub health: Health,
    /// The fast path, if one is configured.
    pub fastpath: Option<FastPath>,
    /// The owner of PFs and VFs.
    pub nics: NicManager,
    /// Who tells which container holds which device, if devices are offered to a kubelet.
    pub pod_resources: Option<PodResources>,
    /// What is on offer to kubelet.
    pub pools: watch::Receiver<Statuses>,
}

impl Sources {
    /// The parts and how they are, which costs nothing.
    pub fn subsystems(&self) -> Vec<Subsystem> {
        self.health.subsystems()
    }

    /// All that is known now. What cannot be asked is absent.
    pub(super) async fn snapshot(&self) -> Snapshot {
        let (fastpath, nic) = tokio::join!(self.fastpath(), self.nic());
        Snapshot { subsystems: self.subsystems(), nic, pools: self.pools.borrow().clone(), ..fastpath }
    }

    async fn fastpath(&self) -> Snapshot {
        let Some(fastpath) = &self.fastpath else { return Snapshot::default() };
        let (info, counters, services) =
            tokio::join!(fastpath.info(), fastpath.counters(), fastpath.services());
        Snapshot {
            info: info.ok(),
            counters: counters.ok(),
            services: services.map(|s| s.services).unwrap_or_default(),
            ..Snapshot::default()
        }
    }

    pub(super) async fn nic(&self) -> Option<NicSnapshot> {
        let tally = self.nics.tally().await;
        let tally = tally.map_err(|e| debug!("no metrics of NICs: {}", chain(&e))).ok()?;
        let given = match &self.pod_resources {
            None => Vec::new(),
            // VFs are told of all the same, with the owners that the CNI was told.
            Some(api) => api.devices().await.unwrap_or_else(|e| {
                debug!("no owners of devices: {}", chain(&e));
                Vec::new()
            }),
        };
        let holders = given.into_iter().filter_map(|device| Some((device.id.parse().ok()?, device)));
        Some(NicSnapshot { tally, holders: holders.collect() })
    }
}
