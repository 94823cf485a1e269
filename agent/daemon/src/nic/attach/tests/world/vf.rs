//! VFs as the host sees and changes them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{PciAddress, VfIndex};
use culvert_host::inventory::Interface;
use culvert_host::netlink::{VfChange, VfSettings};
use culvert_host::netns::NetnsId;

use super::net::{ModelNet, ModelNetns};
use super::{HOST, Temper, World, address, index_of};
use crate::nic::apply::MachineError;
use crate::nic::attach::ops::VfOps;
use crate::nic::attach::tests::{PF, own};
use crate::nic::attach::{Sight, View};
use crate::nic::model;
use crate::nic::observe::{ObserveError, Observed};
use crate::nic::wanted::WantedVf;

/// Index of the PF's interface.
const PF_INTERFACE: u32 = 24;

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
            model::change_settings(settings, change);
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
