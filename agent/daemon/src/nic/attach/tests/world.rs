//! A machine that is made up: PFs, drivers of VFs with different tempers, and network namespaces that live as long as
//! something keeps them. Each operation can fail, before or after it was done, or be the program's last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::inventory::Interface;
use culvert_host::netlink::{Link, LinkChange, Route, VfChange, VfSettings};
use culvert_host::netns::NetnsId;
use ipnet::IpNet;
use tokio::sync::Notify;

use super::super::super::apply::MachineError;
use super::super::super::model;
use super::super::super::observe::{ObserveError, Observed};
use super::super::super::wanted::WantedVf;
use super::super::ops::{Net, VfOps};
use super::super::{Sight, View};
use super::{PF, own};

/// The host's namespace.
const HOST: u64 = 0;
/// Index of the PF's interface.
const PF_INTERFACE: u32 = 24;

/// How a VF's driver gives its interface the MAC that the PF holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// As soon as the PF has it.
    Eager,
    /// When it is told the same.
    Obedient,
    /// When it probes.
    Stubborn,
}

/// What is wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is refused.
    Refused,
    /// It is done, and reported as failed.
    Misreported,
    /// The program ends before it.
    KilledBefore,
    /// The program ends after it.
    KilledAfter,
}

pub(super) const FAULTS: [Fault; 4] =
    [Fault::Refused, Fault::Misreported, Fault::KilledBefore, Fault::KilledAfter];

/// The machine. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<State>>, ModelNet);

pub(super) struct State {
    temper: Temper,
    /// Whether the policy speaks of the VFs.
    policy: bool,
    own_driver: VfDriver,
    settings: BTreeMap<VfIndex, VfSettings>,
    drivers: BTreeMap<VfIndex, Option<&'static str>>,
    /// Who has a VF open through vfio.
    open: BTreeMap<VfIndex, &'static str>,
    spaces: BTreeMap<u64, Space>,
    next_index: u32,
    next_space: u64,
    /// Operations so far.
    done: usize,
    /// The operation that has a fault.
    fault: Option<(usize, Fault)>,
    killed: bool,
    /// Operations that wait for this.
    slow: Option<(&'static str, Arc<Notify>)>,
    announced: Vec<(Mac, IpNet)>,
}

#[derive(Debug, Default)]
struct Space {
    path: Option<PathBuf>,
    kept: Weak<ModelNetns>,
    links: Vec<Link>,
    addresses: Vec<(u32, IpNet)>,
    routes: Vec<Route>,
    sysctls: BTreeMap<String, &'static str>,
}

/// An open namespace.
#[derive(Debug)]
pub(super) struct ModelNetns(u64);

#[derive(Clone)]
pub(super) struct ModelNet {
    state: Weak<Mutex<State>>,
    netns: Arc<ModelNetns>,
}

/// What is compared before and after: everything but interface indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    settings: Vec<VfSettings>,
    drivers: Vec<Option<&'static str>>,
    host: Vec<Link>,
}

impl Snapshot {
    pub(super) fn settings(&self) -> &[VfSettings] {
        &self.settings
    }

    pub(super) fn drivers(&self) -> &[Option<&'static str>] {
        &self.drivers
    }
}

fn address(index: VfIndex) -> PciAddress {
    format!("0000:04:00.{index}").parse().unwrap()
}

fn index_of(vf: PciAddress) -> VfIndex {
    VfIndex::try_from(u32::from(vf.function())).unwrap()
}

fn failure(text: impl Into<String>) -> MachineError {
    MachineError::Model(text.into())
}

