//! Annotations by which a pod chooses its addresses, MAC and VLAN, and what makes its port.
//!
//! `culvert.io/addresses`, `culvert.io/mac`, `culvert.io/vlan` and `culvert.io/port` are for interface `eth0`; followed by a
//! dot and a name (`culvert.io/mac.net1`) they are for that interface. `culvert.io/networks` says the same for several
//! interfaces at once, as JSON: `{"net1": {"addresses": ["10.9.0.5/24"], "mac": "02:00:00:00:00:05", "vlan": 100}}`.

use std::collections::BTreeMap;
use std::fmt::Display;

use culvert_api::config::cni::PodMayChoose;
use culvert_api::value::{Mac, VlanId};
use serde::Deserialize;

use super::error::CniError;
use super::requested::{fixed, parse_addresses};
use crate::pods::{Fixed, Sharing};

pub(super) const ADDRESSES: &str = "culvert.io/addresses";
const MAC: &str = "culvert.io/mac";
const VLAN: &str = "culvert.io/vlan";
const PORT: &str = "culvert.io/port";
const NETWORKS: &str = "culvert.io/networks";
/// The interface that a pod has in any case.
const FIRST_INTERFACE: &str = "eth0";

/// What a pod chose for an interface.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chosen {
    pub(super) addresses: Option<Vec<Fixed>>,
    pub(super) mac: Option<Mac>,
    pub(super) vlan: Option<VlanId>,
    /// How the pod's port shares memory with a program.
    pub(super) port: Option<Sharing>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Network {
    addresses: Option<Vec<String>>,
    mac: Option<Mac>,
    vlan: Option<VlanId>,
    port: Option<Sharing>,
}

type Annotations = BTreeMap<String, String>;

impl Chosen {
    /// What `annotations` say of interface `ifname`.
    ///
    /// # Errors
    /// When one makes no sense, says what another says too, or chooses what pods `may` not choose. A wish is never passed
    /// over: a pod without its VLAN would be in the wrong one.
    pub(super) fn read(
        annotations: &Annotations,
        ifname: &str,
        may: &PodMayChoose,
    ) -> Result<Self, CniError> {
        let network = network(annotations, ifname)?;
        let listed = network.addresses.map(|list| list.join(","));
        let addresses = one(annotations, ADDRESSES, ifname, listed)?;
        let mac = one(annotations, MAC, ifname, network.mac.map(|mac| mac.to_string()))?;
        let vlan = one(annotations, VLAN, ifname, network.vlan.map(|vlan| vlan.to_string()))?;
        let port = one(annotations, PORT, ifname, network.port.map(|port| port.to_string()))?;
        let chosen = Self {
            port: port.as_ref().map(Said::parse).transpose()?,
            addresses: addresses.as_ref().map(Said::addresses).transpose()?,
            mac: mac.as_ref().map(Said::parse).transpose()?,
            vlan: vlan.as_ref().map(Said::parse).transpose()?,
        };
        if let Some(said) = addresses.filter(|_| !may.addresses) {
            return Err(said.forbidden("their addresses", "addresses: true"));
        }
        if let Some(said) = port.filter(|_| !may.ports) {
            return Err(said.forbidden("a port that shares memory", "ports: true"));
        }
        if let Some(said) = mac.filter(|_| !may.mac) {
            return Err(said.forbidden("their MAC", "mac: true"));
        }
        match (vlan, chosen.vlan) {
            (Some(said), Some(id)) if may.vlans.is_empty() => {
                Err(said.forbidden("their VLAN", &format!("vlans: \"{id}\"")))
            }
            (Some(said), Some(id)) if !may.vlans.contains(id) => Err(said.error(format!(
                "pods may only choose among the VLANs {} on this node, by cni.podMayChoose.vlans of the agent's \
                 configuration",
                may.vlans
            ))),
            _ => Ok(chosen),
        }
    }

    /// This, and what it does not say from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            addresses: self.addresses.or(other.addresses),
            mac: self.mac.or(other.mac),
            vlan: self.vlan.or(other.vlan),
            port: self.port.or(other.port),
        }
    }
}

fn network(annotations: &Annotations, ifname: &str) -> Result<Network, CniError> {
    let Some(text) = annotations.get(NETWORKS) else { return Ok(Network::default()) };
    let mut networks: BTreeMap<String, Network> = serde_json::from_str(text).map_err(|e| {
        CniError::config(format!("annotation {NETWORKS}: {e}; must map interfaces to what they get"))
    })?;
    Ok(networks.remove(ifname).unwrap_or_default())
}

