//! What is done to a VF and its interface.

use std::future::Future;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::inventory::Interface;
use culvert_host::netlink::{LinkChange, Netlink, VfChange};
use culvert_host::netns::Netns;

use super::super::apply::{Host, MachineError};

/// The host's side of a VF; tests put veth interfaces in the place of VFs.
pub(in super::super) trait VfOps: Send + Sync + 'static {
    /// A socket in the host's network namespace.
    fn netlink(&self) -> &Netlink;

    /// The host's network namespace.
    fn netns(&self) -> &Netns;

    /// The VF's interface, if it is in the host's network namespace.
    fn interface(
        &self,
        vf: PciAddress,
    ) -> impl Future<Output = Result<Option<Interface>, MachineError>> + Send;

    /// The VF's interface, once there is one in the host's network namespace.
    fn await_interface(&self, vf: PciAddress)
    -> impl Future<Output = Result<Interface, MachineError>> + Send;

    /// Changes what the PF with this interface holds of the VF.
    fn change_vf(
        &self,
        pf_interface: u32,
        vf: VfIndex,
        change: &VfChange,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Gives the VF to a driver, anew if the kernel's own has it already.
    fn bind(&self, vf: PciAddress, driver: VfDriver)
    -> impl Future<Output = Result<(), MachineError>> + Send;
}

impl VfOps for Host {
    fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    fn netns(&self) -> &Netns {
        &self.netns
    }

    async fn interface(&self, vf: PciAddress) -> Result<Option<Interface>, MachineError> {
        self.interface(vf).await
    }

    async fn await_interface(&self, vf: PciAddress) -> Result<Interface, MachineError> {
        self.await_interface(vf).await
    }

    async fn change_vf(&self, pf_interface: u32, vf: VfIndex, change: &VfChange) -> Result<(), MachineError> {
        Ok(self.netlink.change_vf(pf_interface, vf, change).await?)
    }

    async fn bind(&self, vf: PciAddress, driver: VfDriver) -> Result<(), MachineError> {
        self.bind(vf, driver).await
    }
}

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
    ops.netlink().change_link(interface.index, &down).await?;
    if interface.mac == Some(mac) {
        return Ok(interface);
    }
    let change = LinkChange { mac: Some(mac), ..LinkChange::default() };
    let told = ops.netlink().change_link(interface.index, &change).await;
    if told.is_ok()
        && let Some(now) = ops.interface(vf).await?
        && now.mac == Some(mac)
    {
        return Ok(now);
    }
    ops.bind(vf, VfDriver::Kernel).await?;
    let now = ops.await_interface(vf).await?;
    if now.mac != Some(mac) {
        let reports = now.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
        return Err(MachineError::MacNotTaken { vf, mac, reports });
    }
    ops.netlink().change_link(now.index, &down).await?;
    Ok(now)
}
