//! Which device goes to which resource: a pure function.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::value::{PciAddress, ResourceName, ResourcePrefix};
use culvert_device_plugin::resource_list::{
    Bound, Candidate, Finding, Resource, ResourceList, Selector, Severity, assign,
};
use culvert_device_plugin::{Device, Health, IommuGroup, Rdma};
use culvert_host::inventory::{Interface, Vf};
use culvert_host::{PciDevice, driver};

use super::super::devices::{Given, base, trouble};
use super::super::observe::{Observed, ObservedPf};
use super::facts::Facts;
use super::memory::{Memory, Remembered};

/// Everything that it depends on.
pub(super) struct Scene<'a> {
    /// Prefix of the policy's pools.
    pub prefix: &'a ResourcePrefix,
    /// What there is.
    pub observed: &'a Observed,
    /// What more there is to know of it.
    pub facts: &'a Facts,
    /// What the policy makes of it.
    pub policy: Vec<Device>,
    /// PFs that the policy gives VFs, or will.
    pub carved: &'a BTreeSet<PciAddress>,
    /// Devices that somebody has, and from which resource, where kubelet says.
    pub held: &'a Given,
    /// Those of them that kubelet knows of: that a pod has them is no reason to call them unhealthy.
    pub known: &'a Given,
    /// NICs without SR-IOV that the node itself needs.
    pub claimed: &'a BTreeSet<PciAddress>,
    /// What the file asks for, if there is one.
    pub list: Option<&'a ResourceList>,
    /// What was before.
    pub memory: &'a Memory,
}

/// What comes of it.
pub(super) struct Offered {
    /// The devices on offer, and those that were and are no more.
    pub devices: Vec<Device>,
    /// What is to be remembered.
    pub remembered: BTreeMap<PciAddress, Remembered>,
    /// What there is to say about the file, on this machine.
    pub findings: Vec<Finding>,
}

/// A function that could be offered.
struct Function<'a> {
    pci: &'a PciDevice,
    /// Its PF, and the VF, if it is one.
    vf: Option<(&'a ObservedPf, &'a Vf)>,
    /// Interfaces that its PF goes by, which is itself if it is no VF.
    interfaces: &'a [Interface],
}

impl Function<'_> {
    fn pf(&self) -> PciAddress {
        self.vf.map_or(self.pci.address, |(pf, _)| pf.pf.pci.address)
    }

    /// The device as it is, in no pool.
    fn device(&self, scene: &Scene<'_>) -> Device {
        let held = scene.held.contains_key(&self.pci.address);
        let known = scene.known.contains_key(&self.pci.address);
        if let Some((pf, vf)) = self.vf {
            let none = || vf.pci.driver.is_none().then(|| "it has no driver".to_owned());
            let problem = trouble(pf, vf, known).or_else(none);
            return Device {
                health: problem.map_or(Health::Healthy, Health::Unhealthy),
                held,
                ..base(pf, vf)
            };
        }
        let kernel = self.pci.driver.as_deref().is_some_and(|d| !driver::is_userspace(d));
        let problem = match &self.pci.driver {
            _ if known => None,
            None => Some("it has no driver".to_owned()),
            Some(_) if kernel && self.interfaces.is_empty() => {
                Some("it is used by somebody in another network namespace, where its interface is".to_owned())
            }
            Some(_) => None,
        };
        Device {
            numa: self.pci.numa_node,
            iommu_group: self.pci.iommu_group.map(|g| IommuGroup { number: g.number, no_iommu: g.no_iommu }),
            driver: self.pci.driver.clone(),
            uio: self.pci.uio,
            netdev: self.interfaces.first().map(|i| i.name.clone()),
            health: problem.map_or(Health::Healthy, Health::Unhealthy),
            held,
            ..Device::new(self.pci.address)
        }
    }
}

impl<'a> Scene<'a> {
    pub(super) fn offer(mut self) -> Offered {
        let mut offered: BTreeMap<PciAddress, Device> =
            std::mem::take(&mut self.policy).into_iter().map(|device| (device.pci, device)).collect();
        let functions: Vec<Function<'a>> = self.functions().collect();
        let known = self.resources(&offered);
        for device in offered.values_mut() {
            device.held = self.held.contains_key(&device.pci);
            self.keep(device, &known);
        }
        let mut findings = Vec::new();
        if let Some(list) = self.list {
            let mut without_vhost = BTreeSet::new();
            let candidates: Vec<Candidate> = functions
                .iter()
                .map(|function| self.candidate(function, offered.get(&function.pci.address)))
                .collect();
            let assignment = assign(list, &candidates);
            for ((function, candidate), taken) in functions.iter().zip(&candidates).zip(assignment.taken) {
                let Some((resource, selector)) = taken else { continue };
                let resource = &list.resources[resource];
                let selector = &resource.selectors[selector];
                let address = candidate.pci;
                let device = offered.entry(address).or_insert_with(|| function.device(&self));
                self.give(device, resource, selector);
                if selector.need_vhost_net && !self.facts.vhost_net && without_vhost.insert(&resource.name) {
                    let text = format!(
                        "resource {}: needVhostNet, but this machine has no /dev/vhost-net or no /dev/net/tun; containers \
                         go without",
                        resource.name
                    );
                    findings.push(Finding { at: selector.at, severity: Severity::Warning, text });
                }
            }
            findings.extend(assignment.findings);
        }
        self.withdraw(&mut offered, &functions);
        let remembered = functions.iter().filter_map(|f| self.remember(f, offered.get(&f.pci.address)));
        let remembered = remembered.collect();
        Offered { devices: offered.into_values().collect(), remembered, findings }
    }

