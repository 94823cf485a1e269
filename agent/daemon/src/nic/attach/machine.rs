//! The machine that the agent runs on, as attachments see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::inventory::Interface;
use culvert_host::netlink::{Link, LinkChange, LinkEvent, LinkMonitor, Netlink, Route, VfChange, VfSettings};
use culvert_host::netns::{Netns, NetnsId, VisibleNetns, visible};
use culvert_host::{FileError, announce, driver, vfio};
use ipnet::IpNet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use super::super::apply::{Host, MachineError, blocking};
use super::super::orphan::Place;
use super::ops::{Net, VfOps};
use crate::errors::chain;

/// How long a PF's driver may take until it can change a VF, or reports what it was told: many reset a VF in the
/// background.
const PF_PATIENCE: Duration = Duration::from_secs(2);
/// How long an interface may take to get a carrier before its neighbours are told of it all the same.
const CARRIER_PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace with a socket in it.
#[derive(Debug)]
pub(in super::super) struct Namespace {
    netns: Arc<Netns>,
    netlink: Netlink,
}

impl Namespace {
    /// The namespace of this program.
    pub(in super::super) fn current() -> Result<Self, MachineError> {
        Ok(Self { netns: Arc::new(Netns::current()?), netlink: Netlink::open()? })
    }

    /// Opens a socket in `netns`.
    pub(in super::super) fn enter(netns: &Arc<Netns>) -> Result<Self, MachineError> {
        Ok(Self { netlink: Netlink::open_in(netns)?, netns: Arc::clone(netns) })
    }
}

impl Host {
    /// Where the interfaces of `vfs` are, of those that can be seen in another namespace than the host's.
    pub(in super::super) async fn places(&self, vfs: &BTreeSet<PciAddress>) -> BTreeMap<PciAddress, Place> {
        let mut places = BTreeMap::new();
        let own = self.namespace.netns.id().ok();
        let seen = if vfs.is_empty() { Vec::new() } else { blocking(visible).await };
        for VisibleNetns { netns, id, process } in seen {
            let path = netns.path().display().to_string();
            if Some(id) == own {
                continue;
            }
            // A namespace may end while it is looked at.
            let Ok(namespace) = Namespace::enter(&Arc::new(netns)) else { continue };
            let Ok(links) = namespace.netlink.links().await else { continue };
            let parents = links.iter().filter_map(|link| link.parent.as_ref()?.parse().ok());
            let process = process.map(|process| process.to_string());
            for vf in parents.filter(|vf| vfs.contains(vf)) {
                places.insert(vf, Place { path: path.clone(), process: process.clone() });
            }
        }
        places
    }
}

impl VfOps for Host {
    type Netns = Netns;
    type Net = Namespace;

    fn host(&self) -> &Namespace {
        &self.namespace
    }

