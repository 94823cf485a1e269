//! Records of VFs that pods have.

use std::path::PathBuf;

use culvert_api::value::{IfName, Mac, Mtu, PciAddress, VfIndex};
use culvert_host::netlink::{VfChange, VfSettings};
use culvert_host::netns::NetnsId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::attach::Route;
use super::wanted::Hold;
use crate::pods::{Key, Phase};

/// A VF of a pod, with everything that is needed to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The container and the name of the interface in it.
    pub key: Key,
    /// Name of the CNI network; empty where an older agent recorded it.
    #[serde(default)]
    pub network: String,
    /// The pod, for people.
    pub owner: String,
    /// How far it is.
    pub phase: Phase,
    /// The VF.
    pub vf: PciAddress,
    /// Its PF.
    pub pf: PciAddress,
    /// Its index below the PF.
    pub index: VfIndex,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Which namespace that was: the path may lead to another one later. `None` for a VF that no pod is known to have
    /// had, and that is being taken back.
    pub netns_id: Option<NetnsId>,
    /// What the pod asked for at the PF.
    pub settings: VfChange,
    /// What the PF held before.
    pub before: Option<VfSettings>,
    /// MAC of the VF's interface before.
    pub host_mac: Option<Mac>,
    /// MAC that the VF has in the pod.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The VF's driver before.
    #[serde(default)]
    pub driver: Option<String>,
    /// The VF's interface, if the kernel drives it; else a program in the pod does, through vfio.
    pub interface: Option<PodInterface>,
}

/// A VF's interface in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInterface {
    /// Its name in the host's namespace, to which it returns.
    pub host_name: String,
    /// Its MTU there.
    pub host_mtu: u32,
    /// Its alternative names there.
    #[serde(default)]
    pub alt_names: Vec<String>,
    /// Its MAC in the pod.
    pub mac: Mac,
    /// Its MTU in the pod, if that was asked for.
    pub mtu: Option<Mtu>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<Route>,
}

impl Attachment {
    /// What is different of the VF while the pod has it.
    pub fn hold(&self) -> Hold {
        Hold { owner: self.owner.clone(), settings: self.settings.clone() }
    }

    /// A name for the VF's interface that nothing else on the machine has: it bears it while it is moved.
    pub fn temporary_name(&self) -> IfName {
        let hash = culvert_api::hash::fnv1a(&[self.vf.to_string().as_bytes()]);
        format!("cvt{:011x}", hash >> 20).parse().expect("14 letters and digits are an interface name")
    }
}
