//! The NIC manager on a real, or emulated, NIC: `CULVERT_TEST_PF=0000:41:00.0 cargo test -p culvert-agent --test nic`.
//!
//! Takes the NIC over entirely; skipped with a reason unless one is named.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use culvert_agent::nic::{NicConfig, NicManager, VfAttach};
use culvert_agent::pods::Key;
use culvert_api::agent::Vf;
use culvert_api::config::nic::NicPolicy;
use culvert_api::value::PciAddress;
use culvert_device_plugin::{Device, Health};
use culvert_host::netlink::VfChange;
use culvert_host::{HostRoot, driver};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A pod: a named namespace.
struct Pod(&'static str);

impl Pod {
    fn new(name: &'static str) -> Self {
        ip(&["netns", "add", name]);
        Self(name)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.0)
    }

    /// Whether `address` answers; waits for the link to come up.
    fn pings(&self, address: &str, seconds: u32) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds.into()) {
            let ping = ["netns", "exec", self.0, "ping", "-c", "1", "-W", "1", address];
            let ping = Command::new("ip").args(ping).stdout(std::process::Stdio::null()).status();
            if ping.unwrap().success() {
                return true;
            }
        }
        false
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ =
            Command::new("ip").args(["netns", "del", self.0]).stderr(std::process::Stdio::null()).status();
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn request(pod: &Pod, device: PciAddress, address: &str) -> VfAttach {
    VfAttach {
        key: Key { container_id: format!("container-{}", pod.0), ifname: "net1".parse().unwrap() },
        owner: format!("default/{}", pod.0),
        device,
        netns: pod.path(),
        settings: VfChange::default(),
        mtu: None,
        addresses: vec![address.parse().unwrap()],
        routes: Vec::new(),
    }
}

async fn vfs(nic: &NicManager, pf: PciAddress) -> Vec<Vf> {
    let list = nic.list().await.unwrap();
    list.pfs.into_iter().find(|p| p.pci == pf.to_string()).unwrap().vfs
}

/// Waits until the devices are as `wanted` says; how long it took.
async fn devices(nic: &NicManager, wanted: impl Fn(&[Device]) -> bool) -> Duration {
    let started = Instant::now();
    let mut devices = nic.devices();
    let found = tokio::time::timeout(Duration::from_secs(20), devices.wait_for(|d| wanted(d))).await;
    assert!(found.is_ok(), "{:?}", nic.devices().borrow());
    started.elapsed()
}

fn healthy(devices: &[Device]) -> usize {
    devices.iter().filter(|d| d.pool.is_some() && d.health == Health::Healthy).count()
}

