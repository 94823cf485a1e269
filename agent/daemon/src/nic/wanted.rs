//! What there should be: the policy, as it applies to the PFs of this machine.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::config::nic::{MacPolicy, NicPolicy, PfPolicy, PfSelector, VfDriver, VfPolicy};
use culvert_api::value::{Mac, Mtu, PciAddress, PoolName, VfIndex};
use culvert_host::driver;
use culvert_host::inventory::Vf;
use culvert_host::netlink::{VfChange, VfRates, VfVlanTag};

use super::identity::derived_mac;
use super::observe::{Observed, ObservedPf};
use super::step::Object;

/// The policy for the PFs that it can be carried out on, and why it cannot be on the others.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    /// PFs to look after.
    pub pfs: Vec<WantedPf<'a>>,
    /// "OBJECT: why it is left as it is".
    pub blocked: Vec<String>,
}

/// What a PF's VFs should be.
#[derive(Debug)]
pub(super) struct WantedPf<'a> {
    /// What there is.
    pub now: &'a ObservedPf,
    /// How many VFs there should be.
    pub count: u16,
    /// The VFs by index, without those that are blocked.
    pub vfs: Vec<WantedVf>,
}

/// What a VF should be while no pod has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedVf {
    /// Its index.
    pub index: VfIndex,
    /// What the PF should hold of it. Always has a MAC and a VLAN.
    pub settings: VfChange,
    /// MTU of its interface.
    pub mtu: Option<Mtu>,
    /// Its driver.
    pub driver: VfDriver,
    /// The pool that offers it.
    pub pool: Option<PoolName>,
}

/// What a pod's attachment has made different of a VF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The pod.
    pub owner: String,
    /// Settings that it asked for.
    pub settings: VfChange,
}

/// Attachments by the VF's PCI address.
pub(super) type Holds = BTreeMap<PciAddress, Hold>;

/// What is left to do for a VF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VfRest {
    /// Settings that differ.
    pub settings: VfChange,
    /// Its driver has to probe, anew or for the first time.
    pub bind: Option<VfDriver>,
    /// MTU that its interface does not have.
    pub mtu: Option<Mtu>,
}

/// Works out what `policy` means for the machine.
pub(super) fn wanted<'a>(
    policy: &NicPolicy,
    node: &str,
    observed: &'a Observed,
    holds: &Holds,
) -> Wanted<'a> {
    let mut wanted = Wanted::default();
    let mut taken = BTreeSet::new();
    for entry in &policy.pfs {
        match choose(entry, observed, &mut taken) {
            Ok(now) => {
                let vfs = entry.vfs.iter().zip(0_u32..).map(|(vf, index)| {
                    let index = VfIndex::try_from(index).expect("there are at most 65535 VFs");
                    WantedVf::new(vf, index, node, now)
                });
                let count = entry.vfs.len() as u16;
                wanted.pfs.push(WantedPf { now, count, vfs: vfs.collect() });
            }
            Err(reason) => wanted.blocked.push(reason),
        }
    }
    refuse_shared_macs(&mut wanted, observed, holds);
    wanted
}

/// The PF that `entry` means, if it may and can be carved so.
fn choose<'a>(
    entry: &PfPolicy,
    observed: &'a Observed,
    taken: &mut BTreeSet<PciAddress>,
) -> Result<&'a ObservedPf, String> {
    let selector = &entry.pf;
    let found = match selector {
        PfSelector::Pci(address) => observed.pf(*address),
        PfSelector::Interface(name) => {
            observed.pfs.iter().find(|pf| pf.pf.interfaces.iter().any(|i| i.name == name.as_str()))
        }
    };
    let pf = found.ok_or_else(|| format!("{selector}: this machine has no such NIC with SR-IOV"))?;
    let address = pf.pf.pci.address;
    let wanted = entry.vfs.len();
    if let (PfSelector::Interface(name), false) = (selector, pf.claims.is_empty()) {
        return Err(format!(
            "{address}: the node needs {name} for {}; name it by its PCI address to have it changed all the same",
            pf.claims.join(", ")
        ));
    }
    if wanted > usize::from(pf.pf.total_vfs) {
        return Err(format!("{address}: {wanted} VFs are wanted, it can have {}", pf.pf.total_vfs));
    }
    if pf.pf.interface().is_none() {
        let driver = pf.pf.pci.driver.as_deref().unwrap_or("none");
        return Err(format!(
            "{address}: it has no network interface (driver: {driver}), which VFs are set up by"
        ));
    }
    if !taken.insert(address) {
        return Err(format!(
            "{address}: the policy has two entries for it; the one for {selector} does not count"
        ));
    }
    Ok(pf)
}

