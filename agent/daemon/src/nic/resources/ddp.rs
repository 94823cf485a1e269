//! Names of the DDP packages that NICs run, asked for when a selector wants to know.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_api::value::PciAddress;
use culvert_device_plugin::resource_list::ResourceList;
use culvert_host::devlink::Devlink;
use tokio::time::Instant;
use tracing::warn;

use super::super::observe::Observed;
use crate::errors::chain;

/// How long an answer is good. A package is loaded when a driver starts, and some firmware takes its time to answer.
const AGE: Duration = Duration::from_secs(60);

/// What PFs were last known to run.
#[derive(Debug, Default)]
pub(super) struct Packages {
    names: BTreeMap<PciAddress, String>,
    asked: Option<(Instant, Vec<PciAddress>)>,
}

impl Packages {
    /// The packages of all PFs; none if no selector of `list` asks. What a driver does not tell now stays as it was.
    pub(super) async fn read(
        &mut self,
        list: &ResourceList,
        observed: &Observed,
    ) -> BTreeMap<PciAddress, String> {
        let wanted = list.resources.iter().flat_map(|r| &r.selectors).any(|s| !s.ddp_profiles.is_empty());
        let pfs: Vec<PciAddress> = observed.pfs.iter().map(|pf| pf.pf.pci.address).collect();
        let fresh = self.asked.as_ref().is_some_and(|(at, of)| at.elapsed() < AGE && *of == pfs);
        if wanted && !fresh {
            self.ask(&pfs).await;
            self.asked = Some((Instant::now(), pfs));
        }
        self.names.clone()
    }

    async fn ask(&mut self, pfs: &[PciAddress]) {
        let devlink = match Devlink::open().await {
            Ok(Some(devlink)) => devlink,
            Ok(None) => return warn!("ddpProfiles: this kernel has no devlink, which tells DDP packages"),
            Err(e) => return warn!("ddpProfiles: {}", chain(&e)),
        };
        for pf in pfs {
            match devlink.ddp_package(&(*pf).into()).await {
                Ok(Some(name)) => drop(self.names.insert(*pf, name)),
                Ok(None) => {}
                Err(e) => warn!("ddpProfiles: {}", chain(&e)),
            }
        }
    }
}
