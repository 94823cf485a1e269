use super::*;
use crate::fake::{FakeHost, MLX5, vf_address};

fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn function(host: &FakeHost, address: &str, class: &str) {
    for (file, text) in [("vendor", "0x1af4\n"), ("device", "0x1041\n"), ("class", class)] {
        host.file(format!("sys/bus/pci/devices/{address}/{file}"), text);
    }
}

#[test]
fn a_nic_without_sr_iov_is_found_and_pfs_vfs_and_other_functions_are_not() {
    let mut host = FakeHost::new();
    function(&host, "0000:00:03.0", "0x020000\n");
    function(&host, "0000:00:1f.2", "0x010601\n");
    host.add_pf(MLX5, pci("0000:03:00.0"), "ens3f0np0", 0);
    host.add_vfs(MLX5, pci("0000:03:00.0"), 2, true);
    host.add_interface(pci("0000:00:03.0"), "eth0", "02:00:00:00:00:09".parse().unwrap());
    let found = plain_nics(&host.root(), &BTreeSet::new()).unwrap();
    assert_eq!(found.iter().map(|nic| nic.pci.address).collect::<Vec<_>>(), [pci("0000:00:03.0")]);
    assert_eq!(found[0].interfaces[0].name, "eth0");
    assert_eq!(found[0].pci.id.to_string(), "1af4:1041");
    assert_eq!(plain_nics(&host.root(), &BTreeSet::from([pci("0000:00:03.0")])).unwrap(), []);
}

#[test]
fn the_link_type_is_that_of_the_interface() {
    let mut host = FakeHost::new();
    let pf = pci("0000:03:00.0");
    host.add_pf(MLX5, pf, "ibs3", 0);
    assert_eq!(hardware_type(&host.root(), pf, "ens9").unwrap(), None);
    host.file(format!("sys/bus/pci/devices/{pf}/net/ibs3/type"), "32\n");
    assert_eq!(hardware_type(&host.root(), pf, "ibs3").unwrap(), Some(32));
}

#[test]
fn rdma_nodes_and_partition_key_are_those_of_the_function() {
    let mut host = FakeHost::new();
    let pf = pci("0000:03:00.0");
    host.add_pf(MLX5, pf, "ens3f0np0", 0);
    host.add_vfs(MLX5, pf, 2, true);
    let vf = vf_address(MLX5, pf, 1);
    assert_eq!(rdma_nodes(&host.root(), vf).unwrap(), [] as [&str; 0]);
    let device = format!("sys/bus/pci/devices/{vf}");
    for node in ["infiniband_verbs/uverbs3", "infiniband_mad/issm3", "infiniband_mad/umad3"] {
        host.file(format!("{device}/{node}/dev"), "231:3\n");
    }
    host.file(format!("{device}/infiniband/mlx5_3/ports/1/pkeys/0"), "0x8001\n");
    assert_eq!(rdma_nodes(&host.root(), vf).unwrap(), ["uverbs3", "issm3", "umad3"]);
    host.file("sys/class/misc/rdma_cm/dev", "10:58\n");
    assert_eq!(rdma_nodes(&host.root(), vf).unwrap(), ["uverbs3", "issm3", "umad3", "rdma_cm"]);
    assert_eq!(p_key(&host.root(), vf, "mlx5_3").unwrap().as_deref(), Some("0x8001"));
    assert_eq!(p_key(&host.root(), vf, "mlx5_4").unwrap(), None);
}
