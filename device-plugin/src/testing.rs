//! Devices for tests.

use culvert_api::value::PciAddress;

use crate::Device;
use crate::pool::Inventory;

pub(crate) fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

pub(crate) fn device(address: &str, pool: &str) -> Device {
    Device { pool: Some(pool.parse().unwrap()), ..Device::new(pci(address)) }
}

pub(crate) fn inventory(devices: &[Device]) -> Inventory {
    devices.iter().map(|d| (d.pci, (d.resource(&"culvert.io".parse().unwrap()), d.clone()))).collect()
}
