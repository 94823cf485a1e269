//! A plugin and a kubelet stand-in below a temporary folder.

use std::path::PathBuf;
use std::time::Duration;

use culvert_api::config::device_plugin::{DevicePlugin, Registration};
use culvert_device_plugin::{Device, IommuGroup, Memory, Plugin, PoolStatus};
use culvert_hw_tests::kubelet::{KubeletStandIn, Resource};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Long enough for a loaded machine, and less than the plugin takes to look at the folder when nothing tells it to (10 s).
pub(crate) const PATIENCE: Duration = Duration::from_secs(9);

/// How much slower than the world the clock of a test is in slow motion.
const SLOW: u32 = 20;

/// The resource of most tests.
pub(crate) const A: &str = "culvert.io/a";

pub(crate) struct Node {
    pub(crate) root: TempDir,
    pub(crate) devices: watch::Sender<Vec<Device>>,
}

impl Node {
    pub(crate) fn new(devices: Vec<Device>) -> Self {
        Self { root: tempfile::tempdir().unwrap(), devices: watch::Sender::new(devices) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) async fn kubelet(&self) -> KubeletStandIn {
        KubeletStandIn::start(self.root.path()).await.unwrap()
    }

    pub(crate) fn plugin(&self, registration: Registration) -> Plugin {
        Plugin::start(&self.config(registration), self.devices.subscribe())
    }

    /// A plugin that begins with what the last one of this boot remembered, and has not heard of any device yet.
    pub(crate) fn resumed(&self, boot: &str) -> Plugin {
        let memory = Memory {
            file: self.path("state/devices.json"),
            boot: boot.to_owned(),
            configuration: vec![self.path("agent.yaml")],
        };
        self.devices.send_replace(Vec::new());
        Plugin::resume(&self.config(Registration::Kubelet), memory, self.devices.subscribe())
    }

    pub(crate) fn config(&self, registration: Registration) -> DevicePlugin {
        DevicePlugin {
            kubelet_dir: self.path("device-plugins"),
            plugins_registry: self.path("plugins_registry"),
            registration,
            resource_prefix: "culvert.io".parse().unwrap(),
            cdi: None,
            cdi_annotations: false,
            device_info: None,
            resource_list: None,
            allocation: Default::default(),
        }
    }

    /// Changes one device.
    pub(crate) fn change(&self, id: &str, change: impl Fn(&mut Device)) {
        self.devices.send_modify(|devices| {
            change(devices.iter_mut().find(|d| d.pci.to_string() == id).expect("the device exists"));
        });
    }
}

/// As long as this lives, the clock of the test, and of the plugin in it, goes [`SLOW`] times slower than that of the machine and of
/// kubelet: pauses and deadlines keep their proportions, while nobody is late who only has to wait for a CPU. The clock must stand
/// still (`start_paused`).
pub(crate) struct SlowMotion(JoinHandle<()>);

impl SlowMotion {
    pub(crate) fn begin() -> Self {
        let step = Duration::from_millis(1);
        Self(tokio::spawn(async move {
            loop {
                // As long as a thread is busy the clock does not leap to the next thing that is waited for.
                tokio::task::spawn_blocking(move || std::thread::sleep(step * SLOW)).await.unwrap();
                tokio::time::advance(step).await;
            }
        }))
    }
}

impl Drop for SlowMotion {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// VFs of `0000:03:00.0`, the first at `0000:03:02.0`.
pub(crate) fn vfs(pool: &str, indices: std::ops::Range<u16>) -> Vec<Device> {
    indices
        .map(|i| Device {
            pool: Some(pool.parse().unwrap()),
            pf: Some("0000:03:00.0".parse().unwrap()),
            vf: Some(u32::from(i).try_into().unwrap()),
            numa: Some(i / 2),
            driver: Some("iavf".to_owned()),
            ..Device::new(format!("0000:03:{:02x}.{:x}", 2 + i / 8, i % 8).parse().unwrap())
        })
        .collect()
}

pub(crate) fn vfio(mut device: Device, number: u32) -> Device {
    device.driver = Some("vfio-pci".to_owned());
    device.iommu_group = Some(IommuGroup { number, no_iommu: false });
    device
}

pub(crate) fn all(count: usize) -> impl Fn(&Resource) -> bool {
    move |r| r.connected && r.capacity() == count && r.allocatable() == count
}

/// Waits until the plugin says `wanted` of its pool.
pub(crate) async fn status(plugin: &Plugin, wanted: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
    let mut statuses = plugin.statuses();
    let resource = A.parse().unwrap();
    let found = statuses.wait_for(|all| all.get(&resource).is_some_and(&wanted));
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(found) => found.unwrap()[&resource].clone(),
        Err(_) => panic!("the plugin says {:?}", *plugin.statuses().borrow()),
    }
}
