//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`, and `/metrics/sriov`, which has the names that
//! sriov-network-metrics-exporter gives.
//!
//! Counters are read from the fast path when somebody asks, so that nothing is polled for nobody.

mod export;
mod gather;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use culvert_api::agent::Subsystem;
use culvert_api::fastpath::{Counters, Info, ServiceStatus};
use culvert_api::value::PciAddress;
use culvert_device_plugin::Statuses;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use gather::Sources;

use crate::nic::{Measurements, NicTally};
use crate::pod_resources::GivenDevice;

/// What the agent knows at this moment.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// Every part of the agent and how it is.
    pub subsystems: Vec<Subsystem>,
    /// The fast path's own description; absent while it is away.
    pub info: Option<Info>,
    /// The fast path's counters; absent while it is away.
    pub counters: Option<Counters>,
    /// Services in force, with their counters.
    pub services: Vec<ServiceStatus>,
    /// The NICs; absent if they cannot be looked at.
    pub nic: Option<NicSnapshot>,
    /// What is on offer to kubelet.
    pub pools: Statuses,
}

/// What the agent knows of NICs at this moment.
#[derive(Debug, Default, Clone)]
pub struct NicSnapshot {
    /// PFs, VFs and their counters.
    pub(crate) tally: NicTally,
    /// Which container holds which device, as kubelet tells.
    pub(crate) holders: BTreeMap<PciAddress, GivenDevice>,
}

/// Measurements that the agent makes itself.
#[derive(Debug, Clone)]
pub struct Metrics {
    programming: Histogram,
    nic: Option<Measurements>,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.5 ms to 16 s: a change is to be in force within 100 ms.
        Self { programming: Histogram::new(exponential_buckets(0.0005, 2.0, 16)), nic: None }
    }
}

impl Metrics {
    /// These, and what is counted of NICs.
    #[must_use]
    pub(crate) fn with_nic(self, nic: Measurements) -> Self {
        Self { nic: Some(nic), ..self }
    }

    /// Records the time from noticing a change of the cluster's objects until the fast path had it in force.
    pub fn programmed(&self, latency: Duration) {
        self.programming.observe(latency.as_secs_f64());
    }
}

#[derive(Clone)]
struct App {
    metrics: Metrics,
    sources: Arc<Sources>,
}

/// Opens the listener, so that a port in use is told before anything else starts.
///
/// # Errors
/// Those of bind(2), with the address in front.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| std::io::Error::new(e.kind(), format!("metrics {address}: {e}: choose another address")))
}

/// Serves until `stop` is cancelled; requests under way are answered first.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    sources: Sources,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, sources)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(metrics: Metrics, sources: Sources) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/metrics/sriov", get(scrape_sriov))
        .with_state(App { metrics, sources: Arc::new(sources) })
}

/// 200 when every part that is switched on works, else 503; the body names each part either way.
async fn ready(State(app): State<App>) -> impl IntoResponse {
    let parts = app.sources.subsystems();
    let well = parts.iter().all(|p| matches!(p.state.as_str(), "ok" | "off"));
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body: String = parts
        .iter()
        .map(|p| format!("{}: {} {}", p.name, p.state, p.detail).trim_end().to_owned() + "\n")
        .collect();
    (status, body)
}

async fn scrape(State(app): State<App>) -> impl IntoResponse {
    let snapshot = app.sources.snapshot().await;
    exposition(export::text(&app.metrics, snapshot))
}

async fn scrape_sriov(State(app): State<App>) -> impl IntoResponse {
    let nic = app.sources.nic().await.unwrap_or_default();
    exposition(export::sriov_text(nic))
}

fn exposition(text: Result<String, fmt::Error>) -> Response {
    match text {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
