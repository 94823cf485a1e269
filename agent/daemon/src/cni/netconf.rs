//! The network configuration on standard input (CNI specification 1.1.0, sections 1 and 3).
//!
//! That of sriov-cni is taken as it is: its keys, in any case as its language reads them, mean what they mean there, and
//! keys that nobody knows are passed over, but told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_api::value::{LinkState, Mac, Mtu, PciAddress, Rate, VlanId, VlanProtocol, VlanQos};
use culvert_host::netlink::{VfRates, VfVlanTag};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::CniError;
use super::keys::Keys;
use super::version::Version;

#[cfg(test)]
mod tests;

/// Keys of a configuration that mean something to somebody: to us, to the runtime, or to the one who called us.
const KNOWN: [&str; 27] = [
    "args",
    "capabilities",
    "cniVersion",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
    "deviceID",
    "dns",
    "ipMasq",
    "ipam",
    "link_state",
    "logFile",
    "logLevel",
    "mac",
    "max_tx_rate",
    "min_tx_rate",
    "mtu",
    "name",
    "pciBusID",
    "prevResult",
    "runtimeConfig",
    "socket",
    "spoofchk",
    "trust",
    "type",
    "vlan",
    "vlanProto",
    "vlanQoS",
];

/// Settings of a virtual function; they make no sense without one.
const OF_A_VF: [&str; 8] =
    ["link_state", "max_tx_rate", "min_tx_rate", "spoofchk", "trust", "vlan", "vlanProto", "vlanQoS"];

/// Where device information files of CNI plugins lie; `/var/run` is `/run`.
const DEVICE_INFO: [&str; 2] = ["/var/run/k8s.cni.cncf.io/devinfo/cni/", "/run/k8s.cni.cncf.io/devinfo/cni/"];

/// What the configuration says.
#[derive(Debug, Clone, Default)]
pub(super) struct NetConf {
    pub(super) name: String,
    /// The virtual function; without one the pod goes on the overlay.
    pub(super) device: Option<PciAddress>,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<Mtu>,
    pub(super) vlan: Option<VlanId>,
    pub(super) vlan_qos: Option<VlanQos>,
    pub(super) vlan_proto: Option<VlanProtocol>,
    pub(super) spoofchk: Option<bool>,
    pub(super) trust: Option<bool>,
    pub(super) link_state: Option<LinkState>,
    pub(super) rates: Option<VfRates>,
    pub(super) ipam: Ipam,
    pub(super) runtime_config: RuntimeConfig,
    /// Passed on in the result.
    pub(super) dns: Option<Value>,
    /// What ADD came to.
    pub(super) previous: Option<Value>,
    /// Keys that nobody knows.
    pub(super) unknown: Vec<String>,
}

