//! The task that keeps the list of devices current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use culvert_api::value::PciAddress;
use culvert_device_plugin::{Device, Health};
use culvert_host::netlink::LinkMonitor;
use culvert_host::uevent::UeventMonitor;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::damper::Damper;
use super::devices::link_word;
use super::event::{Event, Events};
use super::look::Shared;
use super::observe::Observed;
use super::resources::Resources;
use crate::errors::chain;

/// After a piece of news, more of it comes, such as one for each of a hundred VFs: the machine is looked at once, when this
/// has passed.
const QUIET: Duration = Duration::from_millis(50);
/// How often the machine is looked at without any news;
const RESCAN: Duration = Duration::from_secs(5);
/// and if the kernel cannot be heard.
const RESCAN_DEAF: Duration = Duration::from_millis(500);

/// Sends the devices, now and after every change, until `stop`.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut resources: Resources,
    send: watch::Sender<Vec<Device>>,
    stop: CancellationToken,
) {
    let mut ears = Ears::open();
    let mut state = shared.state.clone();
    let mut policy = shared.policy.subscribe();
    // A made-up machine has no kernel that would speak of it.
    let deaf = !ears.are_whole() || !shared.host.root.is_real();
    let mut rescan = interval(if deaf { RESCAN_DEAF } else { RESCAN });
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut damper = Damper::default();
    let mut first = true;
    let mut links = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rescan.tick() => {}
            () = ears.heard() => ears.listen(QUIET).await,
            () = wait_until(damper.due()) => {}
            // The sender is in `shared`.
            _ = policy.changed() => resources.ask_again(),
            () = resources.changed() => {}
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        match shared.look().await {
            Ok(look) => {
                let devices = damper.tell(resources.offer(&shared, &look).await, Instant::now());
                publish(&send, devices, std::mem::take(&mut first), &shared.events);
                tell_links(&mut links, &look.observed, &shared.events);
            }
            Err(e) => {
                warn!("the devices are not current: {}", chain(&e));
                sleep(QUIET).await;
            }
        }
    }
}

/// Sends what is new, and tells of each device whose health changed. The first list is always news, be it empty.
fn publish(send: &watch::Sender<Vec<Device>>, devices: Vec<Device>, first: bool, events: &Events) {
    let healthy = |devices: &[Device]| devices.iter().filter(|d| d.health == Health::Healthy).count();
    if first {
        info!("{} devices, {} of them healthy", devices.len(), healthy(&devices));
    }
    send.send_if_modified(|now| {
        let news = first || *now != devices;
        let before: BTreeMap<_, _> = now.iter().map(|d| (d.pci, d)).collect();
        for device in &devices {
            let known = before.get(&device.pci).map(|d| &d.health);
            if known != Some(&device.health) && !(first && device.health == Health::Healthy) {
                events.tell(Event::health(device));
            }
        }
        let after: BTreeSet<_> = devices.iter().map(|d| d.pci).collect();
        for gone in before.values().filter(|d| !after.contains(&d.pci)) {
            events.tell(Event::gone(gone));
        }
        *now = devices;
        news
    });
}

/// Tells of each PF whose link is in another state than in `known`.
fn tell_links(known: &mut BTreeMap<PciAddress, &'static str>, observed: &Observed, events: &Events) {
    let now = observed.pfs.iter().map(|pf| (pf, link_word(pf)));
    for (pf, word) in now.clone() {
        let address = pf.pf.pci.address;
        if known.get(&address).is_some_and(|before| *before != word) {
            let interface = pf.pf.interface().map_or("", |i| &i.name);
            events.tell(Event::link(address, interface, word));
        }
    }
    *known = now.map(|(pf, word)| (pf.pf.pci.address, word)).collect();
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
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

    /// Takes in all that is said within `time`.
    async fn listen(&mut self, time: Duration) {
        let all = async {
            loop {
                self.heard().await;
            }
        };
        // There is always a moment at which the time is up.
        let _ = timeout(time, all).await;
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

/// PCI functions, and what containers are given of them: RDMA's device nodes are numbered anew when a driver is bound.
/// Without a subsystem: news were lost.
fn is_of_interest(subsystem: &str) -> bool {
    matches!(subsystem, "pci" | "infiniband" | "infiniband_verbs" | "infiniband_mad" | "uio" | "")
}

/// Waits for news of a PCI device; false if there will be none.
async fn next_uevent(monitor: Option<&UeventMonitor>) -> bool {
    let Some(monitor) = monitor else { return std::future::pending().await };
    loop {
        match monitor.next().await {
            Ok(event) if is_of_interest(&event.subsystem) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
