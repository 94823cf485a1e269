//! A snapshot in OpenMetrics' text format.

mod fastpath;
mod nic;
mod sriov;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Metrics, Snapshot};

type Labels = Vec<(&'static str, String)>;

pub(super) use sriov::text as sriov_text;

/// Encodes everything there is to tell.
pub(super) fn text(metrics: &Metrics, snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("culvert");
    registry.register(
        "programming_seconds",
        "Time from noticing a change of the cluster's objects until the fast path had it in force",
        metrics.programming.clone(),
    );
    if let Some(measurements) = &metrics.nic {
        measurements.register(&mut registry);
    }
    registry.register_collector(Box::new(snapshot));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sink = Sink(encoder);
        let parts =
            self.subsystems.iter().map(|s| (vec![("name", s.name.clone()), ("state", s.state.clone())], 1));
        sink.gauge("subsystem_state", "1 for the state that each part of the agent is in", parts)?;
        sink.fastpath(self)?;
        let Some(nic) = &self.nic else { return Ok(()) };
        sink.pools(&self.pools, &nic.holders)?;
        sink.nic(nic)
    }
}

struct Sink<'a>(DescriptorEncoder<'a>);

impl Sink<'_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values)
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values)
    }

    /// A counter of time.
    fn seconds(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            // A value without labels is the only one of its family.
            if labels.is_empty() {
                return encode(kind, value, metric);
            }
            encode(kind, value, metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn encode(kind: MetricType, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

fn one(value: u64) -> [(Labels, u64); 1] {
    [(Vec::new(), value)]
}
