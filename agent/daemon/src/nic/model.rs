//! A model of SR-IOV NICs for tests: it does what steps say, as igb does, and stops at what must never be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use culvert_api::config::nic::{NicPolicy, VfDriver};
use culvert_api::value::{Mac, PciAddress, Rate, VfIndex};
use culvert_host::inventory::{Interface, Pf, Vf};
use culvert_host::netlink::{VfChange, VfRates, VfSettings, VfVlanTag};
use culvert_host::netns::Netns;
use culvert_host::{PciDevice, PciId};

use super::apply::{Machine, MachineError};
use super::attachment::Attachment;
use super::identity::Leases;
use super::observe::{ObserveError, Observed, ObservedPf};
use super::plan::{Input, Kubelet};
use super::step::{Action, Object, Step};
use super::wanted::Holds;
use crate::pods::{Key, Phase};

/// PFs that do what they are told.
#[derive(Debug, Default)]
pub(super) struct Model {
    observed: Mutex<Observed>,
    /// Steps to refuse, by their action's text.
    pub(super) refuse: Vec<String>,
    /// How many steps are done before everything ends, as by kill -9.
    pub(super) lives: Mutex<Option<usize>>,
}

fn device(address: PciAddress, id: u16) -> PciDevice {
    let id = PciId { vendor: 0x8086, device: id };
    PciDevice { numa_node: Some(0), ..PciDevice::new(address, id) }
}

fn interface(name: String, index: u32, mac: Option<Mac>) -> Interface {
    Interface { name, index, mac, mtu: 1500, up: false, operstate: "down".to_owned() }
}

/// A PF without VFs; its interface is called after its bus.
pub(super) fn pf(address: &str, total_vfs: u16) -> ObservedPf {
    let address: PciAddress = address.parse().unwrap();
    let number = u32::from(address.bus()) * 8 + u32::from(address.function());
    let mac = Mac::local_from(0xfeed_0000 + u64::from(number));
    ObservedPf {
        pf: Pf {
            pci: PciDevice { driver: Some("igb".to_owned()), ..device(address, 0x10c9) },
            interfaces: vec![interface(format!("eth{number}"), number, Some(mac))],
            serial: None,
            total_vfs,
            autoprobe: Some(true),
            vfs: Vec::new(),
        },
        permanent_mac: Some(mac),
        carrier: true,
        claims: Vec::new(),
        settings: BTreeMap::new(),
        users: BTreeMap::new(),
    }
}

fn bind(vf: &mut Vf, pf: &ObservedPf, driver: VfDriver) {
    let number = pf.pf.interfaces[0].index * 1000 + u32::from(vf.index.get());
    vf.pci.driver = Some(if driver == VfDriver::Kernel { "igbvf" } else { "vfio-pci" }.to_owned());
    vf.interface = (driver == VfDriver::Kernel).then(|| {
        let given = pf.settings.get(&vf.index).and_then(|s| s.mac);
        interface(format!("vf{number}"), number, given.or(Some(Mac::local_from(u64::from(number)))))
    });
}

/// Makes VFs as the kernel does when `sriov_numvfs` is written.
pub(super) fn create_vfs(pf: &mut ObservedPf, count: u16) {
    for index in (0..count).map(|i| VfIndex::try_from(u32::from(i)).unwrap()) {
        let pf_address = pf.pf.pci.address;
        let address = format!(
            "{:04x}:{:02x}:{:02x}.{}",
            pf_address.domain(),
            pf_address.bus() + 1 + pf_address.function(),
            index.get() / 8,
            index.get() % 8
        );
        let mut vf =
            Vf { index, pci: device(address.parse().unwrap(), 0x10ca), interface: None, representor: None };
        pf.settings.insert(
            index,
            VfSettings {
                index,
                mac: None,
                vlan: VfVlanTag::default(),
                spoof_check: true,
                trust: false,
                link_state: Default::default(),
                rates: VfRates { min: Rate::MIN, max: Rate::MIN },
            },
        );
        if pf.pf.autoprobe != Some(false) {
            bind(&mut vf, pf, VfDriver::Kernel);
        }
        pf.pf.vfs.push(vf);
    }
}

/// A record of a VF that a pod has.
pub(super) fn attachment(container: &str, vf: &str, phase: Phase) -> Attachment {
    let key = Key { container_id: container.to_owned(), ifname: "net1".parse().unwrap() };
    let own = Netns::current().unwrap();
    Attachment {
        key,
        network: "vlan100".to_owned(),
        owner: format!("default/{container}"),
        phase,
        vf: vf.parse().unwrap(),
        pf: "0000:03:00.0".parse().unwrap(),
        index: VfIndex::MIN,
        netns: own.path().to_owned(),
        netns_id: Some(own.id().unwrap()),
        settings: VfChange { mac: Some("02:00:00:00:00:07".parse().unwrap()), ..VfChange::default() },
        before: None,
        host_mac: None,
        mac: None,
        driver: None,
        interface: None,
    }
}

