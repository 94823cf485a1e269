//! Writes the names of the PCI ID database down as tables without addresses in them: those of `pci-ids` have so many that the
//! linker's work on them costs every process 1.3 MB.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use pci_ids::Vendors;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let (mut names, mut vendors, mut devices) = (String::new(), BTreeMap::new(), BTreeMap::new());
    let mut put = |name: &str| {
        let at = names.len();
        names.push_str(name);
        names.push('\n');
        at
    };
    for vendor in Vendors::iter() {
        vendors.insert(u32::from(vendor.id()), put(vendor.name()));
        for device in vendor.devices() {
            devices.insert(u32::from(vendor.id()) << 16 | u32::from(device.id()), put(device.name()));
        }
    }
    let mut code = format!("static NAMES: &str = {names:?};\n");
    for (table, entries) in [("VENDORS", vendors), ("DEVICES", devices)] {
        writeln!(code, "static {table}: [(u32, u32); {}] = {:?};", entries.len(), Vec::from_iter(entries))?;
    }
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("pci_names.rs"), code)?;
    Ok(())
}
