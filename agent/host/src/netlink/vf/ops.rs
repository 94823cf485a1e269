//! What is asked of the kernel about VFs.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_api::value::VfIndex;
use nix::errno::Errno;

use super::wire::{self, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK};
use super::{VfChange, VfCounters, VfSettings};
use crate::netlink::raw::Question;
use crate::netlink::{Netlink, NetlinkCause, NetlinkError};

/// VFs in one message: the list of all of them may hold 64 KiB, and one takes 156 bytes at most.
const BATCH: usize = 128;
/// How long a VF that is being reset is asked again: i40e and ice reset one when it gets a MAC or trust, and say EAGAIN
/// or EBUSY to whatever comes next.
const RESET_ATTEMPTS: u32 = 20;
const RESET_PAUSE: Duration = Duration::from_millis(50);

impl Netlink {
    /// Reads what the PF with interface index `pf` holds of its VFs, by VF index.
    pub async fn vf_settings(&self, pf: u32) -> Result<Vec<VfSettings>, NetlinkError> {
        let payload = self.vf_list(pf, false).await?;
        let mut settings: Vec<_> = wire::vfs(&payload).into_iter().filter_map(VfSettings::read).collect();
        settings.sort_unstable_by_key(|s| s.index);
        Ok(settings)
    }

    /// Reads what the PF with interface index `pf` has counted for its VFs. A driver that does not count reports zeros.
    pub async fn vf_counters(&self, pf: u32) -> Result<BTreeMap<VfIndex, VfCounters>, NetlinkError> {
        let payload = self.vf_list(pf, true).await?;
        Ok(wire::vfs(&payload).into_iter().filter_map(VfCounters::read).collect())
    }

    async fn vf_list(&self, pf: u32, counters: bool) -> Result<Vec<u8>, NetlinkError> {
        let question = Question::one(RTM_GETLINK, wire::question(pf, counters));
        let error = |cause| NetlinkError::of(format!("interface {pf}"), "read its VFs", cause);
        let answers = self.raw.ask(question).await.map_err(error)?;
        Ok(answers.into_iter().find(|a| a.kind == RTM_NEWLINK).map(|a| a.payload).unwrap_or_default())
    }

    /// Changes VF `vf` of the PF with interface index `pf`, and reads it back.
    ///
    /// All of it goes in one message. If the kernel refuses, each attribute is sent alone, all of them, and the error
    /// names those that did not work. A driver that takes a value but does not keep it is an error too.
    pub async fn change_vf(&self, pf: u32, vf: VfIndex, change: &VfChange) -> Result<(), NetlinkError> {
        let mut failed = self.change_vfs(pf, &[(vf, change.clone())]).await?;
        failed.remove(&vf).map_or(Ok(()), Err)
    }

    /// Changes several VFs of a PF, in as few messages as the kernel takes, and reads them back in one list. Returns
    /// what did not work, by VF; the others are done.
    pub async fn change_vfs(
        &self,
        pf: u32,
        changes: &[(VfIndex, VfChange)],
    ) -> Result<BTreeMap<VfIndex, NetlinkError>, NetlinkError> {
        let changes: Vec<_> = changes.iter().filter(|(_, change)| !change.is_empty()).cloned().collect();
        let mut failed = BTreeMap::new();
        if changes.is_empty() {
            return Ok(failed);
        }
        for batch in changes.chunks(BATCH) {
            if self.send(pf, batch).await.is_err() {
                for (vf, change) in batch {
                    if let Err(error) = self.change_piecemeal(pf, *vf, change).await {
                        failed.insert(*vf, error);
                    }
                }
            }
        }
        let now = self.vf_settings(pf).await?;
        let now: BTreeMap<VfIndex, &VfSettings> = now.iter().map(|s| (s.index, s)).collect();
        for (vf, change) in changes {
            if failed.contains_key(&vf) {
                continue;
            }
            let Some(now) = now.get(&vf) else {
                let error = NetlinkError::kernel(object(pf, vf), &change.to_string(), Errno::ENODEV);
                failed.insert(vf, error);
                continue;
            };
            let left = change.without(now);
            if !left.is_empty() {
                let what = format!("the driver took it, but reports {now}");
                failed.insert(vf, NetlinkError::protocol(object(pf, vf), &left.to_string(), what));
            }
        }
        Ok(failed)
    }

    /// One attribute per message, so that the error names those that are refused.
    async fn change_piecemeal(&self, pf: u32, vf: VfIndex, change: &VfChange) -> Result<(), NetlinkError> {
        let mut refused: Option<(Vec<String>, NetlinkCause)> = None;
        for part in change.parts() {
            if let Err(cause) = self.send_patiently(pf, vf, &part).await {
                refused.get_or_insert_with(|| (Vec::new(), cause)).0.push(part.to_string());
            }
        }
        match refused {
            None => Ok(()),
            Some((actions, cause)) => Err(NetlinkError::of(object(pf, vf), actions.join(", "), cause)),
        }
    }

    async fn send_patiently(&self, pf: u32, vf: VfIndex, part: &VfChange) -> Result<(), NetlinkCause> {
        let change = [(vf, part.clone())];
        for _ in 1..RESET_ATTEMPTS {
            match self.send(pf, &change).await {
                Err(NetlinkCause::Kernel { errno: Errno::EAGAIN | Errno::EBUSY, .. }) => {}
                done => return done,
            }
            tokio::time::sleep(RESET_PAUSE).await;
        }
        self.send(pf, &change).await
    }

    async fn send(&self, pf: u32, changes: &[(VfIndex, VfChange)]) -> Result<(), NetlinkCause> {
        self.raw.ask(Question::one(RTM_SETLINK, wire::order(pf, changes))).await.map(drop)
    }
}

fn object(pf: u32, vf: VfIndex) -> String {
    format!("vf {vf} of interface {pf}")
}
