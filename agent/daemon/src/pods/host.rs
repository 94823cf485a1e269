//! What the host port gets, so that no pod gets the same.

use std::net::IpAddr;

use culvert_api::config::agent::HostPort;
use ipnet::IpNet;

use super::ipam::{self, Fixed, Wish};
use super::overlay::{AttachError, Overlay, derived_mac, leases};
use super::record::Lease;
use crate::tables::NodeAddresses;

/// Who wants an address that the configuration names.
const CONFIGURED: &str = "overlay.hostPort.addresses";
/// Who wants another.
const DEFAULT: &str = "overlay.hostPort, the second of the pod range";

impl Overlay {
    /// What the host port is to have, and the ranges of this node's pods. Its addresses are in these: so other nodes find
    /// it as they find pods.
    ///
    /// # Errors
    /// When this node's ranges are not known, or an address is not in them, or a pod has it.
    pub fn host_lease(&self, config: &HostPort) -> Result<(Lease, Vec<IpNet>), AttachError> {
        let node = self.addresses()?;
        let cidrs = node.pod_cidrs.clone();
        let records = self.store().all();
        let used = leases(records.iter().filter(|record| record.tenant.is_none()));
        let addresses = ipam::assign(&wish(config, &cidrs), &cidrs, &used, &[])?;
        let lease = Lease {
            port: config.name.clone(),
            mac: derived_mac(&addresses),
            gateways: cidrs.iter().map(NodeAddresses::gateway).collect(),
            mtu: self.pod_mtu(&node),
            addresses,
        };
        Ok((lease, cidrs))
    }
}

/// The addresses of the host port in this node's ranges.
pub(super) fn addresses(config: &HostPort, cidrs: &[IpNet]) -> impl Iterator<Item = IpAddr> {
    wish(config, cidrs).fixed.into_iter().map(|fixed| fixed.address.addr())
}

/// Those of the configuration, and for a family that has none there, the second of the range, behind the router's.
fn wish(config: &HostPort, cidrs: &[IpNet]) -> Wish {
    let mut fixed: Vec<_> =
        config.addresses.iter().map(|a| Fixed { address: IpNet::from(*a), source: CONFIGURED }).collect();
    for cidr in cidrs {
        if !config.addresses.iter().any(|address| address.is_ipv4() == cidr.addr().is_ipv4()) {
            let second = ipam::successor(NodeAddresses::gateway(cidr));
            fixed.push(Fixed { address: IpNet::from(second), source: DEFAULT });
        }
    }
    Wish { fixed, preferred: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(addresses: &[&str]) -> HostPort {
        HostPort {
            name: "culvert0".parse().unwrap(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: Vec::new(),
        }
    }

    #[test]
    fn an_address_that_is_not_given_is_the_second_of_the_range() {
        let cidrs = ["10.244.1.0/24", "fd00:244:1::/64"].map(|cidr| cidr.parse().unwrap());
        let of = |given: &[&str]| -> Vec<String> {
            addresses(&config(given), &cidrs).map(|address| address.to_string()).collect()
        };
        assert_eq!(of(&[]), ["10.244.1.2", "fd00:244:1::2"]);
        assert_eq!(of(&["10.244.1.9"]), ["10.244.1.9", "fd00:244:1::2"]);
    }

    #[test]
    fn an_address_outside_the_nodes_ranges_or_of_a_pod_is_refused() {
        let cidrs: [IpNet; 1] = ["10.244.1.0/24".parse().unwrap()];
        let used = [("10.244.1.2".parse().unwrap(), "default/web".to_owned())].into();
        let refused = |given: &[&str]| {
            ipam::assign(&wish(&config(given), &cidrs), &cidrs, &used, &[]).unwrap_err().to_string()
        };
        assert_eq!(
            refused(&[]),
            "address 10.244.1.2 (overlay.hostPort, the second of the pod range): is in use by default/web"
        );
        assert_eq!(
            refused(&["10.9.0.9"]),
            "address 10.9.0.9 (overlay.hostPort.addresses): not in this node's pod ranges 10.244.1.0/24"
        );
        assert!(refused(&["10.244.1.1"]).contains("its gateway's"));
    }
}
