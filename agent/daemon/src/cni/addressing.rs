//! Addresses, routes and name servers of a VF's interface: from the configuration, or from an IPAM plugin's result.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::error::CniError;
use super::netconf::{Ipam, NetConf, StaticIpam, StaticRoute};
use super::output::{Ip, Route};
use super::requested::Requested;

/// What an interface gets.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Addressing {
    pub(super) ips: Vec<Ip>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Option<Value>,
}

/// Success object of an IPAM plugin (CNI specification 1.1.0, section 5; before 1.0.0 with keys that do not matter here).
#[derive(Deserialize)]
struct PluginResult {
    #[serde(default)]
    ips: Vec<PluginIp>,
    #[serde(default)]
    routes: Vec<PluginRoute>,
    #[serde(default)]
    dns: Option<Value>,
}

#[derive(Deserialize)]
struct PluginIp {
    address: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct PluginRoute {
    dst: IpNet,
    #[serde(default)]
    gw: Option<IpAddr>,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

impl Addressing {
    /// Addresses that were asked for, else those of the configuration; routes of the configuration.
    pub(super) fn of_configuration(conf: &NetConf, requested: &Requested) -> Self {
        let none = StaticIpam::default();
        let listed = match &conf.ipam {
            Ipam::Static(listed) => listed,
            Ipam::None | Ipam::Plugin(_) => &none,
        };
        let gateway = |address: &IpNet| {
            let gateways = listed.addresses.iter().filter_map(|l| l.gateway);
            let same = |gateway: &IpAddr| gateway.is_ipv4() == address.addr().is_ipv4();
            gateways.filter(same).find(|gateway| address.contains(gateway))
        };
        let ips = if requested.addresses.is_empty() {
            listed.addresses.iter().map(|l| Ip { address: l.address, gateway: l.gateway }).collect()
        } else {
            let given = requested.addresses.iter().map(|a| a.address);
            given.map(|address| Ip { address, gateway: gateway(&address) }).collect()
        };
        Self::new(ips, listed.routes.iter(), listed.dns.clone())
    }

    /// What `plugin` printed at its ADD.
    ///
    /// # Errors
    /// When it is no result, or one without an address.
    pub(super) fn of_plugin(plugin: &str, printed: &[u8]) -> Result<Self, CniError> {
        let result: PluginResult = serde_json::from_slice(printed).map_err(|e| {
            CniError::ipam(format!("ipam plugin {plugin}: printed no result of the CNI: {e}"))
        })?;
        if result.ips.is_empty() {
            return Err(CniError::ipam(format!("ipam plugin {plugin}: its result has no ips")));
        }
        let ips = result.ips.into_iter().map(|ip| Ip { address: ip.address, gateway: ip.gateway }).collect();
        let routes: Vec<StaticRoute> = result.routes.into_iter().map(|route| route.plain(plugin)).collect();
        Ok(Self::new(ips, routes.iter(), result.dns))
    }

    fn new<'a>(ips: Vec<Ip>, routes: impl Iterator<Item = &'a StaticRoute>, dns: Option<Value>) -> Self {
        let next_hop = |dst: &IpNet| {
            let same = |ip: &&Ip| ip.address.addr().is_ipv4() == dst.addr().is_ipv4();
            ips.iter().filter(same).find_map(|ip| ip.gateway)
        };
        let route =
            |r: &StaticRoute| Route { destination: r.dst, gateway: r.gw.or_else(|| next_hop(&r.dst)) };
        let routes = routes.map(route).collect();
        let dns = dns.filter(|dns| dns.as_object().is_none_or(|object| !object.is_empty()));
        Self { ips, routes, dns }
    }

    /// The addresses alone.
    pub(super) fn addresses(&self) -> Vec<IpNet> {
        self.ips.iter().map(|ip| ip.address).collect()
    }

    /// The routes as the NIC manager takes them.
    pub(super) fn routes(&self) -> Vec<crate::nic::Route> {
        self.routes.iter().map(|r| (r.destination, r.gateway)).collect()
    }
}

impl PluginRoute {
    fn plain(self, plugin: &str) -> StaticRoute {
        for key in self.more.keys() {
            warn!(plugin, "route to {}: its {key} is not set", self.dst);
        }
        StaticRoute { dst: self.dst, gw: self.gw }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::attachment;
    use super::*;
    use crate::cni::requested::fixed;

    fn conf(ipam: &Value) -> NetConf {
        let config = json!({ "cniVersion": "1.1.0", "name": "n", "deviceID": "0000:03:10.0", "ipam": ipam });
        attachment("net1", "", &config).conf
    }

    #[test]
    fn addresses_and_routes_come_from_ipam_unless_somebody_asks_for_others() {
        let conf = conf(&json!({
            "type": "static",
            "addresses": [{ "address": "10.9.0.5/24", "gateway": "10.9.0.1" }, { "address": "fd09::5/64" }],
            "routes": [{ "dst": "10.8.0.0/16" }, { "dst": "10.7.0.0/16", "gw": "10.9.0.2" }, { "dst": "fd08::/64" }],
        }));
        let given = Addressing::of_configuration(&conf, &Requested::default());
        let (gateway, other) = ("10.9.0.1".parse().ok(), "10.9.0.2".parse().ok());
        let ips: Vec<_> = given.ips.iter().map(|ip| (ip.address.to_string(), ip.gateway)).collect();
        assert_eq!(ips, [("10.9.0.5/24".to_owned(), gateway), ("fd09::5/64".to_owned(), None)]);
        assert_eq!(given.routes.iter().map(|r| r.gateway).collect::<Vec<_>>(), [gateway, other, None]);

        let address = "10.9.0.77/24".parse().unwrap();
        let asked = Requested { addresses: fixed(&[address], "x"), ..Requested::default() };
        assert_eq!(Addressing::of_configuration(&conf, &asked).ips, [Ip { address, gateway }]);
    }

    #[test]
    fn without_ipam_there_are_no_addresses() {
        for ipam in [json!({}), Value::Null, json!({ "type": "" })] {
            let given = Addressing::of_configuration(&conf(&ipam), &Requested::default());
            assert_eq!(given, Addressing::default());
        }
    }

    #[test]
    fn a_plugins_result_is_read_in_the_form_of_every_version() {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let mut ip = json!({ "address": "10.9.0.5/24", "gateway": "10.9.0.1", "interface": 0 });
            if version < "1.0.0" {
                ip["version"] = "4".into();
            }
            let printed = json!({
                "cniVersion": version, "ips": [ip], "routes": [{ "dst": "0.0.0.0/0" }], "dns": {}
            });
            let given = Addressing::of_plugin("host-local", printed.to_string().as_bytes()).unwrap();
            let gateway = "10.9.0.1".parse().ok();
            assert_eq!(given.ips, [Ip { address: "10.9.0.5/24".parse().unwrap(), gateway }]);
            assert_eq!(given.routes, [Route { destination: "0.0.0.0/0".parse().unwrap(), gateway }]);
            assert_eq!(given.dns, None);
        }
    }

    #[test]
    fn what_is_no_result_is_refused_by_the_plugins_name() {
        for (printed, part) in [
            ("hello", "expected value"),
            ("{}", "has no ips"),
            (r#"{"ips":[{"address":"10.9.0.5"}]}"#, "line 1"),
        ] {
            let error = Addressing::of_plugin("host-local", printed.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("ipam plugin host-local") && error.contains(part), "{printed}: {error}");
        }
    }
}
