//! The tables in the agent's messages.

use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_engine::table::Port as EnginePort;

use crate::model::tables::{
    Balancing, Domain, Dscp, Kind, Lost, Node, Policy, Port, Range, Remote, Said, Service, Tables, Timeouts,
    Tunnels,
};
use crate::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ranges(ranges: &[Range]) -> Vec<proto::Prefix> {
    let prefix = |(net, len): &Range| proto::Prefix { address: octets(*net), prefix_len: (*len).into() };
    ranges.iter().map(prefix).collect()
}

fn node(node: &Node) -> proto::LocalNode {
    let underlay = node.underlay.iter().map(|own| proto::UnderlayAddress {
        address: octets(own.address),
        prefix_len: own.prefix.into(),
        router: own.router.map(octets).unwrap_or_default(),
    });
    let encapsulation =
        if node.tunnels.geneve { proto::Encapsulation::Geneve } else { proto::Encapsulation::Vxlan };
    proto::LocalNode {
        name: "node-a".to_owned(),
        gateways: node.gateways.iter().copied().map(octets).collect(),
        gateway_mac: node.gateway_mac.to_vec(),
        underlay: underlay.collect(),
        vtep_mac: node.vtep_mac.to_vec(),
        vni: node.vni,
        tunnel_port: node.tunnels.port.into(),
        encapsulation: encapsulation.into(),
        marking: Some(marking(node.tunnels)),
        send_zero_checksum6: node.tunnels.send_zero_checksum6,
        accept_zero_checksum6: node.tunnels.accept_zero_checksum6,
        underlay_mtu: node.mtu.into(),
        pod_cidrs: ranges(&node.ranges),
        tenants: node.domains.iter().map(tenant).collect(),
        flows: Some(policy(node.policy)),
        ..Default::default()
    }
}

fn policy(policy: Policy) -> proto::FlowPolicy {
    let lost = match policy.lost {
        Lost::Reset => proto::LostConnections::Reset,
        Lost::Drop => proto::LostConnections::Drop,
        Lost::Reselect => proto::LostConnections::Reselect,
    };
    proto::FlowPolicy {
        lost_connections: lost.into(),
        icmp_errors_per_second: policy.errors_per_second,
        timeouts: Some(timeouts(policy.timeouts)),
    }
}

fn timeouts(timeouts: Timeouts) -> proto::FlowTimeouts {
    let Timeouts {
        tcp_opening,
        tcp_established,
        tcp_half_closed,
        tcp_closed,
        udp_unreplied,
        udp,
        icmp,
        sctp,
    } = timeouts;
    proto::FlowTimeouts {
        tcp_opening,
        tcp_established,
        tcp_half_closed,
        tcp_closed,
        udp_unreplied,
        udp,
        icmp,
        sctp,
    }
}

fn tenant(domain: &Domain) -> proto::Tenant {
    proto::Tenant {
        id: domain.tenant,
        vni: domain.vni,
        gateways: domain.gateways.iter().copied().map(octets).collect(),
        pod_cidrs: ranges(&domain.ranges),
        name: format!("tenant-{}", domain.tenant),
    }
}

fn marking(tunnels: Tunnels) -> proto::Marking {
    let (model, dscp) = match tunnels.dscp {
        Dscp::Pipe(dscp) => (proto::DscpModel::Pipe, dscp),
        Dscp::Copy => (proto::DscpModel::Copy, 0),
        Dscp::Uniform => (proto::DscpModel::Uniform, 0),
    };
    let ecn = if tunnels.compatibility { proto::EcnMode::Compatibility } else { proto::EcnMode::Normal };
    proto::Marking {
        dscp_model: model.into(),
        dscp: dscp.into(),
        ecn: ecn.into(),
        ttl: tunnels.hops.unwrap_or(0).into(),
        copy_ttl: tunnels.hops.is_none(),
    }
}