/// One test, as its parts build upon each other and there is one NIC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vfs_are_carved_given_to_pods_isolated_by_vlan_and_come_back() {
    let Some(pf) = std::env::var("CULVERT_TEST_PF").ok() else {
        eprintln!("skipped: CULVERT_TEST_PF names no PF to take over");
        return;
    };
    let pf: PciAddress = pf.parse().unwrap();
    let root = HostRoot::default();
    driver::set_num_vfs(&root, pf, 0).unwrap();
    let policy = NicPolicy::from_yaml(&format!(
        "pfs: [{{pf: \"{pf}\", vfs: 4, vlan: 100, mac: {{base: \"02:00:00:00:01:00\"}},
                 overrides: [{{vfs: 2, vlan: 200}}, {{vfs: 3, driver: vfio-pci}}],
                 pools: [{{name: net, vfs: \"0-3\"}}]}}]"
    ))
    .unwrap();
    let state = tempfile::TempDir::new().unwrap();
    let config = NicConfig {
        policy,
        node: "node-a".to_owned(),
        state_dir: state.path().to_owned(),
        root: root.clone(),
    };
    let stop = CancellationToken::new();
    let nic = NicManager::start(config.clone(), stop.clone()).await.unwrap();

    // Carve.
    let plan = nic.plan().await.unwrap();
    plan.steps.iter().for_each(|s| eprintln!("  {}: {} [{}]", s.object, s.action, s.write));
    assert!(plan.blocked.is_empty() && !plan.steps.is_empty());
    let started = Instant::now();
    let (progress, mut heard) = mpsc::unbounded_channel();
    let applied = nic.apply(progress).await.unwrap();
    eprintln!("apply: {:?}", started.elapsed());
    assert_eq!((applied.failed, applied.blocked), (Vec::<String>::new(), Vec::new()));
    assert_eq!(applied.done, plan.steps);
    assert_eq!(heard.recv().await.unwrap().total as usize, plan.steps.len());
    assert_eq!(nic.plan().await.unwrap(), Default::default(), "nothing is left to do");
    let now = vfs(&nic, pf).await;
    assert_eq!(now.len(), 4);
    assert_eq!(now[1].mac, "02:00:00:00:01:01");
    assert_eq!((now[1].vlan, now[2].vlan, now[3].driver.as_str()), (100, 200, "vfio-pci"));
    eprintln!("all healthy after {:?}", devices(&nic, |d| healthy(d) == 4).await);

    // Pods of one VLAN reach each other, those of another do not.
    let address = |index: usize| now[index].pci.parse::<PciAddress>().unwrap();
    let (a, b, c) = (Pod::new("cvpod-a"), Pod::new("cvpod-b"), Pod::new("cvpod-c"));
    for (pod, index, ip) in [(&a, 0, "10.66.0.1/24"), (&b, 1, "10.66.0.2/24"), (&c, 2, "10.66.0.3/24")] {
        let started = Instant::now();
        let attached = nic.attach_vf(request(pod, address(index), ip)).await.unwrap();
        eprintln!("attach {}: {:?} {attached:?}", pod.0, started.elapsed());
    }
    assert!(a.pings("10.66.0.2", 20));
    assert!(!c.pings("10.66.0.1", 3));
    let checked = nic.check_vf(&request(&a, address(0), "10.66.0.1/24").key).await;
    checked.unwrap();
    assert_eq!(vfs(&nic, pf).await[0].owner, "default/cvpod-a");
    let grow = nic.plan().await.unwrap();
    assert_eq!(grow, Default::default(), "what pods have is as planned");

    // A pod's own MAC and VLAN, and back.
    nic.detach_vf(&request(&c, address(2), "10.66.0.3/24").key).await.unwrap();
    let mac = "02:00:00:00:99:01".parse().unwrap();
    let vlan = culvert_host::netlink::VfVlanTag { id: 100.try_into().unwrap(), ..Default::default() };
    let own = VfAttach {
        settings: VfChange { mac: Some(mac), vlan: Some(vlan), ..VfChange::default() },
        ..request(&c, address(2), "10.66.0.3/24")
    };
    let started = Instant::now();
    assert_eq!(nic.attach_vf(own).await.unwrap().mac, Some(mac));
    eprintln!("attach with a MAC of the pod's own: {:?}", started.elapsed());
    assert!(c.pings("10.66.0.1", 20));
    assert_eq!(vfs(&nic, pf).await[2].mac, mac.to_string());

    // The agent ends and starts again: pods keep their VFs; one whose pod died meanwhile comes back.
    stop.cancel();
    drop(nic);
    drop(b);
    let stop = CancellationToken::new();
    let nic = NicManager::start(config, stop.clone()).await.unwrap();
    assert_eq!(nic.attachments().len(), 3);
    assert!(a.pings("10.66.0.3", 20));
    let started = Instant::now();
    while nic.attachments().len() > 2 {
        assert!(started.elapsed() < Duration::from_secs(15));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("VF of a dead pod back after {:?}", started.elapsed());

    // Back home as they were.
    for (pod, index) in [(&a, 0), (&c, 2)] {
        let started = Instant::now();
        nic.detach_vf(&request(pod, address(index), "10.66.0.1/24").key).await.unwrap();
        eprintln!("detach {}: {:?}", pod.0, started.elapsed());
    }
    let home = vfs(&nic, pf).await;
    for (before, after) in now.iter().zip(&home) {
        assert_eq!((&before.mac, before.vlan, &before.interface), (&after.mac, after.vlan, &after.interface));
        assert_eq!(after.owner, "");
    }
    assert_eq!(nic.plan().await.unwrap(), Default::default());

    // A VF that disappears is noticed at once, also one that has no interface.
    devices(&nic, |d| healthy(d) == 4).await;
    let remove = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        driver::set_num_vfs(&HostRoot::default(), pf, 0).unwrap();
        started.elapsed()
    });
    let noticed = devices(&nic, |d| d.is_empty()).await;
    eprintln!("VFs gone: noticed after {noticed:?}, removing took {:?}", remove.await.unwrap());
    stop.cancel();
}