/// What an annotation says, and which.
struct Said {
    key: String,
    text: String,
}

/// The one annotation that speaks of the interface.
fn one(
    annotations: &Annotations,
    key: &str,
    ifname: &str,
    listed: Option<String>,
) -> Result<Option<Said>, CniError> {
    let own = format!("{key}.{ifname}");
    let general =
        annotations.get(key).filter(|_| ifname == FIRST_INTERFACE).map(|text| (key.to_owned(), text.clone()));
    let own = annotations.get(&own).map(|text| (own, text.clone()));
    let listed = listed.map(|text| (format!("{NETWORKS}, {ifname}"), text));
    let mut said = [own, general, listed].into_iter().flatten();
    let Some((key, text)) = said.next() else { return Ok(None) };
    if let Some((second, _)) = said.next() {
        return Err(CniError::config(format!(
            "annotations {key} and {second}: say the same thing; keep one of them"
        )));
    }
    Ok(Some(Said { key, text }))
}

impl Said {
    fn error(&self, reason: impl Display) -> CniError {
        CniError::config(format!("annotation {} {:?}: {reason}", self.key, self.text))
    }

    fn forbidden(&self, what: &str, key: &str) -> CniError {
        self.error(format!(
            "pods may not choose {what} on this node; the agent's configuration allows it with cni.podMayChoose: {{ {key} }}"
        ))
    }

    fn parse<T: std::str::FromStr<Err: Display>>(&self) -> Result<T, CniError> {
        self.text.trim().parse().map_err(|e: T::Err| self.error(e))
    }

    fn addresses(&self) -> Result<Vec<Fixed>, CniError> {
        let addresses = parse_addresses(&self.text);
        let addresses = addresses.ok_or_else(|| self.error("must be IP addresses separated by commas"))?;
        Ok(fixed(&addresses, "annotation culvert.io/addresses"))
    }
}

#[cfg(test)]
mod tests {
    use culvert_api::config::agent::AgentConfig;
    use serde_json::{Value, from_value, json};

    use super::*;

    fn read(annotations: Value, ifname: &str, may: &str) -> Result<(Vec<String>, String, String), CniError> {
        let config = AgentConfig::from_yaml(&format!("cni: {{ podMayChoose: {{ {may} }} }}")).unwrap();
        let annotations: Annotations = from_value(annotations).unwrap();
        let chosen = Chosen::read(&annotations, ifname, &config.cni.pod_may_choose)?;
        let addresses = chosen.addresses.iter().flatten().map(|f| f.address.to_string()).collect();
        let mac = chosen.mac.map(|mac| mac.to_string()).unwrap_or_default();
        Ok((addresses, mac, chosen.vlan.map(|vlan| vlan.to_string()).unwrap_or_default()))
    }

    const ALL: &str = "vlans: 100-199";

    #[test]
    fn an_annotation_with_an_interfaces_name_is_for_that_one_and_one_without_for_eth0() {
        let annotations = json!({
            "culvert.io/addresses": "10.0.0.1", "culvert.io/addresses.net1": "10.9.0.1/24",
            "culvert.io/mac": "02:00:00:00:00:01", "culvert.io/vlan.net1": "100",
        });
        let of = |ifname| read(annotations.clone(), ifname, ALL).unwrap();
        let (mac, none) = ("02:00:00:00:00:01".to_owned(), String::new());
        assert_eq!(of("eth0"), (vec!["10.0.0.1/32".to_owned()], mac, none.clone()));
        assert_eq!(of("net1"), (vec!["10.9.0.1/24".to_owned()], none.clone(), "100".to_owned()));
        assert_eq!(of("net2"), (Vec::new(), none.clone(), none));
    }

