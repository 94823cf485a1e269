//! A configuration file of sriov-network-device-plugin, changed while the whole agent and a kubelet run.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use culvert_agent::app::App;
use culvert_api::config::agent::AgentConfig;
use culvert_api::value::PciAddress;
use culvert_host::fake::{FakeHost, ICE, vf_address};
use culvert_hw_tests::kubelet::{KubeletStandIn, Resource};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine: a made-up one is looked at every half second.
const PATIENCE: Duration = Duration::from_secs(30);

const PF: &str = "0000:03:00.0";

/// A machine with eight VFs for programs in user space, an agent and a kubelet.
struct Node {
    dir: TempDir,
    _host: FakeHost,
    kubelet: KubeletStandIn,
    stop: CancellationToken,
    agent: JoinHandle<()>,
}

fn vf(index: u16) -> PciAddress {
    vf_address(ICE, PF.parse().unwrap(), index)
}

fn resource(name: &str, functions: &str) -> String {
    format!(r#"{{"resourceName":"{name}","selectors":{{"rootDevices":["{PF}#{functions}"]}}}}"#)
}

fn write(path: &Path, resources: &[String]) {
    fs::write(path, format!("{{\"resourceList\":[{}]}}", resources.join(","))).unwrap();
}

/// A resource with `count` devices, all of them for new pods.
fn all(count: usize) -> impl Fn(&Resource) -> bool {
    move |r| r.connected && r.capacity() == count && r.allocatable() == count
}

impl Node {
    async fn start(resources: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = FakeHost::new();
        let pf = PF.parse().unwrap();
        host.add_pf(ICE, pf, "ens3f0", 0);
        // Made-up interfaces have numbers of interfaces of this machine.
        host.remove_interfaces(pf);
        host.add_vfs(ICE, pf, 8, false);
        for index in 0..8 {
            host.set_driver(vf(index), Some("vfio-pci"));
        }
        let list = dir.path().join("config.json");
        write(&list, resources);
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "{{node: a, socket: {}, stateDir: {}, devicePlugin: {{kubeletDir: {}, registration: kubelet, resourceList: {}, deviceInfo: {{dir: {}}}}}}}",
            at("agent.sock"),
            at("state"),
            at("device-plugins"),
            list.display(),
            at("devinfo"),
        );
        let kubelet = KubeletStandIn::start(dir.path()).await.unwrap();
        let app = App::start(AgentConfig::from_yaml(&config).unwrap(), host.root()).await.unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let agent = tokio::spawn(async move { app.run(stopped).await.unwrap() });
        Self { dir, _host: host, kubelet, stop, agent }
    }

    fn change(&self, resources: &[String]) {
        write(&self.dir.path().join("config.json"), resources);
    }

    async fn stop(self) {
        self.stop.cancel();
        self.agent.await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_file_moves_devices_through_the_open_lists_and_no_other_capacity_dips() {
    let node = Node::start(&[resource("a", "0-3"), resource("b", "4-5"), resource("c", "6-7")]).await;
    for (name, count) in [("intel.com/a", 4), ("intel.com/b", 2), ("intel.com/c", 2)] {
        node.kubelet.wait(name, PATIENCE, all(count)).await.unwrap();
    }
    // VF 3 goes from a to b, c gives way to d.
    node.change(&[resource("a", "0-2"), resource("b", "3-5"), resource("d", "6-7")]);
    node.kubelet.wait("intel.com/d", PATIENCE, all(2)).await.unwrap();
    let b = node.kubelet.wait("intel.com/b", PATIENCE, all(3)).await.unwrap();
    let a = node.kubelet.wait("intel.com/a", PATIENCE, all(3)).await.unwrap();
    assert_eq!(
        (a.registrations, a.history),
        (1, vec![4, 3]),
        "the same stream, and only what left is missing"
    );
    assert_eq!((b.registrations, b.history), (1, vec![2, 3]));
    let c = node.kubelet.wait("intel.com/c", PATIENCE, |r| !r.connected).await.unwrap();
    assert_eq!(c.capacity(), 0, "its capacity must not linger");

    // A file that cannot be used changes nothing.
    fs::write(node.dir.path().join("config.json"), "{\"resourceList\": [,]}").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (name, count) in [("intel.com/a", 3), ("intel.com/b", 3), ("intel.com/d", 2)] {
        let resource = node.kubelet.wait(name, PATIENCE, all(count)).await.unwrap();
        assert_eq!(resource.registrations, 1, "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_a_pod_was_given_stays_in_its_resource_until_the_pod_is_gone() {
    let node = Node::start(&[resource("a", "0-3")]).await;
    let _pod_resources = node.kubelet.pod_resources().await.unwrap();
    node.kubelet.wait("intel.com/a", PATIENCE, all(4)).await.unwrap();
    let given = node.kubelet.allocate("default/dpdk", "intel.com/a", 1).await.unwrap();
    assert_eq!(given.ids, [vf(0).to_string()]);
    let information = node.dir.path().join(format!("devinfo/intel.com-a-{}-device.json", vf(0)));
    assert!(information.exists());

    node.change(&[resource("a", "3"), resource("b", "0-2")]);
    let b = node.kubelet.wait("intel.com/b", PATIENCE, all(2)).await.unwrap();
    assert!(!b.devices.contains_key(&vf(0).to_string()), "it would be given away twice");
    let a = node.kubelet.wait("intel.com/a", PATIENCE, all(2)).await.unwrap();
    assert!(a.devices[&vf(0).to_string()].healthy);
    assert!(information.exists(), "Multus may read it again");

    node.kubelet.release("default/dpdk");
    node.kubelet.wait("intel.com/b", PATIENCE, all(3)).await.unwrap();
    node.kubelet.wait("intel.com/a", PATIENCE, all(1)).await.unwrap();
    assert!(!information.exists());
    node.stop().await;
}
