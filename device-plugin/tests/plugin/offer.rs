//! What kubelet sees and gets of the pools.

use std::time::Duration;

use crate::node::{A, Node, PATIENCE, SlowMotion, all, vfio, vfs};
use culvert_api::config::device_plugin::{DevicePlugin, Registration};
use culvert_device_plugin::{Health, Plugin};
use culvert_hw_tests::kubelet::KubeletError;

#[tokio::test]
async fn a_pool_is_registered_listed_and_given_away() {
    let node = Node::new(vfs("a", 0..4));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    let resource = kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
    assert_eq!((resource.registrations, resource.lists), (1, 1));
    assert_eq!(resource.devices["0000:03:02.3"].numa, [1]);
    assert!(resource.options.get_preferred_allocation_available);
    assert!(!resource.options.pre_start_required, "a container must start while the agent is away");

    let given = kubelet.allocate("default/web", A, 2).await.unwrap();
    assert_eq!(given.ids, ["0000:03:02.0", "0000:03:02.1"]);
    assert_eq!(given.response.envs["PCIDEVICE_CULVERT_IO_A"], "0000:03:02.0,0000:03:02.1");
    let info = &given.response.envs["PCIDEVICE_CULVERT_IO_A_INFO"];
    assert!(info.contains(r#""0000:03:02.1":{"generic":{"deviceID":"0000:03:02.1"}}"#), "{info}");
    assert!(given.response.devices.is_empty());

    plugin.shutdown().await;
    assert_eq!(
        std::fs::read_dir(node.path("device-plugins")).unwrap().count(),
        1,
        "only kubelet.sock is left"
    );
    kubelet.wait(A, PATIENCE, |r| !r.connected && r.capacity() == 4 && r.allocatable() == 0).await.unwrap();
}

#[tokio::test]
async fn vfio_devices_come_with_their_nodes_and_are_checked_before_each_start() {
    let devices: Vec<_> = vfs("a", 0..2).into_iter().zip(40..).map(|(vf, group)| vfio(vf, group)).collect();
    let node = Node::new(devices.clone());
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    let resource = kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    assert!(resource.options.pre_start_required);
    let given = kubelet.allocate("default/dpdk", A, 2).await.unwrap();
    let nodes: Vec<&str> = given.response.devices.iter().map(|d| d.host_path.as_str()).collect();
    assert_eq!(nodes, ["/dev/vfio/vfio", "/dev/vfio/40", "/dev/vfio/41"]);

    node.devices.send_replace(devices[..1].to_vec());
    kubelet.wait(A, PATIENCE, |r| r.allocatable() == 1).await.unwrap();
    let error = kubelet.pre_start(A, &given.ids).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "PreStartContainer of culvert.io/a: culvert.io/a: device 0000:03:02.1: gone from the machine"
    );
    plugin.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_vf_that_disappears_is_unhealthy_within_a_second_and_back_when_it_returns() {
    let _slow = SlowMotion::begin();
    let node = Node::new(vfs("a", 0..4));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(4)).await.unwrap();

    node.devices.send_replace(vfs("a", 0..3));
    let lost = kubelet.wait(A, Duration::from_secs(1), |r| r.allocatable() == 3).await.unwrap();
    assert_eq!(lost.capacity(), 4, "kubelet must go on to know it");
    assert!(!lost.devices["0000:03:02.3"].healthy);
    let error = kubelet.allocate_ids(A, &["0000:03:02.3".to_owned()]).await.unwrap_err().to_string();
    assert!(error.ends_with("device 0000:03:02.3: not healthy: gone from the machine"), "{error}");
    assert!(matches!(
        kubelet.allocate("default/big", A, 4).await,
        Err(KubeletError::Insufficient { free: 3, .. })
    ));

    node.devices.send_replace(vfs("a", 0..4));
    kubelet.wait(A, Duration::from_secs(1), all(4)).await.unwrap();
    plugin.shutdown().await;
}

#[tokio::test]
async fn health_follows_the_inventory_and_the_stream_stays_open() {
    let node = Node::new(vfs("a", 0..2));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    node.change("0000:03:02.0", |d| d.health = Health::Unhealthy("link of 0000:03:00.0 is down".to_owned()));
    kubelet.wait(A, PATIENCE, |r| r.allocatable() == 1).await.unwrap();
    let error = kubelet.allocate_ids(A, &["0000:03:02.0".to_owned()]).await.unwrap_err().to_string();
    assert!(error.ends_with("not healthy: link of 0000:03:00.0 is down"), "{error}");
    node.change("0000:03:02.0", |d| d.health = Health::Healthy);
    let resource = kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    assert_eq!((resource.registrations, resource.history), (1, vec![2, 1, 2]));

    // What kubelet is not told of is no news to it.
    node.change("0000:03:02.0", |d| d.netdev = Some("eth7".to_owned()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kubelet.resource(A).unwrap().lists, 3);
    plugin.shutdown().await;
}

#[tokio::test]
async fn an_unknown_device_is_refused() {
    let node = Node::new(vfs("a", 0..1));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(1)).await.unwrap();
    for id in ["0000:03:02.7", "p3", ""] {
        let error = kubelet.allocate_ids(A, &[id.to_owned()]).await.unwrap_err().to_string();
        assert_eq!(error, format!("Allocate of culvert.io/a: culvert.io/a: device {id:?}: not in this pool"));
    }
    assert!(kubelet.allocate_ids(A, &[]).await.is_err());
    plugin.shutdown().await;
}

#[tokio::test]
async fn pools_are_resources_of_their_own_and_a_device_can_move_between_them() {
    let node = Node::new([vfs("a", 0..2), vfs("b", 2..4)].concat());
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    kubelet.wait("culvert.io/b", PATIENCE, all(2)).await.unwrap();
    let given = kubelet.allocate("default/x", "culvert.io/b", 1).await.unwrap();
    assert_eq!(given.response.envs["PCIDEVICE_CULVERT_IO_B"], "0000:03:02.2");

    node.change("0000:03:02.1", |d| d.pool = Some("b".parse().unwrap()));
    kubelet.wait(A, PATIENCE, all(1)).await.unwrap();
    kubelet.wait("culvert.io/b", PATIENCE, all(3)).await.unwrap();

    // A pool that comes later is offered at once, one that is emptied is withdrawn.
    node.devices.send_modify(|d| d.extend(vfs("c", 4..5)));
    kubelet.wait("culvert.io/c", PATIENCE, all(1)).await.unwrap();
    node.change("0000:03:02.4", |d| d.pool = None);
    let gone = kubelet.wait("culvert.io/c", PATIENCE, |r| !r.connected).await.unwrap();
    assert_eq!((gone.lists, gone.capacity()), (2, 0), "its capacity must not linger");
    assert!(!node.path("device-plugins/culvert-culvert.io_c.sock").exists());
    assert_eq!(plugin.statuses().borrow().len(), 2);
    plugin.shutdown().await;
}

#[tokio::test]
async fn devices_of_one_numa_node_are_preferred() {
    let node = Node::new(vfs("a", 0..5));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(5)).await.unwrap();
    // Nodes 0 and 1 have two each, node 2 has one: it is the best fit for one.
    assert_eq!(kubelet.allocate("default/one", A, 1).await.unwrap().ids, ["0000:03:02.4"]);
    assert_eq!(kubelet.allocate("default/two", A, 2).await.unwrap().ids, ["0000:03:02.0", "0000:03:02.1"]);
    kubelet.release("default/one");
    assert_eq!(kubelet.allocate("default/more", A, 2).await.unwrap().ids, ["0000:03:02.2", "0000:03:02.3"]);
    plugin.shutdown().await;
}

#[tokio::test]
async fn files_for_the_runtime_and_for_multus_are_there_when_a_device_is_given() {
    let node = Node::new(vec![vfio(vfs("a", 0..1).remove(0), 40)]);
    let kubelet = node.kubelet().await;
    let config = DevicePlugin {
        cdi: Some(node.path("cdi")),
        device_info: Some(node.path("devinfo")),
        ..node.config(Registration::Kubelet)
    };
    let plugin = Plugin::start(&config, node.devices.subscribe());
    kubelet.wait(A, PATIENCE, all(1)).await.unwrap();
    let specification = node.path("cdi/culvert-culvert.io.json");
    std::fs::remove_file(&specification).unwrap();
    let given = kubelet.allocate("default/dpdk", A, 1).await.unwrap();
    assert!(given.response.devices.is_empty());
    assert_eq!(given.response.cdi_devices[0].name, "culvert.io/net-pci=0000:03:02.0");
    assert!(std::fs::read_to_string(&specification).unwrap().contains("/dev/vfio/40"));
    let information = node.path("devinfo/culvert.io-a-0000:03:02.0-device.json");
    assert!(information.exists());

    plugin.shutdown().await;
    assert!(specification.exists() && information.exists(), "a restarted container needs them");
}
