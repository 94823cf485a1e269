//! Health and metrics over HTTP: `/healthz`, `/readyz` and `/metrics`.
//!
//! Counters are read from the fast path when somebody asks, so that nothing is polled for nobody.

mod export;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use culvert_api::agent::Subsystem;
use culvert_api::fastpath::{Counters, Info, ServiceStatus};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
}

/// Gathers a [`Snapshot`].
pub type Gather = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Snapshot> + Send>> + Send + Sync>;

/// Measurements that the agent makes itself.
#[derive(Debug, Clone)]
pub struct Metrics {
    programming: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.5 ms to 16 s: a change is to be in force within 100 ms.
        Self { programming: Histogram::new(exponential_buckets(0.0005, 2.0, 16)) }
    }
}

impl Metrics {
    /// Records the time from noticing a change of the cluster's objects until the fast path had it in force.
    pub fn programmed(&self, latency: Duration) {
        self.programming.observe(latency.as_secs_f64());
    }
}

#[derive(Clone)]
struct App {
    metrics: Metrics,
    gather: Gather,
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
    gather: Gather,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, gather)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(metrics: Metrics, gather: Gather) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(App { metrics, gather })
}

/// 200 when every part that is switched on works, else 503; the body names each part either way.
async fn ready(State(app): State<App>) -> impl IntoResponse {
    let parts = (app.gather)().await.subsystems;
    let well = parts.iter().all(|p| matches!(p.state.as_str(), "ok" | "off"));
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body: String = parts
        .iter()
        .map(|p| format!("{}: {} {}", p.name, p.state, p.detail).trim_end().to_owned() + "\n")
        .collect();
    (status, body)
}

async fn scrape(State(app): State<App>) -> impl IntoResponse {
    let snapshot = (app.gather)().await;
    match export::text(&app.metrics, snapshot) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
