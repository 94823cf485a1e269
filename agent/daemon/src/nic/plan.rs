//! From what there is to what there should be, in the fewest safe steps: a pure function.
//!
//! The order of a PF's steps: interface up; its MTU; VFs created without drivers; settings of each VF; drivers. A VF's
//! driver reads the MAC when it probes, so it probes last, and once. The number of VFs changes only while none is in use:
//! until then surplus VFs are offered to nobody, and what is missing is missing.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::agent::{NicPlanReply, PlanStep};
use culvert_api::config::nic::NicPolicy;
use culvert_api::value::{PciAddress, VfIndex};

use super::identity::Leases;
use super::observe::{Observed, ObservedPf};
use super::step::{Action, Object, Step};
use super::wanted::{Holds, VfRest, Wanted, WantedPf, wanted};

#[cfg(test)]
mod tests;
mod touched;

/// What is to be done, in order, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// "OBJECT: why it is left as it is".
    pub blocked: Vec<String>,
    /// MACs out of pools that VFs get for the first time: to be recorded before any step.
    pub leases: Leases,
    /// PFs that give new VFs drivers as they did before an interrupted plan, which nobody recorded any more.
    pub restored: Vec<PciAddress>,
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
    /// VFs whose driver was being changed when the agent ended.
    pub unsettled: &'a BTreeSet<Object>,
    /// Which VFs pods have.
    pub holds: &'a Holds,
    /// Which VFs kubelet has given away.
    pub kubelet: &'a Kubelet,
    /// PFs that were told to leave new VFs without drivers, and what they were set to before: a plan that was
    /// interrupted did not get to set them back.
    pub autoprobe: &'a BTreeMap<PciAddress, bool>,
    /// MACs that VFs have out of pools.
    pub leases: &'a Leases,
}

/// What kubelet says of who has which device. A pod has its device from its admission on, before its CNI is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Kubelet {
    /// No VF is offered to a kubelet.
    #[default]
    None,
    /// Devices and the pods that they were given to.
    Given(BTreeMap<PciAddress, String>),
    /// It does not answer, for this reason: every VF may be somebody's.
    Away(String),
}

impl<'a> Input<'a> {
    pub(super) fn wanted(&self) -> Wanted<'a> {
        wanted(self.policy, self.node, self.observed, self.holds, self.leases)
    }

    /// "it is used by ...", if the VF is, or may be.
    pub(super) fn user(&self, pf: &ObservedPf, index: VfIndex, address: PciAddress) -> Option<String> {
        let holder = self.holds.get(&address).map(|hold| &hold.owner);
        if let Some(user) = holder.or_else(|| pf.users.get(&index)) {
            return Some(format!("it is used by {user}"));
        }
        match self.kubelet {
            Kubelet::None => None,
            Kubelet::Given(given) => given.get(&address).map(|pod| format!("kubelet gave it to {pod}")),
            Kubelet::Away(reason) => Some(format!("kubelet does not say whether a pod has it: {reason}")),
        }
    }

    /// "vf 2: it is used by ...", for the first VF of `pf` that is in use.
    pub(super) fn first_user(&self, pf: &ObservedPf) -> Option<String> {
        pf.pf.vfs.iter().find_map(|vf| {
            let user = self.user(pf, vf.index, vf.pci.address)?;
            Some(format!("vf {}: {user}", vf.index))
        })
    }
}

/// Makes the plan.
pub(super) fn plan(input: Input<'_>) -> Plan {
    let wanted = input.wanted();
    let mut plan = Plan { blocked: wanted.blocked, leases: wanted.leases, ..Plan::default() };
    // Set back first: what follows finds each PF as its owner wants it.
    for (pf, before) in input.autoprobe {
        match input.observed.pf(*pf) {
            Some(now) if now.pf.autoprobe == Some(!before) => {
                plan.push(Object::pf(*pf), Action::Autoprobe(*before));
            }
            Some(_) => plan.restored.push(*pf),
            None => {}
        }
    }
    for pf in &wanted.pfs {
        plan.add_pf(pf, &input);
    }
    plan
}

