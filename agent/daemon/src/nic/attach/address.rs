//! Giving addresses to a VF that a pod has.
//!
//! Some address plugins (DHCP) ask the network itself, and need the interface in the pod, and up, before they can say
//! which addresses it gets.

use ipnet::IpNet;
use tracing::info;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::super::journal::Journal;
use super::super::observe::Observed;
use super::super::wanted::WantedVf;
use super::pod::Pod;
use super::{AttachError, AttachedInterface, Route, VfAttached, VfOps, release};
use crate::errors::chain;
use crate::pods::{Key, Phase};

/// Gives `key`'s interface addresses and routes. A VF that a program drives through vfio has no interface: nothing is
/// done then.
///
/// # Errors
/// When it cannot be done. The VF is taken back then, as if it had never been attached, but for what the error says.
pub(in super::super) async fn address<O: VfOps>(
    ops: &O,
    journal: &mut Journal,
    observed: &Observed,
    base: Option<&WantedVf>,
    key: &Key,
    addresses: &[IpNet],
    routes: &[Route],
) -> Result<VfAttached, AttachError> {
    let attachment = journal.state().attachments.get(key).filter(|a| a.phase == Phase::Attached).cloned();
    let attachment = attachment.ok_or_else(|| AttachError::Unknown(key.clone()))?;
    let own = base.and_then(|base| base.settings.mac);
    let mac = attachment.settings.mac.or(own).or(attachment.before.as_ref().and_then(|b| b.mac));
    let Some(interface) = &attachment.interface else { return Ok(VfAttached { mac, interface: None }) };
    // Recorded first: what is on the disk names every address that the interface may have.
    let recorded = PodInterface { addresses: addresses.to_vec(), ..interface.clone() };
    journal.attachment(Attachment { interface: Some(recorded), ..attachment.clone() })?;
    match carry_out(&attachment, addresses, routes).await {
        Ok(mtu) => {
            info!("{}: {key} has {addresses:?}", attachment.owner);
            let mac = Some(interface.mac);
            Ok(VfAttached { mac, interface: Some(AttachedInterface { name: key.ifname.clone(), mtu }) })
        }
        Err(source) => {
            let left = release(ops, journal, observed, base, key).await;
            let left = left.map_or_else(|e| chain(&e), |()| String::new());
            let action = "give its interface the addresses";
            Err(AttachError::Failed { vf: attachment.vf, action, left, source })
        }
    }
}

/// Does it; the MTU of the interface.
async fn carry_out(
    attachment: &Attachment,
    addresses: &[IpNet],
    routes: &[Route],
) -> Result<u32, MachineError> {
    let gone = || MachineError::NoInterface(attachment.vf);
    let pod = Pod::of(attachment)?.ok_or_else(gone)?;
    let link = pod.interface(attachment).await?.ok_or_else(gone)?;
    pod.give_addresses(link.index, addresses, routes).await?;
    Ok(link.mtu)
}
