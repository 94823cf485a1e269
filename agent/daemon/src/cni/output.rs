//! Results (CNI specification 1.1.0, section 5, "Success"), in the form of each version.

use std::net::IpAddr;

use culvert_api::value::{IfName, Mac, PciAddress};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::version::Version;

/// What an attachment came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CniResult {
    /// The pod's interface.
    pub(super) ifname: IfName,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    /// Path of the namespace it is in; `None` if it is in none.
    pub(super) sandbox: Option<String>,
    /// The virtual function behind it.
    pub(super) device: Option<PciAddress>,
    /// Path of the socket by which a program in the pod finds it.
    pub(super) socket: Option<String>,
    pub(super) ips: Vec<Ip>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ip {
    pub(super) address: IpNet,
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) destination: IpNet,
    pub(super) gateway: Option<IpAddr>,
}

impl CniResult {
    /// The object for standard output.
    pub(super) fn to_json(&self, version: Version) -> Vec<u8> {
        let mut interface = json!({ "name": self.ifname.as_str() });
        if let Some(mac) = self.mac {
            interface["mac"] = mac.to_string().into();
        }
        if let Some(sandbox) = &self.sandbox {
            interface["sandbox"] = sandbox.as_str().into();
        }
        if version >= Version::V110 {
            if let Some(mtu) = self.mtu {
                interface["mtu"] = mtu.into();
            }
            if let Some(device) = self.device {
                interface["pciID"] = device.to_string().into();
            }
            if let Some(socket) = &self.socket {
                interface["socketPath"] = socket.as_str().into();
            }
        }
        let mut result = json!({ "cniVersion": version.as_str(), "interfaces": [interface] });
        if !self.ips.is_empty() {
            result["ips"] = self.ips.iter().map(|ip| ip.to_json(version)).collect();
        }
        if !self.routes.is_empty() {
            result["routes"] = self.routes.iter().map(Route::to_json).collect();
        }
        // The key is optional since 1.0.0 and was expected before.
        if let Some(dns) = self.dns.clone().or_else(|| (version < Version::V100).then(|| json!({}))) {
            result["dns"] = dns;
        }
        result.to_string().into_bytes()
    }
}

impl Ip {
    fn to_json(&self, version: Version) -> Value {
        let mut ip = json!({ "address": self.address.to_string(), "interface": 0 });
        if let Some(gateway) = self.gateway {
            ip["gateway"] = gateway.to_string().into();
        }
        if version < Version::V100 {
            ip["version"] = if self.address.addr().is_ipv4() { "4" } else { "6" }.into();
        }
        ip
    }
}

impl Route {
    fn to_json(&self) -> Value {
        let mut route = json!({ "dst": self.destination.to_string() });
        if let Some(gateway) = self.gateway {
            route["gw"] = gateway.to_string().into();
        }
        route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> CniResult {
        CniResult {
            ifname: "eth0".parse().unwrap(),
            mac: "02:70:0a:01:00:02".parse().ok(),
            mtu: Some(1450),
            sandbox: Some("/run/netns/web".to_owned()),
            device: None,
            socket: None,
            ips: vec![
                Ip { address: "10.1.0.2/32".parse().unwrap(), gateway: "10.1.0.1".parse().ok() },
                Ip { address: "fd00::2/128".parse().unwrap(), gateway: None },
            ],
            routes: vec![Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: "10.1.0.1".parse().ok(),
            }],
            dns: None,
        }
    }

    fn printed(result: &CniResult, version: Version) -> Value {
        serde_json::from_slice(&result.to_json(version)).unwrap()
    }

    #[test]
    fn version_1_1_has_the_mtu_and_no_address_families() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "eth0", "mac": "02:70:0a:01:00:02", "mtu": 1450, "sandbox": "/run/netns/web" }
            ],
            "ips": [
                { "address": "10.1.0.2/32", "gateway": "10.1.0.1", "interface": 0 },
                { "address": "fd00::2/128", "interface": 0 }
            ],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.1.0.1" }]
        });
        assert_eq!(printed(&result(), Version::V110), expected);
    }

    #[test]
    fn versions_below_1_0_name_the_family_of_each_address() {
        for version in [Version::V031, Version::V040] {
            let printed = printed(&result(), version);
            assert_eq!(printed["cniVersion"], version.as_str());
            assert_eq!(
                (&printed["ips"][0]["version"], &printed["ips"][1]["version"]),
                (&json!("4"), &json!("6"))
            );
            assert_eq!(printed["dns"], json!({}));
        }
        assert!(printed(&result(), Version::V100)["ips"][0].get("version").is_none());
    }

    #[test]
    fn keys_that_came_with_1_1_are_absent_before() {
        let mut result = result();
        result.device = "0000:03:10.0".parse().ok();
        result.socket = Some("/var/lib/kubelet/pods/1/eth0".to_owned());
        for version in Version::ALL {
            let interface = &printed(&result, version)["interfaces"][0];
            assert_eq!(interface.get("mtu").is_some(), version >= Version::V110);
            assert_eq!(interface.get("pciID").is_some(), version >= Version::V110);
            assert_eq!(interface.get("socketPath").is_some(), version >= Version::V110);
        }
    }

    #[test]
    fn an_attachment_without_addresses_has_no_ips_and_no_routes() {
        let result = CniResult { ips: Vec::new(), routes: Vec::new(), ..result() };
        let printed = printed(&result, Version::V110);
        assert!(printed.get("ips").is_none() && printed.get("routes").is_none());
    }
}
