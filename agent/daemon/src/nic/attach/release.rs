//! Taking a VF back.

use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::PciAddress;
use culvert_host::driver;
use culvert_host::inventory::Interface;
use culvert_host::netlink::LinkChange;
use tracing::{info, warn};

use super::super::apply::{INTERFACE_PATIENCE, MachineError};
use super::super::attachment::Attachment;
use super::super::observe::ObservedPf;
use super::attacher::{Attacher, View};
use super::mac::give_mac;
use super::ops::{Net, VfOps};
use super::pod;
use super::profile::Profile;
use super::{Problems, ReleaseError};
use crate::errors::chain;
use crate::pods::Phase;

/// How long the kernel may take to give the interfaces of a namespace that has ended back to the host.
const NETNS_CLEANUP: Duration = Duration::from_secs(3);

impl<O: VfOps> Attacher<O> {
    /// Takes back what `attachment` says, wherever its making or an earlier attempt at this got to. What fails does not
    /// stop the rest.
    ///
    /// # Errors
    /// What went wrong; the record stays then, and the same call goes on where this one ended.
    pub(super) async fn release(&self, view: &View, attachment: &Attachment) -> Result<(), ReleaseError> {
        let mut problems = Problems::default();
        // Of one that was not completed the record says already that it has to be undone.
        if attachment.phase == Phase::Attached {
            let detaching = Attachment { phase: Phase::Detaching, ..attachment.clone() };
            problems.note(self.ledger.record(detaching).await);
        }
        // A VF that does not exist any more needs nothing.
        if let Some((pf, _)) = view.observed.vf(attachment.vf) {
            let profile = Profile::new(view.base.as_ref(), attachment);
            self.take_back(pf, &profile, attachment, &mut problems).await;
        }
        if !problems.0.is_empty() {
            return Err(ReleaseError::Failed { vf: attachment.vf, problems: problems.0 });
        }
        self.ledger.released(&attachment.key).await?;
        self.let_go(&attachment.key);
        Ok(())
    }

    async fn take_back(
        &self,
        pf: &ObservedPf,
        profile: &Profile,
        attachment: &Attachment,
        problems: &mut Problems,
    ) {
        problems.note(self.leave_pod(attachment).await);
        problems.note(self.reset(pf, profile, attachment).await);
        if problems.note(self.rebind(profile, attachment).await).is_none() {
            return;
        }
        if profile.driver == Some(VfDriver::Kernel)
            && let Some(home) = problems.note(self.come_home(attachment).await)
        {
            problems.note(self.restore(attachment, profile, home).await);
        }
    }

    /// Takes the interface out of the pod, if the pod and the interface in it exist.
    async fn leave_pod(&self, attachment: &Attachment) -> Result<(), MachineError> {
        match self.namespace(attachment).await? {
            Some(netns) => self.leave(&netns, attachment).await,
            None => Ok(()),
        }
    }

    /// Takes the interface out of `netns`, if it is there.
    async fn leave(&self, netns: &Arc<O::Netns>, attachment: &Attachment) -> Result<(), MachineError> {
        let net = self.ops.enter(netns)?;
        let Some(link) = pod::interface(&net, attachment).await? else { return Ok(()) };
        // Down first, in a message of its own: an interface that is up cannot be renamed before Linux 6.2.
        net.change_link(link.index, &LinkChange { up: Some(false), ..LinkChange::default() }).await?;
        if !link.alt_names.is_empty() {
            net.remove_alt_names(link.index, &link.alt_names).await?;
        }
        let temporary = attachment.temporary_name();
        net.move_link(link.index, temporary.as_str(), self.ops.host().netns()).await
    }

    /// Writes to the PF what the VF is of its own.
    async fn reset(
        &self,
        pf: &ObservedPf,
        profile: &Profile,
        attachment: &Attachment,
    ) -> Result<(), MachineError> {
        let Some(interface) = pf.pf.interface() else { return Ok(()) };
        let now = self.ops.vf_settings(interface.index, attachment.index).await?;
        let change = profile.change(now.as_ref());
        if change.is_empty() {
            return Ok(());
        }
        self.ops.change_vf(interface.index, attachment.index, &change).await
    }

