//! Which devices a resource takes.

use super::{Candidate, Functions, Spot};

/// Filters that must all hold; an empty list filters nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Where it stands.
    pub at: Spot,
    /// PCI vendor ids, four hexadecimal digits.
    pub vendors: Vec<String>,
    /// PCI device ids, four hexadecimal digits.
    pub devices: Vec<String>,
    /// Kernel drivers.
    pub drivers: Vec<String>,
    /// PCI addresses, in lower case.
    pub pci_addresses: Vec<String>,
    /// ACPI or SMBIOS indices, as in sysfs.
    pub acpi_indexes: Vec<String>,
    /// Functions of PFs, these by interface name.
    pub pf_names: Vec<Functions>,
    /// Functions of PFs, these by PCI address.
    pub root_devices: Vec<Functions>,
    /// Link types.
    pub link_types: Vec<LinkType>,
    /// Names of Dynamic Device Personalization packages.
    pub ddp_profiles: Vec<String>,
    /// InfiniBand partition keys.
    pub p_keys: Vec<String>,
    /// Only devices with RDMA, which then comes along.
    pub is_rdma: bool,
    /// Containers get `/dev/vhost-net` and `/dev/net/tun` too.
    pub need_vhost_net: bool,
    /// Only devices with such a vDPA device.
    pub vdpa_type: Option<VdpaType>,
}

/// What runs on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkType {
    /// Ethernet.
    Ether,
    /// InfiniBand.
    Infiniband,
    /// Something Culvert does not know, and no device has.
    Other(String),
}

/// Driver of a vDPA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VdpaType {
    /// `virtio_vdpa`.
    Virtio,
    /// `vhost_vdpa`.
    Vhost,
}

impl Selector {
    pub(super) fn new(at: Spot) -> Self {
        Self {
            at,
            vendors: Vec::new(),
            devices: Vec::new(),
            drivers: Vec::new(),
            pci_addresses: Vec::new(),
            acpi_indexes: Vec::new(),
            pf_names: Vec::new(),
            root_devices: Vec::new(),
            link_types: Vec::new(),
            ddp_profiles: Vec::new(),
            p_keys: Vec::new(),
            is_rdma: false,
            need_vhost_net: false,
            vdpa_type: None,
        }
    }

    /// Whether nothing is filtered: every device is taken.
    pub fn is_open(&self) -> bool {
        *self == Self { need_vhost_net: self.need_vhost_net, ..Self::new(self.at) }
    }

    /// Whether it takes the device. What is not known of a device holds no filter.
    pub fn takes(&self, device: &Candidate) -> bool {
        let vendor = format!("{:04x}", device.vendor);
        let model = format!("{:04x}", device.device);
        let root = device.pf.to_string();
        any(&self.vendors, Some(&vendor))
            && any(&self.devices, Some(&model))
            && any(&self.drivers, device.driver.as_ref())
            && any(&self.pci_addresses, Some(&device.pci.to_string()))
            && any(&self.acpi_indexes, device.acpi_index.as_ref())
            && functions(&self.pf_names, device, |pf| {
                device.pf_names.iter().any(|n| n.eq_ignore_ascii_case(pf))
            })
            && functions(&self.root_devices, device, |pf| pf == root)
            && any(&self.link_types, device.link_type.as_ref())
            && any(&self.ddp_profiles, device.ddp_profile.as_ref())
            && any(&self.p_keys, device.p_key.as_ref())
            && (!self.is_rdma || device.rdma)
            && self.vdpa_type.is_none_or(|wanted| device.vdpa == Some(wanted))
    }
}

fn any<T: PartialEq>(filter: &[T], value: Option<&T>) -> bool {
    filter.is_empty() || value.is_some_and(|value| filter.contains(value))
}

/// As in the peer, the first item that names the PF decides.
fn functions(filter: &[Functions], device: &Candidate, is_pf: impl Fn(&str) -> bool) -> bool {
    filter.is_empty()
        || filter.iter().find(|item| is_pf(&item.pf)).is_some_and(|item| item.contains(device.vf))
}
