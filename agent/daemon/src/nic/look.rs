//! The machine, the policy and the records at one moment, and what follows from them.

use std::sync::Arc;

use culvert_api::agent::NicListReply;
use culvert_api::config::nic::NicPolicy;
use culvert_api::value::PciAddress;
use culvert_device_plugin::Device;
use tokio::sync::watch;

use super::apply::{Host, Machine, Users};
use super::devices::{self, Given};
use super::event::Events;
use super::journal::State;
use super::observe::{ObserveError, Observed, ObservedPf};
use super::plan::{Input, Kubelet};
use super::tally::CounterCache;
use super::view::View;
use super::wanted::{Holds, Wanted, wanted};
use crate::errors::chain;
use crate::pod_resources::PodResources;

/// What the owner and everybody who only reads have in common.
pub(super) struct Shared {
    /// What the NICs should be; it changes when another policy is loaded.
    pub(super) policy: watch::Sender<Arc<NicPolicy>>,
    pub(super) node: String,
    pub(super) host: Arc<Host>,
    /// Who tells which pod was given which VF, if they are offered to a kubelet.
    pub(super) pod_resources: Option<PodResources>,
    /// What the journal amounts to, after each change.
    pub(super) state: watch::Receiver<State>,
    /// Where what happens is told.
    pub(super) events: Events,
    pub(super) counters: CounterCache,
}

/// Everything that views of the machine are made from, at one moment.
pub(super) struct Look<'a> {
    shared: &'a Shared,
    pub(super) policy: Arc<NicPolicy>,
    pub(super) observed: Observed,
    pub(super) state: State,
    holds: Holds,
}

impl Shared {
    /// Looks at the machine.
    pub(super) async fn look(&self) -> Result<Look<'_>, ObserveError> {
        // The state first: a VF that is given away meanwhile shows as used by somebody, not as free.
        let state = self.state.borrow().clone();
        let policy = Arc::clone(&self.policy.borrow());
        let observed = self.host.observe().await?;
        let holds = state.attachments.values().map(|a| (a.vf, a.hold())).collect();
        Ok(Look { shared: self, policy, observed, state, holds })
    }

    /// What kubelet says of who has which device.
    pub(super) async fn kubelet(&self) -> Kubelet {
        match &self.pod_resources {
            None => Kubelet::None,
            Some(api) => match api.devices().await {
                Ok(given) => Kubelet::Given(
                    given.into_iter().filter_map(|d| Some((d.id.parse().ok()?, d.pod))).collect(),
                ),
                Err(e) => Kubelet::Away(chain(&e)),
            },
        }
    }
}

impl Users for Shared {
    async fn of(&self, pf: PciAddress) -> Result<Option<String>, ObserveError> {
        let (look, kubelet) = (self.look().await?, self.kubelet().await);
        let input = look.input(&look.policy, &kubelet);
        Ok(look.observed.pf(pf).and_then(|pf| input.first_user(pf)))
    }
}

impl Look<'_> {
    /// Everything that a plan depends on. What kubelet says is only asked for where it matters.
    pub(super) fn input<'b>(&'b self, policy: &'b NicPolicy, kubelet: &'b Kubelet) -> Input<'b> {
        Input {
            policy,
            node: &self.shared.node,
            observed: &self.observed,
            unsettled: &self.state.unsettled,
            holds: &self.holds,
            kubelet,
            autoprobe: &self.state.autoprobe,
            leases: &self.state.leases,
        }
    }

    pub(super) fn wanted(&self) -> Wanted<'_> {
        wanted(&self.policy, &self.shared.node, &self.observed, &self.holds, &self.state.leases)
    }

    /// VFs of the policy's pools.
    pub(super) fn devices(&self, given: &Given) -> Vec<Device> {
        devices::devices(&self.wanted(), &self.holds, given)
    }

    /// VFs that somebody uses who did not get them from this agent.
    pub(super) fn users(&self) -> impl Iterator<Item = PciAddress> {
        let used = |pf: &ObservedPf| {
            let used = pf.pf.vfs.iter().filter(|vf| pf.users.contains_key(&vf.index));
            used.map(|vf| vf.pci.address).collect::<Vec<_>>()
        };
        self.observed.pfs.iter().flat_map(used).filter(|vf| !self.holds.contains_key(vf))
    }

    /// All devices that somebody has; those that kubelet gave with the resource they were given from.
    pub(super) fn held(&self, given: &Given) -> Given {
        let mut held = self.known(given);
        for vf in self.users() {
            held.entry(vf).or_default();
        }
        held
    }

    /// Devices that pods got the regular way: by this agent's CNI or from kubelet.
    pub(super) fn known(&self, given: &Given) -> Given {
        let attached = self.holds.keys().map(|vf| (*vf, None));
        attached.chain(given.iter().map(|(device, resource)| (*device, resource.clone()))).collect()
    }

    pub(super) fn list(&self, offered: &[Device]) -> NicListReply {
        self.view(&self.wanted(), offered).list()
    }

    /// `offered` is what kubelet was told last: resources of a list that the policy does not know are only there.
    pub(super) fn view<'b>(&'b self, wanted: &'b Wanted<'b>, offered: &[Device]) -> View<'b> {
        let mut devices = devices::devices(wanted, &self.holds, &Given::new());
        devices.extend_from_slice(offered);
        View::new(&self.observed, wanted, &self.holds, &self.state, devices)
    }
}
