//! The addresses of the topology.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::frame::{Outcome, Stop};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// One address of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Those that a CNI result gives.
    pub fn of_result(result: &Value) -> Outcome<Self> {
        let ips = result["ips"].as_array().into_iter().flatten();
        let addresses: Vec<IpAddr> =
            ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect();
        match addresses[..] {
            [IpAddr::V4(v4), IpAddr::V6(v6)] | [IpAddr::V6(v6), IpAddr::V4(v4)] => Ok(Self { v4, v6 }),
            _ => Err(Stop::fail(format!("not one address of each family: {result}"))),
        }
    }

    /// That of `family`.
    pub fn get(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both, for loops.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// This node on the underlay.
pub const VTEP: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 1, 1, 1), v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1) };
/// The far node on the underlay.
pub const FAR_VTEP: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 1, 1, 2), v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2) };
/// The router of this node's pods.
pub const GATEWAY: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 244, 1, 1), v6: Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 1) };
/// The virtual address of the Service "web".
pub const CLUSTER_IP: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 96, 0, 10), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10) };

/// A pod of node 1 or 2, which are 10.244.NODE.0/24 and fd00:244:NODE::/64.
pub const fn pod_address(node: u8, index: u8) -> Addresses {
    let host = 10 + index;
    Addresses {
        v4: Ipv4Addr::new(10, 244, node, host),
        v6: Ipv6Addr::new(0xfd00, 0x244, node as u16, 0, 0, 0, 0, host as u16),
    }
}
