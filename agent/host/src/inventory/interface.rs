//! Which network interfaces a PCI function has.

use std::collections::BTreeMap;

use culvert_api::value::{Mac, PciAddress, VfIndex};

use crate::driver;
use crate::netlink::Link;
use crate::pci::PciDevice;
use crate::root::{FileError, Folder, HostRoot};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// RFC 2863 state: "up", "down", "unknown"...
    pub operstate: String,
}

/// Where interfaces are looked for.
pub(super) enum Interfaces<'a> {
    /// In sysfs, which shows those of the namespace that it was mounted in.
    InSysfs,
    /// In a list of links that tell their PCI function.
    Known(BTreeMap<PciAddress, Vec<&'a Link>>),
}

/// Name and switch of a port of a NIC's switch: `phys_port_name`, `phys_switch_id`.
struct Port {
    name: Option<String>,
    switch: Option<String>,
}

impl<'a> Interfaces<'a> {
    pub(super) fn from_links(links: &'a [Link]) -> Self {
        let mut known: BTreeMap<PciAddress, Vec<&Link>> = BTreeMap::new();
        for link in links {
            if let Some(address) = link.parent.as_ref().and_then(|parent| parent.parse().ok()) {
                known.entry(address).or_default().push(link);
            }
        }
        if known.is_empty() { Self::InSysfs } else { Self::Known(known) }
    }

    /// A PF's own interfaces, by index, and the representors of its VFs.
    pub(super) fn of_pf(
        &self,
        folder: &Folder,
        address: PciAddress,
    ) -> Result<(Vec<Interface>, BTreeMap<VfIndex, Interface>), FileError> {
        let mut found = Vec::new();
        match self {
            Self::Known(known) => {
                for link in known.get(&address).into_iter().flatten() {
                    let port = Port { name: link.port_name.clone(), switch: link.switch_id.clone() };
                    found.push((Interface::from(*link), port));
                }
            }
            Self::InSysfs => {
                let Some(net) = folder.at("net")? else { return Ok(Default::default()) };
                let names = net.names()?;
                let alone = names.len() == 1;
                for name in names {
                    let Some(own) = net.at(&name)? else { continue };
                    let Some(interface) = Interface::read(&own, name)? else { continue };
                    // A function with one interface has no representors: what costs the kernel a lock is not asked.
                    let port = if alone {
                        Port { name: None, switch: None }
                    } else {
                        Port { name: own.text("phys_port_name")?, switch: own.text("phys_switch_id")? }
                    };
                    found.push((interface, port));
                }
            }
        }
        found.sort_unstable_by_key(|(interface, _)| interface.index);
        Ok(split(found))
    }

    /// A VF's interface.
    pub(super) fn of_vf(&self, folder: &Folder, pci: &PciDevice) -> Result<Option<Interface>, FileError> {
        if pci.driver.as_deref().is_none_or(driver::is_userspace) {
            return Ok(None);
        }
        match self {
            Self::Known(known) => {
                let links = known.get(&pci.address).into_iter().flatten();
                Ok(links.min_by_key(|l| l.index).map(|l| Interface::from(*l)))
            }
            Self::InSysfs => Ok(in_sysfs(folder)?.into_iter().next()),
        }
    }
}

/// Parts a PF's own interfaces from those that stand for other functions in the NIC's switch, and of those takes the
/// ports of its own VFs: same switch, and called `pf0vf3` where the PF is `p0` (`devlink_port_phys_port_name_get` in
/// `net/devlink/port.c`).
fn split(found: Vec<(Interface, Port)>) -> (Vec<Interface>, BTreeMap<VfIndex, Interface>) {
    let uplink = found.iter().find(|(_, port)| !port.is_representor());
    let uplink = uplink.map(|(_, port)| (port.switch.clone(), port.uplink_of()));
    let (mut own, mut representors) = (Vec::new(), BTreeMap::new());
    for (interface, port) in found {
        if !port.is_representor() {
            own.push(interface);
            continue;
        }
        let (Some((switch, number)), Some((pf, vf))) = (&uplink, port.stands_for()) else { continue };
        if *switch == port.switch && number.is_none_or(|number| number == pf) {
            representors.insert(vf, interface);
        }
    }
    (own, representors)
}

impl Port {
    /// `pf0`, `pf0vf3`, `pf0sf5`, or `c1pf0vf3` for a function of another host.
    fn is_representor(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.contains("pf"))
    }

    /// PF and VF that a representor stands for: `pf0vf3`.
    fn stands_for(&self) -> Option<(u32, VfIndex)> {
        let (pf, vf) = self.name.as_ref()?.strip_prefix("pf")?.split_once("vf")?;
        Some((pf.parse().ok()?, vf.parse().ok()?))
    }

    /// The PF that an uplink belongs to: `p0`.
    fn uplink_of(&self) -> Option<u32> {
        self.name.as_ref()?.strip_prefix('p')?.parse().ok()
    }
}

/// Network interfaces of a PCI function in the namespace that sysfs was mounted in, by index.
pub fn interfaces(root: &HostRoot, address: PciAddress) -> Result<Vec<Interface>, FileError> {
    Folder::open(root.pci_device(address))?.map_or(Ok(Vec::new()), |folder| in_sysfs(&folder))
}

fn in_sysfs(folder: &Folder) -> Result<Vec<Interface>, FileError> {
    let mut found = Vec::new();
    let Some(net) = folder.at("net")? else { return Ok(found) };
    for name in net.names()? {
        if let Some(own) = net.at(&name)? {
            found.extend(Interface::read(&own, name)?);
        }
    }
    found.sort_unstable_by_key(|i| i.index);
    Ok(found)
}

impl Interface {
    /// `None` if it was renamed or went away while it was read.
    fn read(folder: &Folder, name: String) -> Result<Option<Self>, FileError> {
        const IFF_UP: u32 = 1;
        let Some(index) = folder.value("ifindex")? else { return Ok(None) };
        Ok(Some(Self {
            name,
            index,
            mac: folder.value("address")?,
            mtu: folder.value("mtu")?.unwrap_or(0),
            up: folder.hex("flags")?.unwrap_or(0) & IFF_UP != 0,
            operstate: folder.text("operstate")?.unwrap_or_else(|| "unknown".to_owned()),
        }))
    }
}

impl From<&Link> for Interface {
    fn from(link: &Link) -> Self {
        Self {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            operstate: link.state.to_string(),
        }
    }
}
