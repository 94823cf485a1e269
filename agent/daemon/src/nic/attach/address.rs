//! Giving addresses to a VF that a pod has.
//!
//! Some address plugins (DHCP) ask the network itself, and need the interface in the pod, and up, before they can say
//! which addresses it gets.

use ipnet::IpNet;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::attacher::{Attacher, View};
use super::ops::VfOps;
use super::{AttachError, AttachedInterface, Route, VfAttached, pod};
use crate::errors::chain;

impl<O: VfOps> Attacher<O> {
    /// Gives the interface of `attachment` addresses and routes. A VF that a program drives through vfio has no
    /// interface: nothing is done then.
    ///
    /// # Errors
    /// When it cannot be done. The VF is taken back then, as if it had never been attached, but for what the error says.
    pub(super) async fn give_addresses(
        &self,
        view: &View,
        attachment: &Attachment,
        addresses: &[IpNet],
        routes: &[Route],
    ) -> Result<VfAttached, AttachError> {
        let mac = attachment.mac;
        let Some(interface) = &attachment.interface else { return Ok(VfAttached { mac, interface: None }) };
        // Recorded first: what is on the disk names every address that the interface may have.
        let wanted =
            PodInterface { addresses: addresses.to_vec(), routes: routes.to_vec(), ..interface.clone() };
        let attachment = Attachment { interface: Some(wanted.clone()), ..attachment.clone() };
        let given = match self.ledger.record(attachment.clone()).await {
            Ok(()) => self.do_give(&attachment, &wanted).await.map_err(|source| AttachError::Failed {
                vf: attachment.vf,
                action: "give its interface the addresses",
                left: String::new(),
                source: source.into(),
            }),
            Err(e) => Err(e.into()),
        };
        match given {
            Ok(mtu) => {
                let name = attachment.key.ifname;
                Ok(VfAttached { mac, interface: Some(AttachedInterface { name, mtu }) })
            }
            Err(error) => Err(match self.release(view, &attachment).await {
                Ok(()) => error,
                Err(left) => error.with_left(&chain(&left)),
            }),
        }
    }

    /// Does it; the MTU of the interface.
    async fn do_give(&self, attachment: &Attachment, wanted: &PodInterface) -> Result<u32, MachineError> {
        let gone = || MachineError::NoInterface(attachment.vf);
        let netns = self.namespace(attachment).await?.ok_or_else(gone)?;
        let net = self.ops.enter(&netns)?;
        let link = pod::interface(&net, attachment).await?.ok_or_else(gone)?;
        pod::give_addresses(&net, link.index, &link.name, wanted).await?;
        Ok(link.mtu)
    }
}
