use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::testing::{device, inventory, pci};
use crate::{Device, IommuGroup};

fn vfio(address: &str, number: u32) -> Device {
    Device {
        driver: Some("vfio-pci".to_owned()),
        iommu_group: Some(IommuGroup { number, no_iommu: false }),
        pf: Some(pci("0000:03:00.0")),
        ..device(address, "a")
    }
}

fn pool_of(devices: &[Device]) -> Pool {
    let mut pool = Pool::new("culvert.io/a".parse().unwrap());
    pool.update(&inventory(devices));
    pool
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_cdi_specification_holds_the_devices_with_nodes_and_follows_them() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { cdi: Some(dir.path().join("cdi")), device_info: None };
    let path = dir.path().join("cdi/culvert-culvert.io_a.json");
    let mut pool = pool_of(&[vfio("0000:03:02.0", 40), device("0000:03:02.1", "a")]);
    publisher.pool(&pool).unwrap();
    let node = |path: &str| json!({ "path": path, "hostPath": path, "permissions": "rw" });
    assert_eq!(
        json_of(&path),
        json!({
            "cdiVersion": "0.5.0",
            "kind": "culvert.io/net-pci",
            "devices": [{
                "name": "0000:03:02.0",
                "containerEdits": { "deviceNodes": [node("/dev/vfio/vfio"), node("/dev/vfio/40")] },
            }],
        })
    );

    let written = fs::metadata(&path).unwrap().ino();
    publisher.pool(&pool).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), written, "nothing new, nothing written");
    pool.update(&inventory(&[vfio("0000:03:02.0", 41)]));
    publisher.pool(&pool).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("/dev/vfio/41"));
    assert_eq!(fs::read_dir(dir.path().join("cdi")).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn the_information_file_of_a_device_is_where_multus_looks() {
    let dir = tempfile::tempdir().unwrap();
    let publisher = Publisher { cdi: None, device_info: Some(dir.path().to_owned()) };
    let mut vf = vfio("0000:03:02.0", 40);
    vf.vhost_net = true;
    let pool = pool_of(&[vf]);
    let member = pool.members().next().unwrap();
    publisher.device(&pool, member).unwrap();
    publisher.device(&pool, member).unwrap();
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
            },
        })
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
}

#[test]
fn nothing_is_written_that_was_not_asked_for_and_a_failure_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool_of(&[vfio("0000:03:02.0", 40)]);
    Publisher::default().pool(&pool).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let publisher = Publisher { cdi: Some(dir.path().join("file")), device_info: None };
    let error = publisher.pool(&pool).unwrap_err().to_string();
    assert!(error.ends_with("file/culvert-culvert.io_a.json"), "{error}");
}