impl World {
    /// Two VFs at home under the kernel's driver, or vfio-pci; one pod's namespace at `/run/netns/pod`.
    pub(super) fn new(temper: Temper, driver: VfDriver, policy: bool) -> Self {
        let mut pf = model::pf(PF, 7);
        model::create_vfs(&mut pf, 2);
        for settings in pf.settings.values_mut() {
            settings.mac = own(settings.index).settings.mac;
        }
        let state = Arc::new(Mutex::new(State {
            temper,
            policy,
            own_driver: driver,
            drivers: pf.settings.keys().map(|index| (*index, None)).collect(),
            settings: pf.settings,
            open: BTreeMap::new(),
            spaces: BTreeMap::from([(HOST, Space::default())]),
            next_index: 30,
            next_space: 1,
            done: 0,
            fault: None,
            killed: false,
            slow: None,
            announced: Vec::new(),
        }));
        let host = ModelNet { state: Arc::downgrade(&state), netns: Arc::new(ModelNetns(HOST)) };
        let world = Self(state, host);
        world.change(|state| {
            for index in [0, 1].map(|i| VfIndex::try_from(i).unwrap()) {
                state.bind(index, driver);
                state.host().links.iter_mut().for_each(|l| l.up = false);
            }
        });
        world.add_pod("/run/netns/pod");
        world
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        state.reap();
        change(&mut state)
    }

    pub(super) fn add_pod(&self, path: &str) {
        self.change(|state| {
            let space = Space { path: Some(path.into()), ..Space::default() };
            state.spaces.insert(state.next_space, space);
            state.next_space += 1;
        });
    }

    /// The pod's sandbox ends: its namespace loses its name.
    pub(super) fn end_pod(&self, path: &str) {
        self.change(|state| {
            let space = state.spaces.values_mut().find(|s| s.path.as_deref() == Some(Path::new(path)));
            space.expect("a pod").path = None;
        });
    }

    /// Has operation `number` from now go wrong.
    pub(super) fn break_at(&self, number: usize, fault: Fault) {
        self.change(|state| state.fault = Some((state.done + number, fault)));
    }

    /// The program is started anew: nothing is wrong any more.
    pub(super) fn mend(&self) {
        self.change(|state| {
            state.fault = None;
            state.killed = false;
        });
    }

    pub(super) fn is_killed(&self) -> bool {
        self.change(|state| state.killed)
    }

    /// Operations so far.
    pub(super) fn done(&self) -> usize {
        self.change(|state| state.done)
    }

    /// Whether the fault has struck.
    pub(super) fn struck(&self) -> bool {
        self.change(|state| state.fault.is_none_or(|(at, _)| at < state.done))
    }

    /// Operations of this name wait until they are let on.
    pub(super) fn slow_down(&self, name: &'static str) -> Arc<Notify> {
        let until = Arc::new(Notify::new());
        self.change(|state| state.slow = Some((name, Arc::clone(&until))));
        until
    }

    /// Lets them on, and all that come after.
    pub(super) fn hurry(&self, until: &Notify) {
        self.change(|state| state.slow = None);
        until.notify_one();
    }

    pub(super) fn announced(&self) -> Vec<(Mac, IpNet)> {
        self.change(|state| state.announced.clone())
    }

    pub(super) fn settings(&self, vf: PciAddress) -> VfSettings {
        self.change(|state| state.settings[&index_of(vf)].clone())
    }

    pub(super) fn set(&self, vf: PciAddress, change: impl FnOnce(&mut VfSettings)) {
        self.change(|state| change(state.settings.get_mut(&index_of(vf)).unwrap()));
    }

