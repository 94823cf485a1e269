//! Weights of endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kube::{EndpointSlice, Name, ObjectMeta, Objects};

/// Annotation of a pod, or of an EndpointSlice for all its endpoints: share of new flows relative to the others.
pub(super) const WEIGHT: &str = "culvert.io/weight";

/// What endpoints weigh that say nothing.
const DEFAULT: u32 = 1;

/// Largest weight.
const MAX: u32 = 1000;

/// The weights that pods say, by namespace and address. Few do.
#[derive(Debug, Default)]
pub(super) struct Weights<'a>(BTreeMap<(&'a str, IpAddr), u32>);

impl<'a> Weights<'a> {
    pub(super) fn of(objects: &'a Objects, problems: &mut Vec<String>) -> Self {
        let mut weights = BTreeMap::new();
        for (name, pod) in objects.pods.iter() {
            let Some(weight) = said("pod", name, &pod.metadata, problems) else { continue };
            let Some(status) = &pod.status else { continue };
            let ips = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
            let ips = ips.filter_map(|ip| ip.parse().ok());
            weights.extend(ips.map(|ip| ((&*name.namespace, ip), weight)));
        }
        Self(weights)
    }

    /// What an endpoint of a slice weighs: what its pod says, else the slice. 0 is a weight: nothing new.
    pub(super) fn get(&self, slice: &Name, of_slice: Option<u32>, address: IpAddr) -> u32 {
        self.0.get(&(&*slice.namespace, address)).copied().or(of_slice).unwrap_or(DEFAULT)
    }
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
