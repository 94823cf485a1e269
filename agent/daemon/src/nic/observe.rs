//! What there is: everything that plans, lists and devices are made from.

use std::collections::BTreeMap;

use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::devlink::EswitchMode;
use culvert_host::guard::{ApiServer, Claims, Needs};
use culvert_host::inventory::{Inventory, Pf, Vf};
use culvert_host::netlink::{Link, Netlink, NetlinkError, VfSettings};
use culvert_host::vfio::{self, Process};
use culvert_host::{FileError, HostRoot, driver};
use tracing::warn;

/// The machine's SR-IOV NICs at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// PFs by PCI address.
    pub pfs: Vec<ObservedPf>,
    /// MACs of the machine's other devices, and whose they are.
    pub other_macs: BTreeMap<Mac, String>,
}

/// A PF and its VFs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObservedPf {
    /// As sysfs shows them.
    pub pf: Pf,
    /// The MAC that the card itself has, where its driver tells.
    pub permanent_mac: Option<Mac>,
    /// Whether the PF's interface has a carrier.
    pub carrier: bool,
    /// Mode of its switch, where it has one.
    pub eswitch: Option<EswitchMode>,
    /// An error that its driver or its slot has told of.
    pub error: Option<String>,
    /// What the node needs the PF for.
    pub claims: Vec<String>,
    /// What the PF holds of its VFs.
    pub settings: BTreeMap<VfIndex, VfSettings>,
    /// Who uses a VF, of those that are in use.
    pub users: BTreeMap<VfIndex, String>,
}

/// Why there is no view of the machine.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// sysfs or procfs.
    #[error("the NICs cannot be listed")]
    File(#[from] FileError),
    /// rtnetlink.
    #[error("the interfaces cannot be listed")]
    Netlink(#[from] NetlinkError),
}

impl Observed {
    /// The PF at `address`.
    pub(super) fn pf(&self, address: PciAddress) -> Option<&ObservedPf> {
        self.pfs.iter().find(|pf| pf.pf.pci.address == address)
    }

    /// The VF at `address`, and its PF.
    pub(super) fn vf(&self, address: PciAddress) -> Option<(&ObservedPf, &Vf)> {
        self.pfs.iter().find_map(|pf| Some((pf, pf.pf.vfs.iter().find(|vf| vf.pci.address == address)?)))
    }
}

/// Looks at the machine. A NIC that cannot be read is left out, with a warning; a PF whose driver does not tell about
/// its VFs has no settings. What [`super::card::Cards`] know is not in it.
pub(super) async fn observe(
    root: &HostRoot,
    netlink: &Netlink,
    api_server: &ApiServer,
) -> Result<Observed, ObserveError> {
    let links = netlink.links().await?;
    let (inventory, links, needs) = {
        let (root, api_server) = (root.clone(), api_server.clone());
        let scan = move || {
            // Netlink knows the interfaces of this machine, not those of a made-up one.
            let found =
                if root.is_real() { Inventory::scan_with(&root, &links)? } else { Inventory::scan(&root)? };
            let needs = Needs::find(&root, &api_server)?;
            Ok::<_, FileError>((found, links, needs))
        };
        tokio::task::spawn_blocking(scan).await.expect("does not panic")?
    };
    for problem in &inventory.problems {
        warn!("a NIC is left out: {}", crate::errors::chain(problem));
    }
    if inventory.pfs.is_empty() {
        return Ok(Observed::default());
    }
    let vfio_users = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || vfio::open_groups(&root)).await.expect("does not panic")?
    };
    let claims = Claims::read_with(netlink, &links, &needs).await?;
    let links: BTreeMap<u32, Link> = links.into_iter().map(|l| (l.index, l)).collect();
    let mut observed = Observed { pfs: Vec::new(), other_macs: other_macs(&inventory, &links) };
    for pf in inventory.pfs {
        let interface = pf.interface().map(|i| i.index);
        let settings = match interface {
            None => Vec::new(),
            Some(index) => netlink.vf_settings(index).await.or_else(|e| {
                // The interface was renamed or removed since it was listed, or its driver has no such thing.
                if e.is_absent() { Ok(Vec::new()) } else { Err(e) }
            })?,
        };
        let link = interface.and_then(|index| links.get(&index));
        let users = pf.vfs.iter().filter_map(|vf| Some((vf.index, user(vf, &links, &claims, &vfio_users)?)));
        observed.pfs.push(ObservedPf {
            permanent_mac: link.and_then(|l| l.permanent_mac),
            carrier: link.is_some_and(|l| l.carrier),
            eswitch: None,
            error: None,
            claims: interface.map(|index| claims.of(index).to_vec()).unwrap_or_default(),
            settings: settings.into_iter().map(|s| (s.index, s)).collect(),
            users: users.collect(),
            pf,
        });
    }
    Ok(observed)
}

/// Who uses `vf`, as far as the machine shows.
fn user(
    vf: &Vf,
    links: &BTreeMap<u32, Link>,
    claims: &Claims,
    vfio_users: &BTreeMap<u32, Process>,
) -> Option<String> {
    if let Some(process) = vf.pci.iommu_group.and_then(|group| vfio_users.get(&group.number)) {
        return Some(format!("process {} (pid {}), through vfio", process.name, process.pid));
    }
    match &vf.interface {
        Some(interface) => {
            if let Some(claim) = claims.of(interface.index).first() {
                return Some(format!("the node itself: {claim}"));
            }
            let controller = links.get(&interface.index)?.controller?;
            let name = links.get(&controller).map_or_else(|| controller.to_string(), |l| l.name.clone());
            Some(format!("the node itself: it is a port of {name}"))
        }
        None => {
            let kernel = vf.pci.driver.as_deref().is_some_and(|d| !driver::is_userspace(d));
            kernel.then(|| "somebody in another network namespace, where its interface is".to_owned())
        }
    }
}

/// MACs of devices that are no VFs, as virtual interfaces share theirs with the device that they stand on.
fn other_macs(inventory: &Inventory, links: &BTreeMap<u32, Link>) -> BTreeMap<Mac, String> {
    let vf_interfaces: Vec<u32> = inventory
        .pfs
        .iter()
        .flat_map(|pf| &pf.vfs)
        .filter_map(|vf| Some(vf.interface.as_ref()?.index))
        .collect();
    let devices = links.values().filter(|l| l.kind.is_none() && !vf_interfaces.contains(&l.index));
    devices.filter_map(|l| Some((l.mac?, l.name.clone()))).collect()
}