    pub(super) fn driver(&self, vf: PciAddress) -> Option<&'static str> {
        self.change(|state| state.drivers[&index_of(vf)])
    }

    /// The interface of a VF in the namespace at `path`.
    pub(super) fn link(&self, path: &str, vf: PciAddress) -> Option<Link> {
        self.change(|state| {
            let space = state.spaces.values().find(|s| s.path.as_deref() == Some(Path::new(path)))?;
            space.links.iter().find(|l| l.parent.as_ref() == Some(&vf.to_string())).cloned()
        })
    }

    /// The interface of a VF in the host's namespace.
    pub(super) fn home(&self, vf: PciAddress) -> Option<Link> {
        self.change(|state| {
            let links = &state.host().links;
            links.iter().find(|l| l.parent.as_ref() == Some(&vf.to_string())).cloned()
        })
    }

    /// A pod's program does something to its interface.
    pub(super) fn meddle(&self, vf: PciAddress, change: impl FnOnce(&mut Link)) {
        self.change(|state| {
            let mut links = state.spaces.values_mut().flat_map(|s| &mut s.links);
            change(links.find(|l| l.parent.as_ref() == Some(&vf.to_string())).expect("is somewhere"));
        });
    }

    /// A pod's program takes the VF for a driver of its own, or leaves it without; `open` has it open.
    pub(super) fn take_over(&self, vf: PciAddress, driver: Option<&'static str>, open: Option<&'static str>) {
        self.change(|state| {
            state.spaces.values_mut().for_each(|s| s.links.retain(|l| l.parent != Some(vf.to_string())));
            state.drivers.insert(index_of(vf), driver);
            match open {
                Some(user) => drop(state.open.insert(index_of(vf), user)),
                None => drop(state.open.remove(&index_of(vf))),
            }
        });
    }

    pub(super) fn add_link(&self, path: &str, name: &str) {
        self.change(|state| {
            let index = state.next_index();
            let mut spaces = state.spaces.values_mut();
            let space = spaces.find(|s| s.path.as_deref() == Some(Path::new(path))).expect("a pod");
            space.links.push(Link {
                index,
                name: name.to_owned(),
                kind: Some("veth".to_owned()),
                ..Link::default()
            });
        });
    }

    /// What the machine looks like from the host.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.change(|state| {
            let mut host: Vec<Link> =
                state.host().links.iter().map(|l| Link { index: 0, ..l.clone() }).collect();
            host.sort_by(|a, b| a.parent.cmp(&b.parent));
            Snapshot {
                settings: state.settings.values().cloned().collect(),
                drivers: state.drivers.values().copied().collect(),
                host,
            }
        })
    }

    pub(super) fn has_pod(&self, path: &str) -> bool {
        self.change(|state| state.find(Path::new(path)).is_some())
    }

    async fn op<T>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut State) -> Result<T, MachineError> + Send,
    ) -> Result<T, MachineError> {
        let slow = self.change(|state| {
            state.slow.as_ref().filter(|(slow, _)| *slow == name).map(|(_, until)| Arc::clone(until))
        });
        if let Some(until) = slow {
            until.notified().await;
        }
        let (outcome, killed) = self.change(|state| {
            let outcome = state.attempt(name, effect);
            (outcome, state.killed)
        });
        if killed {
            // The process is gone: nothing after this ever happens.
            std::future::pending::<()>().await;
        }
        outcome
    }
}

impl State {
    /// Does `effect`, or what the fault of this operation makes of it.
    fn attempt<T>(
        &mut self,
        name: &str,
        effect: impl FnOnce(&mut Self) -> Result<T, MachineError>,
    ) -> Result<T, MachineError> {
        if self.killed {
            return Err(failure("the program is gone"));
        }
        let number = self.done;
        self.done += 1;
        let fault = self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        match fault {
            None => effect(self),
            Some(Fault::Refused) => Err(failure(format!("{name} is refused"))),
            Some(Fault::Misreported) => effect(self).and(Err(failure(format!("{name} failed, it is said")))),
            Some(Fault::KilledBefore) => {
                self.killed = true;
                Err(failure("the program is gone"))
            }
            Some(Fault::KilledAfter) => {
                self.killed = true;
                effect(self)
            }
        }
    }

    fn next_index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    fn host(&mut self) -> &mut Space {
        self.spaces.get_mut(&HOST).expect("there is always a host")
    }

    /// Namespaces that nothing keeps end; the kernel gives their devices back to the host.
    fn reap(&mut self) {
        let dead = |(id, space): (&u64, &Space)| {
            (*id != HOST && space.path.is_none() && space.kept.strong_count() == 0).then_some(*id)
        };
        let dead: Vec<u64> = self.spaces.iter().filter_map(dead).collect();
        for id in dead {
            let links = self.spaces.remove(&id).unwrap().links.into_iter().filter(|l| l.kind.is_none());
            let links: Vec<Link> = links.map(|l| Link { up: false, ..l }).collect();
            self.host().links.extend(links);
        }
    }

