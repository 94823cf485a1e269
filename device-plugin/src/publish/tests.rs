use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::testing::{device, inventory, pci};
use crate::{Device, IommuGroup, Rdma};

fn vfio(address: &str, pool: &str, number: u32) -> Device {
    Device {
        driver: Some("vfio-pci".to_owned()),
        iommu_group: Some(IommuGroup { number, no_iommu: false }),
        pf: Some(pci("0000:03:00.0")),
        ..device(address, pool)
    }
}

fn pool_of(name: &str, devices: &[Device]) -> Arc<Pool> {
    let mut pool = Pool::new(name.parse().unwrap());
    pool.update(&inventory(devices));
    Arc::new(pool)
}

/// Both pools of these devices, as they are on offer.
fn follow(publisher: &Publisher, devices: &[Device]) {
    let pools = ["culvert.io/a", "culvert.io/b"].map(|name| pool_of(name, devices));
    let pools: Vec<_> = pools.into_iter().filter(|pool| pool.members().count() > 0).collect();
    let errors = publisher.follow(&pools, &inventory(devices));
    assert!(errors.is_empty(), "{errors:?}");
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut files = names(folder);
    files.sort();
    files
}

/// Writes the information file of a device that is being given away.
fn give(publisher: &Publisher, device: &Device) {
    let pool =
        pool_of(&format!("culvert.io/{}", device.pool.as_ref().unwrap()), std::slice::from_ref(device));
    publisher.device(&pool, pool.get(device.pci).unwrap()).unwrap();
}

#[test]
fn the_cdi_specification_holds_the_devices_with_nodes_and_follows_them() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cdi");
    let publisher = Publisher { cdi: Some(folder.clone()), ..Publisher::default() };
    let path = folder.join("culvert-culvert.io.json");
    let devices = [vfio("0000:03:02.0", "a", 40), device("0000:03:02.1", "a"), vfio("0000:03:02.2", "b", 42)];
    follow(&publisher, &devices);
    let node = |path: &str| json!({ "path": path, "hostPath": path, "permissions": "rw" });
    let entry = |name: &str, group: &str| json!({ "name": name, "containerEdits": { "deviceNodes": [node("/dev/vfio/vfio"), node(group)] } });
    assert_eq!(
        json_of(&path),
        json!({
            "cdiVersion": "0.5.0",
            "kind": "culvert.io/net-pci",
            "devices": [entry("0000:03:02.0", "/dev/vfio/40"), entry("0000:03:02.2", "/dev/vfio/42")],
        })
    );

    let written = fs::metadata(&path).unwrap().ino();
    follow(&publisher, &devices);
    assert_eq!(fs::metadata(&path).unwrap().ino(), written, "nothing new, nothing written");
    follow(&publisher, &[vfio("0000:03:02.0", "a", 41)]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("/dev/vfio/41") && !text.contains("0000:03:02.2"), "{text}");
    assert_eq!(files(&folder), ["culvert-culvert.io.json"], "nothing else is left there");
}

#[test]
fn a_device_that_moves_to_another_pool_is_specified_once_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { cdi: Some(dir.path().to_owned()), ..Publisher::default() };
    let (before, after) = (vfio("0000:03:02.0", "a", 40), vfio("0000:03:02.0", "b", 40));
    follow(&publisher, std::slice::from_ref(&before));
    let text = fs::read_to_string(dir.path().join("culvert-culvert.io.json")).unwrap();
    // A request for the new pool comes before the files have followed.
    publisher.pool(&pool_of("culvert.io/b", std::slice::from_ref(&after))).unwrap();
    follow(&publisher, &[after]);
    assert_eq!(fs::read_to_string(dir.path().join("culvert-culvert.io.json")).unwrap(), text);
}

#[test]
fn a_specification_is_removed_with_its_last_device_and_so_is_that_of_an_older_agent() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["culvert-old.io.json", "nvidia.json"] {
        fs::write(dir.path().join(name), "{}").unwrap();
    }
    let publisher = Publisher { cdi: Some(dir.path().to_owned()), ..Publisher::default() };
    follow(&publisher, &[vfio("0000:03:02.0", "a", 40)]);
    assert_eq!(files(dir.path()), ["culvert-culvert.io.json", "nvidia.json"]);
    // One without devices is void for a runtime.
    follow(&publisher, &[device("0000:03:02.0", "a")]);
    assert_eq!(files(dir.path()), ["nvidia.json"]);
    follow(&publisher, &[vfio("0000:03:02.0", "a", 40)]);
    follow(&publisher, &[]);
    assert_eq!(files(dir.path()), ["nvidia.json"]);
}

