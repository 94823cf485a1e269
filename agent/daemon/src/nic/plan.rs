//! From what there is to what there should be, in the fewest safe steps: a pure function.
//!
//! The order of a PF's steps: interface up; VFs created without drivers; settings of each VF; drivers. A VF's driver
//! reads the MAC when it probes, so it probes last, and once. The number of VFs changes only while none is in use.

use std::collections::BTreeMap;

use culvert_api::agent::NicPlanReply;
use culvert_api::config::nic::NicPolicy;
use culvert_api::value::{PciAddress, VfIndex};

use super::observe::{Observed, ObservedPf};
use super::step::{Action, Object, Step};
use super::wanted::{Holds, VfRest, WantedPf, wanted};

#[cfg(test)]
mod tests;

/// What is to be done, in order, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// "OBJECT: why it is left as it is".
    pub blocked: Vec<String>,
}

/// Everything a plan depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    /// What there should be.
    pub policy: &'a NicPolicy,
    /// Name of the node.
    pub node: &'a str,
    /// What there is.
    pub observed: &'a Observed,
    /// Which VFs pods have.
    pub holds: &'a Holds,
    /// PFs that were told to leave new VFs without drivers, and what they were set to before: a plan that was
    /// interrupted did not get to set them back.
    pub autoprobe: &'a BTreeMap<PciAddress, bool>,
}

/// Makes the plan.
pub(super) fn plan(input: Input<'_>) -> Plan {
    let wanted = wanted(input.policy, input.node, input.observed, input.holds);
    let mut plan = Plan { steps: Vec::new(), blocked: wanted.blocked };
    // Set back first: what follows finds each PF as its owner wants it.
    for (pf, before) in input.autoprobe {
        if input.observed.pf(*pf).is_some_and(|now| now.pf.autoprobe == Some(!before)) {
            plan.push(Object::pf(*pf), Action::Autoprobe(*before));
        }
    }
    for pf in &wanted.pfs {
        plan.add_pf(pf, input.holds, input.autoprobe);
    }
    plan
}

impl Plan {
    fn push(&mut self, object: Object, action: Action) {
        self.steps.push(Step { object, action });
    }

    fn add_pf(&mut self, wanted: &WantedPf<'_>, holds: &Holds, autoprobe: &BTreeMap<PciAddress, bool>) {
        let ObservedPf { pf, .. } = wanted.now;
        let address = pf.pci.address;
        let interface = pf.interface().expect("is a condition for being wanted");
        let (now, goal) = (pf.vfs.len(), wanted.count);
        if goal > 0 && !interface.up {
            let action = Action::LinkUp { interface: interface.index, name: interface.name.clone() };
            self.push(Object::pf(address), action);
        }
        if now == usize::from(goal) {
            return self.add_existing(wanted, holds, interface.index);
        }
        if let Some(user) = user(wanted.now, holds) {
            self.blocked.push(format!(
                "{address}: it has {now} VFs, {goal} are wanted, and all have to go for that, but {user}"
            ));
            return self.add_existing(wanted, holds, interface.index);
        }
        if now > 0 {
            self.push(Object::pf(address), Action::NumVfs(0));
        }
        if goal == 0 {
            return;
        }
        let before = autoprobe.get(&address).copied().or(pf.autoprobe);
        if before == Some(true) {
            self.push(Object::pf(address), Action::Autoprobe(false));
        }
        self.push(Object::pf(address), Action::NumVfs(goal));
        if before == Some(true) {
            self.push(Object::pf(address), Action::Autoprobe(true));
        }
        for vf in &wanted.vfs {
            let rest = VfRest { settings: vf.settings.clone(), bind: Some(vf.driver), mtu: vf.mtu };
            self.add_rest(address, vf.index, interface.index, rest);
        }
    }

    /// The VFs that are there and wanted; others are left alone, as nobody is offered them.
    fn add_existing(&mut self, wanted: &WantedPf<'_>, holds: &Holds, interface: u32) {
        let address = wanted.now.pf.pci.address;
        for vf in &wanted.vfs {
            let Some(now) = wanted.now.pf.vfs.iter().find(|now| now.index == vf.index) else { continue };
            let hold = holds.get(&now.pci.address);
            let rest = vf.rest(wanted.now, now, hold);
            if rest.is_empty() {
                continue;
            }
            match vf_user(wanted.now, now.index, now.pci.address, holds) {
                Some(user) => {
                    let object = Object::vf(address, vf.index);
                    self.blocked
                        .push(format!("{object}: to be done when it is free: {}; {user}", rest.describe()));
                }
                None => self.add_rest(address, vf.index, interface, rest),
            }
        }
    }

    fn add_rest(&mut self, pf: PciAddress, vf: VfIndex, interface: u32, rest: VfRest) {
        let object = Object::vf(pf, vf);
        if !rest.settings.is_empty() {
            self.push(object, Action::Settings { interface, change: rest.settings });
        }
        if let Some(driver) = rest.bind {
            self.push(object, Action::Bind(driver));
        }
        if let Some(mtu) = rest.mtu {
            self.push(object, Action::Mtu(mtu));
        }
    }
}

/// "vf 2 is used by ...", for the first VF of `pf` that is in use.
fn user(pf: &ObservedPf, holds: &Holds) -> Option<String> {
    pf.pf.vfs.iter().find_map(|vf| {
        let user = vf_user(pf, vf.index, vf.pci.address, holds)?;
        Some(format!("vf {}: {user}", vf.index))
    })
}

fn vf_user(pf: &ObservedPf, index: VfIndex, address: PciAddress, holds: &Holds) -> Option<String> {
    let owner = holds.get(&address).map(|hold| &hold.owner).or_else(|| pf.users.get(&index))?;
    Some(format!("it is used by {owner}"))
}

impl From<&Plan> for NicPlanReply {
    fn from(plan: &Plan) -> Self {
        Self { steps: plan.steps.iter().map(Into::into).collect(), blocked: plan.blocked.clone() }
    }
}