/// Everything that a plan depends on, without pods, kubelet or a past.
pub(super) fn input<'a>(policy: &'a NicPolicy, observed: &'a Observed) -> Input<'a> {
    static NO_HOLDS: Holds = Holds::new();
    static NO_LEASES: Leases = Leases::new();
    static NO_AUTOPROBE: BTreeMap<PciAddress, bool> = BTreeMap::new();
    static NO_OBJECTS: BTreeSet<Object> = BTreeSet::new();
    Input {
        policy,
        node: "n",
        observed,
        unsettled: &NO_OBJECTS,
        holds: &NO_HOLDS,
        kubelet: &Kubelet::None,
        autoprobe: &NO_AUTOPROBE,
        leases: &NO_LEASES,
    }
}

impl Model {
    pub(super) fn new(pfs: Vec<ObservedPf>) -> Self {
        let observed = Observed { pfs, other_macs: BTreeMap::new() };
        Self { observed: Mutex::new(observed), ..Self::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap()
    }

    /// What it looks like.
    pub(super) fn now(&self) -> Observed {
        self.lock().clone()
    }

    fn dies(&self) -> bool {
        let mut lives = self.lives.lock().unwrap();
        let dies = *lives == Some(0);
        *lives = lives.map(|n| n.saturating_sub(1));
        dies
    }

    /// Does one step.
    pub(super) fn step(&self, step: &Step) -> Result<(), String> {
        let mut observed = self.lock();
        if self.refuse.contains(&step.action.to_string()) {
            return Err("refused by the model".to_owned());
        }
        let pf = observed.pfs.iter_mut().find(|pf| pf.pf.pci.address == step.object.pf).expect("a PF");
        let slot = step.object.vf.map(|vf| pf.pf.vfs.iter().position(|v| v.index == vf).ok_or("no such VF"));
        let slot = slot.transpose()?;
        if let Some(vf) = step.object.vf {
            assert!(!pf.users.contains_key(&vf), "touches a VF in use: {step:?}");
        }
        match &step.action {
            Action::LinkUp { .. } => pf.pf.interfaces[0].up = true,
            Action::Autoprobe(on) => pf.pf.autoprobe = Some(*on),
            Action::NumVfs(count) => {
                assert!(pf.users.is_empty(), "removes VFs in use: {step:?}");
                if *count > 0 && !pf.pf.vfs.is_empty() {
                    return Err("EBUSY: there are VFs already".to_owned());
                }
                if *count > pf.pf.total_vfs {
                    return Err("ERANGE".to_owned());
                }
                pf.pf.vfs.clear();
                pf.settings.clear();
                create_vfs(pf, *count);
            }
            Action::Settings { change, .. } => {
                let settings = pf.settings.get_mut(&step.object.vf.expect("of a VF")).expect("settings");
                settings.mac = change.mac.or(settings.mac);
                settings.vlan = change.vlan.unwrap_or(settings.vlan);
                settings.spoof_check = change.spoof_check.unwrap_or(settings.spoof_check);
                settings.trust = change.trust.unwrap_or(settings.trust);
                settings.link_state = change.link_state.unwrap_or(settings.link_state);
                settings.rates = change.rates.unwrap_or(settings.rates);
            }
            Action::Bind(driver) => {
                let mut vf = pf.pf.vfs[slot.expect("of a VF")].clone();
                bind(&mut vf, pf, *driver);
                pf.pf.vfs[slot.expect("of a VF")] = vf;
            }
            Action::Mtu(mtu) => {
                let (mtu, most) = (u32::from(mtu.get()), pf.pf.interfaces[0].mtu);
                let interface = match slot {
                    Some(slot) if mtu > most => return Err(format!("EINVAL: vf {slot}: mtu {mtu} above {most}")),
                    Some(slot) => pf.pf.vfs[slot].interface.as_mut().ok_or("no interface")?,
                    None => {
                        assert!(pf.users.is_empty(), "resets the NIC under VFs in use: {step:?}");
                        &mut pf.pf.interfaces[0]
                    }
                };
                interface.mtu = mtu;
            }
        }
        Ok(())
    }
}

impl Machine for Model {
    async fn observe(&self) -> Result<Observed, ObserveError> {
        Ok(self.now())
    }

    async fn carry_out(&self, step: &Step) -> Result<(), MachineError> {
        if self.dies() {
            // The process is gone: nothing after this ever happens.
            std::future::pending::<()>().await;
        }
        self.step(step).map_err(MachineError::Model)
    }
}
