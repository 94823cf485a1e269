//! A client of the fast path's control socket, for what cases want to know.

use std::future::Future;
use std::path::Path;

use culvert_api::fastpath::fast_path_client::FastPathClient;
use culvert_api::fastpath::{self, Counters, Info, Service};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::frame::{Outcome, Stop};

/// Counters that are not zero, one a line.
pub(super) fn describe(counters: &Counters) -> String {
    let mut text = String::new();
    for (kind, named) in [("dropped", &counters.drops), ("answered", &counters.answered)] {
        for counter in named.iter().filter(|counter| counter.value > 0) {
            text += &format!("{kind} {} {}\n", counter.name, counter.value);
        }
    }
    for port in &counters.ports {
        let c = port.counters.unwrap_or_default();
        text += &format!(
            "port {} {}: received {}, dropped {}; sent {}, not taken {}\n",
            port.name, port.owner, c.rx_packets, c.rx_dropped, c.tx_packets, c.tx_dropped
        );
    }
    text
}

/// A connection to culvert-fastpath.
#[derive(Debug)]
pub struct Control {
    runtime: Runtime,
    client: FastPathClient<Channel>,
}

impl Control {
    /// Connects.
    pub fn connect(socket: &Path) -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let socket = socket.to_owned();
        let connect = service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The URI is asked for, and not used: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://fastpath.invalid");
        let channel = runtime.block_on(endpoint.connect_with_connector(connect))?;
        Ok(Self { runtime, client: FastPathClient::new(channel) })
    }

    /// Who is answering.
    pub fn info(&self) -> Outcome<Info> {
        let mut client = self.client.clone();
        self.call(async move { client.get_info(fastpath::GetInfoRequest {}).await })
    }

    /// Attaches a port.
    pub fn attach(&self, port: fastpath::AttachPortRequest) -> Outcome<fastpath::Port> {
        let mut client = self.client.clone();
        self.call(async move { client.attach_port(port).await })
    }

    /// Programs the tables.
    pub fn replace(&self, tables: fastpath::Tables) -> Outcome {
        let mut client = self.client.clone();
        self.call(async move { client.replace_tables(tables).await }).map(drop)
    }

    /// The Services in force, one for each virtual address, protocol and port.
    pub fn services(&self) -> Outcome<Vec<Service>> {
        Ok(self.service_statuses()?.into_iter().filter_map(|status| status.service).collect())
    }

    /// The virtual addresses there are, with what was counted.
    pub fn service_statuses(&self) -> Outcome<Vec<fastpath::ServiceStatus>> {
        let mut client = self.client.clone();
        Ok(self.call(async move { client.list_services(fastpath::ListServicesRequest {}).await })?.services)
    }

    /// The ports there are.
    pub fn ports(&self) -> Outcome<Vec<fastpath::Port>> {
        let mut client = self.client.clone();
        Ok(self.call(async move { client.list_ports(fastpath::ListPortsRequest {}).await })?.ports)
    }

    /// The tracked flows, both directions of each.
    pub fn flows(&self) -> Outcome<Vec<fastpath::Flow>> {
        let mut client = self.client.clone();
        Ok(self.call(async move { client.list_flows(fastpath::ListFlowsRequest::default()).await })?.flows)
    }

    /// All counters.
    pub fn counters(&self) -> Outcome<Counters> {
        let mut client = self.client.clone();
        self.call(async move { client.get_counters(fastpath::GetCountersRequest {}).await })
    }

    fn call<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Outcome<T> {
        self.runtime.block_on(call).map(tonic::Response::into_inner).map_err(Stop::from)
    }
}
