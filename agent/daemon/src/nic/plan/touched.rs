//! What a step has an effect on, for people to read before they let it happen.

use culvert_api::value::VfIndex;

use super::Input;
use crate::nic::observe::ObservedPf;
use crate::nic::step::{Action, Step};

/// VFs that `step` touches, and who has them: "vf 0-3", "vf 1: default/web". A step of one VF names its PCI address and
/// interface, where it exists.
pub(super) fn touched(step: &Step, input: &Input<'_>) -> Vec<String> {
    let Some(pf) = input.observed.pf(step.object.pf) else { return Vec::new() };
    match (step.object.vf, &step.action) {
        (Some(index), _) => one(pf, index),
        (None, Action::Autoprobe(_)) => Vec::new(),
        (None, Action::NumVfs(count)) if *count > 0 => vec![format!("new {}", range(*count))],
        (None, _) => all(pf, input),
    }
}

fn one(pf: &ObservedPf, index: VfIndex) -> Vec<String> {
    let Some(vf) = pf.pf.vfs.iter().find(|vf| vf.index == index) else { return Vec::new() };
    let interface = vf.interface.as_ref().map(|i| i.name.clone());
    std::iter::once(vf.pci.address.to_string()).chain(interface).collect()
}

fn all(pf: &ObservedPf, input: &Input<'_>) -> Vec<String> {
    let Some(last) = pf.pf.vfs.last() else { return Vec::new() };
    let users = pf.pf.vfs.iter().filter_map(|vf| {
        let user = input.user(pf, vf.index, vf.pci.address)?;
        Some(format!("vf {}: {user}", vf.index))
    });
    std::iter::once(range(last.index.get() + 1)).chain(users).collect()
}

fn range(count: u16) -> String {
    match count {
        1 => "vf 0".to_owned(),
        n => format!("vf 0-{}", n - 1),
    }
}
