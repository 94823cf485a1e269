//! A model of SR-IOV NICs for tests: it does what steps say, as igb does, and stops at what must never be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use culvert_api::config::nic::{NicPolicy, VfDriver};
use culvert_api::value::{Mac, PciAddress, Rate, VfIndex};
use culvert_host::inventory::{Interface, Pf, Vf};
use culvert_host::netlink::{VfChange, VfRates, VfSettings, VfVlanTag};
use culvert_host::netns::Netns;
use culvert_host::{PciDevice, PciId};
use serde::{Deserialize, Serialize};

use super::apply::{Machine, MachineError};
use super::attachment::Attachment;
use super::identity::Leases;
use super::observe::{ObserveError, Observed, ObservedPf};
use super::plan::{Input, Kubelet};
use super::step::{Action, Object, Step};
use super::wanted::Holds;
use crate::pods::{Key, Phase};

/// What the kernel makes of a VF's settings when they are changed.
pub(super) fn change_settings(settings: &mut VfSettings, change: &VfChange) {
    settings.mac = change.mac.or(settings.mac);
    settings.vlan = change.vlan.unwrap_or(settings.vlan);
    settings.spoof_check = change.spoof_check.unwrap_or(settings.spoof_check);
    settings.trust = change.trust.unwrap_or(settings.trust);
    settings.link_state = change.link_state.unwrap_or(settings.link_state);
    settings.rates = change.rates.unwrap_or(settings.rates);
}

/// Ends the process as kill -9 does, at one of the points that it passes.
#[derive(Debug, Clone, Default)]
pub(super) struct Deaths(Option<Arc<AtomicUsize>>);

impl Deaths {
    /// At the point with this number, from 0.
    pub(super) fn at(number: usize) -> Self {
        Self(Some(Arc::new(AtomicUsize::new(number))))
    }

    /// The process is at a point where it may die.
    pub(super) fn point(&self) {
        let Some(left) = &self.0 else { return };
        if left.fetch_sub(1, Ordering::SeqCst) == 0 {
            nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).unwrap();
            unreachable!("SIGKILL is not survived");
        }
    }

    /// Whether it dies at the next point.
    pub(super) fn is_next(&self) -> bool {
        self.0.as_ref().is_some_and(|left| left.load(Ordering::SeqCst) == 0)
    }
}

/// PFs that do what they are told.
#[derive(Debug, Default)]
pub(super) struct Model {
    observed: Mutex<Observed>,
    /// `driver_override` of VFs, which nobody may read: what their next probe binds them to.
    overrides: Mutex<BTreeMap<Object, VfDriver>>,
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

/// A part of a step that the kernel does whole, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Effect {
    /// The whole step.
    Step(Step),
    /// `driver_override` is written.
    Override(Object, VfDriver),
    /// The VF loses its driver.
    Unbind(Object),
    /// The kernel looks for a driver.
    Probe(Object),
}

impl Effect {
    /// The parts of `step`, in order.
    pub(super) fn of(step: &Step) -> Vec<Self> {
        let vf = step.object;
        match &step.action {
            Action::Bind(driver) => vec![Self::Override(vf, *driver), Self::Unbind(vf), Self::Probe(vf)],
            // Where the kernel refuses all at once, each setting is sent alone.
            Action::Settings { interface, change } => {
                let part = |change| {
                    let action = Action::Settings { interface: *interface, change };
                    Self::Step(Step { object: vf, action })
                };
                let (mac, rest) = (
                    VfChange { mac: change.mac, ..VfChange::default() },
                    VfChange { mac: None, ..change.clone() },
                );
                vec![part(mac), part(rest)]
            }
            _ => vec![Self::Step(step.clone())],
        }
    }
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
        eswitch: None,
        error: None,
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

    /// What the next probe of each VF binds it to.
    pub(super) fn overrides(&self) -> BTreeMap<Object, VfDriver> {
        self.overrides.lock().unwrap().clone()
    }

    /// Does one step.
    pub(super) fn step(&self, step: &Step) -> Result<(), String> {
        if self.refuse.contains(&step.action.to_string()) {
            return Err("refused by the model".to_owned());
        }
        Effect::of(step).iter().try_for_each(|effect| self.effect(effect))
    }

    /// Does a part of a step.
    pub(super) fn effect(&self, effect: &Effect) -> Result<(), String> {
        let (object, bound) = match effect {
            Effect::Step(step) => return self.whole(step),
            Effect::Override(object, driver) => {
                self.overrides.lock().unwrap().insert(*object, *driver);
                return Ok(());
            }
            Effect::Unbind(object) => (object, None),
            Effect::Probe(object) => {
                (object, Some(self.overrides.lock().unwrap().get(object).copied().unwrap_or_default()))
            }
        };
        let mut observed = self.lock();
        let pf = observed.pfs.iter_mut().find(|pf| pf.pf.pci.address == object.pf).expect("a PF");
        assert!(!object.vf.is_some_and(|vf| pf.users.contains_key(&vf)), "touches a VF in use: {effect:?}");
        let slot = pf.pf.vfs.iter().position(|v| Some(v.index) == object.vf).ok_or("no such VF")?;
        let mut vf = pf.pf.vfs[slot].clone();
        match bound {
            // A probe leaves alone what has a driver.
            Some(driver) if vf.pci.driver.is_none() => bind(&mut vf, pf, driver),
            Some(_) => {}
            None => (vf.pci.driver, vf.interface) = (None, None),
        }
        pf.pf.vfs[slot] = vf;
        Ok(())
    }

    fn whole(&self, step: &Step) -> Result<(), String> {
        let mut observed = self.lock();
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
                self.overrides.lock().unwrap().retain(|vf, _| vf.pf != step.object.pf);
                create_vfs(pf, *count);
            }
            Action::Settings { change, .. } => {
                let settings = pf.settings.get_mut(&step.object.vf.expect("of a VF")).expect("settings");
                change_settings(settings, change);
            }
            Action::Bind(_) => unreachable!("is done in parts"),
            Action::Mtu(mtu) => {
                let (mtu, most) = (u32::from(mtu.get()), pf.pf.interfaces[0].mtu);
                let interface = match slot {
                    Some(slot) if mtu > most => {
                        return Err(format!("EINVAL: vf {slot}: mtu {mtu} above {most}"));
                    }
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