    fn bind(&mut self, index: VfIndex, driver: VfDriver) {
        let vf = address(index);
        assert!(!self.open.contains_key(&index), "unbinding a VF that is open would never end");
        self.spaces.values_mut().for_each(|s| s.links.retain(|l| l.parent != Some(vf.to_string())));
        self.drivers.insert(
            index,
            Some(match driver {
                VfDriver::Kernel => "igbvf",
                VfDriver::VfioPci => "vfio-pci",
            }),
        );
        if driver == VfDriver::Kernel {
            let link = Link {
                index: self.next_index(),
                name: format!("eth{index}"),
                alt_names: vec![format!("enp4s0v{index}")],
                mac: self.settings[&index].mac,
                mtu: 1500,
                parent: Some(vf.to_string()),
                ..Link::default()
            };
            self.host().links.push(link);
        }
    }

    fn find(&self, path: &Path) -> Option<u64> {
        self.spaces.iter().find(|(_, s)| s.path.as_deref() == Some(path)).map(|(id, _)| *id)
    }

    fn keep(&mut self, id: u64) -> Option<Arc<ModelNetns>> {
        let space = self.spaces.get_mut(&id)?;
        let kept = space.kept.upgrade().unwrap_or_else(|| Arc::new(ModelNetns(id)));
        space.kept = Arc::downgrade(&kept);
        Some(kept)
    }

    fn interface(&mut self, vf: PciAddress) -> Option<Interface> {
        let link = self.host().links.iter().find(|l| l.parent == Some(vf.to_string()))?;
        Some(Interface {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            operstate: "unknown".to_owned(),
        })
    }
}

/// Looking is not an operation of an attachment: it never fails here.
impl Sight for World {
    async fn look(&self, vf: PciAddress) -> Result<View, ObserveError> {
        let mut pf = model::pf(PF, 7);
        model::create_vfs(&mut pf, 2);
        self.change(|state| {
            pf.settings = state.settings.clone();
            for vf in &mut pf.pf.vfs {
                let driver = state.drivers[&vf.index];
                vf.pci.driver = driver.map(str::to_owned);
                vf.interface = state.interface(vf.pci.address);
                if let Some(user) = state.open.get(&vf.index) {
                    pf.users.insert(vf.index, (*user).to_owned());
                } else if vf.interface.is_none() && driver == Some("igbvf") {
                    pf.users.insert(vf.index, "somebody in another network namespace".to_owned());
                }
            }
            let base = state.policy.then(|| WantedVf { driver: state.own_driver, ..own(index_of(vf)) });
            Ok(View { observed: Observed { pfs: vec![pf], ..Observed::default() }, base })
        })
    }
}

impl VfOps for World {
    type Netns = ModelNetns;
    type Net = ModelNet;

    fn host(&self) -> &ModelNet {
        &self.1
    }

    fn open(&self, path: &Path) -> Result<Option<Arc<ModelNetns>>, MachineError> {
        self.change(|state| state.attempt("open", |s| Ok(s.find(path).and_then(|id| s.keep(id)))))
    }

    fn id(&self, netns: &ModelNetns) -> Result<NetnsId, MachineError> {
        let id = serde_json::json!({ "device": 4, "inode": netns.0 });
        self.change(|state| state.attempt("id", |_| Ok(serde_json::from_value(id).unwrap())))
    }

    async fn find(&self, id: NetnsId) -> Option<Arc<ModelNetns>> {
        self.change(|state| {
            let inode = serde_json::to_value(id).unwrap()["inode"].as_u64().unwrap();
            let visible = state.spaces.get(&inode).is_some_and(|s| s.kept.strong_count() > 0);
            visible.then(|| state.keep(inode)).flatten()
        })
    }

    fn enter(&self, netns: &Arc<ModelNetns>) -> Result<ModelNet, MachineError> {
        let net = ModelNet { state: Arc::downgrade(&self.0), netns: Arc::clone(netns) };
        self.change(|state| state.attempt("enter", |_| Ok(net)))
    }