impl Plan {
    /// The plan for `culvert nic plan`. `input` is what it was made of.
    pub(super) fn reply(&self, input: &Input<'_>) -> NicPlanReply {
        let step = |step: &Step| PlanStep { touches: touched::touched(step, input), ..PlanStep::from(step) };
        NicPlanReply { steps: self.steps.iter().map(step).collect(), blocked: self.blocked.clone() }
    }

    fn push(&mut self, object: Object, action: Action) {
        self.steps.push(Step { object, action });
    }

    fn add_pf(&mut self, wanted: &WantedPf<'_>, input: &Input<'_>) {
        let ObservedPf { pf, .. } = wanted.now;
        let address = pf.pci.address;
        let interface = pf.interface().expect("is a condition for being wanted");
        let (now, goal) = (pf.vfs.len(), usize::from(wanted.carve));
        let user = input.first_user(wanted.now);
        if goal > 0 && !interface.up {
            let action = Action::LinkUp { interface: interface.index, name: interface.name.clone() };
            self.push(Object::pf(address), action);
        }
        let mut pf_mtu = interface.mtu;
        if let Some(mtu) = wanted.mtu.filter(|mtu| u32::from(mtu.get()) != pf_mtu) {
            match &user {
                // Many NICs are reset by it, and their VFs with them.
                Some(user) => {
                    self.blocked.push(format!("{address}: set mtu {mtu}: when no VF is in use; {user}"));
                }
                None => {
                    self.push(Object::pf(address), Action::Mtu(mtu));
                    pf_mtu = mtu.get().into();
                }
            }
        }
        if now == goal {
            return self.add_existing(wanted, pf_mtu, input);
        }
        if let Some(user) = user {
            self.blocked.push(if goal < now {
                format!(
                    "{address}: it has {now} VFs, {goal} are wanted: the others stay, offered to nobody, until no VF is in \
                     use; {user}"
                )
            } else {
                format!("{address}: it has {now} VFs, {goal} are wanted, and all have to go for that, but {user}")
            });
            return self.add_existing(wanted, pf_mtu, input);
        }
        if now > 0 {
            self.push(Object::pf(address), Action::NumVfs(0));
        }
        if goal == 0 {
            return;
        }
        let before = input.autoprobe.get(&address).copied().or(pf.autoprobe);
        if before == Some(true) {
            self.push(Object::pf(address), Action::Autoprobe(false));
        }
        self.push(Object::pf(address), Action::NumVfs(wanted.carve));
        if before == Some(true) {
            self.push(Object::pf(address), Action::Autoprobe(true));
        }
        for vf in &wanted.vfs {
            let rest = VfRest { settings: vf.settings.clone(), bind: Some(vf.driver), mtu: vf.mtu };
            self.add_rest(address, vf.index, interface.index, rest);
        }
    }

    /// The VFs that are there and wanted; others are left alone, as nobody is offered them.
    fn add_existing(&mut self, wanted: &WantedPf<'_>, pf_mtu: u32, input: &Input<'_>) {
        let address = wanted.now.pf.pci.address;
        let interface = wanted.now.pf.interface().expect("is a condition for being wanted").index;
        for vf in &wanted.vfs {
            let Some(now) = wanted.now.pf.vfs.iter().find(|now| now.index == vf.index) else { continue };
            let object = Object::vf(address, vf.index);
            let mut rest = vf.rest(wanted.now, now, input.holds.get(&now.pci.address));
            if input.unsettled.contains(&object) {
                rest.bind = Some(vf.driver);
            }
            // Its PF cannot take it yet, as is told there.
            rest.mtu = rest.mtu.filter(|mtu| u32::from(mtu.get()) <= pf_mtu);
            if rest.is_empty() {
                continue;
            }
            match input.user(wanted.now, now.index, now.pci.address) {
                Some(user) => self
                    .blocked
                    .push(format!("{object}: to be done when it is free: {}; {user}", rest.describe())),
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
