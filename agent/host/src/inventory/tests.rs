use super::*;
use crate::fake::{FakeHost, ICE, IGB, MLX5, vf_address};
use crate::pci::IommuGroup;

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

#[test]
fn pfs_of_three_makes_are_found_with_names_drivers_and_their_vfs_in_order() {
    let mut host = FakeHost::new();
    for (make, address, name) in
        [(IGB, "0000:81:00.0", "eth9"), (ICE, "0000:03:00.0", "ens1f0"), (MLX5, "0000:41:00.0", "enp65s0np0")]
    {
        host.add_pf(make, at(address), name, 1);
        host.add_vfs(make, at(address), 3, true);
    }
    let inventory = Inventory::scan(&host.root()).unwrap();
    assert!(inventory.problems.is_empty());
    let pfs: Vec<_> = inventory.pfs.iter().map(|pf| pf.pci.address.to_string()).collect();
    assert_eq!(pfs, ["0000:03:00.0", "0000:41:00.0", "0000:81:00.0"]);

    let igb = inventory.pf(at("0000:81:00.0")).unwrap();
    assert_eq!(igb.pci.id.to_string(), "8086:10c9");
    assert!(igb.pci.id.name().contains("82576"), "{}", igb.pci.id.name());
    assert_eq!((igb.pci.driver.as_deref(), igb.pci.numa_node, igb.total_vfs), (Some("igb"), Some(1), 7));
    assert_eq!(igb.interface().unwrap().name, "eth9");
    let vfs: Vec<_> = igb.vfs.iter().map(|vf| (vf.index.get(), vf.pci.address.to_string())).collect();
    let expected = [(0, "0000:81:10.0"), (1, "0000:81:10.2"), (2, "0000:81:10.4")];
    assert_eq!(vfs, expected.map(|(i, a)| (i, a.to_owned())));
    assert_eq!(igb.vfs[2].pci.iommu_group, Some(IommuGroup { number: 1002, no_iommu: false }));
    assert_eq!(igb.vfs[1].interface.as_ref().unwrap().name, "vf1");

    let (pf, vf) = inventory.vf(at("0000:41:00.3")).unwrap();
    assert_eq!((pf.pci.address, vf.index.get()), (at("0000:41:00.0"), 1));
}

#[test]
fn indexes_are_ordered_as_numbers_not_as_texts() {
    let mut host = FakeHost::new();
    host.add_pf(ICE, at("0000:03:00.0"), "ens1f0", 0);
    host.add_vfs(ICE, at("0000:03:00.0"), 12, false);
    let inventory = Inventory::scan(&host.root()).unwrap();
    let indexes: Vec<u16> = inventory.pfs[0].vfs.iter().map(|vf| vf.index.get()).collect();
    assert_eq!(indexes, (0..12).collect::<Vec<_>>());
    assert_eq!(inventory.pfs[0].vfs[9].pci.driver, None);
}

#[test]
fn other_sriov_devices_and_nics_without_sriov_are_no_pfs() {
    let mut host = FakeHost::new();
    host.add_pf(IGB, at("0000:05:00.0"), "eth0", -1);
    host.file("sys/bus/pci/devices/0000:05:00.0/class", "0x010802\n");
    host.file("sys/bus/pci/devices/0000:06:00.0/class", "0x020000\n");
    assert!(Inventory::scan(&host.root()).unwrap().pfs.is_empty());
}

#[test]
fn sriov_numvfs_is_never_read() {
    let mut host = FakeHost::new();
    host.add_pf(IGB, at("0000:05:00.0"), "eth0", -1);
    host.add_vfs(IGB, at("0000:05:00.0"), 2, true);
    let file = host.root().path("sys/bus/pci/devices/0000:05:00.0/sriov_numvfs");
    std::fs::remove_file(&file).unwrap();
    // Opening a FIFO without a writer blocks, as reading sriov_numvfs can.
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let (done, wait) = std::sync::mpsc::channel();
    let root = host.root();
    std::thread::spawn(move || done.send(Inventory::scan(&root).unwrap().pfs[0].vfs.len()));
    assert_eq!(wait.recv_timeout(std::time::Duration::from_secs(10)), Ok(2));
}

#[test]
fn vfs_that_go_away_meanwhile_and_half_written_files_are_left_out_without_an_error() {
    let mut host = FakeHost::new();
    host.add_pf(IGB, at("0000:05:00.0"), "eth0", -1);
    host.add_vfs(IGB, at("0000:05:00.0"), 3, true);
    let gone = vf_address(IGB, at("0000:05:00.0"), 1);
    std::fs::remove_dir_all(host.root().pci_device(gone)).unwrap();
    host.file(format!("sys/bus/pci/devices/{}/net/vf2/ifindex", vf_address(IGB, at("0000:05:00.0"), 2)), "");
    let inventory = Inventory::scan(&host.root()).unwrap();
    assert!(inventory.problems.is_empty());
    let pf = &inventory.pfs[0];
    assert_eq!(pf.pci.numa_node, None);
    assert_eq!(pf.vfs.iter().map(|vf| vf.index.get()).collect::<Vec<_>>(), [0, 2]);
    assert!(pf.vfs[0].interface.is_some() && pf.vfs[1].interface.is_none());
}

#[test]
fn a_machine_without_pci_has_no_nics() {
    let folder = tempfile::TempDir::new().unwrap();
    assert!(Inventory::scan(&HostRoot::new(folder.path())).unwrap().pfs.is_empty());
}

#[test]
fn five_hundred_vfs_take_well_under_a_tenth_of_a_second() {
    let mut host = FakeHost::new();
    host.add_pf(ICE, at("0000:03:00.0"), "ens1f0", 0);
    host.add_vfs(ICE, at("0000:03:00.0"), 512, true);
    let root = host.root();
    let mut best = std::time::Duration::MAX;
    for _ in 0..3 {
        let start = std::time::Instant::now();
        assert_eq!(Inventory::scan(&root).unwrap().pfs[0].vfs.len(), 512);
        best = best.min(start.elapsed());
    }
    assert!(best.as_millis() < 100, "{best:?}");
}
