//! Service addresses and their backends.

use culvert_api::fastpath::{Backend, ListServicesResponse, ServiceStatus};
use serde::Serialize;

use super::{address, endpoint, protocol};
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
    weight: u32,
    #[serde(skip)]
    text: String,
}

pub(crate) fn list(reply: ListServicesResponse) -> List {
    List(reply.services.into_iter().map(service_view).collect())
}

fn service_view(status: ServiceStatus) -> ServiceView {
    let service = status.service.unwrap_or_default();
    ServiceView {
        protocol: protocol(service.protocol),
        vip: address(&service.vip),
        namespace: service.namespace,
        name: service.name,
        port_name: service.port_name,
        port: service.port,
        tenant: service.tenant,
        affinity_seconds: service.affinity_seconds,
        backends: service.backends.iter().map(backend_view).collect(),
        packets: status.packets,
        bytes: status.bytes,
        new_flows: status.new_flows,
        rejected: status.rejected,
    }
}

fn backend_view(backend: &Backend) -> BackendView {
    let mark = match (backend.terminating, backend.draining) {
        (true, _) => " (terminating)",
        (_, true) => " (not ready)",
        _ => "",
    };
    BackendView {
        address: address(&backend.address),
        port: backend.port,
        terminating: backend.terminating,
        draining: backend.draining,
        weight: backend.weight.max(1),
        text: format!("{}{mark}", endpoint(&backend.address, backend.port)),
    }
}

impl View for List {
    fn blocks(&self) -> Vec<Block> {
        let heading =
            vec!["SERVICE", "PORT", "PROTOCOL", "VIP", "BACKENDS", "PACKETS", "NEW FLOWS", "REJECTED"];
        vec![Block::Table(heading, self.0.iter().map(ServiceView::row).collect())]
    }
}

impl ServiceView {
    fn row(&self) -> Vec<String> {
        let port = match self.port_name.as_str() {
            "" => self.port.to_string(),
            name => format!("{name} {}", self.port),
        };
        // One backend a line keeps long lists readable.
        let backends: Vec<&str> = self.backends.iter().map(|b| b.text.as_str()).collect();
        vec![
            format!("{}/{}", self.namespace, self.name),
            port,
            self.protocol.to_owned(),
            self.vip.clone(),
            if backends.is_empty() { "none".to_owned() } else { backends.join("\n") },
            self.packets.to_string(),
            self.new_flows.to_string(),
            self.rejected.to_string(),
        ]
    }
}
