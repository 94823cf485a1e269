//! The agent's restart, while kubelet goes on.

use std::time::Duration;

use crate::node::{A, Node, PATIENCE, all, vfio, vfs};

#[tokio::test]
async fn a_restarted_plugin_offers_what_it_had_before_it_has_seen_the_machine() {
    let node = Node::new(Vec::new());
    let kubelet = node.kubelet().await;
    let plugin = node.resumed("boot");
    node.devices.send_replace([vfs("a", 0..4), vfs("b", 4..6)].concat());
    kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
    kubelet.wait("culvert.io/b", PATIENCE, all(2)).await.unwrap();
    plugin.shutdown().await;

    let plugin = node.resumed("boot");
    let again = kubelet.wait(A, PATIENCE, |r| r.registrations == 2 && all(4)(r)).await.unwrap();
    assert_eq!(again.devices["0000:03:02.3"].numa, [1]);
    kubelet.wait("culvert.io/b", PATIENCE, |r| r.registrations == 2 && all(2)(r)).await.unwrap();

    // One VF went away while the agent was.
    let (first, last) = (["0000:03:02.0".to_owned()], ["0000:03:02.3".to_owned()]);
    let asked = async { tokio::join!(kubelet.allocate_ids(A, &first), kubelet.allocate_ids(A, &last)) };
    let mut asked = std::pin::pin!(asked);
    let early = tokio::time::timeout(Duration::from_millis(200), asked.as_mut()).await;
    assert!(early.is_err(), "nothing is given before the machine was seen");
    node.devices.send_replace([vfs("a", 0..3), vfs("b", 4..6)].concat());
    let (first, last) = asked.await;
    assert_eq!(first.unwrap().envs["PCIDEVICE_CULVERT_IO_A"], "0000:03:02.0");
    let refused = last.unwrap_err().to_string();
    assert!(refused.ends_with("device 0000:03:02.3: not healthy: gone from the machine"), "{refused}");
    let seen = kubelet.wait(A, PATIENCE, |r| r.allocatable() == 3).await.unwrap();
    assert_eq!((seen.capacity(), seen.registrations), (4, 2));
    plugin.shutdown().await;

    // Kubelet goes on to be told of it.
    let plugin = node.resumed("boot");
    let again = kubelet.wait(A, PATIENCE, |r| r.registrations == 3 && r.connected).await.unwrap();
    assert_eq!((again.capacity(), again.allocatable()), (4, 3));
    plugin.shutdown().await;
}

#[tokio::test]
async fn after_a_reboot_or_with_another_configuration_the_machine_is_looked_at_first() {
    let node = Node::new(Vec::new());
    let kubelet = node.kubelet().await;
    let plugin = node.resumed("boot");
    node.devices.send_replace(vfs("a", 0..4));
    kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
    plugin.shutdown().await;
    for boot in ["another boot", "boot"] {
        let plugin = node.resumed(boot);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!kubelet.resource(A).unwrap().connected, "{boot}");
        assert!(plugin.statuses().borrow().is_empty(), "{boot}");
        plugin.shutdown().await;
        std::fs::write(node.path("agent.yaml"), "another").unwrap();
    }
}

#[tokio::test]
async fn a_machine_that_has_no_devices_any_more_is_believed() {
    let node = Node::new(Vec::new());
    let kubelet = node.kubelet().await;
    let plugin = node.resumed("boot");
    node.devices.send_replace(vfs("a", 0..2));
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    plugin.shutdown().await;
    let plugin = node.resumed("boot");
    kubelet.wait(A, PATIENCE, |r| r.registrations == 2 && all(2)(r)).await.unwrap();
    node.devices.send_replace(Vec::new());
    kubelet.wait(A, PATIENCE, |r| r.capacity() == 2 && r.allocatable() == 0).await.unwrap();
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_container_does_not_start_again_with_the_nodes_of_another_device() {
    let one = |group| vec![vfio(vfs("a", 0..1).remove(0), group)];
    let node = Node::new(Vec::new());
    let kubelet = node.kubelet().await;
    let plugin = node.resumed("boot");
    node.devices.send_replace(one(40));
    kubelet.wait(A, PATIENCE, all(1)).await.unwrap();
    let ids = kubelet.allocate("default/dpdk", A, 1).await.unwrap().ids;
    kubelet.pre_start(A, &ids).await.unwrap();
    plugin.shutdown().await;

    // Groups are numbered anew; kubelet remembers the old one.
    let plugin = node.resumed("another boot");
    node.devices.send_replace(one(41));
    kubelet.wait(A, PATIENCE, |r| r.registrations == 2 && all(1)(r)).await.unwrap();
    let error = kubelet.pre_start(A, &ids).await.unwrap_err().to_string();
    let expected = "device 0000:03:02.0: was given to the container as /dev/vfio/vfio, /dev/vfio/40, but is \
                    /dev/vfio/vfio, /dev/vfio/41 now; delete the pod, so that it is given anew";
    assert!(error.ends_with(expected), "{error}");

    // It may start where it is as it was, or was given anew.
    kubelet.allocate_ids(A, &ids).await.unwrap();
    kubelet.pre_start(A, &ids).await.unwrap();
    node.change(&ids[0], |d| d.driver = Some("iavf".to_owned()));
    kubelet.wait(A, PATIENCE, |r| r.connected).await.unwrap();
    let lost = async || kubelet.pre_start(A, &ids).await.err().map(|e| e.to_string());
    let deadline = std::time::Instant::now() + PATIENCE;
    let error = loop {
        if let Some(error) = lost().await {
            break error;
        }
        assert!(std::time::Instant::now() < deadline, "the driver is another");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(error.contains("but is without device nodes now"), "{error}");
    plugin.shutdown().await;
}
