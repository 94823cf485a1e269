//! Which of the free devices suit a container best.
//!
//! In either way they come from one NUMA node if they can, and from below one PCIe root port there, as the PFs of one card
//! are. *Packed*: from one PF within that, and of the places that can serve the request from the one with least to spare,
//! so that large gaps stay for large requests. *Spread*: from the place with most to spare, and one after the other from the
//! PFs that have been used least.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use culvert_api::config::device_plugin::Allocation;
use culvert_api::kubelet::v1beta1::ContainerPreferredAllocationRequest;
use culvert_api::value::PciAddress;

use crate::Device;
use crate::allocate::RequestError;
use crate::pool::Pool;

#[cfg(test)]
mod tests;

/// What devices are kept together by: most important first.
const LEVELS: [fn(&Device) -> Key; 2] =
    [|device| Key(device.numa.map(u64::from)), |device| Key(device.root_port.map(number))];

/// The PF that a device belongs to.
fn pf(device: &Device) -> Key {
    Key(device.pf.map(number))
}

fn number(pci: PciAddress) -> u64 {
    u64::from(pci.domain()) << 32
        | u64::from(pci.bus()) << 16
        | u64::from(pci.device()) << 8
        | u64::from(pci.function())
}

/// A place on one level, or that it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Option<u64>);

/// Ids for one container: those that must be included, then the best of the others.
pub(crate) fn preferred(
    pool: &Pool,
    request: &ContainerPreferredAllocationRequest,
    allocation: Allocation,
) -> Result<Vec<String>, RequestError> {
    let fixed: BTreeSet<&String> = request.must_include_device_ids.iter().collect();
    let free: BTreeSet<&String> =
        request.available_device_ids.iter().filter(|id| !fixed.contains(id)).collect();
    let missing = usize::try_from(request.allocation_size)
        .ok()
        .filter(|size| *size > 0)
        .and_then(|size| size.checked_sub(fixed.len()))
        .filter(|missing| *missing <= free.len())
        .ok_or_else(|| RequestError::Size {
            resource: pool.resource().clone(),
            wanted: request.allocation_size,
            fixed: fixed.len(),
            available: fixed.len() + free.len(),
        })?;

    let known = |id: &&String| id.parse().ok().and_then(|pci| pool.get(pci));
    let anchors: Vec<&Device> = fixed.iter().filter_map(known).map(|m| &m.device).collect();
    let good: Vec<&Device> =
        free.iter().filter_map(known).filter(|m| m.problem().is_none()).map(|m| &m.device).collect();
    let mut ids: Vec<String> = fixed.into_iter().cloned().collect();
    let total = ids.len() + missing;
    let chosen = match allocation {
        Allocation::Packed => fill(good, &anchors, missing, &LEVELS, &Packed),
        Allocation::Spread => {
            let free: BTreeSet<PciAddress> = good.iter().map(|device| device.pci).collect();
            let mut used = BTreeMap::new();
            for member in pool.members().filter(|member| !free.contains(&member.device.pci)) {
                *used.entry(pf(&member.device)).or_insert(0) += 1;
            }
            fill(good, &anchors, missing, &LEVELS, &Spread { used })
        }
    };
    ids.extend(chosen.into_iter().map(|device| device.pci.to_string()));
    // Kubelet's picture may be older than ours. It is answered in full; Allocate refuses what cannot be given.
    let rest: Vec<String> = free.into_iter().filter(|id| !ids.contains(id)).cloned().collect();
    ids.extend(rest.into_iter().take(total - ids.len()));
    Ok(ids)
}

/// How places and the devices of one place are chosen.
trait Choice {
    /// Of places that can serve the whole request, the one whose value is least goes first.
    fn rank(&self, free: usize) -> i64;

    /// Takes up to `wanted` of the candidates, which are all in one place, as are the `anchors` of it.
    fn choose<'d>(&self, candidates: Vec<&'d Device>, anchors: &[&Device], wanted: usize) -> Vec<&'d Device>;
}

