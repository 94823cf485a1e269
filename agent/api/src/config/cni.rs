//! What pods may choose for themselves, in section `cni` of the agent's configuration.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::value::VlanId;

/// How the agent answers CNI calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cni {
    /// What a pod may choose by its annotations.
    pub pod_may_choose: PodMayChoose,
    /// Folder of kubelet, in which pods have their volumes.
    pub kubelet_dir: PathBuf,
}

impl Default for Cni {
    fn default() -> Self {
        Self { pod_may_choose: PodMayChoose::default(), kubelet_dir: PathBuf::from("/var/lib/kubelet") }
    }
}

/// What a pod may choose by its annotations. Whoever may create pods may write annotations: a VLAN that a pod can choose
/// separates nobody from that pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodMayChoose {
    /// Its IP addresses.
    pub addresses: bool,
    /// Its MAC addresses.
    pub mac: bool,
    /// The VLANs that it may choose from; none by default.
    pub vlans: VlanSet,
    /// A port that shares memory with a program in the pod; no by default, since the pod's end of that memory is in the
    /// pod's hands.
    pub ports: bool,
}

/// A set of VLANs, written `100-199,300`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VlanSet(Vec<RangeInclusive<VlanId>>);

impl Default for PodMayChoose {
    fn default() -> Self {
        Self { addresses: true, mac: true, vlans: VlanSet::default(), ports: false }
    }
}

impl VlanSet {
    /// Whether `vlan` is among them.
    pub fn contains(&self, vlan: VlanId) -> bool {
        self.0.iter().any(|range| range.contains(&vlan))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let vlan = |text: &str| text.trim().parse::<VlanId>().map_err(|e| e.to_string());
            let (first, last) = (vlan(first)?, vlan(last)?);
            if first > last {
                return Err(format!("{part:?}: must begin with the smaller VLAN"));
            }
            Ok(first..=last)
        };
        parts.map(range).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawCni {
    pod_may_choose: RawPodMayChoose,
    kubelet_dir: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawPodMayChoose {
    addresses: Option<bool>,
    mac: Option<bool>,
    vlans: String,
    ports: bool,
}

impl RawCni {
    pub(super) fn validate(self) -> Result<Cni, ConfigError> {
        let RawPodMayChoose { addresses, mac, vlans, ports } = self.pod_may_choose;
        let kubelet_dir = self.kubelet_dir.unwrap_or_else(|| Cni::default().kubelet_dir);
        if !kubelet_dir.is_absolute() {
            let reason = "must be an absolute path";
            return Err(ConfigError::value("cni.kubeletDir", kubelet_dir.display(), reason));
        }
        let refused =
            |reason| ConfigError::value("cni.podMayChoose.vlans", format_args!("{vlans:?}"), reason);
        let allowed = VlanSet::parse(&vlans).map_err(refused)?;
        let default = PodMayChoose::default();
        Ok(Cni {
            pod_may_choose: PodMayChoose {
                addresses: addresses.unwrap_or(default.addresses),
                mac: mac.unwrap_or(default.mac),
                vlans: allowed,
                ports,
            },
            kubelet_dir,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agent::AgentConfig;

    fn cni(yaml: &str) -> Result<PodMayChoose, ConfigError> {
        AgentConfig::from_yaml(yaml).map(|config| config.cni.pod_may_choose)
    }

    fn vlan(id: u32) -> VlanId {
        VlanId::try_from(id).unwrap()
    }

    #[test]
    fn by_default_pods_choose_their_addresses_and_no_vlan() {
        let default = cni("node: a").unwrap();
        assert!(default.addresses && default.mac && default.vlans.is_empty() && !default.ports);
        assert!(!default.vlans.contains(VlanId::MIN), "untagged frames are a VLAN of their own");
    }

    #[test]
    fn kubelets_folder_is_an_absolute_path() {
        let dir = |yaml: &str| AgentConfig::from_yaml(yaml).map(|config| config.cni.kubelet_dir);
        assert_eq!(dir("node: a").unwrap(), PathBuf::from("/var/lib/kubelet"));
        assert_eq!(dir("cni: { kubeletDir: /data/kubelet }").unwrap(), PathBuf::from("/data/kubelet"));
        let error = dir("cni: { kubeletDir: kubelet }").unwrap_err().to_string();
        assert_eq!(error, "cni.kubeletDir kubelet: must be an absolute path");
    }

    #[test]
    fn vlans_are_ranges_and_single_ones() {
        let vlans = cni("cni: { podMayChoose: { vlans: '100-199, 300' } }").unwrap().vlans;
        assert_eq!(vlans.to_string(), "100-199,300");
        for (id, inside) in [(99, false), (100, true), (199, true), (200, false), (300, true), (0, false)] {
            assert_eq!(vlans.contains(vlan(id)), inside, "{id}");
        }
        assert!(cni("cni: { podMayChoose: { vlans: 300 } }").unwrap().vlans.contains(vlan(300)));
    }

    #[test]
    fn vlans_that_make_no_sense_are_refused_by_key_and_value() {
        for (text, reason) in
            [("200-100", "must begin with the smaller"), ("4095", "must be 0-4094"), ("x", "vlan \"x\"")]
        {
            let error =
                cni(&format!("cni: {{ podMayChoose: {{ vlans: '{text}' }} }}")).unwrap_err().to_string();
            assert!(error.starts_with("cni.podMayChoose.vlans") && error.contains(reason), "{error}");
        }
        let error = cni("cni: { podMayChoose: { vlan: 1 } }").unwrap_err().to_string();
        assert!(error.contains("vlan"), "{error}");
    }
}
