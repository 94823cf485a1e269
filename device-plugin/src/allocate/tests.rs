use serde_json::json;

use super::*;
use crate::testing::{device, inventory};
use crate::{Device, Health, IommuGroup, Rdma};

fn pool_of(devices: &[Device]) -> Pool {
    let mut pool = Pool::new("culvert.io/a".parse().unwrap());
    pool.update(&inventory(devices));
    pool
}

fn vfio(address: &str, number: u32, no_iommu: bool) -> Device {
    Device {
        driver: Some("vfio-pci".to_owned()),
        iommu_group: Some(IommuGroup { number, no_iommu }),
        ..device(address, "a")
    }
}

fn ids(list: &[&str]) -> Vec<String> {
    list.iter().map(|id| (*id).to_owned()).collect()
}

fn paths(response: &ContainerAllocateResponse) -> Vec<(&str, &str)> {
    assert!(response.devices.iter().all(|d| d.permissions == "rw"));
    response.devices.iter().map(|d| (d.container_path.as_str(), d.host_path.as_str())).collect()
}

#[test]
fn dots_become_underscores_and_hyphens_stay_in_environment_names() {
    assert_eq!(environment_name(&"culvert.io/tenant-a".parse().unwrap()), "PCIDEVICE_CULVERT_IO_TENANT-A");
    assert_eq!(
        environment_name(&"intel.com/intel_sriov_dpdk".parse().unwrap()),
        "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK"
    );
}

#[test]
fn addresses_come_in_the_order_of_the_request() {
    let pool = pool_of(&[device("0000:03:02.0", "a"), device("0000:03:02.1", "a")]);
    let response = allocate(&pool, &ids(&["0000:03:02.1", "0000:03:02.0"]), Nodes::Listed).unwrap();
    assert_eq!(response.envs["PCIDEVICE_CULVERT_IO_A"], "0000:03:02.1,0000:03:02.0");
    assert_eq!(
        serde_json::from_str::<Value>(&response.envs["PCIDEVICE_CULVERT_IO_A_INFO"]).unwrap(),
        json!({
            "0000:03:02.0": { "generic": { "deviceID": "0000:03:02.0" } },
            "0000:03:02.1": { "generic": { "deviceID": "0000:03:02.1" } },
        })
    );
    assert_eq!(response.envs.len(), 2);
    assert!(response.devices.is_empty());
}

#[test]
fn vfio_devices_bring_their_groups_and_the_container_node_once() {
    let pool = pool_of(&[
        vfio("0000:03:02.0", 40, false),
        vfio("0000:03:02.1", 41, false),
        vfio("0000:03:02.2", 41, false),
    ]);
    let response =
        allocate(&pool, &ids(&["0000:03:02.0", "0000:03:02.1", "0000:03:02.2"]), Nodes::Listed).unwrap();
    assert_eq!(
        paths(&response),
        [
            ("/dev/vfio/vfio", "/dev/vfio/vfio"),
            ("/dev/vfio/40", "/dev/vfio/40"),
            ("/dev/vfio/41", "/dev/vfio/41"),
        ]
    );
    let info: Value = serde_json::from_str(&response.envs["PCIDEVICE_CULVERT_IO_A_INFO"]).unwrap();
    assert_eq!(
        info["0000:03:02.1"]["vfio"],
        json!({ "mount": "/dev/vfio/vfio", "dev-mount": "/dev/vfio/41" })
    );
}

#[test]
fn a_group_without_iommu_is_found_under_both_names() {
    let response =
        allocate(&pool_of(&[vfio("0000:03:02.0", 3, true)]), &ids(&["0000:03:02.0"]), Nodes::Listed).unwrap();
    assert_eq!(
        paths(&response),
        [
            ("/dev/vfio/vfio", "/dev/vfio/vfio"),
            ("/dev/vfio/3", "/dev/vfio/noiommu-3"),
            ("/dev/vfio/noiommu-3", "/dev/vfio/noiommu-3"),
        ]
    );
}

#[test]
fn a_vendors_variant_of_vfio_counts_as_vfio() {
    let variant = Device { driver: Some("mlx5_vfio_pci".to_owned()), ..vfio("0000:03:02.0", 7, false) };
    assert_eq!(
        paths(&allocate(&pool_of(&[variant]), &ids(&["0000:03:02.0"]), Nodes::Listed).unwrap()).len(),
        2
    );
}

#[test]
fn uio_vhost_and_extras_come_along_where_they_are_asked_for() {
    let mut uio = Device { driver: Some("igb_uio".to_owned()), uio: Some(3), ..device("0000:03:02.0", "a") };
    uio.vhost_net = true;
    uio.extra = [("token".to_owned(), "t-1".to_owned())].into();
    let mut second = device("0000:03:02.1", "a");
    second.vhost_net = true;
    let response =
        allocate(&pool_of(&[uio, second]), &ids(&["0000:03:02.0", "0000:03:02.1"]), Nodes::Listed).unwrap();
    let nodes: Vec<&str> = paths(&response).into_iter().map(|(container, _)| container).collect();
    assert_eq!(nodes, ["/dev/uio3", "/dev/vhost-net", "/dev/net/tun"]);
    let info: Value = serde_json::from_str(&response.envs["PCIDEVICE_CULVERT_IO_A_INFO"]).unwrap();
    assert_eq!(
        info["0000:03:02.0"],
        json!({
            "generic": { "deviceID": "0000:03:02.0" },
            "uio": { "mount": "/dev/uio3" },
            "vhost": { "net-mount": "/dev/vhost-net", "tun-mount": "/dev/net/tun" },
            "extra": { "token": "t-1" },
        })
    );
}