    fn open(&self, path: &Path) -> Result<Option<Arc<Netns>>, MachineError> {
        match Netns::open(path) {
            Ok(netns) => Ok(Some(Arc::new(netns))),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn id(&self, netns: &Netns) -> Result<NetnsId, MachineError> {
        Ok(netns.id()?)
    }

    async fn find(&self, id: NetnsId) -> Option<Arc<Netns>> {
        blocking(move || visible().into_iter().find(|v| v.id == id).map(|v| Arc::new(v.netns))).await
    }

    fn enter(&self, netns: &Arc<Netns>) -> Result<Namespace, MachineError> {
        Namespace::enter(netns)
    }

    async fn locate(&self, vf: PciAddress) -> Option<Arc<Netns>> {
        let parent = Some(vf.to_string());
        let own = self.namespace.netns.id().ok();
        for seen in blocking(visible).await {
            if Some(seen.id) == own {
                continue;
            }
            let netns = Arc::new(seen.netns);
            // A namespace may end while it is looked at.
            let Ok(namespace) = Namespace::enter(&netns) else { continue };
            let Ok(links) = namespace.netlink.links().await else { continue };
            if links.iter().any(|link| link.parent == parent) {
                return Some(netns);
            }
        }
        None
    }

    async fn interface(&self, vf: PciAddress) -> Result<Option<Interface>, MachineError> {
        self.interface(vf).await
    }

    async fn await_interface(
        &self,
        vf: PciAddress,
        patience: Duration,
    ) -> Result<Option<Interface>, MachineError> {
        let deadline = Instant::now() + patience;
        // Subscribed before the first look: what comes after it is heard.
        let mut monitor = LinkMonitor::open().ok();
        loop {
            if let Some(interface) = self.interface(vf).await? {
                return Ok(Some(interface));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            heard(&mut monitor, deadline).await;
        }
    }

    async fn driver(&self, vf: PciAddress) -> Result<Option<String>, MachineError> {
        let root = self.root.clone();
        Ok(blocking(move || driver::current(&root, vf)).await?)
    }

    async fn vfio_user(&self, vf: PciAddress) -> Result<Option<String>, MachineError> {
        let root = self.root.clone();
        let user = blocking(move || vfio::user_of(&root, vf)).await?;
        Ok(user.map(|process| process.to_string()))
    }

    async fn bind(&self, vf: PciAddress, driver: VfDriver) -> Result<(), MachineError> {
        self.bind(vf, driver).await
    }

    async fn vf_settings(&self, pf_interface: u32, vf: VfIndex) -> Result<Option<VfSettings>, MachineError> {
        let all = self.namespace.netlink.vf_settings(pf_interface).await?;
        Ok(all.into_iter().find(|settings| settings.index == vf))
    }

    async fn change_vf(&self, pf_interface: u32, vf: VfIndex, change: &VfChange) -> Result<(), MachineError> {
        let deadline = Instant::now() + PF_PATIENCE;
        let mut pause = Duration::from_millis(10);
        loop {
            match self.namespace.netlink.change_vf(pf_interface, vf, change).await {
                Err(e) if e.may_pass() && Instant::now() + pause < deadline => {
                    debug!("vf {vf} of interface {pf_interface}: tried again: {}", chain(&e));
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                done => return Ok(done?),
            }
        }
    }
}

impl Net for Namespace {
    type Netns = Netns;

    fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    async fn links(&self) -> Result<Vec<Link>, MachineError> {
        Ok(self.netlink.links().await?)
    }

    async fn link(&self, index: u32) -> Result<Option<Link>, MachineError> {
        Ok(self.netlink.link(index).await?)
    }

    async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, MachineError> {
        Ok(self.netlink.addresses().await?)
    }

    async fn routes(&self) -> Result<Vec<Route>, MachineError> {
        Ok(self.netlink.routes().await?)
    }

    async fn change_link(&self, index: u32, change: &LinkChange) -> Result<(), MachineError> {
        Ok(self.netlink.change_link(index, change).await?)
    }

    async fn add_alt_names(&self, index: u32, names: &[String]) -> Result<(), MachineError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(self.netlink.add_alt_names(index, &names).await?)
    }

    async fn remove_alt_names(&self, index: u32, names: &[String]) -> Result<(), MachineError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(self.netlink.remove_alt_names(index, &names).await?)
    }

    async fn move_link(&self, index: u32, name: &str, netns: &Netns) -> Result<(), MachineError> {
        Ok(self.netlink.move_link(index, name, netns).await?)
    }

    async fn add_address(&self, index: u32, address: IpNet) -> Result<(), MachineError> {
        Ok(self.netlink.add_address(index, address).await?)
    }

    async fn add_route(&self, route: &Route) -> Result<(), MachineError> {
        Ok(self.netlink.add_route(route).await?)
    }

    async fn set_sysctls(&self, values: &[(String, &'static str)]) -> Result<(), MachineError> {
        let write = || {
            for (name, value) in values {
                let path = Path::new("/proc/sys").join(name);
                match std::fs::write(&path, value) {
                    // A kernel without IPv6, or without this feature of it.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    done => done.map_err(|e| FileError::new(format!("write {value} to"), &path, e))?,
                }
            }
            Ok::<_, FileError>(())
        };
        Ok(self.netns.run(write)??)
    }

    fn announce(&self, index: u32, mac: Mac, addresses: &[IpNet]) {
        if addresses.is_empty() {
            return;
        }
        let netns = Arc::clone(&self.netns);
        let addresses: Vec<_> = addresses.iter().map(IpNet::addr).collect();
        tokio::spawn(async move {
            await_carrier(&netns, index).await;
            // A pod that was quicker to go than its link to come up has nothing to announce.
            match blocking(move || announce(&netns, index, mac, &addresses)).await {
                Ok(()) | Err(culvert_host::AnnounceError::NoInterface(_)) => {}
                Err(e) => warn!("the neighbours were not told of a new address: {}", chain(&e)),
            }
        });
    }
}

/// Waits until interface `index` of `netns` has a carrier, is gone, or [`CARRIER_PATIENCE`] is over.
async fn await_carrier(netns: &Arc<Netns>, index: u32) {
    let wait = async {
        let mut monitor = LinkMonitor::open_in(netns).ok();
        let Ok(netlink) = Netlink::open_in(netns) else { return };
        while let Ok(Some(link)) = netlink.link(index).await {
            if link.carrier {
                return;
            }
            heard(&mut monitor, Instant::now() + Duration::from_secs(1)).await;
        }
    };
    // Too late is better than never.
    let _ = timeout(CARRIER_PATIENCE, wait).await;
}

/// Waits for news of an interface, but not past `deadline`; only for a moment if the kernel cannot be heard.
async fn heard(monitor: &mut Option<LinkMonitor>, deadline: Instant) {
    /// sysfs may lag behind an event.
    const LAG: Duration = Duration::from_millis(100);
    let Some(ears) = monitor else { return sleep(Duration::from_millis(20)).await };
    let soon = deadline.min(Instant::now() + LAG);
    match timeout_at(soon, ears.next()).await {
        Ok(Some(LinkEvent::Changed(_) | LinkEvent::Gone(_) | LinkEvent::Overrun)) | Err(_) => {}
        Ok(None) => *monitor = None,
    }
}
