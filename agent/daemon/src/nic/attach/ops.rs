//! What is done to a VF and its interface: the machine, as an attachment sees it.
//!
//! Everything that an attachment does goes through [`VfOps`] and [`Net`], so that tests can have each operation fail, or
//! the program end at it, on a machine that is made up.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::inventory::Interface;
use culvert_host::netlink::{Link, LinkChange, Route, VfChange, VfSettings};
use culvert_host::netns::NetnsId;
use ipnet::IpNet;

use super::super::apply::MachineError;

/// The machine's side of VFs.
pub(in super::super) trait VfOps: Send + Sync + 'static {
    /// A network namespace, kept alive.
    type Netns: Send + Sync + 'static;
    /// A way to change interfaces of a network namespace.
    type Net: Net<Netns = Self::Netns>;

    /// The host's network namespace.
    fn host(&self) -> &Self::Net;

    /// The namespace that `path` leads to; `None` if there is none.
    fn open(&self, path: &Path) -> Result<Option<Arc<Self::Netns>>, MachineError>;

    /// What tells namespaces apart.
    fn id(&self, netns: &Self::Netns) -> Result<NetnsId, MachineError>;

    /// The namespace with this identity, if anything on the machine keeps it alive.
    fn find(&self, id: NetnsId) -> impl Future<Output = Option<Arc<Self::Netns>>> + Send;

    /// A way to change interfaces of `netns`.
    fn enter(&self, netns: &Arc<Self::Netns>) -> Result<Self::Net, MachineError>;

    /// The namespace other than the host's where the VF's interface is, as far as namespaces can be seen.
    fn locate(&self, vf: PciAddress) -> impl Future<Output = Option<Arc<Self::Netns>>> + Send;

    /// The VF's interface, if it is in the host's network namespace.
    fn interface(
        &self,
        vf: PciAddress,
    ) -> impl Future<Output = Result<Option<Interface>, MachineError>> + Send;

    /// The VF's interface, once there is one in the host's network namespace; `None` if there is none in time.
    fn await_interface(
        &self,
        vf: PciAddress,
        patience: Duration,
    ) -> impl Future<Output = Result<Option<Interface>, MachineError>> + Send;

    /// The VF's driver.
    fn driver(&self, vf: PciAddress) -> impl Future<Output = Result<Option<String>, MachineError>> + Send;

    /// The process that has the VF open through vfio.
    fn vfio_user(&self, vf: PciAddress) -> impl Future<Output = Result<Option<String>, MachineError>> + Send;

    /// Gives the VF to a driver, anew if the kernel's own has it already.
    fn bind(&self, vf: PciAddress, driver: VfDriver)
    -> impl Future<Output = Result<(), MachineError>> + Send;

    /// What the PF with this interface holds of the VF.
    fn vf_settings(
        &self,
        pf_interface: u32,
        vf: VfIndex,
    ) -> impl Future<Output = Result<Option<VfSettings>, MachineError>> + Send;

    /// Changes what the PF with this interface holds of the VF, and makes sure that it does.
    fn change_vf(
        &self,
        pf_interface: u32,
        vf: VfIndex,
        change: &VfChange,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;
}

/// Interfaces of one network namespace.
pub(in super::super) trait Net: Send + Sync + 'static {
    /// The namespace.
    type Netns: Send + Sync + 'static;

    /// The namespace.
    fn netns(&self) -> &Arc<Self::Netns>;

    /// All interfaces.
    fn links(&self) -> impl Future<Output = Result<Vec<Link>, MachineError>> + Send;

    /// The interface with this index.
    fn link(&self, index: u32) -> impl Future<Output = Result<Option<Link>, MachineError>> + Send;

    /// Addresses, each with the index of its interface.
    fn addresses(&self) -> impl Future<Output = Result<Vec<(u32, IpNet)>, MachineError>> + Send;

    /// Routes.
    fn routes(&self) -> impl Future<Output = Result<Vec<Route>, MachineError>> + Send;

    /// Changes an interface, in one message.
    fn change_link(
        &self,
        index: u32,
        change: &LinkChange,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Gives an interface more names.
    fn add_alt_names(
        &self,
        index: u32,
        names: &[String],
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Takes names from an interface; those that it does not have do not matter.
    fn remove_alt_names(
        &self,
        index: u32,
        names: &[String],
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Moves an interface into `netns` as `name`, which nobody else may use there. It is down afterwards, and has neither
    /// addresses nor routes.
    fn move_link(
        &self,
        index: u32,
        name: &str,
        netns: &Self::Netns,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Adds an address; one that is there already is no error.
    fn add_address(
        &self,
        index: u32,
        address: IpNet,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Adds a route; the same one being there already is no error.
    fn add_route(&self, route: &Route) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Writes files below `/proc/sys`; those that the kernel does not have do not matter.
    fn set_sysctls(
        &self,
        values: &[(String, &'static str)],
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Tells the neighbours of an interface, once it has a carrier, that `addresses` are at `mac`. Returns at once.
    fn announce(&self, index: u32, mac: Mac, addresses: &[IpNet]);
}
