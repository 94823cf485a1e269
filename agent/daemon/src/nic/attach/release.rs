//! Taking a VF back.

use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::Mac;
use culvert_host::inventory::Interface;
use culvert_host::netlink::{LinkChange, VfChange};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::super::journal::Journal;
use super::super::observe::{Observed, ObservedPf};
use super::super::step::Object;
use super::super::wanted::WantedVf;
use super::ops::give_mac;
use super::pod::{Pod, namespace};
use super::{Problems, ReleaseError, VfOps};
use crate::errors::chain;
use crate::pods::{Key, Phase};

/// How long the kernel may take to give the interfaces of a namespace that has ended back to the host.
const NETNS_CLEANUP: Duration = Duration::from_secs(3);

/// Takes back what `key` has, if anything: its interface returns to the host, and the VF is again what it is of its own.
/// What fails does not stop the rest.
///
/// # Errors
/// What went wrong; the record stays then, and the same call goes on where this one ended.
pub(in super::super) async fn release<O: VfOps>(
    ops: &O,
    journal: &mut Journal,
    observed: &Observed,
    base: Option<&WantedVf>,
    key: &Key,
) -> Result<(), ReleaseError> {
    let Some(attachment) = journal.state().attachments.get(key).cloned() else { return Ok(()) };
    if attachment.phase != Phase::Detaching {
        journal.attachment(Attachment { phase: Phase::Detaching, ..attachment.clone() })?;
    }
    // A VF that does not exist any more needs nothing.
    if let Some((pf, _)) = observed.vf(attachment.vf) {
        let mut problems = Problems::default();
        take_back(ops, pf, base, &attachment, &mut problems).await;
        if !problems.0.is_empty() {
            return Err(ReleaseError::Failed { vf: attachment.vf, problems: problems.0 });
        }
    }
    info!("{} is back from {}", Object::vf(attachment.pf, attachment.index), attachment.owner);
    Ok(journal.released(key)?)
}

/// Whether the pod is gone: its DEL was lost.
pub(in super::super) fn is_orphan(attachment: &Attachment) -> bool {
    match namespace(attachment) {
        Ok(netns) => netns.is_none(),
        Err(e) => {
            warn!("{}: {}", attachment.owner, chain(&e));
            false
        }
    }
}

async fn take_back<O: VfOps>(
    ops: &O,
    pf: &ObservedPf,
    base: Option<&WantedVf>,
    attachment: &Attachment,
    problems: &mut Problems,
) {
    let mut found = None;
    if attachment.interface.is_some() {
        problems.note(leave_pod(ops, attachment).await);
        found = problems.note(come_home(ops, attachment).await);
    }
    let own = own_settings(base, attachment);
    if let (Some(interface), false) = (pf.pf.interface(), own.is_empty()) {
        let now = pf.settings.get(&attachment.index);
        // What was read may be what it was before the pod had it: everything that the pod changed is set.
        let change =
            now.map_or_else(|| own.clone(), |now| own.without(now).overlaid(&touched(&own, attachment)));
        if !change.is_empty() {
            problems.note(ops.change_vf(interface.index, attachment.index, &change).await);
        }
    }
    if let (Some(home), Some(pod)) = (found, &attachment.interface) {
        let mac = own.mac.or(attachment.host_mac);
        problems.note(restore(ops, attachment, base, home, pod, mac).await);
    }
}

/// Takes the interface out of the pod, if the pod and the interface in it exist.
async fn leave_pod<O: VfOps>(ops: &O, attachment: &Attachment) -> Result<(), MachineError> {
    let Some(pod) = Pod::of(attachment)? else { return Ok(()) };
    let Some(link) = pod.interface(attachment).await? else { return Ok(()) };
    let temporary = attachment.temporary_name();
    let calm = LinkChange {
        name: Some(temporary.to_string()),
        promiscuous: link.promiscuous.then_some(false),
        all_multicast: link.all_multicast.then_some(false),
        ..LinkChange::default()
    };
    // Down first, in a message of its own: an interface that is up cannot be renamed before Linux 6.2.
    pod.netlink.change_link(link.index, &LinkChange { up: Some(false), ..LinkChange::default() }).await?;
    pod.netlink.change_link(link.index, &calm).await?;
    Ok(pod.netlink.move_link(link.index, temporary.as_str(), ops.netns()).await?)
}

/// The interface in the host's namespace. If the pod's namespace ended, the kernel brings it in a moment; if it is in a
/// namespace that nobody knows, a new probe of its driver makes a new one.
async fn come_home<O: VfOps>(ops: &O, attachment: &Attachment) -> Result<Interface, MachineError> {
    let started = Instant::now();
    while started.elapsed() < NETNS_CLEANUP {
        if let Some(interface) = ops.interface(attachment.vf).await? {
            return Ok(interface);
        }
        sleep(Duration::from_millis(20)).await;
    }
    warn!("{}: its interface is nowhere to be found; its driver makes a new one", attachment.vf);
    ops.bind(attachment.vf, VfDriver::Kernel).await?;
    ops.await_interface(attachment.vf).await
}

/// What the VF is of its own: by the policy, else what it was before.
fn own_settings(base: Option<&WantedVf>, attachment: &Attachment) -> VfChange {
    if let Some(base) = base {
        return base.settings.clone();
    }
    let (Some(before), asked) = (&attachment.before, &attachment.settings) else {
        return VfChange::default();
    };
    // A PF cannot be told to forget a VF's MAC: without one before, the VF keeps the one that its driver made up.
    let mac = before.mac.or(attachment.host_mac);
    VfChange {
        mac: mac.filter(|_| asked.mac.is_some()),
        vlan: asked.vlan.map(|_| before.vlan),
        spoof_check: asked.spoof_check.map(|_| before.spoof_check),
        trust: asked.trust.map(|_| before.trust),
        link_state: asked.link_state.map(|_| before.link_state),
        rates: asked.rates.map(|_| before.rates),
    }
}

/// Of `own`, what the pod asked to have different.
fn touched(own: &VfChange, attachment: &Attachment) -> VfChange {
    let asked = &attachment.settings;
    VfChange {
        mac: own.mac.filter(|_| asked.mac.is_some()),
        vlan: own.vlan.filter(|_| asked.vlan.is_some()),
        spoof_check: own.spoof_check.filter(|_| asked.spoof_check.is_some()),
        trust: own.trust.filter(|_| asked.trust.is_some()),
        link_state: own.link_state.filter(|_| asked.link_state.is_some()),
        rates: own.rates.filter(|_| asked.rates.is_some()),
    }
}

/// Gives the interface its own MAC, MTU and name back.
async fn restore<O: VfOps>(
    ops: &O,
    attachment: &Attachment,
    base: Option<&WantedVf>,
    home: Interface,
    pod: &PodInterface,
    mac: Option<Mac>,
) -> Result<(), MachineError> {
    let home = match mac {
        Some(mac) => give_mac(ops, attachment.vf, home, mac).await?,
        None => home,
    };
    let mtu = base.and_then(|b| b.mtu).map_or(pod.host_mtu, |mtu| mtu.get().into());
    if home.mtu != mtu {
        ops.netlink()
            .change_link(home.index, &LinkChange { mtu: Some(mtu), ..LinkChange::default() })
            .await?;
    }
    if home.name != pod.host_name {
        let change = LinkChange { name: Some(pod.host_name.clone()), ..LinkChange::default() };
        // A name is sugar: the VF serves as well under the one it has.
        if let Err(e) = ops.netlink().change_link(home.index, &change).await {
            warn!("{}: keeps the name {}: {}", attachment.vf, home.name, chain(&e));
        }
    }
    Ok(())
}
