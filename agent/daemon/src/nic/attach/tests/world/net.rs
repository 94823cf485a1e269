//! Network namespaces and what is in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use culvert_api::value::Mac;
use culvert_host::netlink::{Link, LinkChange, Route};
use ipnet::IpNet;

use super::state::{Space, State};
use super::{Temper, World, address, failure};
use crate::nic::apply::MachineError;
use crate::nic::attach::ops::Net;

/// An open namespace.
#[derive(Debug)]
pub(crate) struct ModelNetns(pub(super) u64);

#[derive(Clone)]
pub(crate) struct ModelNet {
    pub(super) state: Weak<Mutex<State>>,
    pub(super) netns: Arc<ModelNetns>,
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
