//! Weights of endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::kube::{EndpointSlice, Kind, Name, ObjectId, ObjectMeta, Pod};
use crate::tables::problems::Problems;

/// Annotation of a pod, or of an EndpointSlice for all its endpoints: share of new flows relative to the others.
pub(super) const WEIGHT: &str = "culvert.io/weight";

/// What endpoints weigh that say nothing.
const DEFAULT: u32 = 1;

/// Largest weight.
const MAX: u32 = 1000;

/// The weights that pods say, by namespace and address. Few do. Of several pods at an address the last by name counts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Weights(BTreeMap<Arc<str>, BTreeMap<IpAddr, BTreeMap<Name, u32>>>);

impl Weights {
    /// Takes in what a pod says: its weight by address.
    pub(super) fn put(&mut self, name: &Name, pod: &Pod, problems: &mut Problems) -> Vec<(IpAddr, u32)> {
        let mut lines = Vec::new();
        let weights = of_pod(name, pod, &mut lines);
        problems.set(ObjectId::new(Kind::Pod, name.clone()), lines);
        for (address, weight) in &weights {
            let of_namespace = self.0.entry(Arc::clone(&name.namespace)).or_default();
            of_namespace.entry(*address).or_default().insert(name.clone(), *weight);
        }
        weights
    }

    /// Forgets what a pod said, and what was wrong with it: its weight by address.
    pub(super) fn take(&mut self, name: &Name, pod: &Pod, problems: &mut Problems) -> Vec<(IpAddr, u32)> {
        problems.set(ObjectId::new(Kind::Pod, name.clone()), vec![]);
        let weights = of_pod(name, pod, &mut vec![]);
        if let Some(of_namespace) = self.0.get_mut(&name.namespace) {
            for (address, _) in &weights {
                let pods = of_namespace.entry(*address).or_default();
                pods.remove(name);
                if pods.is_empty() {
                    of_namespace.remove(address);
                }
            }
            if of_namespace.is_empty() {
                self.0.remove(&name.namespace);
            }
        }
        weights
    }

    /// What an endpoint of a slice weighs: what its pod says, else the slice. 0 is a weight: nothing new.
    pub(super) fn get(&self, slice: &Name, of_slice: Option<u32>, address: IpAddr) -> u32 {
        let pods = self.0.get(&slice.namespace).and_then(|of_namespace| of_namespace.get(&address));
        let of_pod = pods.and_then(BTreeMap::last_key_value).map(|(_, weight)| *weight);
        of_pod.or(of_slice).unwrap_or(DEFAULT)
    }
}

/// What a pod says, for each of its addresses.
fn of_pod(name: &Name, pod: &Pod, problems: &mut Vec<String>) -> Vec<(IpAddr, u32)> {
    let Some(weight) = said("pod", name, &pod.metadata, problems) else { return vec![] };
    let Some(status) = &pod.status else { return vec![] };
    let ips = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    ips.filter_map(|ip| ip.parse().ok()).map(|ip| (ip, weight)).collect()
}

/// What a slice says of its endpoints' weight.
pub(super) fn of_slice(name: &Name, slice: &EndpointSlice, problems: &mut Vec<String>) -> Option<u32> {
    said("endpointslice", name, &slice.metadata, problems)
}

fn said(kind: &str, name: &Name, metadata: &ObjectMeta, problems: &mut Vec<String>) -> Option<u32> {
    let text = metadata.annotations.as_ref()?.get(WEIGHT)?;
    let weight = text.parse().ok().filter(|weight| *weight <= MAX);
    if weight.is_none() {
        problems.push(format!("{kind} {name}: annotation {WEIGHT} {text:?}: must be 0-{MAX}"));
    }
    weight
}
