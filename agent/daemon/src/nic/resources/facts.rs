//! What selectors ask for beyond what plans need: link types, RDMA, NICs without SR-IOV.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::value::PciAddress;
use culvert_device_plugin::Rdma;
use culvert_device_plugin::resource_list::LinkType;
use culvert_host::inventory::Interface;
use culvert_host::nic::{self, Nic};
use culvert_host::{FileError, HostRoot, PciDevice};

use super::super::observe::Observed;

/// Numbers of `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_INFINIBAND: u16 = 32;

/// What selectors ask for beyond what plans need.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// NICs without SR-IOV.
    pub nics: Vec<Nic>,
    /// What runs on the links of PFs and of NICs without SR-IOV.
    pub link_types: BTreeMap<PciAddress, LinkType>,
    /// RDMA sides that can be seen.
    pub rdma: BTreeMap<PciAddress, Rdma>,
    /// First partition keys, of those.
    pub p_keys: BTreeMap<PciAddress, String>,
    /// Names of the DDP packages that PFs run.
    pub ddp: BTreeMap<PciAddress, String>,
    /// Whether containers can be given `/dev/vhost-net` and `/dev/net/tun`.
    pub vhost_net: bool,
}

impl Facts {
    pub(super) fn read(root: &HostRoot, observed: &Observed) -> Result<Self, FileError> {
        let known: BTreeSet<PciAddress> =
            observed.pfs.iter().flat_map(|pf| &pf.pf.vfs).map(|vf| vf.pci.address).collect();
        let mut facts = Self {
            nics: nic::plain_nics(root, &known)?,
            vhost_net: ["dev/vhost-net", "dev/net/tun"].iter().all(|node| root.path(node).exists()),
            ..Self::default()
        };
        for pf in &observed.pfs {
            facts.link_type(root, pf.pf.pci.address, pf.pf.interface())?;
            facts.rdma(root, &pf.pf.pci)?;
            for vf in &pf.pf.vfs {
                facts.rdma(root, &vf.pci)?;
            }
        }
        for nic in facts.nics.clone() {
            facts.link_type(root, nic.pci.address, nic.interfaces.first())?;
            facts.rdma(root, &nic.pci)?;
        }
        Ok(facts)
    }

    fn link_type(
        &mut self,
        root: &HostRoot,
        address: PciAddress,
        interface: Option<&Interface>,
    ) -> Result<(), FileError> {
        let Some(interface) = interface else { return Ok(()) };
        let link_type = match nic::hardware_type(root, address, &interface.name)? {
            Some(ARPHRD_ETHER) => LinkType::Ether,
            Some(ARPHRD_INFINIBAND) => LinkType::Infiniband,
            Some(other) => LinkType::Other(other.to_string()),
            None => return Ok(()),
        };
        self.link_types.insert(address, link_type);
        Ok(())
    }

    fn rdma(&mut self, root: &HostRoot, function: &PciDevice) -> Result<(), FileError> {
        let Some(first) = function.rdma.first() else { return Ok(()) };
        let address = function.address;
        let nodes = nic::rdma_nodes(root, address)?;
        self.rdma.insert(address, Rdma { devices: function.rdma.clone(), nodes });
        if let Some(key) = nic::p_key(root, address, first)? {
            self.p_keys.insert(address, key);
        }
        Ok(())
    }
}
