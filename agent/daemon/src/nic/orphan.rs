//! VFs that nobody has, but that are not as they should be: lost in a namespace, left by a pod that is gone, or changed by
//! somebody else.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::agent::{NicOrphansReply, Orphan as Listed};
use culvert_api::value::PciAddress;
use culvert_host::driver;

use super::attachment::Attachment;
use super::observe::Observed;
use super::step::Object;
use super::wanted::Wanted;
use crate::pods::{Key, Phase};

#[cfg(test)]
mod tests;

/// Where the interface of a VF is, that is not at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// A path of the namespace.
    pub(super) path: String,
    /// A process that runs in it.
    pub(super) process: Option<String>,
}

/// A VF to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Orphan {
    /// The VF, by PF and index.
    pub(super) object: Object,
    /// The VF.
    pub(super) vf: PciAddress,
    /// Why it is one.
    pub(super) reason: String,
    /// Who may still use it.
    pub(super) user: Option<String>,
    /// The attachment that it is left from, if one is recorded.
    pub(super) key: Option<Key>,
}

/// VFs with interfaces that are not at home, as far as the records say nothing of them.
pub(super) fn astray(observed: &Observed, attachments: &BTreeMap<Key, Attachment>) -> BTreeSet<PciAddress> {
    let recorded: BTreeSet<PciAddress> = attachments.values().map(|a| a.vf).collect();
    let vfs = observed.pfs.iter().flat_map(|pf| &pf.pf.vfs);
    let kernel = |driver: &String| !driver::is_userspace(driver);
    vfs.filter(|vf| vf.interface.is_none() && vf.pci.driver.as_ref().is_some_and(kernel))
        .map(|vf| vf.pci.address)
        .filter(|vf| !recorded.contains(vf))
        .collect()
}

/// The orphans among the VFs that the policy speaks of. `stale` attachments are those that nobody completes any more, or
/// whose pods are gone; `places` says where interfaces are that are astray.
pub(super) fn orphans(
    wanted: &Wanted<'_>,
    attachments: &BTreeMap<Key, Attachment>,
    stale: &[Key],
    places: &BTreeMap<PciAddress, Place>,
) -> Vec<Orphan> {
    let mut found = Vec::new();
    for pf in &wanted.pfs {
        for vf in &pf.now.pf.vfs {
            let address = vf.pci.address;
            let object = Object::vf(pf.now.pf.pci.address, vf.index);
            let orphan = |reason, user, key| Orphan { object, vf: address, reason, user, key };
            if let Some(attachment) = attachments.values().find(|a| a.vf == address) {
                if stale.contains(&attachment.key) {
                    let reason = left_by(attachment);
                    found.push(orphan(reason, None, Some(attachment.key.clone())));
                }
                continue;
            }
            let Some(goal) = pf.vfs.iter().find(|goal| goal.index == vf.index) else { continue };
            if vf.interface.is_none() && vf.pci.driver.as_deref().is_some_and(|d| !driver::is_userspace(d)) {
                let place = places.get(&address);
                let reason = place.map_or_else(
                    || "its interface is in a network namespace that nothing shows".to_owned(),
                    |place| format!("its interface is in network namespace {}", place.path),
                );
                found.push(orphan(reason, place.and_then(|place| place.process.clone()), None));
            } else if !pf.now.users.contains_key(&vf.index) {
                let rest = goal.rest(pf.now, vf, None);
                if !rest.is_empty() {
                    found.push(orphan(format!("is not as the policy says: {}", rest.describe()), None, None));
                }
            }
        }
    }
    found
}

fn left_by(attachment: &Attachment) -> String {
    match attachment.phase {
        Phase::Attached => format!("{} is gone, and its DEL did not come", attachment.owner),
        Phase::Attaching => format!("was not given to {} completely", attachment.owner),
        Phase::Detaching => format!("was not taken back from {} completely", attachment.owner),
    }
}

/// The orphans, as they are told to others.
pub(super) fn reply(orphans: Vec<Orphan>) -> NicOrphansReply {
    let listed = |orphan: Orphan| Listed {
        object: orphan.object.to_string(),
        vf: orphan.vf.to_string(),
        reason: orphan.reason,
        user: orphan.user.unwrap_or_default(),
    };
    NicOrphansReply { orphans: orphans.into_iter().map(listed).collect() }
}
