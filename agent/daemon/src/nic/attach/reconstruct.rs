//! VFs that a pod seems to have had, or that are somewhere, although nothing is recorded of them.

use std::path::{Path, PathBuf};

use culvert_api::value::PciAddress;
use culvert_host::netlink::VfChange;
use culvert_host::netns::NetnsId;

use super::super::apply::MachineError;
use super::super::attachment::Attachment;
use super::attacher::{Attacher, Lost, View};
use super::ops::{Net, VfOps};
use super::{ReleaseError, pod};
use crate::errors::chain;
use crate::pods::{Key, Phase};

impl<O: VfOps> Attacher<O> {
    /// A record of what `key` had, if that was `lost`: nobody is known to have that VF, and it is in the pod's namespace,
    /// or at home, where nobody uses it, and not as it should be.
    pub(super) async fn reconstruct(
        &self,
        view: &View,
        key: &Key,
        lost: &Lost,
    ) -> Result<Option<Attachment>, ReleaseError> {
        let device = lost.device;
        let Some((pf, vf)) = view.observed.vf(device) else { return Ok(None) };
        let Some(mut record) = ownerless(view, key, device) else { return Ok(None) };
        if let Some(path) = &lost.netns {
            let inside = self.inside(path, &record).await;
            let inside =
                inside.map_err(|e| ReleaseError::Failed { vf: device, problems: vec![chain(&e)] })?;
            if let Some(id) = inside {
                (record.netns, record.netns_id) = (path.clone(), Some(id));
            }
        }
        let elsewhere = pf.users.contains_key(&vf.index);
        if record.netns_id.is_none() {
            // A second DEL is usual, and finds the VF as it should be.
            let rest = view.base.as_ref().map(|base| base.rest(pf, vf, None));
            let named = vf.interface.as_ref().is_some_and(|i| i.name == record.temporary_name().as_str());
            if elsewhere || rest.is_none_or(|rest| rest.is_empty() && !named) {
                return Ok(None);
            }
        }
        self.adopt(record).await
    }

    /// Writes down that `record` is to be taken back; `None` if somebody has its VF.
    pub(super) async fn adopt(&self, record: Attachment) -> Result<Option<Attachment>, ReleaseError> {
        let mut journal = self.ledger.write().await;
        if journal.state().attachments.values().any(|a| a.vf == record.vf && a.key != record.key) {
            return Ok(None);
        }
        journal.attachment(record.clone())?;
        Ok(Some(record))
    }

    /// Which namespace `path` leads to, if the interface of `record`'s VF is there.
    async fn inside(&self, path: &Path, record: &Attachment) -> Result<Option<NetnsId>, MachineError> {
        let Some(netns) = self.ops.open(path)? else { return Ok(None) };
        let id = self.ops.id(&netns)?;
        if id == self.ops.id(self.ops.host().netns())? {
            return Ok(None);
        }
        let found = pod::interface(&self.ops.enter(&netns)?, record).await?;
        Ok(found.map(|_| id))
    }
}

/// A record of a VF that is to be taken back from nobody in particular.
pub(super) fn ownerless(view: &View, key: &Key, device: PciAddress) -> Option<Attachment> {
    let (pf, vf) = view.observed.vf(device)?;
    Some(Attachment {
        key: key.clone(),
        network: String::new(),
        owner: key.container_id.clone(),
        phase: Phase::Detaching,
        vf: device,
        pf: pf.pf.pci.address,
        index: vf.index,
        netns: PathBuf::new(),
        netns_id: None,
        settings: VfChange::default(),
        before: None,
        host_mac: None,
        mac: None,
        driver: None,
        interface: None,
    })
}
