//! The network configuration on standard input (CNI specification 1.1.0, sections 1 and 3).
//!
//! Keys that are not ours pass: runtimes and other plugins add theirs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use culvert_api::value::{LinkState, Mac, Mtu, PciAddress, Rate, VlanId, VlanProtocol, VlanQos};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::error::CniError;

/// A version of the CNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1: with lists of interfaces and addresses.
    V031,
    /// 0.4.0: the first with CHECK.
    V040,
    /// 1.0.0: addresses without a family.
    V100,
    /// 1.1.0: the first with STATUS and GC.
    V110,
}

impl Version {
    /// All that are spoken here, oldest first.
    pub const ALL: [Self; 4] = [Self::V031, Self::V040, Self::V100, Self::V110];
    /// The newest.
    pub const LATEST: Self = Self::V110;

    /// The version as the specification writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version that `text` names, if it is spoken here.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the configuration says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetConf {
    #[serde(default)]
    pub(super) name: String,
    /// A virtual function; without one the pod goes on the overlay.
    #[serde(rename = "deviceID", default, deserialize_with = "non_empty")]
    pub(super) device_id: Option<PciAddress>,
    #[serde(default)]
    pub(super) mac: Option<Mac>,
    #[serde(default)]
    pub(super) mtu: Option<Mtu>,
    // Keys of virtual functions, named as users of sriov-cni know them.
    #[serde(default)]
    pub(super) vlan: Option<VlanId>,
    #[serde(default, rename = "vlanQoS", alias = "vlanQos")]
    pub(super) vlan_qos: Option<VlanQos>,
    #[serde(default)]
    pub(super) vlan_proto: Option<VlanProtocol>,
    #[serde(default)]
    pub(super) spoofchk: Option<OnOff>,
    #[serde(default)]
    pub(super) trust: Option<OnOff>,
    #[serde(default, rename = "link_state", alias = "linkState")]
    pub(super) link_state: Option<LinkState>,
    #[serde(default, rename = "min_tx_rate", alias = "minTxRate")]
    pub(super) min_tx_rate: Option<Rate>,
    #[serde(default, rename = "max_tx_rate", alias = "maxTxRate")]
    pub(super) max_tx_rate: Option<Rate>,
    #[serde(default)]
    pub(super) ipam: Option<Ipam>,
    #[serde(default)]
    pub(super) runtime_config: RuntimeConfig,
    /// Passed on in the result.
    #[serde(default)]
    pub(super) dns: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    pub(super) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// `on` or `off`, also as a truth value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "must be \"on\" or \"off\"")]
pub(super) enum OnOff {
    Word(OnOffWord),
    Truth(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnOffWord {
    On,
    Off,
}

impl From<OnOff> for bool {
    fn from(value: OnOff) -> bool {
        matches!(value, OnOff::Word(OnOffWord::On) | OnOff::Truth(true))
    }
}

/// What the runtime adds for capabilities that the configuration declares.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    pub(super) ips: Vec<String>,
    #[serde(default)]
    pub(super) mac: Option<Mac>,
    #[serde(rename = "deviceID", default, deserialize_with = "non_empty")]
    pub(super) device_id: Option<PciAddress>,
    #[serde(default, rename = "io.kubernetes.cri.pod-annotations")]
    pub(super) pod_annotations: BTreeMap<String, String>,
}

/// Addresses given in the configuration itself, in the form of the `static` plugin.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Ipam {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) addresses: Vec<StaticAddress>,
    #[serde(default)]
    pub(super) routes: Vec<StaticRoute>,
    #[serde(default)]
    pub(super) dns: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StaticAddress {
    pub(super) address: IpNet,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StaticRoute {
    pub(super) dst: IpNet,
    #[serde(default)]
    pub(super) gw: Option<IpAddr>,
}

/// An attachment that the runtime still knows (GC).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    pub(super) ifname: String,
}

impl NetConf {
    /// Reads the configuration; `version` is set as soon as it is known, for the sake of errors.
    pub(super) fn parse(config: &[u8], version: &mut Version) -> Result<Self, CniError> {
        let value: Value = serde_json::from_slice(config).map_err(|e| CniError::decode(e.to_string()))?;
        let text = value.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
        *version = Version::of(text).ok_or_else(|| {
            let spoken = Version::ALL.map(Version::as_str).join(", ");
            CniError::version(format!("cniVersion {text:?}: must be one of {spoken}"))
        })?;
        // Again from the text: errors carry line and column then.
        let conf: Self = serde_json::from_slice(config).map_err(|e| CniError::config(e.to_string()))?;
        if !is_network_name(&conf.name) {
            let name = &conf.name;
            return Err(CniError::config(format!(
                "name {name:?}: must begin with a letter or digit and hold only those, '_', '.' and '-'"
            )));
        }
        Ok(conf)
    }

    /// Addresses that the configuration itself gives.
    pub(super) fn static_addresses(&self) -> Result<&[StaticAddress], CniError> {
        match &self.ipam {
            None => Ok(&[]),
            Some(ipam) if matches!(ipam.kind.as_str(), "" | "static") => Ok(&ipam.addresses),
            Some(ipam) => Err(CniError::config(format!(
                "ipam type {:?}: must be static; other address plugins are not called",
                ipam.kind
            ))),
        }
    }

    /// The virtual function asked for.
    pub(super) fn device(&self) -> Option<PciAddress> {
        self.runtime_config.device_id.or(self.device_id)
    }
}

/// Section 1 of the specification: "must start with an alphanumeric character...".
fn is_network_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && name.bytes().all(legal)
}

/// Runtimes that have nothing to say may say it with an empty text.
fn non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PciAddress>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}
