//! The node's own port of the fast path.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::config::ConfigError;
use crate::value::IfName;

/// A port of the fast path in the node's own network namespace: the way between pods and what runs there, such as kubelet
/// and pods on the host network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name of the interface, which the fast path makes.
    pub name: IfName,
    /// Addresses of the port out of this node's pod ranges, at most one of each family. A family that has none here has the
    /// second address of the range, the one behind the router's.
    pub addresses: Vec<IpAddr>,
    /// Ranges of the pods of all nodes: what the node has routes to by the port.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of Services' cluster addresses: the same.
    pub service_cidrs: Vec<IpNet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawHostPort {
    #[serde(default = "name")]
    name: IfName,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    #[serde(default)]
    service_cidrs: Vec<IpNet>,
}

fn name() -> IfName {
    "culvert0".parse().expect("is an interface name")
}

impl RawHostPort {
    pub(super) fn validate(self) -> Result<HostPort, ConfigError> {
        let Self { name, addresses, pod_cidrs, service_cidrs } = self;
        if pod_cidrs.is_empty() {
            let reason = "must name the ranges of the pods of all nodes, such as 10.244.0.0/16";
            return Err(ConfigError::value("overlay.hostPort.podCidrs", "[]", reason));
        }
        let ranges = pod_cidrs.iter().enumerate().map(|(at, range)| (format!("podCidrs[{at}]"), *range));
        let services =
            service_cidrs.iter().enumerate().map(|(at, range)| (format!("serviceCidrs[{at}]"), *range));
        let ranges: Vec<_> = ranges.chain(services).collect();
        for (at, (key, range)) in ranges.iter().enumerate() {
            let refused =
                |reason: String| Err(ConfigError::value(format!("overlay.hostPort.{key}"), range, reason));
            if range.trunc() != *range {
                return refused(format!("must be a range: {}", range.trunc()));
            }
            if range.prefix_len() == 0 || !is_routable(range) {
                return refused("must be a range of unicast addresses, and not all of them".to_owned());
            }
            let touches = |other: &IpNet| other.contains(range) || range.contains(other);
            if let Some((other, net)) = ranges[..at].iter().find(|(_, net)| touches(net)) {
                return refused(format!("overlaps with {other} {net}"));
            }
        }
        for (at, address) in addresses.iter().enumerate() {
            let refused = |reason: &str| {
                Err(ConfigError::value(format!("overlay.hostPort.addresses[{at}]"), address, reason))
            };
            if addresses[..at].iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                return refused("is the second of its family; the port has one of each");
            }
            if !pod_cidrs.iter().any(|range| range.contains(address)) {
                return refused("is in none of overlay.hostPort.podCidrs");
            }
        }
        Ok(HostPort { name, addresses, pod_cidrs, service_cidrs })
    }
}

/// Whether a range holds no address that routers do not forward to.
fn is_routable(range: &IpNet) -> bool {
    let of_kind = |address: IpAddr| {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        address.is_loopback() || address.is_multicast() || link_local
    };
    !of_kind(range.network()) && !of_kind(range.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agent::AgentConfig;

    fn read(text: &str) -> Result<Option<HostPort>, String> {
        let config = AgentConfig::from_yaml(&format!("overlay: {{ {text} }}"));
        config.map(|config| config.overlay.host_port).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_none_unless_it_is_wanted_and_then_with_a_name() {
        assert_eq!(read(""), Ok(None));
        let port = read("hostPort: { podCidrs: [10.244.0.0/16], serviceCidrs: ['fd00:96::/112'] }")
            .unwrap()
            .unwrap();
        assert_eq!((port.name.as_str(), port.addresses), ("culvert0", vec![]));
        assert_eq!(port.pod_cidrs, ["10.244.0.0/16".parse().unwrap()]);
        assert_eq!(port.service_cidrs, ["fd00:96::/112".parse().unwrap()]);
        let port = read("hostPort: { name: pods0, addresses: [10.1.0.9], podCidrs: [10.1.0.0/24] }");
        let port = port.unwrap().unwrap();
        assert_eq!((port.name.as_str(), port.addresses), ("pods0", vec!["10.1.0.9".parse().unwrap()]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key_value_and_reason() {
        for (text, parts) in [
            ("", ["podCidrs", "missing field", "line 1"]),
            ("podCidrs: []", ["overlay.hostPort.podCidrs", "[]", "ranges of the pods of all nodes"]),
            ("podCidrs: [10.1.0.0/16], mtu: 9000", ["mtu", "unknown field", "line 1"]),
            ("podCidrs: [10.1.0.0/16], name: a/b", ["a/b", "1-15 letters", "line 1"]),
            ("podCidrs: [10.1.0.5/16]", ["podCidrs[0]", "10.1.0.5/16", "must be a range: 10.1.0.0/16"]),
            ("podCidrs: ['::/0']", ["podCidrs[0]", "::/0", "not all of them"]),
            ("podCidrs: [224.0.0.0/4]", ["podCidrs[0]", "224.0.0.0/4", "unicast"]),
            ("podCidrs: [126.0.0.0/7]", ["podCidrs[0]", "126.0.0.0/7", "unicast"]),
            (
                "podCidrs: [10.1.0.0/16, 10.1.7.0/24]",
                ["podCidrs[1]", "10.1.7.0/24", "overlaps with podCidrs[0] 10.1.0.0/16"],
            ),
            (
                "podCidrs: [10.1.0.0/16], serviceCidrs: [10.0.0.0/8]",
                ["serviceCidrs[0]", "10.0.0.0/8", "overlaps with podCidrs[0] 10.1.0.0/16"],
            ),
            (
                "podCidrs: [10.1.0.0/16], addresses: [10.2.0.1]",
                ["addresses[0]", "10.2.0.1", "in none of overlay.hostPort.podCidrs"],
            ),
            (
                "podCidrs: [10.1.0.0/16], addresses: [10.1.0.2, 10.1.0.3]",
                ["addresses[1]", "10.1.0.3", "second of its family"],
            ),
        ] {
            let error = read(&format!("hostPort: {{ {text} }}")).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
