//! MACs of VFs: given to their interfaces, and kept apart.

use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress};
use culvert_host::inventory::Interface;
use culvert_host::netlink::LinkChange;
use tokio::time::{Instant, sleep};

use super::super::apply::{INTERFACE_PATIENCE, MachineError};
use super::super::journal::State;
use super::super::observe::Observed;
use super::super::step::Object;
use super::ops::{Net, VfOps};

/// How long a VF's driver may take until its interface bears the MAC that it was told: some ask the PF first.
const MAC_PATIENCE: Duration = Duration::from_millis(500);

/// Makes sure that the VF's interface in the host's namespace is down and bears `mac`, which its PF holds for it.
///
/// Some drivers take the MAC over as soon as the PF has it, some when they are told to (and may refuse although the
/// address is the right one), all when they probe.
pub(super) async fn give_mac<O: VfOps>(
    ops: &O,
    vf: PciAddress,
    interface: Interface,
    mac: Mac,
) -> Result<Interface, MachineError> {
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    ops.host().change_link(interface.index, &down).await?;
    if interface.mac == Some(mac) {
        return Ok(interface);
    }
    let change = LinkChange { mac: Some(mac), ..LinkChange::default() };
    let told = ops.host().change_link(interface.index, &change).await;
    if told.is_ok() && takes_mac(ops, interface.index, mac).await? {
        return Ok(Interface { mac: Some(mac), ..interface });
    }
    ops.bind(vf, VfDriver::Kernel).await?;
    let now = ops.await_interface(vf, INTERFACE_PATIENCE).await?.ok_or(MachineError::NoInterface(vf))?;
    if now.mac != Some(mac) {
        let reports = now.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
        return Err(MachineError::MacNotTaken { vf, mac, reports });
    }
    ops.host().change_link(now.index, &down).await?;
    Ok(now)
}

/// Whether interface `index` bears `mac`, now or in a moment.
async fn takes_mac<O: VfOps>(ops: &O, index: u32, mac: Mac) -> Result<bool, MachineError> {
    let started = Instant::now();
    loop {
        match ops.host().link(index).await? {
            None => return Ok(false),
            Some(link) if link.mac == Some(mac) => return Ok(true),
            Some(_) if started.elapsed() > MAC_PATIENCE => return Ok(false),
            Some(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Who else on this machine has `mac`, in use or for its own.
pub(super) fn mac_owner(observed: &Observed, state: &State, device: PciAddress, mac: Mac) -> Option<String> {
    let card = observed.other_macs.get(&mac).cloned();
    let attached = || {
        let mut others = state.attachments.values().filter(|a| a.vf != device);
        others.find(|a| a.mac == Some(mac) || a.settings.mac == Some(mac)).map(|a| a.owner.clone())
    };
    let other_vf = || {
        observed.pfs.iter().find_map(|pf| {
            let itself = pf.pf.vfs.iter().find(|vf| vf.pci.address == device).map(|vf| vf.index);
            let mut others = pf.settings.values().filter(|s| Some(s.index) != itself);
            let found = others.find(|s| s.mac == Some(mac))?;
            Some(Object::vf(pf.pf.pci.address, found.index).to_string())
        })
    };
    card.or_else(attached).or_else(other_vf)
}