    #[test]
    fn one_annotation_speaks_of_several_interfaces_as_json() {
        let networks = r#"{ "net1": { "addresses": ["10.9.0.5/24", "fd09::5/64"], "mac": "02:00:00:00:00:05", "vlan": 100 },
                            "net2": { "vlan": 101 } }"#;
        let annotations = json!({ "culvert.io/networks": networks });
        let expected = (
            vec!["10.9.0.5/24".to_owned(), "fd09::5/64".to_owned()],
            "02:00:00:00:00:05".to_owned(),
            "100".to_owned(),
        );
        assert_eq!(read(annotations.clone(), "net1", ALL).unwrap(), expected);
        assert_eq!(read(annotations, "net2", ALL).unwrap().2, "101");
    }

    #[test]
    fn a_vlan_is_chosen_only_where_and_from_what_the_agent_allows() {
        let chosen = |vlan: &str, may| read(json!({ "culvert.io/vlan.net1": vlan }), "net1", may);
        let refusal = chosen("100", "").unwrap_err().to_string();
        assert!(
            refusal.contains("annotation culvert.io/vlan.net1 \"100\": pods may not choose their VLAN"),
            "{refusal}"
        );
        assert!(refusal.contains("cni.podMayChoose: { vlans: \"100\" }"), "{refusal}");
        let refusal = chosen("200", ALL).unwrap_err().to_string();
        assert!(refusal.contains("only choose among the VLANs 100-199"), "{refusal}");
        assert!(chosen("0", ALL).is_err(), "untagged is no way out of the VLANs that are allowed");
        assert_eq!(chosen("150", ALL).unwrap().2, "150");
        assert!(read(json!({ "culvert.io/networks": r#"{"net1":{"vlan":100}}"# }), "net1", "").is_err());
    }

    #[test]
    fn a_port_that_shares_memory_is_chosen_where_that_is_allowed() {
        let port = |text: &str, may: &str| {
            let config = AgentConfig::from_yaml(&format!("cni: {{ podMayChoose: {{ {may} }} }}")).unwrap();
            let annotations: Annotations = from_value(json!({ "culvert.io/port": text })).unwrap();
            Chosen::read(&annotations, "eth0", &config.cni.pod_may_choose).map(|chosen| chosen.port)
        };
        assert_eq!(port("memif", "ports: true").unwrap(), Some(Sharing::Memif));
        assert_eq!(port("vhostUser", "ports: true").unwrap(), Some(Sharing::VhostUser));
        let refusal = port("veth", "ports: true").unwrap_err().to_string();
        assert!(refusal.contains("culvert.io/port \"veth\": must be memif or vhostUser"), "{refusal}");
        let refusal = port("memif", "").unwrap_err().to_string();
        assert!(refusal.contains("cni.podMayChoose: { ports: true }"), "{refusal}");
    }

    #[test]
    fn an_operator_may_forbid_addresses_and_macs() {
        for (key, value, may) in [
            ("culvert.io/addresses", "10.0.0.1", "addresses: false"),
            ("culvert.io/mac", "02:00:00:00:00:01", "mac: false"),
        ] {
            let annotations = json!({ key: value });
            let refusal = read(annotations.clone(), "eth0", may).unwrap_err().to_string();
            assert!(refusal.contains(key) && refusal.contains("cni.podMayChoose"), "{refusal}");
            assert!(read(annotations, "net1", may).is_ok(), "it is for another interface");
        }
    }

    #[test]
    fn what_makes_no_sense_or_is_said_twice_is_refused_by_key_and_value() {
        for (annotations, part) in [
            (
                json!({ "culvert.io/addresses": "10.0.0.300" }),
                "culvert.io/addresses \"10.0.0.300\": must be IP addresses",
            ),
            (json!({ "culvert.io/mac": "x" }), "culvert.io/mac \"x\": mac \"x\""),
            (json!({ "culvert.io/mac": "01:00:00:00:00:00" }), "multicast"),
            (json!({ "culvert.io/vlan": "5000" }), "culvert.io/vlan \"5000\": vlan 5000: must be 0-4094"),
            (json!({ "culvert.io/networks": "[]" }), "culvert.io/networks"),
            (json!({ "culvert.io/networks": r#"{"net1":{"vlna":1}}"# }), "unknown field `vlna`"),
            (
                json!({ "culvert.io/mac": "02:00:00:00:00:01", "culvert.io/mac.eth0": "02:00:00:00:00:01" }),
                "culvert.io/mac.eth0 and culvert.io/mac",
            ),
            (
                json!({ "culvert.io/vlan": "100", "culvert.io/networks": r#"{"eth0":{"vlan":100}}"# }),
                "culvert.io/vlan and culvert.io/networks, eth0",
            ),
        ] {
            let error = read(annotations.clone(), "eth0", ALL).unwrap_err();
            assert_eq!(error.code(), 7);
            assert!(error.to_string().contains(part), "{annotations}: {error}");
        }
    }
}