fn service(service: &Service) -> proto::Service {
    let (namespace, rest) = service.name.split_once('/').expect("namespace/name:port");
    let (name, port_name) = rest.split_once(':').expect("namespace/name:port");
    let protocol = match service.key.protocol {
        TCP => proto::Protocol::Tcp,
        UDP => proto::Protocol::Udp,
        SCTP => proto::Protocol::Sctp,
        ICMP | ICMPV6 => proto::Protocol::Icmp,
        other => unreachable!("protocol {other} has no services"),
    };
    let balancing = match service.balancing {
        Balancing::Hash => proto::Balancing::Maglev,
        Balancing::Turns => proto::Balancing::RoundRobin,
        Balancing::LeastFlow => proto::Balancing::LeastFlow,
    };
    let backends = service.backends.iter().map(|backend| proto::Backend {
        address: octets(backend.end.0),
        port: backend.end.1.into(),
        terminating: backend.terminating,
        draining: backend.draining,
        away: backend.away,
        weight: backend.weight,
        ..Default::default()
    });
    proto::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port_name: port_name.to_owned(),
        protocol: protocol.into(),
        vip: octets(service.key.vip),
        port: service.key.port.into(),
        tenant: service.key.tenant,
        backends: backends.collect(),
        affinity_seconds: service.affinity,
        affinity_shared: service.affinity_shared,
        balancing: balancing.into(),
        ..Default::default()
    }
}

fn of_tenant((tenant, list): (&u32, &Vec<Range>)) -> proto::TenantRanges {
    proto::TenantRanges { tenant: *tenant, pod_cidrs: ranges(list) }
}

fn remote((name, remote): (&String, &Remote)) -> proto::RemoteNode {
    proto::RemoteNode {
        name: name.clone(),
        vtep: octets(remote.vtep),
        vtep_mac: remote.vtep_mac.to_vec(),
        pod_cidrs: ranges(&remote.ranges),
        tenants: remote.tenants.iter().map(of_tenant).collect(),
        ..Default::default()
    }
}

/// What is different from the tables before; with everything that is as before, if `all`.
pub(crate) fn changes(before: &Tables, said: &Said, all: bool, base: u64, revision: u64) -> proto::Changes {
    let new_remote = |(name, remote): &(&String, &Remote)| all || before.remotes.get(*name) != Some(remote);
    let gone = |name: &&String| !said.remotes.contains_key(*name);
    let new_service = |service: &&Service| all || before.service(service.key) != Some(service);
    let stays = |key| said.services.iter().any(|service| service.key == key);
    let removed = before.services.iter().filter(|service| !stays(service.key)).map(service);
    let key = |service: proto::Service| proto::ServiceKey {
        tenant: service.tenant,
        protocol: service.protocol,
        vip: service.vip,
        port: service.port,
    };
    proto::Changes {
        base,
        revision,
        remotes: said.remotes.iter().filter(new_remote).map(remote).collect(),
        removed_remotes: before.remotes.keys().filter(gone).cloned().collect(),
        services: said.services.iter().filter(new_service).map(service).collect(),
        removed_services: removed.map(key).collect(),
    }
}

/// Everything that the agent says.
pub(crate) fn tables(said: &Said, revision: u64) -> proto::Tables {
    proto::Tables {
        revision,
        synced: said.synced,
        node: said.node.as_ref().map(node),
        remotes: said.remotes.iter().map(remote).collect(),
        services: said.services.iter().map(service).collect(),
        ..Default::default()
    }
}

pub(crate) fn port(port: &Port) -> EnginePort {
    if port.kind == Kind::Uplink {
        let mtu = culvert_api::value::Mtu::try_from(u32::from(port.mtu)).expect("a legal MTU");
        return EnginePort::uplink(&port.name, culvert_packet::eth::EthAddr(port.mac), mtu);
    }
    let request = proto::AttachPortRequest {
        name: port.name.clone(),
        addresses: port.addresses.iter().copied().map(octets).collect(),
        mac: port.mac.to_vec(),
        mtu: port.mtu.into(),
        tenant: port.tenant,
        ..Default::default()
    };
    EnginePort::try_from(&request).expect("a legal port")
}
