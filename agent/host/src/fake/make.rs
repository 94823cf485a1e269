//! Makes of NICs.

use culvert_api::value::PciAddress;

use crate::PciId;

/// A make of NIC, with its way of numbering VFs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Make {
    /// The PF.
    pub pf: PciId,
    /// Driver of the PF.
    pub pf_driver: &'static str,
    /// The VFs.
    pub vf: PciId,
    /// Driver of the VFs.
    pub vf_driver: &'static str,
    /// `sriov_totalvfs`.
    pub total_vfs: u16,
    /// Distance from the PF to the first VF, in functions.
    pub offset: u16,
    /// Distance between VFs, in functions.
    pub stride: u16,
}

/// Intel 82576: VFs on the next bus, every other function.
pub const IGB: Make = Make {
    pf: PciId { vendor: 0x8086, device: 0x10c9 },
    pf_driver: "igb",
    vf: PciId { vendor: 0x8086, device: 0x10ca },
    vf_driver: "igbvf",
    total_vfs: 7,
    offset: 128,
    stride: 2,
};

/// Intel E810: many VFs, one after the other.
pub const ICE: Make = Make {
    pf: PciId { vendor: 0x8086, device: 0x1592 },
    pf_driver: "ice",
    vf: PciId { vendor: 0x8086, device: 0x1889 },
    vf_driver: "iavf",
    total_vfs: 256,
    offset: 8,
    stride: 1,
};

/// Intel X710: VFs sixteen functions on.
pub const I40E: Make = Make {
    pf: PciId { vendor: 0x8086, device: 0x1572 },
    pf_driver: "i40e",
    vf: PciId { vendor: 0x8086, device: 0x154c },
    vf_driver: "iavf",
    total_vfs: 64,
    offset: 16,
    stride: 1,
};

/// NVIDIA ConnectX-6 Dx: VFs right behind the PF, the same driver for both.
pub const MLX5: Make = Make {
    pf: PciId { vendor: 0x15b3, device: 0x101d },
    pf_driver: "mlx5_core",
    vf: PciId { vendor: 0x15b3, device: 0x101e },
    vf_driver: "mlx5_core",
    total_vfs: 127,
    offset: 2,
    stride: 1,
};

/// Address of a VF, as the PCIe specification's section 9.2.1.2 has it: PF + offset + index * stride, over all functions
/// of the bus and those after it.
pub fn vf_address(make: Make, pf: PciAddress, index: u16) -> PciAddress {
    let function = u32::from(pf.bus()) * 256 + u32::from(pf.device()) * 8 + u32::from(pf.function());
    let vf = function + u32::from(make.offset) + u32::from(index) * u32::from(make.stride);
    let text = format!("{:04x}:{:02x}:{:02x}.{:x}", pf.domain(), vf >> 8, vf >> 3 & 0x1f, vf & 7);
    text.parse().expect("is made of a bus, a device and a function")
}
