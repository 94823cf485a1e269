//! Service addresses and their backends.

use culvert_api::fastpath::{Backend, Balancing, ListServicesResponse, ServiceStatus};
use serde::Serialize;

use super::{address, endpoint, protocol, tenant};
use crate::output::{Block, View};

/// `service list`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct List(Vec<ServiceView>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceView {
    namespace: String,
    name: String,
    port_name: String,
    protocol: &'static str,
    vip: String,
    port: u32,
    tenant: u32,
    affinity_seconds: u32,
    balancing: &'static str,
    backends: Vec<BackendView>,
    packets: u64,
    bytes: u64,
    new_flows: u64,
    rejected: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendView {
    address: String,
    port: u32,
    terminating: bool,
    draining: bool,
    away: bool,
    weight: u32,
    flows: u32,
    #[serde(skip)]
    text: String,
}

pub(crate) fn list(reply: ListServicesResponse) -> List {
    List(reply.services.into_iter().map(service_view).collect())
}

fn service_view(status: ServiceStatus) -> ServiceView {
    let service = status.service.unwrap_or_default();
    let flows = status.backend_flows.into_iter().chain(std::iter::repeat(0));
    ServiceView {
        protocol: protocol(service.protocol),
        vip: address(&service.vip),
        namespace: service.namespace,
        name: service.name,
        port_name: service.port_name,
        port: service.port,
        tenant: service.tenant,
        affinity_seconds: service.affinity_seconds,
        balancing: balancing_name(service.balancing),
        backends: service.backends.iter().zip(flows).map(backend_view).collect(),
        packets: status.packets,
        bytes: status.bytes,
        new_flows: status.new_flows,
        rejected: status.rejected,
    }
}

fn balancing_name(balancing: i32) -> &'static str {
    match Balancing::try_from(balancing) {
        Ok(Balancing::Unspecified | Balancing::Maglev) => "maglev",
        Ok(Balancing::RoundRobin) => "round-robin",
        Ok(Balancing::LeastFlow) => "least-flow",
        Err(_) => "unknown",
    }
}

fn backend_view((backend, flows): (&Backend, u32)) -> BackendView {
    let mark = match (backend.terminating, backend.draining, backend.away) {
        (true, _, _) => " (terminating)",
        (_, true, _) => " (not ready)",
        (_, _, true) => " (not for new flows)",
        _ => "",
    };
    let weight = if backend.weight > 1 { format!(" weight {}", backend.weight) } else { String::new() };
    let flows_text = if flows > 0 { format!(" flows {flows}") } else { String::new() };
    BackendView {
        address: address(&backend.address),
        port: backend.port,
        terminating: backend.terminating,
        draining: backend.draining,
        away: backend.away,
        weight: backend.weight.max(1),
        flows,
        text: format!("{}{weight}{flows_text}{mark}", endpoint(&backend.address, backend.port)),
    }
}

impl View for List {
    fn blocks(&self) -> Vec<Block> {
        let heading = vec![
            "SERVICE",
            "TENANT",
            "PORT",
            "PROTOCOL",
            "VIP",
            "BALANCING",
            "BACKENDS",
            "PACKETS",
            "NEW FLOWS",
            "REJECTED",
        ];
        vec![Block::Table(heading, self.0.iter().map(ServiceView::row).collect())]
    }
}

impl ServiceView {
    fn row(&self) -> Vec<String> {
        let port = match self.port_name.as_str() {
            "" => self.port.to_string(),
            name => format!("{name} {}", self.port),
        };
        let balancing = match self.affinity_seconds {
            0 => self.balancing.to_owned(),
            seconds => format!("{}\nclient IP {seconds} s", self.balancing),
        };
        // One backend a line keeps long lists readable.
        let backends: Vec<&str> = self.backends.iter().map(|b| b.text.as_str()).collect();
        vec![
            format!("{}/{}", self.namespace, self.name),
            tenant(self.tenant),
            port,
            self.protocol.to_owned(),
            self.vip.clone(),
            balancing,
            if backends.is_empty() { "none".to_owned() } else { backends.join("\n") },
            self.packets.to_string(),
            self.new_flows.to_string(),
            self.rejected.to_string(),
        ]
    }
}
