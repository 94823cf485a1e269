//! The CNI, as culvert-cni hands it over: one invocation in, standard output and exit code back.
//!
//! ```text
//! ADD of a VF with an IPAM plugin:  culvert-cni --ADD--> agent: VF into the pod
//!                                               <--run the plugin, come again--
//!                                   plugin ADD
//!                                               --ADD, its result--> agent: addresses
//! ```
//!
//! Whatever ends in between is undone by the DEL that the runtime sends then: the VF is in the journal from the start.
//! CNI specification 1.1.0, <https://www.cni.dev/docs/spec/>.

mod addressing;
mod annotations;
mod check;
mod error;
mod garbage;
mod invocation;
mod keys;
mod macs;
mod netconf;
mod output;
mod overlay;
mod requested;
mod status;
mod version;
mod vf;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use culvert_api::agent::{CniReply, CniRequest, DeviceInfoFile, IpamRun};
use culvert_api::config::cni::{self as config, PodMayChoose};
use culvert_api::value::PciAddress;
use culvert_device_plugin::{Device, device_information};
use tokio::sync::watch;
use tracing::{info, warn};

pub use error::CniError;
use invocation::{Attachment, Command};
use macs::Macs;
use netconf::Basics;
use output::CniResult;
use requested::Requested;
pub use version::Version;
use vf::Added;

use crate::errors::chain;
use crate::kube::Snapshot;
use crate::nic::{Lost, NicManager};
use crate::pods::{Key, Overlay};

/// Answers CNI invocations.
#[derive(Debug)]
pub struct Cni {
    overlay: Option<Arc<Overlay>>,
    nics: NicManager,
    objects: watch::Receiver<Arc<Snapshot>>,
    may: PodMayChoose,
    /// Folder of kubelet, in which pods have their volumes.
    kubelet: PathBuf,
    macs: Macs,
    /// Keys of configurations that were reported as unknown, by network.
    reported: Mutex<BTreeSet<(String, String)>>,
}

/// How many unknown keys are kept in mind; past that, they are reported no more.
const MOST_REPORTED: usize = 1000;

/// The address plugin whose DEL needs the interface: a lease is given back through it.
const NEEDS_INTERFACE: &str = "dhcp";

/// What an invocation came to.
#[derive(Debug, Default)]
struct Answer {
    result: Option<CniResult>,
    ipam: Option<IpamRun>,
    device_info: Option<DeviceInfoFile>,
}

impl Cni {
    /// `overlay`: pods on the fast path, where one is configured; `nics`: virtual functions; `objects`: what is known
    /// of pods; `config`: what those may choose, and where they have their volumes.
    pub fn new(
        overlay: Option<Arc<Overlay>>,
        nics: NicManager,
        objects: watch::Receiver<Arc<Snapshot>>,
        config: config::Cni,
    ) -> Self {
        let config::Cni { pod_may_choose: may, kubelet_dir: kubelet } = config;
        Self { overlay, nics, objects, may, kubelet, macs: Macs::default(), reported: Mutex::default() }
    }

    /// Answers one invocation. Never fails: what goes wrong is an error object of the CNI.
    pub async fn handle(&self, request: &CniRequest) -> CniReply {
        let mut version = Version::LATEST;
        let answer = match Command::parse(request, &mut version) {
            Ok(command) => self.run(command, request.ipam_result.as_deref()).await,
            Err(e) => Err(e),
        };
        let (command, container, ifname) = (&request.command, &request.container_id, &request.ifname);
        match answer {
            Ok(Answer { result, ipam, device_info }) => {
                match &ipam {
                    Some(run) if run.again => {
                        info!(command, container, ifname, "ipam plugin {} is next", run.plugin);
                    }
                    _ => info!(command, container, ifname, "done"),
                }
                let output = result.map(|result| result.to_json(version)).unwrap_or_default();
                CniReply { output, exit_code: 0, ipam, device_info }
            }
            Err(e) => {
                warn!(command, container, ifname, code = e.code(), "{e}");
                CniReply { output: e.to_json(version), exit_code: 1, ..CniReply::default() }
            }
        }
    }

    /// `ipam`: what the IPAM plugin printed that an earlier answer asked for.
    async fn run(&self, command: Command, ipam: Option<&[u8]>) -> Result<Answer, CniError> {
        match command {
            Command::Add(attachment) => self.add(&attachment, ipam).await,
            Command::Del(key, basics, netns) => self.delete(&key, &basics, netns, ipam.is_some()).await,
            Command::Check(attachment) => {
                match attachment.conf.device {
                    Some(_) => self.nics.check_vf(&attachment.key).await?,
                    None => overlay::check(self.overlay()?, &attachment).await?,
                }
                check::previous(&attachment, &self.nics.attachments(), self.overlay.as_deref())?;
                Ok(Answer::then(attachment.conf.delegate()))
            }
            Command::Gc(basics, valid) => {
                garbage::collect(self.overlay.as_deref(), &self.nics, &basics.name, &valid).await?;
                Ok(Answer::then(basics.delegate))
            }
            Command::Status(basics) => {
                match &self.overlay {
                    Some(overlay) if !basics.for_vfs => status::overlay(overlay).await?,
                    _ => status::vfs(&self.nics).await?,
                }
                Ok(Answer::then(basics.delegate))
            }
        }
    }

