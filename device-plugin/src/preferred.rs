//! Which of the free devices suit a container best.
//!
//! Packed: one NUMA node if it can be, one PF within it if it can be, and of those that can the one with least to spare,
//! so that large gaps stay for large requests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use culvert_api::kubelet::v1beta1::ContainerPreferredAllocationRequest;

use crate::Device;
use crate::allocate::RequestError;
use crate::pool::Pool;

#[cfg(test)]
mod tests;

/// What devices are kept together by: most important first.
const LEVELS: [fn(&Device) -> Key; 2] = [
    |device| Key(device.numa.map(u64::from)),
    |device| {
        Key(device.pf.map(|pf| {
            u64::from(pf.domain()) << 32
                | u64::from(pf.bus()) << 16
                | u64::from(pf.device()) << 8
                | u64::from(pf.function())
        }))
    },
];

/// A place on one level, or that it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Option<u64>);

/// Ids for one container: those that must be included, then the best of the others.
pub(crate) fn preferred(
    pool: &Pool,
    request: &ContainerPreferredAllocationRequest,
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
    ids.extend(fill(good, &anchors, missing, &LEVELS).into_iter().map(|device| device.pci.to_string()));
    // Kubelet's picture may be older than ours. It is answered in full; Allocate refuses what cannot be given.
    let rest: Vec<String> = free.into_iter().filter(|id| !ids.contains(id)).cloned().collect();
    ids.extend(rest.into_iter().take(total - ids.len()));
    Ok(ids)
}

/// Takes up to `wanted` of the candidates, from as few groups as possible on each level.
fn fill<'d>(
    mut candidates: Vec<&'d Device>,
    anchors: &[&Device],
    wanted: usize,
    levels: &[fn(&Device) -> Key],
) -> Vec<&'d Device> {
    let Some((key, deeper)) = levels.split_first() else {
        candidates.sort_by_key(|device| device.pci);
        candidates.truncate(wanted);
        return candidates;
    };
    let mut groups: BTreeMap<Key, Vec<&Device>> = BTreeMap::new();
    for device in candidates {
        groups.entry(key(device)).or_default().push(device);
    }
    let mut taken = Vec::new();
    while taken.len() < wanted {
        let open = wanted - taken.len();
        let near = |place: Key| anchors.iter().filter(|anchor| key(anchor) == place).count();
        let best = groups.iter().min_by_key(|(place, group)| {
            let spare = group.len().checked_sub(open);
            (Reverse(near(**place)), spare.is_none(), spare, Reverse(group.len()))
        });
        let Some(place) = best.map(|(place, _)| *place) else { break };
        let group = groups.remove(&place).unwrap_or_default();
        taken.extend(fill(group, anchors, open, deeper));
    }
    taken
}
