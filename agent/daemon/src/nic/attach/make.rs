//! Giving a VF to a pod.

use culvert_api::value::{Mac, PciAddress};
use culvert_host::driver;
use culvert_host::inventory::{Interface, Vf};
use culvert_host::netlink::{LinkChange, VfChange};
use tracing::info;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::super::journal::Journal;
use super::super::observe::{Observed, ObservedPf};
use super::super::step::Object;
use super::super::wanted::WantedVf;
use super::ops::give_mac;
use super::pod::Pod;
use super::{AttachError, AttachedInterface, VfAttach, VfAttached, VfOps, release};
use crate::errors::chain;
use crate::pods::Phase;

/// Gives a VF to a pod; `base` is what the VF is of its own, if the policy says.
///
/// # Errors
/// When it cannot be done. Then everything is as before, but for what the error says; the rest is tried again later.
pub(in super::super) async fn make<O: VfOps>(
    ops: &O,
    journal: &mut Journal,
    observed: &Observed,
    base: Option<&WantedVf>,
    request: &VfAttach,
) -> Result<VfAttached, AttachError> {
    let device = request.device;
    let (pf, vf) = observed.vf(device).ok_or(AttachError::NoVf(device))?;
    let pf_interface =
        pf.pf.interface().ok_or(AttachError::NoPfInterface { vf: device, pf: pf.pf.pci.address })?;
    let driver = vf.pci.driver.as_deref().ok_or(AttachError::NoDriver(device))?;
    let attachments = &journal.state().attachments;
    if let Some(before) = attachments.get(&request.key) {
        return Err(AttachError::Twice { key: request.key.clone(), vf: before.vf });
    }
    let holder = attachments.values().find(|a| a.vf == device).map(|a| a.owner.clone());
    if let Some(user) = holder.or_else(|| pf.users.get(&vf.index).cloned()) {
        return Err(AttachError::InUse { vf: device, user });
    }
    if let Some(mac) = request.settings.mac
        && let Some(owner) = mac_owner(observed, journal, device, mac)
    {
        return Err(AttachError::MacTaken { vf: device, mac, owner });
    }
    // Dropped at the end of this function: the namespace cannot go away meanwhile.
    let pod = Pod::open(&request.netns)
        .map_err(|source| failed(device, "open the pod's network namespace", source))?;
    let netns_id = pod.netns.id()?;
    if netns_id == ops.netns().id()? {
        return Err(AttachError::HostNetns(request.netns.clone()));
    }
    let (settings, change) = settings(pf, vf, base, &request.settings);
    let interface = match &vf.interface {
        _ if driver::is_userspace(driver) => None,
        None => return Err(failed(device, "find its interface", MachineError::NoInterface(device))),
        Some(interface) => {
            // A driver that was given no MAC has made one up.
            let mac = settings.mac.or(interface.mac);
            let mac = mac.ok_or_else(|| failed(device, "find its MAC", MachineError::NoInterface(device)))?;
            let (host_name, host_mtu) = (interface.name.clone(), interface.mtu);
            let addresses = request.addresses.clone();
            Some((interface, PodInterface { host_name, host_mtu, mac, mtu: request.mtu, addresses }))
        }
    };
    let attachment = Attachment {
        key: request.key.clone(),
        network: request.network.clone(),
        owner: request.owner.clone(),
        phase: Phase::Attaching,
        vf: device,
        pf: pf.pf.pci.address,
        index: vf.index,
        netns: request.netns.clone(),
        netns_id,
        settings: request.settings.clone(),
        before: pf.settings.get(&vf.index).cloned(),
        host_mac: vf.interface.as_ref().and_then(|i| i.mac),
        interface: interface.as_ref().map(|(_, pod)| pod.clone()),
    };
    journal.attachment(attachment.clone())?;
    let made = carry_out(ops, &pod, &attachment, pf_interface.index, &change, interface, request).await;
    match made {
        Ok(mtu) => {
            journal.attachment(Attachment { phase: Phase::Attached, ..attachment.clone() })?;
            info!("{} goes to {} as {}", Object::vf(attachment.pf, vf.index), request.owner, request.key);
            Ok(VfAttached {
                mac: settings.mac.or(attachment.host_mac),
                interface: mtu.map(|mtu| AttachedInterface { name: request.key.ifname.clone(), mtu }),
            })
        }
        Err((action, source)) => {
            let left = release(ops, journal, observed, base, &attachment.key).await;
            let left = left.map_or_else(|e| chain(&e), |()| String::new());
            Err(AttachError::Failed { vf: device, action, left, source })
        }
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

/// Does it; the MTU of the interface in the pod, or what failed.
async fn carry_out<O: VfOps>(
    ops: &O,
    pod: &Pod,
    attachment: &Attachment,
    pf_interface: u32,
    change: &VfChange,
    interface: Option<(&Interface, PodInterface)>,
    request: &VfAttach,
) -> Result<Option<u32>, (&'static str, MachineError)> {
    let vf = attachment.vf;
    if !change.is_empty() {
        let set = ops.change_vf(pf_interface, attachment.index, change).await;
        set.map_err(|e| ("set it up at its PF", e))?;
    }
    let Some((host, wanted)) = interface else { return Ok(None) };
    let host = give_mac(ops, vf, host.clone(), wanted.mac).await.map_err(|e| ("give it its MAC", e))?;
    let temporary = attachment.temporary_name();
    let calm = LinkChange { name: Some(temporary.to_string()), ..LinkChange::default() };
    let moved = async {
        ops.netlink().change_link(host.index, &calm).await?;
        Ok(ops.netlink().move_link(host.index, temporary.as_str(), &pod.netns).await?)
    };
    moved.await.map_err(|e: MachineError| ("move it into the pod", e))?;
    let set_up = async {
        let link = pod.netlink.link_by_name(temporary.as_str()).await?;
        let link = link.ok_or(MachineError::NoInterface(vf))?;
        pod.set_up(link.index, attachment, &wanted, &request.routes).await?;
        Ok(pod.netlink.link(link.index).await?.map(|l| l.mtu))
    };
    set_up.await.map_err(|e: MachineError| ("set up its interface in the pod", e))
}

/// Who else on this machine has `mac`, in use or for its own.
fn mac_owner(observed: &Observed, journal: &Journal, device: PciAddress, mac: Mac) -> Option<String> {
    let card = observed.other_macs.get(&mac).cloned();
    let attached = || {
        let mut others = journal.state().attachments.values().filter(|a| a.vf != device);
        others.find(|a| a.settings.mac == Some(mac)).map(|a| a.owner.clone())
    };
    let other_vf = || {
        observed.pfs.iter().find_map(|pf| {
            let mut others = pf.pf.vfs.iter().filter(|vf| vf.pci.address != device);
            let found = others.find(|vf| pf.settings.get(&vf.index).is_some_and(|s| s.mac == Some(mac)))?;
            Some(Object::vf(pf.pf.pci.address, found.index).to_string())
        })
    };
    card.or_else(attached).or_else(other_vf)
}

fn failed(vf: PciAddress, action: &'static str, source: MachineError) -> AttachError {
    AttachError::Failed { vf, action, left: String::new(), source }
}
