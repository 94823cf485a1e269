//! What there should be: the policy, as it applies to the PFs of this machine.

use std::collections::BTreeMap;

use culvert_api::config::nic::{MacPolicy, MacRange, NicPolicy, PfFacts, PfPolicy, VfDriver, VfPolicy};
use culvert_api::value::{Mac, Mtu, PciAddress, PoolName, VfIndex};
use culvert_host::driver;
use culvert_host::inventory::{Pf, Vf};
use culvert_host::netlink::{VfChange, VfRates, VfVlanTag};

use super::identity::{Leases, Lessor, derived_mac, pf_key};
use super::observe::{Observed, ObservedPf};
use super::step::Object;

/// The policy for the PFs that it can be carried out on, and why it cannot be on the others.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    /// PFs to look after.
    pub pfs: Vec<WantedPf<'a>>,
    /// "OBJECT: why it is left as it is".
    pub blocked: Vec<String>,
    /// MACs that VFs are given out of pools for the first time.
    pub leases: Leases,
}

/// What a PF's VFs should be.
#[derive(Debug)]
pub(super) struct WantedPf<'a> {
    /// What there is.
    pub now: &'a ObservedPf,
    /// How many VFs should be in service.
    pub count: u16,
    /// How many there should be: those beyond `count` lie idle.
    pub carve: u16,
    /// MTU of the PF's interface.
    pub mtu: Option<Mtu>,
    /// The VFs in service by index, without those that are blocked.
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

/// VFs that are to have a MAC out of a pool.
type Pooled = BTreeMap<(PciAddress, VfIndex), MacRange>;

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
    leases: &Leases,
) -> Wanted<'a> {
    let mut wanted = Wanted::default();
    let mut pooled = BTreeMap::new();
    for (entry, now) in chosen(policy, observed, &mut wanted.blocked) {
        match WantedPf::new(entry, now) {
            Ok(mut pf) => {
                pf.add_vfs(entry, node, &mut wanted.blocked, &mut pooled);
                wanted.pfs.push(pf);
            }
            Err(reason) => wanted.blocked.push(reason),
        }
    }
    if !pooled.is_empty() {
        wanted.give_pooled_macs(&pooled, observed, holds, leases);
    }
    refuse_shared_macs(&mut wanted, observed, holds);
    wanted
}

/// PFs of the machine that two entries of the policy match, neither of which goes before the other.
pub(super) fn conflicts(policy: &NicPolicy, observed: &Observed) -> Vec<String> {
    observed.pfs.iter().filter_map(|pf| entry(policy, pf).err()).collect()
}

/// Each PF that an entry of the policy is about, by entry and PCI address; why not in `blocked`.
fn chosen<'p, 'a>(
    policy: &'p NicPolicy,
    observed: &'a Observed,
    blocked: &mut Vec<String>,
) -> Vec<(&'p PfPolicy, &'a ObservedPf)> {
    blocked.extend(conflicts(policy, observed));
    let mut chosen = Vec::new();
    for this in &policy.pfs {
        let matching: Vec<_> = observed.pfs.iter().filter(|pf| matches(this, pf)).collect();
        if matching.is_empty() {
            blocked.push(format!("{}: this machine has no such NIC with SR-IOV", this.pf));
        }
        let own = |pf: &&&ObservedPf| matches!(entry(policy, pf), Ok(Some(best)) if std::ptr::eq(best, this));
        chosen.extend(matching.iter().filter(own).map(|pf| (this, *pf)));
    }
    chosen
}

/// The entry that counts for `pf`, if any matches.
fn entry<'p>(policy: &'p NicPolicy, pf: &ObservedPf) -> Result<Option<&'p PfPolicy>, String> {
    let matching: Vec<&PfPolicy> = policy.pfs.iter().filter(|entry| matches(entry, pf)).collect();
    let beats_all = |this: &&PfPolicy| {
        matching.iter().all(|other| std::ptr::eq(*this, *other) || this.pf.beats(&other.pf))
    };
    match (matching.iter().copied().find(beats_all), matching.as_slice()) {
        (None, [one, two, ..]) => Err(format!(
            "{}: the entries {} and {} of the policy both match it; name it in one by its PCI address, or leave it out of one",
            pf.pf.pci.address, one.pf, two.pf
        )),
        (best, _) => Ok(best),
    }
}

fn matches(entry: &PfPolicy, pf: &ObservedPf) -> bool {
    let names: Vec<&str> = pf.pf.interfaces.iter().map(|i| i.name.as_str()).collect();
    let Pf { pci, .. } = &pf.pf;
    entry.pf.matches(&PfFacts {
        address: pci.address,
        names: &names,
        id: (pci.id.vendor, pci.id.device),
        numa: pci.numa_node,
        driver: pci.driver.as_deref(),
    })
}

