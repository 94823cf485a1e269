//! What there is on the machine, and operations that go wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::inventory::Interface;
use culvert_host::netlink::{Link, Route, VfSettings};
use ipnet::IpNet;
use tokio::sync::Notify;

use super::net::ModelNetns;
use super::{Fault, HOST, Temper, address, failure};
use crate::nic::apply::MachineError;

pub(super) struct State {
    pub(super) temper: Temper,
    /// Whether the policy speaks of the VFs.
    pub(super) policy: bool,
    pub(super) own_driver: VfDriver,
    pub(super) settings: BTreeMap<VfIndex, VfSettings>,
    pub(super) drivers: BTreeMap<VfIndex, Option<&'static str>>,
    /// Who has a VF open through vfio.
    pub(super) open: BTreeMap<VfIndex, &'static str>,
    pub(super) spaces: BTreeMap<u64, Space>,
    pub(super) next_index: u32,
    pub(super) next_space: u64,
    /// Operations so far.
    pub(super) done: usize,
    /// The operation that has a fault.
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) killed: bool,
    /// Operations that wait for this.
    pub(super) slow: Option<(&'static str, Arc<Notify>)>,
    pub(super) announced: Vec<(Mac, IpNet)>,
}

#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) path: Option<PathBuf>,
    pub(super) kept: Weak<ModelNetns>,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<(u32, IpNet)>,
    pub(super) routes: Vec<Route>,
    pub(super) sysctls: BTreeMap<String, &'static str>,
}

impl State {
    /// Does `effect`, or what the fault of this operation makes of it.
    pub(super) fn attempt<T>(
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

    pub(super) fn next_index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    pub(super) fn host(&mut self) -> &mut Space {
        self.spaces.get_mut(&HOST).expect("there is always a host")
    }

    /// Namespaces that nothing keeps end; the kernel gives their devices back to the host.
    pub(super) fn reap(&mut self) {
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

    pub(super) fn bind(&mut self, index: VfIndex, driver: VfDriver) {
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

    pub(super) fn find(&self, path: &Path) -> Option<u64> {
        self.spaces.iter().find(|(_, s)| s.path.as_deref() == Some(path)).map(|(id, _)| *id)
    }

    pub(super) fn keep(&mut self, id: u64) -> Option<Arc<ModelNetns>> {
        let space = self.spaces.get_mut(&id)?;
        let kept = space.kept.upgrade().unwrap_or_else(|| Arc::new(ModelNetns(id)));
        space.kept = Arc::downgrade(&kept);
        Some(kept)
    }

    pub(super) fn interface(&mut self, vf: PciAddress) -> Option<Interface> {
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
