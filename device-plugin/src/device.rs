//! What the plugin is told about the machine.

use std::collections::BTreeMap;
use std::fmt;

use culvert_api::value::{PciAddress, PoolName, ResourceName, ResourcePrefix, VfIndex};
use serde::{Deserialize, Serialize};

/// A device that kubelet may give to a container.
///
/// Its id towards kubelet, Multus and the CNI is its PCI address. Make one with [`Device::new`] and set what is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The device's own PCI address.
    pub pci: PciAddress,
    /// The pool that offers it. `None` withdraws it from whatever pool offered it before; to be absent from the list
    /// altogether means that the device is gone, and shows as unhealthy.
    pub pool: Option<PoolName>,
    /// What comes before the `/` in the pool's resource name; `None`: what the configuration says for all pools.
    pub prefix: Option<ResourcePrefix>,
    /// The physical function it belongs to, if it is a VF.
    pub pf: Option<PciAddress>,
    /// Its index below that physical function.
    pub vf: Option<VfIndex>,
    /// The PCIe root port that it is below; the functions of one card share it.
    pub root_port: Option<PciAddress>,
    /// NUMA node, where the machine has said one.
    pub numa: Option<u16>,
    /// Kubelet is not told the NUMA node; it still decides which devices are given together.
    pub hide_numa: bool,
    /// IOMMU group; a container gets the group's device node if the driver is vfio-pci.
    pub iommu_group: Option<IommuGroup>,
    /// Bound kernel driver, such as `iavf` or `vfio-pci`.
    pub driver: Option<String>,
    /// `N` of `/dev/uioN`, if a uio driver is bound.
    pub uio: Option<u32>,
    /// What it has of RDMA, if containers get that.
    pub rdma: Option<Rdma>,
    /// Interface of the embedded switch's port that it is behind, where the NIC is in switchdev mode.
    pub representor: Option<String>,
    /// A pod has it, as far as is known.
    pub held: bool,
    /// Containers get `/dev/vhost-net` and `/dev/net/tun` with it, for a virtio-user exception path.
    pub vhost_net: bool,
    /// More for the `_INFO` variable of containers.
    pub extra: BTreeMap<String, String>,
    /// Name of the network interface while it is in the host's own namespace.
    pub netdev: Option<String>,
    /// Whether new pods may have it.
    pub health: Health,
}

impl Device {
    /// A healthy device in no pool of which only the address is known.
    pub fn new(pci: PciAddress) -> Self {
        Self {
            pci,
            pool: None,
            prefix: None,
            pf: None,
            vf: None,
            root_port: None,
            numa: None,
            hide_numa: false,
            iommu_group: None,
            driver: None,
            uio: None,
            rdma: None,
            representor: None,
            held: false,
            vhost_net: false,
            extra: BTreeMap::new(),
            netdev: None,
            health: Health::Healthy,
        }
    }

    /// The resource that offers it, if any does.
    pub fn resource(&self, prefix: &ResourcePrefix) -> Option<ResourceName> {
        let prefix = self.prefix.as_ref().unwrap_or(prefix).clone();
        self.pool.clone().map(|pool| ResourceName { prefix, pool })
    }
}

/// The RDMA side of a network device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rdma {
    /// Names of its RDMA devices, such as `mlx5_2`.
    pub devices: Vec<String>,
    /// Names below `/dev/infiniband`: those of its own (`uverbs2`, `umad2`, `issm2`), and `rdma_cm` of the node.
    pub nodes: Vec<String>,
}

/// A group of `/sys/kernel/iommu_groups`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuGroup {
    /// Its number: `/dev/vfio/NUMBER`.
    pub number: u32,
    /// Made by vfio without an IOMMU behind it (the group's `name` is `vfio-noiommu`): `/dev/vfio/noiommu-NUMBER`.
    pub no_iommu: bool,
}

/// Whether new pods may have a device. Pods that hold it already keep it either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Ready to be given away.
    Healthy,
    /// Not now; the reason is for logs and error messages.
    Unhealthy(String),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy(reason) => write!(f, "unhealthy: {reason}"),
        }
    }
}