    /// Gives the VF its own driver back, if the pod's program left it with another or with none.
    async fn rebind(&self, profile: &Profile, attachment: &Attachment) -> Result<(), MachineError> {
        let Some(wanted) = profile.driver else { return Ok(()) };
        let vf = attachment.vf;
        let now = self.ops.driver(vf).await?;
        let right = match (wanted, now.as_deref()) {
            (VfDriver::Kernel, Some(name)) => !driver::is_userspace(name),
            (VfDriver::VfioPci, Some(name)) => name == driver::VFIO_PCI,
            (_, None) => false,
        };
        if right {
            return Ok(());
        }
        // The kernel would wait for ever until a program that has the VF open closes it.
        if let Some(user) = self.ops.vfio_user(vf).await? {
            return Err(MachineError::Open { vf, user });
        }
        info!(
            vf = %vf, pod = attachment.owner,
            "was left with {}; it gets its own driver back", now.as_deref().unwrap_or("no driver")
        );
        self.ops.bind(vf, wanted).await
    }

    /// The interface in the host's namespace. If the pod's namespace ended, the kernel brings it in a moment; if it is in
    /// another that can be seen, it is fetched; if nobody knows where it is, a new probe of its driver makes a new one.
    async fn come_home(&self, attachment: &Attachment) -> Result<Interface, MachineError> {
        let vf = attachment.vf;
        if let Some(interface) = self.ops.interface(vf).await? {
            return Ok(interface);
        }
        if let Some(netns) = self.ops.locate(vf).await {
            self.leave(&netns, attachment).await?;
        }
        if let Some(interface) = self.ops.await_interface(vf, NETNS_CLEANUP).await? {
            return Ok(interface);
        }
        warn!(vf = %vf, pod = attachment.owner, "its interface is nowhere to be found; its driver makes a new one");
        self.ops.bind(vf, VfDriver::Kernel).await?;
        let made = self.ops.await_interface(vf, INTERFACE_PATIENCE).await?;
        made.ok_or(MachineError::NoInterface(vf))
    }

    /// Gives the interface its own MAC, MTU, modes and names back.
    async fn restore(
        &self,
        attachment: &Attachment,
        profile: &Profile,
        home: Interface,
    ) -> Result<(), MachineError> {
        let (vf, host) = (attachment.vf, self.ops.host());
        let index = match profile.mac {
            Some(mac) => give_mac(&*self.ops, vf, home, mac).await?.index,
            None => home.index,
        };
        let link = host.link(index).await?.ok_or(MachineError::NoInterface(vf))?;
        let change = LinkChange {
            mtu: profile.mtu.filter(|mtu| *mtu != link.mtu),
            promiscuous: link.promiscuous.then_some(false),
            all_multicast: link.all_multicast.then_some(false),
            up: link.up.then_some(false),
            ..LinkChange::default()
        };
        if change != LinkChange::default() {
            host.change_link(index, &change).await?;
        }
        let Some(own) = &attachment.interface else {
            if link.name == attachment.temporary_name().as_str() {
                // What it was called is not known: the kernel finds a name that is free.
                let rename = LinkChange { name: Some("eth%d".to_owned()), ..LinkChange::default() };
                host.change_link(index, &rename).await?;
            }
            return Ok(());
        };
        // Names that the pod gave it, if it came home by itself. Its own may be an alternative name by now, too: udev gives
        // those to everything that is new.
        let (kept, foreign): (Vec<String>, Vec<String>) =
            link.alt_names.into_iter().partition(|name| own.alt_names.contains(name));
        if !foreign.is_empty() {
            host.remove_alt_names(index, &foreign).await?;
        }
        if link.name != own.host_name {
            let rename = LinkChange { name: Some(own.host_name.clone()), ..LinkChange::default() };
            unless_taken(vf, host.change_link(index, &rename).await)?;
        }
        for name in own.alt_names.iter().filter(|name| !kept.contains(name)) {
            unless_taken(vf, host.add_alt_names(index, std::slice::from_ref(name)).await)?;
        }
        Ok(())
    }
}

/// A name is sugar: if another interface has taken it meanwhile, the VF serves as well without it.
fn unless_taken(vf: PciAddress, named: Result<(), MachineError>) -> Result<(), MachineError> {
    match named {
        Err(MachineError::Netlink(e)) if e.is_taken() => {
            warn!(vf = %vf, "does without a name that it had: {}", chain(&e));
            Ok(())
        }
        done => done,
    }
}
