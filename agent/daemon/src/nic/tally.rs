//! What VFs and pools count, for metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_api::value::{PciAddress, PoolName, VfIndex};
use culvert_device_plugin::{Device, Health};
use culvert_host::netlink::{Netlink, NetlinkError, VfCounters};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::attachment::Attachment;
use super::journal::State;
use super::observe::{Observed, ObservedPf};
use crate::errors::chain;
use crate::pods::Phase;

#[cfg(test)]
mod tests;

/// Counters of one PF's VFs.
pub(super) type PfCounters = BTreeMap<VfIndex, VfCounters>;

/// How old counters may be: several scrapes at once cost one dump.
const FRESH: Duration = Duration::from_secs(1);

/// Everything about NICs that metrics tell, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NicTally {
    /// All VFs, by PF and index.
    pub vfs: Vec<VfTally>,
    /// PFs by address: interface, and how many VFs there are and could be.
    pub pfs: Vec<PfTally>,
    /// VFs that pods have.
    pub attachments: usize,
    /// Of these, those that are being given or taken back, or could not be entirely.
    pub unfinished: usize,
    /// A step was begun and not ended.
    pub step_under_way: bool,
}

/// One PF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PfTally {
    /// Its address.
    pub pci: PciAddress,
    /// Its interface.
    pub interface: String,
    /// VFs that there are.
    pub vfs: usize,
    /// Most VFs that there can be.
    pub total_vfs: u16,
    /// Whether its link has a carrier.
    pub carrier: bool,
}

/// One VF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VfTally {
    /// Its PF.
    pub pf: PciAddress,
    /// The PF's interface.
    pub pf_interface: String,
    /// Its index below the PF.
    pub index: VfIndex,
    /// Its own address.
    pub pci: PciAddress,
    /// NUMA node, where the machine says one.
    pub numa: Option<u16>,
    /// The pool that offers it.
    pub pool: Option<PoolName>,
    /// Whether it can be given to a pod; `None` if the policy says nothing of it.
    pub healthy: Option<bool>,
    /// The pod that it is attached to: "namespace/pod" where the runtime told, else the container's id.
    pub owner: Option<String>,
    /// What the PF has counted; `None` if it cannot be asked.
    pub counters: Option<VfCounters>,
}

/// Makes the tally.
pub(super) fn tally(
    observed: &Observed,
    state: &State,
    devices: &[Device],
    counters: &BTreeMap<PciAddress, PfCounters>,
) -> NicTally {
    let devices: BTreeMap<_, _> = devices.iter().map(|d| (d.pci, d)).collect();
    let attachments: BTreeMap<_, _> = state.attachments.values().map(|a| (a.vf, a)).collect();
    let mut tally = NicTally {
        attachments: attachments.len(),
        unfinished: attachments.values().filter(|a| a.phase != Phase::Attached).count(),
        step_under_way: state.under_way.is_some(),
        ..NicTally::default()
    };
    for pf in &observed.pfs {
        let address = pf.pf.pci.address;
        let interface = pf.pf.interface().map(|i| i.name.clone()).unwrap_or_default();
        for vf in &pf.pf.vfs {
            let device = devices.get(&vf.pci.address);
            tally.vfs.push(VfTally {
                pf: address,
                pf_interface: interface.clone(),
                index: vf.index,
                pci: vf.pci.address,
                numa: vf.pci.numa_node.or(pf.pf.pci.numa_node),
                pool: device.and_then(|d| d.pool.clone()),
                healthy: device.map(|d| d.health == Health::Healthy),
                owner: attachments.get(&vf.pci.address).map(|a: &&Attachment| a.owner.clone()),
                counters: counters.get(&address).and_then(|c| c.get(&vf.index)).copied(),
            });
        }
        tally.pfs.push(PfTally {
            pci: address,
            interface,
            vfs: pf.pf.vfs.len(),
            total_vfs: pf.pf.total_vfs,
            carrier: pf.carrier,
        });
    }
    tally
}

/// Counters as last read.
#[derive(Debug, Default)]
pub(super) struct CounterCache(Mutex<BTreeMap<PciAddress, (Instant, PfCounters)>>);

/// Who can be asked for counters: the kernel, or a test.
pub(super) trait Counting {
    /// Counters of the VFs of the PF with interface index `pf`.
    fn vf_counters(&self, pf: u32) -> impl Future<Output = Result<PfCounters, NetlinkError>> + Send;
}

impl Counting for Netlink {
    async fn vf_counters(&self, pf: u32) -> Result<PfCounters, NetlinkError> {
        Self::vf_counters(self, pf).await
    }
}

impl CounterCache {
    /// Counters of the VFs of `pfs`, at most a second old. Where a PF cannot be asked now, what it said last: a value
    /// that was there is not missing for one scrape and back at the next.
    pub(super) async fn read(
        &self,
        counting: &impl Counting,
        pfs: &[&ObservedPf],
        now: Instant,
    ) -> BTreeMap<PciAddress, PfCounters> {
        // Held while the kernel is asked: who comes meanwhile gets the same answer.
        let mut known = self.0.lock().await;
        let mut all = BTreeMap::new();
        for pf in pfs {
            let address = pf.pf.pci.address;
            let Some(interface) = pf.pf.interface().filter(|_| !pf.pf.vfs.is_empty()) else {
                known.remove(&address);
                continue;
            };
            if known.get(&address).is_none_or(|(read, _)| now.duration_since(*read) >= FRESH) {
                match counting.vf_counters(interface.index).await {
                    Ok(counters) => drop(known.insert(address, (now, counters))),
                    Err(e) => warn!("{address}: the counters of its VFs are not current: {}", chain(&e)),
                }
            }
            all.extend(known.get(&address).map(|(_, counters)| (address, counters.clone())));
        }
        all
    }
}
