//! What the lines amount to.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::value::{Mac, PciAddress, VfIndex};

use super::entry::Entry;
use crate::nic::attachment::Attachment;
use crate::nic::identity::{Leases, renew};
use crate::nic::step::Object;
use crate::pods::Key;

/// What the journal amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::nic) struct State {
    /// The boot of the machine that all of this happened in.
    pub boot: String,
    /// PFs that leave new VFs without drivers for a while, and what they did before.
    pub autoprobe: BTreeMap<PciAddress, bool>,
    /// VFs that pods have, or are getting or giving back.
    pub attachments: BTreeMap<Key, Attachment>,
    /// The step that was begun and not ended.
    pub under_way: Option<UnderWay>,
    /// VFs whose driver was being changed when the agent ended, or when that failed: what is left of it nobody can see
    /// (reading `driver_override` may hang), and their driver has to probe anew.
    pub unsettled: BTreeSet<Object>,
    /// MACs that VFs have out of pools, boot after boot.
    pub leases: Leases,
}

/// A step that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::nic) struct UnderWay {
    /// The step, for people.
    pub text: String,
    /// The VF whose driver it changes.
    binds: Option<Object>,
}

impl State {
    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Boot { id } => {
                *self = Self { boot: id, leases: std::mem::take(&mut self.leases), ..Self::default() };
            }
            Entry::Begin { object, action, binds, .. } => {
                self.unsettled.extend(binds);
                self.under_way = Some(UnderWay { text: format!("{object}: {action}"), binds });
            }
            Entry::End { ok } => {
                if let (Some(vf), true) = (self.under_way.take().and_then(|step| step.binds), ok) {
                    self.unsettled.remove(&vf);
                }
            }
            Entry::Unsettled { vf } => drop(self.unsettled.insert(vf)),
            Entry::Settled { vf } => drop(self.unsettled.remove(&vf)),
            Entry::Autoprobe { pf, before } => drop(self.autoprobe.insert(pf, before)),
            Entry::AutoprobeRestored { pf } => drop(self.autoprobe.remove(&pf)),
            Entry::Attachment(attachment) => {
                self.attachments.insert(attachment.key.clone(), *attachment);
            }
            Entry::Released { key } => drop(self.attachments.remove(&key)),
            Entry::Mac { pf, vf, mac } => renew(&mut self.leases, pf, vf, mac),
        }
    }

    /// The fewest entries that amount to this.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Boot { id: self.boot.clone() }];
        entries
            .extend(self.autoprobe.iter().map(|(pf, before)| Entry::Autoprobe { pf: *pf, before: *before }));
        let lease =
            |((pf, vf), mac): (&(String, VfIndex), &Mac)| Entry::Mac { pf: pf.clone(), vf: *vf, mac: *mac };
        entries.extend(self.leases.iter().map(lease));
        entries.extend(self.unsettled.iter().map(|vf| Entry::Unsettled { vf: *vf }));
        entries.extend(self.attachments.values().cloned().map(|a| Entry::Attachment(Box::new(a))));
        entries
    }
}