/// What all commands need of the configuration, and those that must not fail for the sake of a setting.
#[derive(Debug, Clone, Default)]
pub(super) struct Basics {
    pub(super) name: String,
    /// Whether it is for virtual functions.
    pub(super) for_vfs: bool,
    /// The virtual function.
    pub(super) device: Option<PciAddress>,
    /// The plugin that gives addresses, if it is not ourselves.
    pub(super) delegate: Option<String>,
    /// The device information file that the runtime wants.
    pub(super) device_info: Option<String>,
    pub(super) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// What the runtime adds for capabilities that the configuration declares.
#[derive(Debug, Clone, Default)]
pub(super) struct RuntimeConfig {
    pub(super) ips: Vec<String>,
    pub(super) mac: Option<Mac>,
    pub(super) pod_annotations: BTreeMap<String, String>,
    pub(super) device_info: Option<String>,
}

/// Where addresses come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Ipam {
    /// Nowhere, or the agent's own for a pod on the overlay.
    #[default]
    None,
    /// The configuration itself, in the form of the `static` plugin.
    Static(StaticIpam),
    /// Another plugin.
    Plugin(String),
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct StaticIpam {
    #[serde(default)]
    pub(super) addresses: Vec<StaticAddress>,
    #[serde(default)]
    pub(super) routes: Vec<StaticRoute>,
    #[serde(default)]
    pub(super) dns: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct StaticAddress {
    pub(super) address: IpNet,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "must be \"on\" or \"off\"")]
enum OnOff {
    Word(OnOffWord),
    Truth(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnOffWord {
    On,
    Off,
}

/// Reads the text as an object; `version` is set as soon as it is known, for the sake of errors.
pub(super) fn object(config: &[u8], version: &mut Version) -> Result<Map<String, Value>, CniError> {
    let map: Map<String, Value> =
        serde_json::from_slice(config).map_err(|e| CniError::decode(e.to_string()))?;
    if let Some(known) = Version::of(&cni_version(&map)) {
        *version = known;
    }
    Ok(map)
}

fn cni_version(map: &Map<String, Value>) -> String {
    Keys::of(map).value("cniVersion").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// # Errors
/// When the version of the configuration is none that is spoken here.
pub(super) fn check_version(map: &Map<String, Value>) -> Result<(), CniError> {
    let text = cni_version(map);
    if Version::of(&text).is_some() {
        return Ok(());
    }
    let spoken = Version::ALL.map(Version::as_str).join(", ");
    Err(CniError::version(format!("cniVersion {text:?}: must be one of {spoken}")))
}

impl Basics {
    pub(super) fn parse(map: &Map<String, Value>) -> Result<Self, CniError> {
        let keys = Keys::of(map);
        let name = keys.text("name")?;
        if !is_network_name(&name) {
            return Err(CniError::config(format!(
                "name {name:?}: must begin with a letter or digit and hold only those, '_', '.' and '-'"
            )));
        }
        let basics = Self::lenient(map);
        let key = ["cni.dev/valid-attachments", "cni.dev/attachments"].into_iter();
        let valid = key.map(|key| keys.get(key)).find(|valid| !matches!(valid, Ok(None)));
        Ok(Self { name, valid_attachments: valid.transpose()?.flatten(), ..basics })
    }

    /// What can be made out of it: what ADD had refused was not begun, and needs nothing undone.
    pub(super) fn lenient(map: &Map<String, Value>) -> Self {
        let keys = Keys::of(map);
        let text = |keys: Keys<'_>, key: &str| keys.text(key).unwrap_or_default();
        let runtime = keys.object("runtimeConfig", "runtimeConfig.");
        let runtime_text =
            |key: &str| runtime.as_ref().map_or_else(|_| String::new(), |keys| text(*keys, key));
        let named = [text(keys, "deviceID"), text(keys, "pciBusID"), runtime_text("deviceID")];
        Self {
            name: text(keys, "name"),
            device: runtime.as_ref().ok().and_then(|runtime| device(keys, *runtime).ok().flatten()),
            for_vfs: named.iter().any(|d| !d.is_empty())
                || text(keys, "type") == "sriov"
                || OF_A_VF.iter().any(|key| keys.value(key).is_some()),
            delegate: match Ipam::parse(keys) {
                Ok(Ipam::Plugin(name)) => Some(name),
                _ => None,
            },
            device_info: device_info(&runtime_text("CNIDeviceInfoFile")).ok().flatten(),
            valid_attachments: None,
        }
    }
}

impl NetConf {
    pub(super) fn parse(map: &Map<String, Value>) -> Result<Self, CniError> {
        let keys = Keys::of(map);
        let basics = Basics::parse(map)?;
        let runtime = keys.object("runtimeConfig", "runtimeConfig.")?;
        let on_off = |key| keys.get::<OnOff>(key).map(|value| value.map(bool::from));
        let conf = Self {
            name: basics.name,
            device: device(keys, runtime)?,
            mac: keys.get("mac")?,
            mtu: keys.get("mtu")?,
            vlan: keys.get("vlan")?,
            vlan_qos: keys.get("vlanQoS")?,
            vlan_proto: vlan_protocol(keys)?,
            spoofchk: on_off("spoofchk")?,
            trust: on_off("trust")?,
            link_state: keys.get("link_state")?,
            rates: rates(keys)?,
            ipam: Ipam::parse(keys)?,
            runtime_config: RuntimeConfig {
                ips: runtime.get("ips")?.unwrap_or_default(),
                mac: runtime.get("mac")?,
                pod_annotations: runtime.get("io.kubernetes.cri.pod-annotations")?.unwrap_or_default(),
                device_info: device_info(&runtime.text("CNIDeviceInfoFile")?)?,
            },
            dns: keys.value("dns").filter(|dns| !dns.is_null()).cloned(),
            previous: keys.value("prevResult").filter(|previous| !previous.is_null()).cloned(),
            unknown: keys.unknown(&KNOWN),
        };
        if basics.for_vfs && conf.device.is_none() {
            let which = OF_A_VF.into_iter().find(|key| keys.value(key).is_some());
            let why = which.map_or_else(|| "type \"sriov\"".to_owned(), |key| format!("key {key}"));
            return Err(CniError::config(format!(
                "deviceID: is missing, but {why} is for a virtual function; Multus adds it where the network's \
                 annotation k8s.v1.cni.cncf.io/resourceName names a pool and the pod requests one of it"
            )));
        }
        Ok(conf)
    }

    /// The plugin that gives addresses, if it is not ourselves.
    pub(super) fn delegate(&self) -> Option<String> {
        match &self.ipam {
            Ipam::Plugin(name) => Some(name.clone()),
            Ipam::None | Ipam::Static(_) => None,
        }
    }

    /// The tag of the virtual function's frames, `vlan` if that is given, else the configuration's.
    ///
    /// # Errors
    /// When priority or protocol need a VLAN that is not there.
    pub(super) fn vlan_tag(&self, vlan: Option<VlanId>) -> Result<Option<VfVlanTag>, CniError> {
        let Some(id) = vlan.or(self.vlan) else {
            return match (self.vlan_qos, self.vlan_proto) {
                (Some(qos), _) => Err(CniError::config(format!("vlanQoS {qos}: needs a vlan"))),
                (None, Some(protocol)) => {
                    Err(CniError::config(format!("vlanProto {protocol}: needs a vlan")))
                }
                (None, None) => Ok(None),
            };
        };
        let (qos, protocol) = (self.vlan_qos.unwrap_or(VlanQos::MIN), self.vlan_proto.unwrap_or_default());
        if id == VlanId::MIN && qos != VlanQos::MIN {
            return Err(CniError::config(format!("vlanQoS {qos}: needs a vlan of 1-4094; 0 is no VLAN")));
        }
        if id == VlanId::MIN && protocol == VlanProtocol::Dot1ad {
            return Err(CniError::config(format!(
                "vlanProto {protocol}: needs a vlan of 1-4094; 0 is no VLAN"
            )));
        }
        Ok(Some(VfVlanTag { id, qos, protocol }))
    }
}

impl Ipam {
    fn parse(keys: Keys<'_>) -> Result<Self, CniError> {
        let ipam = keys.object("ipam", "ipam.")?;
        let kind = ipam.text("type")?;
        match kind.as_str() {
            "" | "static" => {
                let addresses = ipam.get("addresses")?.unwrap_or_default();
                let routes = ipam.get("routes")?.unwrap_or_default();
                let listed = StaticIpam { addresses, routes, dns: ipam.get("dns")? };
                Ok(if listed == StaticIpam::default() { Self::None } else { Self::Static(listed) })
            }
            // It is looked for in the folders of CNI_PATH, and nowhere else.
            name if name.contains('/') || matches!(name, "." | "..") => {
                Err(CniError::config(format!("ipam.type {name:?}: must be the name of a plugin, not a path")))
            }
            _ => Ok(Self::Plugin(kind)),
        }
    }
}

/// One device may be named in three places: by whoever wrote the configuration, by Multus, by the runtime.
fn device(keys: Keys<'_>, runtime: Keys<'_>) -> Result<Option<PciAddress>, CniError> {
    let mut found: Option<(&str, PciAddress)> = None;
    for (name, keys, key) in [
        ("deviceID", keys, "deviceID"),
        ("pciBusID", keys, "pciBusID"),
        ("runtimeConfig.deviceID", runtime, "deviceID"),
    ] {
        let Some(device) = keys.get::<PciAddress>(key)? else { continue };
        match found {
            Some((first, other)) if other != device => {
                return Err(CniError::config(format!(
                    "{first} {other} and {name} {device}: must name the same device, or only one of them be given"
                )));
            }
            _ => found = Some((name, device)),
        }
    }
    Ok(found.map(|(_, device)| device))
}

fn vlan_protocol(keys: Keys<'_>) -> Result<Option<VlanProtocol>, CniError> {
    let text: Option<String> = keys.get("vlanProto")?;
    text.map(|text| match text.to_ascii_lowercase().as_str() {
        "802.1q" => Ok(VlanProtocol::Dot1q),
        "802.1ad" => Ok(VlanProtocol::Dot1ad),
        _ => Err(CniError::config(format!("vlanProto {text:?}: must be 802.1q or 802.1ad"))),
    })
    .transpose()
}

fn rates(keys: Keys<'_>) -> Result<Option<VfRates>, CniError> {
    let (min, max): (Option<Rate>, Option<Rate>) = (keys.get("min_tx_rate")?, keys.get("max_tx_rate")?);
    if min.is_none() && max.is_none() {
        return Ok(None);
    }
    // 0 is "no guarantee" and "no limit".
    let (min, max) = (min.unwrap_or(Rate::MIN), max.unwrap_or(Rate::MIN));
    if max != Rate::MIN && min > max {
        return Err(CniError::config(format!("min_tx_rate {min}: must be at most max_tx_rate, {max}")));
    }
    Ok(Some(VfRates { min, max }))
}

/// # Errors
/// When the file lies where such files do not lie: the agent would write it as root wherever a configuration says.
fn device_info(path: &str) -> Result<Option<String>, CniError> {
    if path.is_empty() {
        return Ok(None);
    }
    let name = DEVICE_INFO.iter().find_map(|folder| path.strip_prefix(folder));
    match name {
        Some(name) if !name.is_empty() && !name.starts_with('.') && !name.contains('/') => {
            Ok(Some(path.to_owned()))
        }
        _ => Err(CniError::config(format!(
            "runtimeConfig.CNIDeviceInfoFile {path:?}: must be a file in {}",
            DEVICE_INFO[0]
        ))),
    }
}

impl From<OnOff> for bool {
    fn from(value: OnOff) -> bool {
        matches!(value, OnOff::Word(OnOffWord::On) | OnOff::Truth(true))
    }
}

/// Section 1 of the specification: "must start with an alphanumeric character...".
fn is_network_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && name.bytes().all(legal)
}
