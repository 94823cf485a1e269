//! VFs of a real, or emulated, NIC: `CULVERT_TEST_PF=0000:41:00.0 cargo test -p culvert-host --test sriov`.
//!
//! Takes the NIC over entirely; skipped with a reason unless one is named.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use culvert_api::value::{LinkState, Mac, PciAddress, VfIndex, VlanId, VlanQos};
use culvert_host::driver;
use culvert_host::inventory::{Inventory, Pf};
use culvert_host::netlink::{LinkChange, Netlink, VfChange, VfVlanTag};
use culvert_host::{HostRoot, vfio};

const VFS: u16 = 3;

fn pf() -> Option<PciAddress> {
    let named = std::env::var("CULVERT_TEST_PF").ok().map(|text| text.parse().unwrap());
    if named.is_none() {
        eprintln!("skipped: CULVERT_TEST_PF names no PF to take over");
    }
    named
}

fn scan(address: PciAddress) -> Pf {
    Pf::scan(&HostRoot::default(), address).unwrap().expect("a PF")
}

fn vf(index: u32) -> VfIndex {
    VfIndex::try_from(index).unwrap()
}

/// One test, as its parts build upon each other and there is one NIC.
#[tokio::test]
async fn vfs_are_created_without_drivers_configured_in_one_message_bound_and_removed() {
    let Some(address) = pf() else { return };
    let root = HostRoot::default();
    let netlink = Netlink::open().unwrap();
    driver::set_num_vfs(&root, address, 0).unwrap();
    let index = scan(address).interface().expect("an interface").index;
    netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();

    driver::set_autoprobe(&root, address, false).unwrap();
    let started = Instant::now();
    driver::set_num_vfs(&root, address, VFS).unwrap();
    eprintln!("numvfs 0 -> {VFS} without drivers: {:?}", started.elapsed());
    driver::set_autoprobe(&root, address, true).unwrap();
    let found = scan(address);
    assert_eq!(found.vfs.len(), usize::from(VFS));
    assert!(found.vfs.iter().all(|vf| vf.pci.driver.is_none() && vf.interface.is_none()));

    // Several attributes in one message, read back.
    let mac: Mac = "02:00:00:00:01:02".parse().unwrap();
    let vlan = VfVlanTag {
        id: VlanId::try_from(100).unwrap(),
        qos: VlanQos::try_from(3).unwrap(),
        ..VfVlanTag::default()
    };
    let change = VfChange {
        mac: Some(mac),
        vlan: Some(vlan),
        spoof_check: Some(false),
        trust: Some(true),
        ..VfChange::default()
    };
    let started = Instant::now();
    netlink.change_vf(index, vf(2), &change).await.unwrap();
    eprintln!("{change} on vf 2, read back: {:?}", started.elapsed());
    let settings = netlink.vf_settings(index).await.unwrap();
    assert_eq!(settings.len(), usize::from(VFS));
    assert_eq!((settings[2].mac, settings[2].vlan), (Some(mac), vlan));
    assert!(!settings[2].spoof_check && settings[2].trust);
    assert_eq!(settings[1].vlan, VfVlanTag::default());

    // What this NIC cannot do is named; what it can is done all the same.
    let impossible = VfChange {
        vlan: Some(VfVlanTag { id: VlanId::try_from(200).unwrap(), ..VfVlanTag::default() }),
        link_state: Some(LinkState::Enable),
        ..VfChange::default()
    };
    let error = netlink.change_vf(index, vf(1), &impossible).await.unwrap_err();
    assert_eq!(error.to_string(), format!("vf 1 of interface {index}: cannot set link state enable"));
    assert_eq!(netlink.vf_settings(index).await.unwrap()[1].vlan.id.get(), 200);
    let error = netlink.change_vf(index, vf(VFS.into()), &impossible).await.unwrap_err();
    assert!(error.to_string().contains("cannot set vlan 200, set link state enable"), "{error}");

    // The driver takes the MAC when it probes.
    let target = scan(address).vfs[2].pci.clone();
    driver::bind_kernel(&root, target.address).unwrap();
    assert_eq!(interface_mac(address, 2), Some(mac));
    let other: Mac = "02:00:00:00:01:99".parse().unwrap();
    netlink.change_vf(index, vf(2), &VfChange { mac: Some(other), ..VfChange::default() }).await.unwrap();
    driver::bind_kernel(&root, target.address).unwrap();
    assert_eq!(interface_mac(address, 2), Some(other));

    // To vfio-pci and back; an open group is seen.
    driver::bind_vfio(&root, target.address).unwrap();
    let group = scan(address).vfs[2].pci.iommu_group.expect("an IOMMU group").number;
    assert_eq!(vfio::open_groups(&root).unwrap().get(&group), None);
    let file = std::fs::File::open(format!("/dev/vfio/{group}")).unwrap();
    let user = vfio::open_groups(&root).unwrap().remove(&group).unwrap();
    assert_eq!(user.pid, std::process::id());
    drop(file);
    driver::bind_kernel(&root, target.address).unwrap();
    assert_eq!(interface_mac(address, 2), Some(other));

    driver::set_num_vfs(&root, address, 0).unwrap();
    assert!(Inventory::scan(&root).unwrap().pf(address).unwrap().vfs.is_empty());
}

/// MAC of a VF's interface, once there is one.
fn interface_mac(pf: PciAddress, index: usize) -> Option<Mac> {
    let started = Instant::now();
    loop {
        if let Some(interface) = &scan(pf).vfs[index].interface {
            return interface.mac;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "vf {index} got no interface");
        std::thread::sleep(Duration::from_millis(20));
    }
}
