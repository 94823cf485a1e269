//! Giving a VF to a pod.

use std::sync::Arc;

use culvert_api::value::{Mac, PciAddress};
use culvert_host::driver;
use culvert_host::inventory::{Interface, Vf};
use culvert_host::netlink::{Link, VfChange};
use tracing::debug;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::super::journal::State;
use super::super::observe::ObservedPf;
use super::super::wanted::WantedVf;
use super::attacher::{Attacher, View};
use super::mac::{give_mac, mac_owner};
use super::ops::{Net, VfOps};
use super::stopwatch::Stopwatch;
use super::{AttachError, AttachedInterface, VfAttach, VfAttached, pod};
use crate::errors::chain;
use crate::pods::{Key, Phase};

/// What failed, and why.
type Failure = (&'static str, MachineError);

impl<O: VfOps> Attacher<O> {
    /// Gives a VF to a pod; `watch` has been running since it was looked at.
    ///
    /// # Errors
    /// When it cannot be done. Then everything is as before, but for what the error says; the rest is tried again later.
    pub(super) async fn make(
        &self,
        view: &View,
        request: &VfAttach,
        mut watch: Stopwatch,
    ) -> Result<VfAttached, AttachError> {
        let device = request.device;
        let (pf, vf) = view.observed.vf(device).ok_or(AttachError::NoVf(device))?;
        let pf_interface =
            pf.pf.interface().ok_or(AttachError::NoPfInterface { vf: device, pf: pf.pf.pci.address })?.index;
        let (wanted, change) = settings(pf, vf, view.base.as_ref(), &request.settings);
        self.ledger.with_state(|state| refuse(view, state, pf, vf, &request.key, wanted.mac))?;
        let netns = self.pods_namespace(request)?;
        let interface = self.interface(vf, request, wanted.mac).await?;
        let mac = interface.as_ref().map(|(_, pod)| pod.mac).or(wanted.mac);
        let attachment = Attachment {
            key: request.key.clone(),
            network: request.network.clone(),
            owner: request.owner.clone(),
            phase: Phase::Attaching,
            vf: device,
            pf: pf.pf.pci.address,
            index: vf.index,
            netns: request.netns.clone(),
            netns_id: Some(self.ops.id(&netns).map_err(|e| failed(device, "tell its network namespace", e))?),
            settings: request.settings.clone(),
            before: pf.settings.get(&vf.index).cloned(),
            host_mac: vf.interface.as_ref().and_then(|i| i.mac),
            mac,
            driver: vf.pci.driver.clone(),
            interface: interface.as_ref().map(|(_, pod)| pod.clone()),
        };
        watch.lap("look");
        self.claim(view, pf, vf, &attachment).await?;
        self.keep(&attachment.key, Arc::clone(&netns));
        watch.lap("record");
        let made = self.carry_out(&netns, &attachment, pf_interface, &change, interface, &mut watch).await;
        let done = match made {
            Ok(link) => {
                let attached = Attachment { phase: Phase::Attached, ..attachment.clone() };
                self.ledger.record(attached).await.map(|()| link).map_err(AttachError::Journal)
            }
            Err((action, source)) => Err(failed(device, action, source)),
        };
        watch.lap("record");
        debug!(pod = request.owner, vf = %device, "{watch}");
        match done {
            Ok(link) => {
                let name = request.key.ifname.clone();
                let interface = link.map(|link| AttachedInterface { name, mtu: link.mtu });
                Ok(VfAttached { mac, interface })
            }
            Err(error) => Err(match self.release(view, &attachment).await {
                Ok(()) => error,
                Err(left) => error.with_left(&chain(&left)),
            }),
        }
    }

    /// The namespace of the pod; it cannot go away any more.
    fn pods_namespace(&self, request: &VfAttach) -> Result<Arc<O::Netns>, AttachError> {
        let path = &request.netns;
        let at_open = |e| failed(request.device, "open the pod's network namespace", e);
        let netns = self.ops.open(path).map_err(at_open)?;
        let netns = netns.ok_or_else(|| AttachError::NoNetns(path.clone()))?;
        let of_host = self.ops.id(self.ops.host().netns()).map_err(at_open)?;
        if self.ops.id(&netns).map_err(at_open)? == of_host {
            return Err(AttachError::HostNetns(path.clone()));
        }
        Ok(netns)
    }

    /// The VF's interface, and what it is to be in the pod; `None` if a program is to drive the VF.
    async fn interface(
        &self,
        vf: &Vf,
        request: &VfAttach,
        mac: Option<Mac>,
    ) -> Result<Option<(Interface, PodInterface)>, AttachError> {
        let device = request.device;
        let driver = vf.pci.driver.as_deref().ok_or(AttachError::NoDriver(device))?;
        if driver::is_userspace(driver) {
            return Ok(None);
        }
        let none = || failed(device, "find its interface", MachineError::NoInterface(device));
        let interface = vf.interface.clone().ok_or_else(none)?;
        let link = self.ops.host().link(interface.index).await;
        let link = link.map_err(|e| failed(device, "read its interface", e))?.ok_or_else(none)?;
        // A name may have become another device's since it was read, an index never does; this makes sure of both.
        if link.parent.as_ref().is_some_and(|parent| *parent != device.to_string()) {
            return Err(none());
        }
        // A driver that was given no MAC has made one up.
        let mac = mac.or(link.mac).ok_or_else(none)?;
        let pod = PodInterface {
            host_name: link.name,
            host_mtu: link.mtu,
            alt_names: link.alt_names,
            mac,
            mtu: request.mtu,
            addresses: request.addresses.clone(),
            routes: request.routes.clone(),
        };
        Ok(Some((Interface { mac: link.mac, ..interface }, pod)))
    }

    /// Records that the VF is about to be the pod's, unless somebody else has it, or its MAC.
    async fn claim(
        &self,
        view: &View,
        pf: &ObservedPf,
        vf: &Vf,
        attachment: &Attachment,
    ) -> Result<(), AttachError> {
        let mut journal = self.ledger.write().await;
        // Others may have come first while this looked around.
        refuse(view, journal.state(), pf, vf, &attachment.key, attachment.mac)?;
        Ok(journal.attachment(attachment.clone())?)
    }

    /// Does it; the interface in the pod, or what failed.
    async fn carry_out(
        &self,
        netns: &Arc<O::Netns>,
        attachment: &Attachment,
        pf_interface: u32,
        change: &VfChange,
        interface: Option<(Interface, PodInterface)>,
        watch: &mut Stopwatch,
    ) -> Result<Option<Link>, Failure> {
        let (vf, ops) = (attachment.vf, &*self.ops);
        if !change.is_empty() {
            let set = ops.change_vf(pf_interface, attachment.index, change).await;
            set.map_err(|e| ("set it up at its PF", e))?;
            watch.lap("pf");
        }
        let Some((host, wanted)) = interface else { return Ok(None) };
        let host = give_mac(ops, vf, host, wanted.mac).await.map_err(|e| ("give it its MAC", e))?;
        watch.lap("mac");
        let pod = ops.enter(netns).map_err(|e| ("enter the pod's network namespace", e))?;
        self.move_in(host.index, netns, attachment, &wanted)
            .await
            .map_err(|e| ("move it into the pod", e))?;
        watch.lap("move");
        let set_up = async {
            let inside = pod::interface(&pod, attachment).await?.ok_or(MachineError::NoInterface(vf))?;
            pod::set_up(&pod, inside.index, attachment, &wanted).await
        };
        let link = set_up.await.map_err(|e| ("set up its interface in the pod", e))?;
        watch.lap("pod");
        Ok(Some(link))
    }

    /// Moves interface `index` into the pod under a name that nothing else has, so that none is in its way there.
    async fn move_in(
        &self,
        index: u32,
        netns: &Arc<O::Netns>,
        attachment: &Attachment,
        wanted: &PodInterface,
    ) -> Result<(), MachineError> {
        let host = self.ops.host();
        // A probe of the driver may have made a new interface, which udev has given names again.
        let now = host.link(index).await?.ok_or(MachineError::NoInterface(attachment.vf))?;
        let names: Vec<String> = now.alt_names.into_iter().chain(wanted.alt_names.clone()).collect();
        if !names.is_empty() {
            host.remove_alt_names(index, &names).await?;
        }
        host.move_link(index, attachment.temporary_name().as_str(), netns).await
    }
}

/// Refuses what somebody else has: the name of the attachment, the VF, or its MAC.
fn refuse(
    view: &View,
    state: &State,
    pf: &ObservedPf,
    vf: &Vf,
    key: &Key,
    mac: Option<Mac>,
) -> Result<(), AttachError> {
    let device = vf.pci.address;
    if let Some(before) = state.attachments.get(key) {
        return Err(AttachError::Twice { key: before.key.clone(), vf: before.vf });
    }
    let holder = state.attachments.values().find(|a| a.vf == device).map(|a| a.owner.clone());
    if let Some(user) = holder.or_else(|| pf.users.get(&vf.index).cloned()) {
        return Err(AttachError::InUse { vf: device, user });
    }
    match mac.and_then(|mac| Some((mac, mac_owner(&view.observed, state, device, mac)?))) {
        Some((mac, owner)) => Err(AttachError::MacTaken { vf: device, mac, owner }),
        None => Ok(()),
    }
}

/// What the pod's VF should have, and what is left to change for that.
fn settings(pf: &ObservedPf, vf: &Vf, base: Option<&WantedVf>, asked: &VfChange) -> (VfChange, VfChange) {
    let now = pf.settings.get(&vf.index);
    let own = base.map_or_else(VfChange::default, |base| base.settings.clone());
    let wanted = own.overlaid(asked);
    let change = now.map_or_else(|| wanted.clone(), |now| wanted.without(now));
    let mac = wanted.mac.or(now.and_then(|now| now.mac));
    (VfChange { mac, ..wanted }, change)
}

fn failed(vf: PciAddress, action: &'static str, source: MachineError) -> AttachError {
    AttachError::Failed { vf, action, left: String::new(), source: source.into() }
}
