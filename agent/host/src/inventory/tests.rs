use culvert_api::value::Mac;

use super::*;
use crate::fake::{FakeHost, I40E, ICE, IGB, MLX5, vf_address};
use crate::netlink::OperState;
use crate::pci::IommuGroup;
use crate::root::count;

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

#[test]
fn pfs_of_four_makes_are_found_with_names_drivers_and_their_vfs_in_order() {
    let mut host = FakeHost::new();
    for (make, address, name) in [
        (IGB, "0000:81:00.0", "eth9"),
        (ICE, "0000:03:00.0", "ens1f0"),
        (I40E, "0000:21:00.1", "ens2f1"),
        (MLX5, "0000:41:00.0", "enp65s0np0"),
    ] {
        host.add_pf(make, at(address), name, 1);
        host.add_vfs(make, at(address), 3, true);
    }
    let inventory = Inventory::scan(&host.root()).unwrap();
    assert!(inventory.problems.is_empty());
    let found = inventory.pfs.iter().map(|pf| {
        let vfs = pf.vfs.iter().map(|vf| format!("{} {}", vf.pci.address, vf.pci.id));
        let driver = |pci: &PciDevice| pci.driver.clone().unwrap_or_default();
        let of_vfs = driver(&pf.vfs[0].pci);
        (pf.pci.id.to_string(), driver(&pf.pci), pf.total_vfs, of_vfs, vfs.collect::<Vec<_>>().join(", "))
    });
    let expected = [
        (
            "8086:1592",
            "ice",
            256,
            "iavf",
            "0000:03:01.0 8086:1889, 0000:03:01.1 8086:1889, 0000:03:01.2 8086:1889",
        ),
        (
            "8086:1572",
            "i40e",
            64,
            "iavf",
            "0000:21:02.1 8086:154c, 0000:21:02.2 8086:154c, 0000:21:02.3 8086:154c",
        ),
        (
            "15b3:101d",
            "mlx5_core",
            127,
            "mlx5_core",
            "0000:41:00.2 15b3:101e, 0000:41:00.3 15b3:101e, 0000:41:00.4 15b3:101e",
        ),
        (
            "8086:10c9",
            "igb",
            7,
            "igbvf",
            "0000:81:10.0 8086:10ca, 0000:81:10.2 8086:10ca, 0000:81:10.4 8086:10ca",
        ),
    ];
    let expected = expected.map(|(id, driver, total, of_vfs, vfs)| {
        (id.to_owned(), driver.to_owned(), total, of_vfs.to_owned(), vfs.to_owned())
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);

    let igb = inventory.pf(at("0000:81:00.0")).unwrap();
    assert!(igb.pci.id.name().contains("82576"), "{}", igb.pci.id.name());
    assert_eq!(igb.interface().unwrap().name, "eth9");
    assert_eq!(igb.vfs[2].pci.iommu_group, Some(IommuGroup { number: 0x81 * 8000 + 2, no_iommu: false }));
    assert_eq!(igb.vfs[1].interface.as_ref().unwrap().name, "vf1");
    let (pf, vf) = inventory.vf(at("0000:41:00.3")).unwrap();
    assert_eq!((pf.pci.address, vf.index.get()), (at("0000:41:00.0"), 1));
}

#[test]
fn pfs_of_a_card_share_its_serial_number_and_root_port_and_vfs_are_where_their_pf_is() {
    let mut host = FakeHost::new();
    for address in ["0000:03:00.0", "0000:03:00.1", "0000:81:00.0"] {
        host.add_pf(ICE, at(address), &format!("e{address}"), 1);
        host.add_vfs(ICE, at(address), 1, false);
    }
    host.file("sys/bus/pci/devices/0000:03:00.1/acpi_index", "7\n");
    let pfs = Inventory::scan(&host.root()).unwrap().pfs;
    assert_eq!(pfs[0].serial.as_deref(), Some("b4-96-91-ff-ff-a1-b2-03"));
    assert_eq!(pfs[1].serial, pfs[0].serial);
    assert_ne!(pfs[2].serial, pfs[0].serial);
    assert_eq!(pfs[0].pci.root_complex.as_deref(), Some("pci0000:00"));
    assert_eq!(
        (pfs[0].pci.root_port, pfs[1].pci.root_port),
        (Some(at("0000:00:04.0")), Some(at("0000:00:04.0")))
    );
    assert_eq!(pfs[2].pci.root_complex.as_deref(), Some("pci0000:80"));
    assert_eq!((pfs[0].pci.acpi_index, pfs[1].pci.acpi_index), (None, Some(7)));
    let vf = &pfs[2].vfs[0].pci;
    assert_eq!(
        (vf.numa_node, &vf.root_complex, vf.root_port),
        (Some(1), &pfs[2].pci.root_complex, pfs[2].pci.root_port)
    );
}

#[test]
fn rdma_devices_uio_numbers_and_groups_without_an_iommu_are_shown() {
    let mut host = FakeHost::new();
    let pf = at("0000:41:00.0");
    host.add_pf(MLX5, pf, "enp65s0np0", 0);
    host.add_vfs(MLX5, pf, 4, true);
    let [_, vfio, uio, none] = [0, 1, 2, 3].map(|i| vf_address(MLX5, pf, i));
    host.set_driver(vfio, Some("vfio-pci"));
    host.set_iommu_group(vfio, 5, "vfio-noiommu");
    host.set_driver(uio, Some("uio_pci_generic"));
    host.file(format!("sys/bus/pci/devices/{uio}/uio/uio3/name"), "uio_pci_generic\n");
    host.set_driver(none, None);
    let found = Pf::scan(&host.root(), pf).unwrap().unwrap();
    assert_eq!(found.pci.rdma, ["mlx5_enp65s0np0_0"]);
    let of = |i: usize| &found.vfs[i].pci;
    assert_eq!((&of(0).rdma, of(0).uio), (&vec!["mlx5_520_0".to_owned()], None));
    assert!(of(1).rdma.is_empty(), "its driver is not the one that makes RDMA devices");
    assert_eq!(of(1).iommu_group, Some(IommuGroup { number: 5, no_iommu: true }));
    assert_eq!((of(2).uio, of(3).driver.as_deref()), (Some(3), None));
    assert!(found.vfs[1].interface.is_none() && found.vfs[0].interface.is_some());
}

/// Two PFs of one NIC in switchdev mode, and a port of another host.
fn switchdev() -> FakeHost {
    let mut host = FakeHost::new();
    for function in 0..2 {
        let pf = at(&format!("0000:41:00.{function}"));
        host.add_pf(MLX5, pf, &format!("enp65s0f{function}np{function}"), 0);
        host.add_representors(pf, 2);
    }
    let pf = at("0000:41:00.0");
    let vfs = crate::fake::Make { offset: 8, ..MLX5 };
    host.add_vfs(vfs, pf, 3, true);
    let net = "sys/bus/pci/devices/0000:41:00.0/net/enp65s0f0c1pf0vf2";
    host.add_interface(pf, "enp65s0f0c1pf0vf2", Mac::local_from(77));
    host.file(format!("{net}/phys_port_name"), "c1pf0vf2\n");
    host.file(format!("{net}/phys_switch_id"), "414e5f\n");
    host
}

#[test]
fn representors_belong_to_their_vfs_and_are_no_interfaces_of_the_pf() {
    let host = switchdev();
    let pf = Pf::scan(&host.root(), at("0000:41:00.0")).unwrap().unwrap();
    assert_eq!(pf.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["enp65s0f0np0"]);
    let representors: Vec<_> =
        pf.vfs.iter().map(|vf| vf.representor.as_ref().map(|i| i.name.as_str())).collect();
    assert_eq!(representors, [Some("enp65s0f0np0_0"), Some("enp65s0f0np0_1"), None]);
}

#[test]
fn a_list_of_links_says_the_same_as_sysfs_without_a_look_at_any_name() {
    let host = switchdev();
    let mut links = Vec::new();
    for device in host.root().path("sys/bus/pci/devices").read_dir().unwrap() {
        let device = device.unwrap();
        for net in device.path().join("net").read_dir().into_iter().flatten() {
            let folder = net.unwrap().path();
            let text =
                |file: &str| std::fs::read_to_string(folder.join(file)).ok().map(|t| t.trim().to_owned());
            links.push(Link {
                index: text("ifindex").unwrap().parse().unwrap(),
                name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
                mac: Some(text("address").unwrap().parse().unwrap()),
                mtu: 1500,
                up: true,
                state: OperState::Up,
                parent: Some(device.file_name().into_string().unwrap()),
                port_name: text("phys_port_name"),
                switch_id: text("phys_switch_id"),
                ..Link::default()
            });
        }
    }
    links.reverse();
    let from_sysfs = Inventory::scan(&host.root()).unwrap().pfs;
    // Names in sysfs are out of the game.
    for pf in &from_sysfs {
        host.remove_interfaces(pf.pci.address);
        pf.vfs.iter().for_each(|vf| host.remove_interfaces(vf.pci.address));
    }
    assert_eq!(Inventory::scan_with(&host.root(), &links).unwrap().pfs, from_sysfs);
    let silent: Vec<_> = links.into_iter().map(|l| Link { parent: None, ..l }).collect();
    let without = Inventory::scan_with(&host.root(), &silent).unwrap().pfs;
    assert!(without.iter().all(|pf| pf.interfaces.is_empty()), "an old kernel: sysfs is asked");
}

#[test]
fn each_vf_costs_the_same_few_files_however_many_there_are() {
    let opened = |pfs: u8, vfs: u16, named: bool| {
        let mut host = FakeHost::new();
        for bus in 0..pfs {
            let pf = at(&format!("0000:{:02x}:00.0", 0x10 * (bus + 1) + 1));
            host.add_pf(ICE, pf, &format!("ens{bus}"), 0);
            host.add_vfs(ICE, pf, vfs, named);
        }
        let root = host.root();
        count::during(|| {
            let inventory = Inventory::scan(&root).unwrap();
            assert!(inventory.pfs.iter().all(|pf| pf.vfs.len() == usize::from(vfs)));
        })
    };
    let few = opened(1, 0, false);
    let one = opened(1, 512, false) - few;
    let four = opened(4, 512, false) - opened(4, 0, false);
    assert_eq!(one % 512, 0, "the same for each");
    assert!(one / 512 <= 6, "{} per VF", one / 512);
    assert_eq!(four, 4 * one);
    let named = opened(1, 64, true) - few;
    assert!(named % 64 == 0 && named / 64 <= 16, "{} per VF with an interface", named / 64);
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
    std::fs::remove_dir_all(host.root().pci_device(gone).canonicalize().unwrap()).unwrap();
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