/// Takes up to `wanted` of the candidates, from as few groups as possible on each level.
fn fill<'d>(
    candidates: Vec<&'d Device>,
    anchors: &[&Device],
    wanted: usize,
    levels: &[fn(&Device) -> Key],
    choice: &dyn Choice,
) -> Vec<&'d Device> {
    let Some((key, deeper)) = levels.split_first() else {
        return choice.choose(candidates, anchors, wanted);
    };
    let mut taken = Vec::new();
    let mut groups = grouped(candidates, key);
    while let Some(group) = next_group(&mut groups, key, anchors, wanted - taken.len(), choice) {
        taken.extend(fill(group, anchors, wanted - taken.len(), deeper, choice));
        if taken.len() == wanted {
            break;
        }
    }
    taken
}

fn grouped<'d>(candidates: Vec<&'d Device>, key: &fn(&Device) -> Key) -> BTreeMap<Key, Vec<&'d Device>> {
    let mut groups: BTreeMap<Key, Vec<&Device>> = BTreeMap::new();
    for device in candidates {
        groups.entry(key(device)).or_default().push(device);
    }
    groups
}

/// The best group for `open` devices: near those that must be in, then able to serve all, then by choice; the largest if
/// none can.
fn next_group<'d>(
    groups: &mut BTreeMap<Key, Vec<&'d Device>>,
    key: &fn(&Device) -> Key,
    anchors: &[&Device],
    open: usize,
    choice: &dyn Choice,
) -> Option<Vec<&'d Device>> {
    let near = |place: Key| anchors.iter().filter(|anchor| key(anchor) == place).count();
    let best = groups.iter().min_by_key(|(place, group)| {
        let serves = group.len() >= open;
        let rank = serves.then(|| choice.rank(group.len()));
        (Reverse(near(**place)), !serves, rank, Reverse(group.len()))
    });
    let place = best.map(|(place, _)| *place)?;
    groups.remove(&place)
}

struct Packed;

impl Choice for Packed {
    fn rank(&self, free: usize) -> i64 {
        free as i64
    }

    fn choose<'d>(&self, candidates: Vec<&'d Device>, anchors: &[&Device], wanted: usize) -> Vec<&'d Device> {
        let mut taken = Vec::new();
        let mut groups = grouped(candidates, &(pf as fn(&Device) -> Key));
        while taken.len() < wanted {
            let open = wanted - taken.len();
            let Some(mut group) = next_group(&mut groups, &(pf as fn(&Device) -> Key), anchors, open, self)
            else {
                break;
            };
            group.sort_by_key(|device| device.pci);
            group.truncate(open);
            taken.extend(group);
        }
        taken
    }
}

struct Spread {
    /// Devices of each PF that are not free.
    used: BTreeMap<Key, usize>,
}

impl Choice for Spread {
    fn rank(&self, free: usize) -> i64 {
        -(free as i64)
    }

    fn choose<'d>(&self, candidates: Vec<&'d Device>, anchors: &[&Device], wanted: usize) -> Vec<&'d Device> {
        let mut groups = grouped(candidates, &(pf as fn(&Device) -> Key));
        for group in groups.values_mut() {
            group.sort_by_key(|device| Reverse(device.pci));
        }
        let mut own: BTreeMap<Key, usize> = BTreeMap::new();
        for anchor in anchors {
            *own.entry(pf(anchor)).or_insert(0) += 1;
        }
        let mut taken = Vec::new();
        while taken.len() < wanted {
            let count = |of: &BTreeMap<Key, usize>, place: &Key| of.get(place).copied().unwrap_or(0);
            let left = groups.iter_mut().filter(|(_, group)| !group.is_empty());
            let best = left.min_by_key(|(place, group)| {
                (count(&own, place), count(&self.used, place), Reverse(group.len()))
            });
            let Some((place, device)) = best.and_then(|(place, group)| Some((*place, group.pop()?))) else {
                break;
            };
            *own.entry(place).or_insert(0) += 1;
            taken.push(device);
        }
        taken
    }
}