    /// Every function that may be offered: VFs, PFs that have none and are to get none, NICs without SR-IOV. What the
    /// node itself lives on is none of them.
    fn functions(&self) -> impl Iterator<Item = Function<'a>> {
        let (carved, claimed) = (self.carved, self.claimed);
        let whole = |pf: &&ObservedPf| {
            pf.pf.vfs.is_empty() && pf.claims.is_empty() && !carved.contains(&pf.pf.pci.address)
        };
        let pfs = self.observed.pfs.iter().filter(whole);
        let pfs = pfs.map(|pf| Function { pci: &pf.pf.pci, vf: None, interfaces: &pf.pf.interfaces });
        let vfs = self.observed.pfs.iter().flat_map(|pf| pf.pf.vfs.iter().map(move |vf| (pf, vf)));
        let vfs =
            vfs.map(|(pf, vf)| Function { pci: &vf.pci, vf: Some((pf, vf)), interfaces: &pf.pf.interfaces });
        let nics = self.facts.nics.iter().filter(|nic| !claimed.contains(&nic.pci.address));
        let nics = nics.map(|nic| Function { pci: &nic.pci, vf: None, interfaces: &nic.interfaces });
        vfs.chain(pfs).chain(nics)
    }

    /// Resources that exist: those of the policy and those of the file.
    fn resources(&self, policy: &BTreeMap<PciAddress, Device>) -> BTreeSet<ResourceName> {
        let listed = self.list.iter().flat_map(|list| &list.resources).map(|resource| resource.name.clone());
        policy.values().filter_map(|device| device.resource(self.prefix)).chain(listed).collect()
    }

    /// A device that a pod has from another resource stays there, or is offered by nobody if that is gone: it would be
    /// given away twice.
    fn keep(&self, device: &mut Device, known: &BTreeSet<ResourceName>) {
        let Some(last) = self.held_from(device.pci) else { return };
        if device.resource(self.prefix).as_ref() != Some(last) {
            let kept = known.contains(last).then(|| last.clone());
            (device.prefix, device.pool) = kept.map_or((None, None), |r| (Some(r.prefix), Some(r.pool)));
        }
    }

    /// The resource that a pod has the device from, if one has.
    fn held_from(&self, pci: PciAddress) -> Option<&ResourceName> {
        let said = self.held.get(&pci)?.as_ref();
        said.or_else(|| self.memory.get(pci)?.resource.as_ref())
    }

    fn candidate(&self, function: &Function<'_>, policy: Option<&Device>) -> Candidate {
        let address = function.pci.address;
        let bound = match self.held_from(address) {
            Some(last) => Some(Bound::Held(last.clone())),
            None => policy.and_then(|device| device.resource(self.prefix)).map(Bound::Policy),
        };
        let remembered = self.memory.get(address).filter(|_| self.held.contains_key(&address));
        let p_key = self.facts.p_keys.get(&address).cloned();
        Candidate {
            pci: address,
            vendor: function.pci.id.vendor,
            device: function.pci.id.device,
            driver: function.pci.driver.clone(),
            pf: function.pf(),
            pf_names: function.interfaces.iter().map(|i| i.name.clone()).collect(),
            vf: function.vf.map(|(_, vf)| vf.index.get().into()),
            link_type: self.facts.link_types.get(&function.pf()).cloned(),
            acpi_index: function.pci.acpi_index.map(|index| index.to_string()),
            ddp_profile: self.facts.ddp.get(&function.pf()).cloned(),
            p_key: p_key.or_else(|| remembered?.p_key.clone()),
            rdma: self.rdma(address).is_some(),
            vdpa: None,
            bound,
        }
    }

    /// The device's RDMA side: as it is seen, or as it was before a pod got it.
    fn rdma(&self, pci: PciAddress) -> Option<&Rdma> {
        let before = self.memory.get(pci).filter(|_| self.held.contains_key(&pci));
        self.facts.rdma.get(&pci).or_else(|| before?.rdma.as_ref())
    }

    fn give(&self, device: &mut Device, resource: &Resource, selector: &Selector) {
        device.prefix = Some(resource.name.prefix.clone());
        device.pool = Some(resource.name.pool.clone());
        device.hide_numa = resource.exclude_topology;
        device.extra = resource.info(device.pci);
        device.vhost_net = selector.need_vhost_net && self.facts.vhost_net;
        device.rdma = self.rdma(device.pci).filter(|_| selector.is_rdma).cloned();
    }

    /// A device that was on offer and is not any more, but for one that left the machine, is said to be on offer by
    /// nobody: to be absent would show as its loss.
    fn withdraw(&self, offered: &mut BTreeMap<PciAddress, Device>, functions: &[Function<'_>]) {
        for function in functions {
            let address = function.pci.address;
            if self.memory.get(address).is_some() {
                offered.entry(address).or_insert_with(|| function.device(self));
            }
        }
    }

    /// What is to be remembered of a function that is or was on offer.
    fn remember(&self, function: &Function<'_>, device: Option<&Device>) -> Option<(PciAddress, Remembered)> {
        let address = function.pci.address;
        let device = device?;
        let before = self.memory.get(address);
        let resource = match self.held_from(address) {
            Some(last) => Some(last.clone()),
            None => device.resource(self.prefix),
        };
        let p_key = self.facts.p_keys.get(&address).cloned();
        let p_key = p_key.or_else(|| before.filter(|_| device.held)?.p_key.clone());
        let known = resource.is_some() || before.is_some();
        known.then(|| (address, Remembered { resource, rdma: self.rdma(address).cloned(), p_key }))
    }
}