    async fn add(&self, attachment: &Attachment, ipam: Option<&[u8]>) -> Result<Answer, CniError> {
        let (key, conf) = (&attachment.key, &attachment.conf);
        if let (Some(printed), Some(device), Some(plugin)) = (ipam, conf.device, conf.delegate()) {
            let result = vf::address(&self.nics, attachment, device, &plugin, printed).await?;
            return Ok(self.attached(attachment, device, result));
        }
        self.report_unknown_keys(attachment);
        let snapshot = self.objects.borrow().clone();
        let pod = requested::pod(&snapshot, attachment);
        let requested = Requested::of(attachment, pod, &self.may)?;
        let overlay = self.overlay.as_deref();
        // Held until the attachment is on record.
        let _claim = match requested.mac {
            Some(mac) => Some(self.macs.claim(mac, key, overlay, &self.nics)?),
            None => None,
        };
        let Some(device) = conf.device else {
            if let Some(mac) = requested.mac {
                Macs::check_free_vfs(mac, &self.nics).await?;
            }
            let result = overlay::add(self.overlay()?, attachment, pod, requested, &self.kubelet).await?;
            return Ok(Answer { result: Some(result), ..Answer::default() });
        };
        if let Some(port) = requested.port {
            return Err(CniError::config(format!(
                "annotation culvert.io/port {port}: the network configuration names a virtual function as deviceID; a pod \
                 has such a port on the overlay only"
            )));
        }
        Ok(match vf::add(&self.nics, attachment, &requested, device).await? {
            Added::Done(result) => self.attached(attachment, device, *result),
            Added::AwaitsIpam { plugin, afresh } => Answer {
                ipam: Some(IpamRun { plugin, again: true, release_first: afresh }),
                ..Answer::default()
            },
        })
    }

    /// Takes back whatever the interface has: not every runtime repeats the device. What was never attached, or refused
    /// at ADD, is no error.
    async fn delete(
        &self,
        key: &Key,
        basics: &Basics,
        netns: Option<PathBuf>,
        plugin_is_done: bool,
    ) -> Result<Answer, CniError> {
        let mut run = None;
        let recorded = self.nics.attachments().iter().any(|a| a.key == *key);
        let of_a_vf = basics.for_vfs || recorded;
        if let (false, Some(plugin), true) = (plugin_is_done, &basics.delegate, of_a_vf) {
            let again = plugin == NEEDS_INTERFACE;
            run = Some(IpamRun { plugin: plugin.clone(), again, release_first: false });
            if again {
                return Ok(Answer { ipam: run, ..Answer::default() });
            }
        }
        let lost = basics.device.map(|device| Lost { device, netns });
        let released = self.nics.detach_vf(key, lost).await.or_else(|e| match basics.device {
            // Nothing says that it was ever attached. If it was, it is on record by now, and is tried again.
            Some(vf) if !recorded => {
                warn!(%vf, container = key.container_id, "is not as it was yet: {}", chain(&e));
                Ok(())
            }
            _ => Err(e),
        });
        if let Some(overlay) = &self.overlay {
            overlay.detach(key).await?;
        }
        released?;
        let path = basics.device_info.clone();
        let device_info = path.map(|path| DeviceInfoFile { path, content: Vec::new() });
        Ok(Answer { ipam: run, device_info, result: None })
    }

    fn attached(&self, attachment: &Attachment, device: PciAddress, result: CniResult) -> Answer {
        let path = attachment.conf.runtime_config.device_info.clone();
        let device_info = path.map(|path| {
            let content = device_information(&self.device(&attachment.key, device)).to_string().into_bytes();
            DeviceInfoFile { path, content }
        });
        Answer { result: Some(result), device_info, ipam: None }
    }

    /// What is known of a device that a pod has.
    fn device(&self, key: &Key, pci: PciAddress) -> Device {
        let known = self.nics.devices().borrow().iter().find(|d| d.pci == pci).cloned();
        known.unwrap_or_else(|| {
            let attachments = self.nics.attachments();
            let pf = attachments.iter().find(|a| a.key == *key).map(|a| a.pf);
            Device { pf, ..Device::new(pci) }
        })
    }

    /// Unknown keys do no harm, but a setting whose name is misspelt does nothing either: each is told once.
    fn report_unknown_keys(&self, attachment: &Attachment) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &attachment.conf.unknown {
            let network = &attachment.conf.name;
            if reported.len() < MOST_REPORTED && reported.insert((network.clone(), key.clone())) {
                warn!(network, "key {key:?} of the network configuration is unknown and has no effect");
            }
        }
    }

    fn overlay(&self) -> Result<&Overlay, CniError> {
        self.overlay.as_deref().ok_or_else(|| {
            CniError::config(
                "this node has no overlay: the agent's configuration has no section fastpath; and the network \
                 configuration names no virtual function as deviceID",
            )
        })
    }
}

impl Answer {
    /// It is done, and an IPAM plugin is to do its part.
    fn then(delegate: Option<String>) -> Self {
        let run = |plugin| IpamRun { plugin, again: false, release_first: false };
        Self { ipam: delegate.map(run), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