#[test]
fn a_request_puts_a_specification_back_that_somebody_removed_or_changed() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { cdi: Some(dir.path().to_owned()), ..Publisher::default() };
    let path = dir.path().join("culvert-culvert.io.json");
    let devices = [vfio("0000:03:02.0", "a", 40), vfio("0000:03:02.1", "b", 41)];
    follow(&publisher, &devices);
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    publisher.pool(&pool_of("culvert.io/a", &devices)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "{}").unwrap();
    publisher.pool(&pool_of("culvert.io/b", &devices)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_prefix_that_begins_with_a_digit_still_makes_a_vendor() {
    let resource: ResourceName = "5g.example/a".parse().unwrap();
    assert_eq!(cdi_name(&resource, &device("0000:03:02.0", "a")), "culvert-5g.example/net-pci=0000:03:02.0");
}

#[test]
fn each_resource_has_an_annotation_of_its_own_and_of_legal_length() {
    let name = |text: &str| annotation_name(&text.parse().unwrap());
    assert_eq!(name("intel.com/sriov_dpdk"), "cdi.k8s.io/intel.com_sriov_dpdk");
    let (x, y) =
        (name(&format!("intel.com/{}", "x".repeat(60))), name(&format!("intel.com/{}", "y".repeat(60))));
    assert_ne!(x, y);
    assert!(x.len() <= "cdi.k8s.io/".len() + 63, "{x}");
}

#[test]
fn the_information_file_of_a_device_is_complete_and_where_multus_looks() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { device_info: Some(dir.path().to_owned()), ..Publisher::default() };
    let mut vf = vfio("0000:03:02.0", "a", 40);
    vf.vhost_net = true;
    vf.rdma = Some(Rdma { devices: vec!["mlx5_2".to_owned()], nodes: Vec::new() });
    vf.representor = Some("pf0vf0".to_owned());
    give(&publisher, &vf);
    give(&publisher, &vf);
    let path = dir.path().join("culvert.io-a-0000:03:02.0-device.json");
    assert_eq!(
        json_of(&path),
        json!({
            "type": "pci",
            "version": "1.1.0",
            "pci": {
                "pci-address": "0000:03:02.0",
                "pf-pci-address": "0000:03:00.0",
                "vhost-net": "/dev/vhost-net",
                "rdma-device": "mlx5_2",
                "representor-device": "pf0vf0",
            },
        })
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
}

#[test]
fn information_stays_while_a_pod_holds_the_device_and_goes_with_a_device_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { device_info: Some(dir.path().to_owned()), ..Publisher::default() };
    let free = device("0000:03:02.0", "a");
    let mut held = device("0000:03:02.1", "a");
    held.held = true;
    follow(&publisher, &[free.clone(), held.clone()]);
    give(&publisher, &free);
    give(&publisher, &held);
    fs::write(dir.path().join("other.io-x-0000:03:02.0-device.json"), "{}").unwrap();
    let both = ["culvert.io-a-0000:03:02.0-device.json", "culvert.io-a-0000:03:02.1-device.json"];
    let other = "other.io-x-0000:03:02.0-device.json";

    // A new agent that has looked at the machine leaves them alone.
    let again = Publisher { device_info: Some(dir.path().to_owned()), ..Publisher::default() };
    follow(&again, &[free.clone(), held.clone()]);
    assert_eq!(files(dir.path()), [both[0], both[1], other]);
    // Both are withdrawn from the pool; another keeps it alive.
    let withdrawn = [Device { pool: None, ..free }, Device { pool: None, ..held.clone() }];
    follow(&again, &withdrawn);
    assert_eq!(files(dir.path()), [both[1], other]);
    // The pod is gone, too.
    follow(&again, &[Device { pool: None, held: false, ..held }]);
    assert_eq!(files(dir.path()), [other], "files of others are none of ours");
}

#[test]
fn information_about_a_device_that_left_the_machine_goes_unless_a_pod_held_it() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { device_info: Some(dir.path().to_owned()), ..Publisher::default() };
    let free = device("0000:03:02.0", "a");
    let held = Device { held: true, ..device("0000:03:02.1", "a") };
    let mut pool = Pool::new("culvert.io/a".parse().unwrap());
    pool.update(&inventory(&[free.clone(), held.clone()]));
    give(&publisher, &free);
    give(&publisher, &held);
    pool.update(&inventory(&[device("0000:03:02.2", "a")]));
    assert!(publisher.follow(&[Arc::new(pool)], &inventory(&[device("0000:03:02.2", "a")])).is_empty());
    assert_eq!(files(dir.path()), ["culvert.io-a-0000:03:02.1-device.json"]);
}

#[test]
fn nothing_is_written_that_was_not_asked_for_and_a_failure_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let devices = [vfio("0000:03:02.0", "a", 40)];
    let pool = pool_of("culvert.io/a", &devices);
    Publisher::default().pool(&pool).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let publisher = Publisher { cdi: Some(dir.path().join("file")), ..Publisher::default() };
    let error = publisher.pool(&pool).unwrap_err().to_string();
    assert!(error.starts_with("cannot write ") && error.ends_with("file/culvert-culvert.io.json"), "{error}");
    let errors = publisher.follow(&[pool], &inventory(&devices));
    assert_eq!(errors.len(), 1, "{errors:?}");
}
