//! Names in the PCI ID database.

use super::PciId;

// One name a line, and where the lines of vendors and devices begin, by their numbers, in ascending order: see build.rs.
include!(concat!(env!("OUT_DIR"), "/pci_names.rs"));

/// Names of vendor and device; empty if the database has neither.
pub(super) fn of(PciId { vendor, device }: PciId) -> String {
    let vendor = u32::from(vendor);
    let names = [find(&VENDORS, vendor), find(&DEVICES, vendor << 16 | u32::from(device))];
    names.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn find(table: &[(u32, u32)], number: u32) -> Option<&'static str> {
    let place = table.binary_search_by_key(&number, |&(number, _)| number).ok()?;
    NAMES.get(table[place].1 as usize..)?.lines().next()
}

#[cfg(test)]
mod tests {
    use pci_ids::{FromId as _, Vendors};

    use super::*;

    #[test]
    fn every_device_of_the_database_has_the_names_that_it_has_there() {
        for device in Vendors::iter().flat_map(pci_ids::Vendor::devices) {
            let (vendor, id) = device.as_vid_pid();
            let names = format!("{} {}", device.vendor().name(), device.name());
            assert_eq!(of(PciId { vendor, device: id }), names);
        }
    }

    #[test]
    fn an_unknown_device_has_the_name_of_its_vendor_if_that_is_known() {
        let unknown = |vendor| PciId { vendor, device: 0xfffe };
        assert!(pci_ids::Device::from_vid_pid(0x8086, 0xfffe).is_none());
        let intel = pci_ids::Vendor::from_id(0x8086).unwrap();
        assert_eq!(of(unknown(0x8086)), intel.name());
        assert!(pci_ids::Vendor::from_id(0xfff0_u16).is_none());
        assert_eq!(of(unknown(0xfff0)), "");
    }
}