#[test]
fn with_cdi_nodes_are_named_and_not_listed() {
    let pool = pool_of(&[vfio("0000:03:02.0", 40, false), device("0000:03:02.1", "a")]);
    let response = allocate(&pool, &ids(&["0000:03:02.0", "0000:03:02.1"]), Nodes::Cdi).unwrap();
    assert!(response.devices.is_empty());
    let names: Vec<&str> = response.cdi_devices.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["culvert.io/net-pci=0000:03:02.0"]);
    assert_eq!(response.envs["PCIDEVICE_CULVERT_IO_A"], "0000:03:02.0,0000:03:02.1");
}

#[test]
fn for_older_runtimes_the_cdi_names_are_in_an_annotation_too() {
    let pool = pool_of(&[vfio("0000:03:02.0", 40, false), vfio("0000:03:02.1", 41, false)]);
    let response = allocate(&pool, &ids(&["0000:03:02.1", "0000:03:02.0"]), Nodes::CdiAnnotated).unwrap();
    assert_eq!(response.cdi_devices.len(), 2);
    assert_eq!(
        response.annotations,
        HashMap::from([(
            "cdi.k8s.io/culvert.io_a".to_owned(),
            "culvert.io/net-pci=0000:03:02.1,culvert.io/net-pci=0000:03:02.0".to_owned()
        )])
    );
    // Nothing to name, nothing annotated.
    let plain = pool_of(&[device("0000:03:02.0", "a")]);
    let response = allocate(&plain, &ids(&["0000:03:02.0"]), Nodes::CdiAnnotated).unwrap();
    assert!(response.annotations.is_empty() && response.cdi_devices.is_empty());
}

#[test]
fn rdma_comes_with_its_nodes_and_the_nodes_own_once() {
    let rdma = |number: u32| {
        let nodes = ["uverbs", "umad", "issm"].map(|kind| format!("{kind}{number}"));
        let nodes = nodes.into_iter().chain(["rdma_cm".to_owned()]).collect();
        Some(Rdma { devices: vec![format!("mlx5_{number}")], nodes })
    };
    let first = Device { rdma: rdma(2), ..device("0000:03:02.0", "a") };
    let second = Device { rdma: rdma(3), ..device("0000:03:02.1", "a") };
    let response =
        allocate(&pool_of(&[first, second]), &ids(&["0000:03:02.0", "0000:03:02.1"]), Nodes::Listed).unwrap();
    let nodes: Vec<&str> = paths(&response).into_iter().map(|(_, host)| host).collect();
    assert_eq!(
        nodes,
        ["uverbs2", "umad2", "issm2", "rdma_cm", "uverbs3", "umad3", "issm3"]
            .map(|n| format!("/dev/infiniband/{n}"))
    );
    let info: Value = serde_json::from_str(&response.envs["PCIDEVICE_CULVERT_IO_A_INFO"]).unwrap();
    assert_eq!(
        info["0000:03:02.1"]["rdma"],
        json!({
            "uverbs": "/dev/infiniband/uverbs3",
            "umad": "/dev/infiniband/umad3",
            "issm": "/dev/infiniband/issm3",
            "rdma_cm": "/dev/infiniband/rdma_cm",
            "rdma_dev": "mlx5_3",
        })
    );
}

#[test]
fn what_cannot_be_given_is_refused_by_name_and_reason() {
    let down = Device {
        health: Health::Unhealthy("link of its PF is down".to_owned()),
        ..device("0000:03:02.1", "a")
    };
    let groupless = Device { iommu_group: None, ..vfio("0000:03:02.2", 0, false) };
    let pool = pool_of(&[device("0000:03:02.0", "a"), down, groupless]);
    for (request, text) in [
        (vec![], "culvert.io/a: the request names no device"),
        (vec!["0000:03:02.7"], "culvert.io/a: device \"0000:03:02.7\": not in this pool"),
        (vec!["vf 0"], "culvert.io/a: device \"vf 0\": not in this pool"),
        (
            vec!["0000:03:02.0", "0000:03:02.0"],
            "culvert.io/a: device 0000:03:02.0: named twice in one request",
        ),
        (
            vec!["0000:03:02.0", "0000:03:02.1"],
            "culvert.io/a: device 0000:03:02.1: not healthy: link of its PF is down",
        ),
        (
            vec!["0000:03:02.2"],
            "culvert.io/a: device 0000:03:02.2: driver vfio-pci, but no IOMMU group; switch the IOMMU on or allow vfio without one",
        ),
    ] {
        assert_eq!(allocate(&pool, &ids(&request), Nodes::Listed).unwrap_err().to_string(), text);
    }
}