    async fn locate(&self, vf: PciAddress) -> Option<Arc<ModelNetns>> {
        let parent = Some(vf.to_string());
        self.change(|state| {
            let mut spaces = state.spaces.iter().filter(|(id, _)| **id != HOST);
            let id = *spaces.find(|(_, s)| s.links.iter().any(|l| l.parent == parent))?.0;
            state.keep(id)
        })
    }

    async fn interface(&self, vf: PciAddress) -> Result<Option<Interface>, MachineError> {
        self.op("interface", |state| Ok(state.interface(vf))).await
    }

    async fn await_interface(&self, vf: PciAddress, _: Duration) -> Result<Option<Interface>, MachineError> {
        self.op("await_interface", |state| Ok(state.interface(vf))).await
    }

    async fn driver(&self, vf: PciAddress) -> Result<Option<String>, MachineError> {
        self.op("driver", |state| Ok(state.drivers[&index_of(vf)].map(str::to_owned))).await
    }

    async fn vfio_user(&self, vf: PciAddress) -> Result<Option<String>, MachineError> {
        self.op("vfio_user", |state| Ok(state.open.get(&index_of(vf)).map(|u| (*u).to_owned()))).await
    }

    async fn bind(&self, vf: PciAddress, driver: VfDriver) -> Result<(), MachineError> {
        self.op("bind", |state| {
            state.bind(index_of(vf), driver);
            Ok(())
        })
        .await
    }

    async fn vf_settings(&self, pf_interface: u32, vf: VfIndex) -> Result<Option<VfSettings>, MachineError> {
        assert_eq!(pf_interface, PF_INTERFACE);
        self.op("vf_settings", |state| Ok(state.settings.get(&vf).cloned())).await
    }

    async fn change_vf(&self, pf_interface: u32, vf: VfIndex, change: &VfChange) -> Result<(), MachineError> {
        assert_eq!(pf_interface, PF_INTERFACE);
        self.op("change_vf", |state| {
            let settings = state.settings.get_mut(&vf).expect("a VF");
            settings.mac = change.mac.or(settings.mac);
            settings.vlan = change.vlan.unwrap_or(settings.vlan);
            settings.spoof_check = change.spoof_check.unwrap_or(settings.spoof_check);
            settings.trust = change.trust.unwrap_or(settings.trust);
            settings.link_state = change.link_state.unwrap_or(settings.link_state);
            settings.rates = change.rates.unwrap_or(settings.rates);
            if let (Temper::Eager, Some(mac)) = (state.temper, change.mac) {
                let parent = Some(address(vf).to_string());
                let links = state.spaces.values_mut().flat_map(|s| &mut s.links);
                links.filter(|l| l.parent == parent).for_each(|l| l.mac = Some(mac));
            }
            Ok(())
        })
        .await
    }
}

impl ModelNet {
    async fn op<T>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut State, u64) -> Result<T, MachineError> + Send,
    ) -> Result<T, MachineError> {
        let state = self.state.upgrade().expect("the world lives longer");
        let world = World(state, self.clone());
        world.op(name, |state| effect(state, self.netns.0)).await
    }
}

fn of(state: &mut State, id: u64) -> &mut Space {
    state.spaces.get_mut(&id).expect("is kept by whoever asks")
}

fn link_of(space: &mut Space, index: u32) -> Result<&mut Link, MachineError> {
    space.links.iter_mut().find(|l| l.index == index).ok_or_else(|| failure("no such interface"))
}

fn is_free(space: &Space, name: &str, index: u32) -> Result<(), MachineError> {
    let named = |l: &Link| l.index != index && (l.name == name || l.alt_names.iter().any(|n| n == name));
    if space.links.iter().any(named) { Err(failure(format!("{name} is taken"))) } else { Ok(()) }
}

impl Net for ModelNet {
    type Netns = ModelNetns;

    fn netns(&self) -> &Arc<ModelNetns> {
        &self.netns
    }

    async fn links(&self) -> Result<Vec<Link>, MachineError> {
        self.op("links", |state, id| Ok(of(state, id).links.clone())).await
    }