impl WantedVf {
    fn new(policy: &VfPolicy, index: VfIndex, node: &str, pf: &ObservedPf) -> Self {
        let mac = match policy.mac {
            MacPolicy::Fixed(mac) => mac,
            MacPolicy::Derived => derived_mac(node, pf, index),
        };
        let settings = VfChange {
            mac: Some(mac),
            vlan: Some(VfVlanTag { id: policy.vlan, qos: policy.qos, protocol: policy.vlan_protocol }),
            spoof_check: policy.spoof_check,
            trust: policy.trust,
            link_state: policy.link_state,
            rates: policy.rates.map(|r| VfRates { min: r.min, max: r.max }),
        };
        Self { index, settings, mtu: policy.mtu, driver: policy.driver, pool: policy.pool.clone() }
    }

    /// What is left to do for `vf`, which is one of `pf`'s, to be as wanted, or as the pod wants that has it.
    pub(super) fn rest(&self, pf: &ObservedPf, vf: &Vf, hold: Option<&Hold>) -> VfRest {
        let wanted =
            hold.map_or_else(|| self.settings.clone(), |hold| self.settings.overlaid(&hold.settings));
        let settings = pf.settings.get(&vf.index).map_or_else(|| wanted.clone(), |now| wanted.without(now));
        if hold.is_some() {
            // Driver and interface are the pod's own while it has the VF.
            return VfRest { settings, ..VfRest::default() };
        }
        let userspace = vf.pci.driver.as_deref().map(driver::is_userspace);
        let stale_mac = vf.interface.as_ref().is_some_and(|i| i.mac != wanted.mac);
        let bind = match (self.driver, userspace) {
            (VfDriver::Kernel, Some(false)) => settings.mac.is_some() || stale_mac,
            (VfDriver::Kernel, _) => true,
            (VfDriver::VfioPci, _) => vf.pci.driver.as_deref() != Some(driver::VFIO_PCI),
        };
        let mtu = self
            .mtu
            .filter(|mtu| bind || vf.interface.as_ref().is_some_and(|i| i.mtu != u32::from(mtu.get())));
        VfRest { settings, bind: bind.then_some(self.driver), mtu }
    }
}

impl VfRest {
    /// Whether nothing is left to do.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// "set vlan 100, bind to its driver": for people.
    pub(super) fn describe(&self) -> String {
        let words = [
            (!self.settings.is_empty()).then(|| self.settings.to_string()),
            self.bind.map(|driver| super::step::Action::Bind(driver).to_string()),
            self.mtu.map(|mtu| format!("set mtu {mtu}")),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Takes out VFs whose MAC somebody else on this machine has: a card, a VF of another entry, a pod's VF.
fn refuse_shared_macs(wanted: &mut Wanted<'_>, observed: &Observed, holds: &Holds) {
    let mut owners: BTreeMap<Mac, (Option<PciAddress>, String)> =
        observed.other_macs.iter().map(|(mac, name)| (*mac, (None, name.clone()))).collect();
    let left_alone = observed.pfs.iter().filter(|pf| !wanted.pfs.iter().any(|w| w.now.pf.pci == pf.pf.pci));
    for pf in left_alone {
        for settings in pf.settings.values() {
            let object = Object::vf(pf.pf.pci.address, settings.index);
            owners.extend(settings.mac.map(|mac| (mac, (None, object.to_string()))));
        }
    }
    for (vf, hold) in holds {
        owners.extend(hold.settings.mac.map(|mac| (mac, (Some(*vf), hold.owner.clone()))));
    }
    for pf in &mut wanted.pfs {
        let address = pf.now.pf.pci.address;
        let existing: BTreeMap<VfIndex, PciAddress> =
            pf.now.pf.vfs.iter().map(|vf| (vf.index, vf.pci.address)).collect();
        pf.vfs.retain(|vf| {
            let Some(mac) = vf.settings.mac else { return true };
            let object = Object::vf(address, vf.index);
            let itself = existing.get(&vf.index).copied();
            match owners.get(&mac) {
                Some((owner, name)) if owner.is_none() || *owner != itself => {
                    wanted
                        .blocked
                        .push(format!("{object}: mac {mac} is that of {name}, too; give it another"));
                    false
                }
                _ => {
                    owners.insert(mac, (itself, object.to_string()));
                    true
                }
            }
        });
    }
}
