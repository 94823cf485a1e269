//! The pods on this node, and tables of the size that is asked for.

use std::net::Ipv4Addr;

use culvert_api::fastpath as proto;
use culvert_engine::table::{Port, PortIndex, TableError};

use crate::input::frame::{self, Flags, Transport};

/// The port of the pod that sends.
pub(super) const CLIENT: PortIndex = PortIndex(1);

/// Ports of the pods here that may be endpoints of the watched Service: from this one on,
const FIRST: u16 = 2;
/// as many.
const HERE: u16 = 10;

/// Name of this node.
pub(super) const NODE: &str = "node";

/// MAC address of the router that pods see, as culvert-agent gives it.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x63, 0x00, 0x00, 0x00, 0x01];

/// What an endpoint serves.
const ENDPOINT_PORT: u32 = 8080;

/// Services and endpoints of others, and remote nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) services: u32,
    pub(super) endpoints: u32,
    pub(super) nodes: u32,
}

/// Whether a port is that of a pod that may be an endpoint.
pub(super) fn is_endpoint(port: PortIndex) -> bool {
    (FIRST..FIRST + HERE).contains(&port.0)
}

fn pod(port: u16) -> Ipv4Addr {
    match PortIndex(port) {
        CLIENT => frame::client(0, 1).0,
        _ => Ipv4Addr::new(10, 244, 1, 10 + (port - FIRST) as u8),
    }
}

/// The pods' ports.
pub(super) fn ports() -> Result<Vec<(PortIndex, Port)>, TableError> {
    let port = |n: u16| {
        let request = proto::AttachPortRequest {
            name: format!("pod{n}"),
            addresses: vec![pod(n).octets().to_vec()],
            mac: frame::POD_MAC.to_vec(),
            mtu: 1450,
            ..Default::default()
        };
        Ok((PortIndex(n), Port::try_from(&request)?))
    };
    (CLIENT.0..FIRST + HERE).map(port).collect()
}

/// A packet from the client to the watched Service.
pub(super) fn frame() -> Vec<u8> {
    let mut frame =
        frame::from_pod(Transport::Udp, frame::client(0, 1), (frame::VIP, frame::VIP_PORT), Flags::Ack);
    frame[..6].copy_from_slice(&GATEWAY_MAC);
    frame
}

/// The watched Service with all endpoints but the one behind `without`.
pub(super) fn watched(without: PortIndex) -> proto::Service {
    let backends = (FIRST..FIRST + HERE).filter(|port| *port != without.0).map(|port| backend(pod(port)));
    proto::Service {
        namespace: "bench".to_owned(),
        name: "watched".to_owned(),
        port_name: "udp".to_owned(),
        protocol: proto::Protocol::Udp.into(),
        vip: frame::VIP.octets().to_vec(),
        port: frame::VIP_PORT.into(),
        backends: backends.collect(),
        ..Default::default()
    }
}

/// What the watched Service is told by.
pub(super) fn watched_key() -> proto::ServiceKey {
    let proto::Service { tenant, protocol, vip, port, .. } = watched(CLIENT);
    proto::ServiceKey { tenant, protocol, vip, port }
}

/// All tables, the watched Service first.
pub(super) fn tables(size: Size, revision: u64, without: PortIndex) -> proto::Tables {
    let others = (1..size.services.max(1)).map(|n| service(size, n));
    proto::Tables {
        revision,
        synced: true,
        node: Some(node()),
        remotes: (0..size.nodes).map(remote).collect(),
        services: std::iter::once(watched(without)).chain(others).collect(),
    }
}

/// A Service with its share of the endpoints.
fn service(size: Size, n: u32) -> proto::Service {
    let share = |n: u32| (u64::from(n) * u64::from(size.endpoints) / u64::from(size.services)) as u32;
    let pods = u32::from(Ipv4Addr::new(10, 128, 0, 0));
    proto::Service {
        namespace: format!("namespace-{}", n % 100),
        name: format!("service-{n}"),
        port_name: "http".to_owned(),
        protocol: proto::Protocol::Tcp.into(),
        vip: octets(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + n),
        port: 80,
        backends: (share(n)..share(n + 1)).map(|e| backend(Ipv4Addr::from(pods + e))).collect(),
        ..Default::default()
    }
}

fn backend(address: Ipv4Addr) -> proto::Backend {
    proto::Backend { address: address.octets().to_vec(), port: ENDPOINT_PORT, ..Default::default() }
}

/// A node in another network, with 256 pods.
fn remote(n: u32) -> proto::RemoteNode {
    let [_, a, b, c] = n.to_be_bytes();
    proto::RemoteNode {
        name: format!("node-{n}"),
        vtep: octets(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + n),
        vtep_mac: vec![2, 0x63, 172, a, b, c],
        pod_cidrs: vec![prefix(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + (n << 8))],
        ..Default::default()
    }
}

fn node() -> proto::LocalNode {
    proto::LocalNode {
        name: NODE.to_owned(),
        gateways: vec![frame::GATEWAY.octets().to_vec()],
        gateway_mac: GATEWAY_MAC.to_vec(),
        underlay: vec![proto::UnderlayAddress {
            address: frame::LOCAL_VTEP.octets().to_vec(),
            prefix_len: 24,
            router: frame::REMOTE_VTEP.octets().to_vec(),
        }],
        vtep_mac: frame::LOCAL_VTEP_MAC.to_vec(),
        vni: frame::VNI,
        pod_cidrs: vec![prefix(frame::GATEWAY.into())],
        ..Default::default()
    }
}

fn prefix(address: u32) -> proto::Prefix {
    proto::Prefix { address: octets(address & !0xff), prefix_len: 24 }
}

fn octets(address: u32) -> Vec<u8> {
    address.to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use culvert_engine::table::Builder;

    use super::*;

    #[test]
    fn the_tables_are_as_large_as_they_are_said_to_be() {
        let size = Size { services: 300, endpoints: 2_500, nodes: 10 };
        let tables = tables(size, 1, CLIENT);
        let endpoints: usize = tables.services[1..].iter().map(|service| service.backends.len()).sum();
        // The first Service has its own.
        assert!((2_490..=2_500).contains(&endpoints), "{endpoints}");
        let applied = Builder::new().apply(&tables).unwrap();
        assert_eq!((applied.services, applied.remotes), (300, 10));
    }
}