    async fn link(&self, index: u32) -> Result<Option<Link>, MachineError> {
        self.op("link", |state, id| Ok(link_of(of(state, id), index).ok().cloned())).await
    }

    async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, MachineError> {
        self.op("addresses", |state, id| Ok(of(state, id).addresses.clone())).await
    }

    async fn routes(&self) -> Result<Vec<Route>, MachineError> {
        self.op("routes", |state, id| Ok(of(state, id).routes.clone())).await
    }

    async fn change_link(&self, index: u32, change: &LinkChange) -> Result<(), MachineError> {
        self.op("change_link", |state, id| {
            let temper = state.temper;
            let admin: BTreeMap<String, Option<Mac>> =
                state.settings.values().map(|s| (address(s.index).to_string(), s.mac)).collect();
            let space = of(state, id);
            if let Some(name) = &change.name {
                is_free(space, name, index)?;
            }
            let link = link_of(space, index)?;
            if let Some(mac) = change.mac {
                let given = link.parent.as_ref().and_then(|parent| admin[parent]);
                if temper == Temper::Stubborn || given != Some(mac) {
                    return Err(failure("the driver refuses the MAC"));
                }
                link.mac = Some(mac);
            }
            if let Some(name) = &change.name {
                if link.up {
                    return Err(failure("is up"));
                }
                link.name.clone_from(name);
            }
            link.mtu = change.mtu.unwrap_or(link.mtu);
            link.promiscuous = change.promiscuous.unwrap_or(link.promiscuous);
            link.all_multicast = change.all_multicast.unwrap_or(link.all_multicast);
            link.up = change.up.unwrap_or(link.up);
            Ok(())
        })
        .await
    }

    async fn add_alt_names(&self, index: u32, names: &[String]) -> Result<(), MachineError> {
        self.op("add_alt_names", |state, id| {
            let space = of(state, id);
            names.iter().try_for_each(|name| is_free(space, name, 0))?;
            link_of(space, index)?.alt_names.extend(names.iter().cloned());
            Ok(())
        })
        .await
    }

    async fn remove_alt_names(&self, index: u32, names: &[String]) -> Result<(), MachineError> {
        self.op("remove_alt_names", |state, id| {
            link_of(of(state, id), index)?.alt_names.retain(|name| !names.contains(name));
            Ok(())
        })
        .await
    }

    async fn move_link(&self, index: u32, name: &str, netns: &ModelNetns) -> Result<(), MachineError> {
        self.op("move_link", |state, id| {
            let fresh = state.next_index();
            let link = link_of(of(state, id), index)?.clone();
            let target = of(state, netns.0);
            is_free(target, name, 0)?;
            link.alt_names.iter().try_for_each(|alt| is_free(target, alt, 0))?;
            // The index may be taken in the other namespace: here it always is.
            target.links.push(Link { name: name.to_owned(), up: false, index: fresh, ..link });
            let space = of(state, id);
            space.links.retain(|l| l.index != index);
            space.addresses.retain(|(of, _)| *of != index);
            space.routes.retain(|r| r.interface != index);
            Ok(())
        })
        .await
    }

    async fn add_address(&self, index: u32, address: IpNet) -> Result<(), MachineError> {
        self.op("add_address", |state, id| {
            of(state, id).addresses.push((index, address));
            Ok(())
        })
        .await
    }

    async fn add_route(&self, route: &Route) -> Result<(), MachineError> {
        self.op("add_route", |state, id| {
            of(state, id).routes.push(*route);
            Ok(())
        })
        .await
    }

    async fn set_sysctls(&self, values: &[(String, &'static str)]) -> Result<(), MachineError> {
        self.op("set_sysctls", |state, id| {
            of(state, id).sysctls.extend(values.iter().cloned());
            Ok(())
        })
        .await
    }

    fn announce(&self, _: u32, mac: Mac, addresses: &[IpNet]) {
        let state = self.state.upgrade().expect("the world lives longer");
        state.lock().unwrap().announced.extend(addresses.iter().map(|a| (mac, *a)));
    }
}
