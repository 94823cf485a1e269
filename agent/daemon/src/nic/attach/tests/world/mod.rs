//! A machine that is made up: PFs, drivers of VFs with different tempers, and network namespaces that live as long as
//! something keeps them. Each operation can fail, before or after it was done, or be the program's last.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::netlink::{Link, VfSettings};
use ipnet::IpNet;
use tokio::sync::Notify;

use self::net::{ModelNet, ModelNetns};
use self::state::{Space, State};
use super::{PF, own};
use crate::nic::apply::MachineError;
use crate::nic::model;

mod net;
mod state;
mod vf;

/// The host's namespace.
const HOST: u64 = 0;

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

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
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
