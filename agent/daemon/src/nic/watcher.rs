//! The task that keeps the list of devices current.

use std::sync::Arc;
use std::time::Duration;

use culvert_device_plugin::Device;
use culvert_host::netlink::LinkMonitor;
use culvert_host::uevent::UeventMonitor;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::manager::Shared;
use crate::errors::chain;

/// After a piece of news, more of it comes: the machine is looked at when this has passed.
const QUIET: Duration = Duration::from_millis(50);
/// How often the machine is looked at without any news;
const RESCAN: Duration = Duration::from_secs(5);
/// and if the kernel cannot be heard.
const RESCAN_DEAF: Duration = Duration::from_millis(500);

/// Sends the devices, now and after every change, until `stop`.
pub(super) async fn run(shared: Arc<Shared>, send: watch::Sender<Vec<Device>>, stop: CancellationToken) {
    let mut ears = Ears::open();
    let mut state = shared.state.clone();
    let mut rescan = interval(if ears.are_whole() { RESCAN } else { RESCAN_DEAF });
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rescan.tick() => {}
            () = ears.heard() => sleep(QUIET).await,
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        match shared.look().await {
            Ok(look) => publish(&send, look.devices()),
            Err(e) => warn!("the devices are not current: {}", chain(&e)),
        }
    }
}

/// Sends what is new, and tells of each device whose health changed.
fn publish(send: &watch::Sender<Vec<Device>>, devices: Vec<Device>) {
    send.send_if_modified(|now| {
        if *now == devices {
            return false;
        }
        for device in &devices {
            let before = now.iter().find(|d| d.pci == device.pci);
            if before.map(|d| &d.health) != Some(&device.health) {
                info!("device {}: {}", device.pci, device.health);
            }
        }
        for gone in now.iter().filter(|d| !devices.iter().any(|new| new.pci == d.pci)) {
            info!("device {}: gone", gone.pci);
        }
        *now = devices;
        true
    });
}

/// What tells of changes. Without one of them changes are found by looking more often.
struct Ears {
    links: Option<LinkMonitor>,
    uevents: Option<UeventMonitor>,
}

impl Ears {
    fn open() -> Self {
        let links = LinkMonitor::open().map_err(|e| warn!("no news of interfaces: {}", chain(&e))).ok();
        let uevents = UeventMonitor::open().map_err(|e| warn!("no news of PCI devices: {e}")).ok();
        Self { links, uevents }
    }

    fn are_whole(&self) -> bool {
        self.links.is_some() && self.uevents.is_some()
    }

    /// Something happened to an interface or a PCI device.
    async fn heard(&mut self) {
        tokio::select! {
            event = next_link(self.links.as_mut()) => {
                if !event {
                    warn!("no more news of interfaces");
                    self.links = None;
                }
            }
            event = next_uevent(self.uevents.as_ref()) => {
                if !event {
                    warn!("no more news of PCI devices");
                    self.uevents = None;
                }
            }
        }
    }
}

/// Waits for news of an interface; false if there will be none.
async fn next_link(monitor: Option<&mut LinkMonitor>) -> bool {
    match monitor {
        Some(monitor) => monitor.next().await.is_some(),
        None => std::future::pending().await,
    }
}

/// Waits for news of a PCI device; false if there will be none.
async fn next_uevent(monitor: Option<&UeventMonitor>) -> bool {
    let Some(monitor) = monitor else { return std::future::pending().await };
    loop {
        match monitor.next().await {
            Ok(event) if matches!(event.subsystem.as_str(), "pci" | "") => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