impl<'a> WantedPf<'a> {
    /// What `entry` means for `now`, still without VFs, if it may and can be carved so.
    fn new(entry: &PfPolicy, now: &'a ObservedPf) -> Result<Self, String> {
        let address = now.pf.pci.address;
        let Some(interface) = now.pf.interface() else {
            let driver = now.pf.pci.driver.as_deref().unwrap_or("none");
            return Err(format!(
                "{address}: it has no network interface (driver: {driver}), which VFs are set up by"
            ));
        };
        if entry.pf.address().is_none() && !now.claims.is_empty() {
            return Err(format!(
                "{address}: the node needs {} for {}; name it by its PCI address to have it changed all the same",
                interface.name,
                now.claims.join(", ")
            ));
        }
        let total = now.pf.total_vfs;
        let (count, carve) = (entry.vfs.of(total), entry.carve.of(total));
        if count.max(carve) > total {
            let what = if count > total { format!("{count} VFs") } else { format!("{carve} VFs (carve)") };
            return Err(format!("{address}: {what} are wanted, it can have {total}"));
        }
        Ok(Self { now, count, carve, mtu: entry.mtu, vfs: Vec::new() })
    }

    fn add_vfs(&mut self, entry: &PfPolicy, node: &str, blocked: &mut Vec<String>, pooled: &mut Pooled) {
        let address = self.now.pf.pci.address;
        if let Some(what) = entry.beyond(self.count) {
            blocked.push(format!("{address}: {what}: there are {} VFs in service", self.count));
        }
        let has =
            self.mtu.map_or_else(|| self.now.pf.interface().map_or(0, |i| i.mtu), |mtu| mtu.get().into());
        for index in (0..u32::from(self.count)).map(|i| VfIndex::try_from(i).expect("is a u16")) {
            let object = Object::vf(address, index);
            let Some(policy) = entry.vf(index) else {
                blocked
                    .push(format!("{object}: there is no MAC for it; the addresses from mac: base run out"));
                continue;
            };
            if let Some(mtu) = policy.settings.mtu.filter(|mtu| u32::from(mtu.get()) > has) {
                blocked
                    .push(format!("{object}: mtu {mtu}: is above that of its PF, {has}; set pfMtu: {mtu}"));
                continue;
            }
            let mac = match policy.mac {
                MacPolicy::Fixed(mac) => Some(mac),
                MacPolicy::Derived => Some(derived_mac(node, self.now, index)),
                MacPolicy::Pool(range) => {
                    pooled.insert((address, index), range);
                    None
                }
            };
            self.vfs.push(WantedVf::new(index, mac, policy));
        }
    }
}

impl Wanted<'_> {
    /// Gives VFs their MACs that are to have one out of a pool.
    fn give_pooled_macs(&mut self, pooled: &Pooled, observed: &Observed, holds: &Holds, leases: &Leases) {
        let fixed = self.pfs.iter().flat_map(|pf| &pf.vfs).filter_map(|vf| vf.settings.mac);
        let left_alone = observed.pfs.iter().filter(|pf| !self.pfs.iter().any(|w| w.now.pf.pci == pf.pf.pci));
        let left_alone = left_alone.flat_map(|pf| pf.settings.values()).filter_map(|settings| settings.mac);
        let foreign = observed.other_macs.keys().copied().chain(fixed).chain(left_alone);
        let foreign = foreign.chain(holds.values().filter_map(|hold| hold.settings.mac));
        let mut lessor = Lessor::new(leases, foreign.collect::<Vec<_>>(), &observed.pfs);
        for pf in &mut self.pfs {
            let (now, address) = (pf.now, pf.now.pf.pci.address);
            let key = pf_key(now);
            let blocked = &mut self.blocked;
            pf.vfs.retain_mut(|vf| {
                let Some(pool) = pooled.get(&(address, vf.index)) else { return true };
                // What it bears while a pod has it with a MAC of its own is the pod's, which is foreign.
                let bears = now.settings.get(&vf.index).and_then(|settings| settings.mac);
                vf.settings.mac = lessor.lease(*pool, &key, vf.index, bears);
                if vf.settings.mac.is_none() {
                    let object = Object::vf(address, vf.index);
                    blocked
                        .push(format!("{object}: the mac pool {pool} has no free address; make it larger"));
                }
                vf.settings.mac.is_some()
            });
        }
        self.leases = lessor.given();
    }
}

impl WantedVf {
    fn new(index: VfIndex, mac: Option<Mac>, policy: VfPolicy) -> Self {
        let VfPolicy { settings, pool, .. } = policy;
        let change = VfChange {
            mac,
            vlan: Some(VfVlanTag { id: settings.vlan, qos: settings.qos, protocol: settings.vlan_protocol }),
            spoof_check: settings.spoof_check,
            trust: settings.trust,
            link_state: settings.link_state,
            rates: settings.rates.map(|r| VfRates { min: r.min, max: r.max }),
        };
        Self { index, settings: change, mtu: settings.mtu, driver: settings.driver, pool }
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
