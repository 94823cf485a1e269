//! Counters and durations of what the agent does to NICs.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::attach::AttachError;
use super::event::{Event, Kind};

/// One of few words for why a pod did not get its VF: a label of `culvert_nic_attach_refused_total`.
pub(super) fn refusal(error: &AttachError) -> &'static str {
    match error {
        AttachError::NoVf(_) => "no-such-vf",
        AttachError::NoPfInterface { .. } => "no-pf-interface",
        AttachError::NoDriver(_) => "no-driver",
        AttachError::InUse { .. } => "in-use",
        AttachError::Twice { .. } => "attached-twice",
        AttachError::MacTaken { .. } => "mac-taken",
        AttachError::HostNetns(_) | AttachError::NoNetns(_) => "network-namespace",
        AttachError::Observe(_) => "machine-unreadable",
        AttachError::Failed { .. } => "change-failed",
        AttachError::Journal(_) => "journal",
        AttachError::Stopped => "shutting-down",
        AttachError::Unknown(_) => "not-attached",
    }
}

/// What has been counted since the agent was started. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Measurements {
    attaches: Family<Outcome, Histogram>,
    detaches: Family<Outcome, Histogram>,
    applies: Family<Outcome, Histogram>,
    refused: Family<Reason, Counter>,
    steps: Family<Outcome, Counter>,
    health_changes: Family<State, Counter>,
    orphans: Gauge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// 2 ms to 16 s: a VF is moved in tens of milliseconds, some drivers take seconds to probe.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.002, 2.0, 14))
}

impl Default for Measurements {
    fn default() -> Self {
        let timed = || Family::<Outcome, Histogram>::new_with_constructor(histogram as fn() -> Histogram);
        Self {
            attaches: timed(),
            detaches: timed(),
            applies: timed(),
            refused: Family::default(),
            steps: Family::default(),
            health_changes: Family::default(),
            orphans: Gauge::default(),
        }
    }
}

impl Measurements {
    /// Counts an event.
    pub(super) fn count(&self, event: &Event) {
        let state = event.state();
        let seconds = event.took().unwrap_or(Duration::ZERO).as_secs_f64();
        let outcome = Outcome { outcome: state };
        match event.kind() {
            Kind::Attach => {
                self.attaches.get_or_create(&outcome).observe(seconds);
                if let Some(reason) = event.reason() {
                    self.refused.get_or_create(&Reason { reason }).inc();
                }
            }
            Kind::Detach => self.detaches.get_or_create(&outcome).observe(seconds),
            Kind::Apply => self.applies.get_or_create(&outcome).observe(seconds),
            Kind::Step if event.took().is_some() => drop(self.steps.get_or_create(&outcome).inc()),
            Kind::Health => drop(self.health_changes.get_or_create(&State { state }).inc()),
            Kind::Link | Kind::Step => {}
        }
    }

    /// There are this many orphans.
    pub(super) fn orphans(&self, count: usize) {
        self.orphans.set(count as i64);
    }

    /// Puts everything into `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "nic_attach",
            "Time that giving a VF to a pod took, by outcome: done or refused",
            Unit::Seconds,
            self.attaches.clone(),
        );
        registry.register_with_unit(
            "nic_detach",
            "Time that taking a VF back from a pod took, by outcome: done or failed",
            Unit::Seconds,
            self.detaches.clone(),
        );
        registry.register_with_unit(
            "nic_apply",
            "Time that carrying out the policy took, by outcome: done or failed",
            Unit::Seconds,
            self.applies.clone(),
        );
        registry.register(
            "nic_attach_refused",
            "Pods that did not get their VF, by reason",
            self.refused.clone(),
        );
        registry.register("nic_steps", "Steps of plans, by outcome: done or failed", self.steps.clone());
        registry.register(
            "nic_orphans",
            "VFs that no pod has, but that are not as they should be, as last seen: every 10 seconds",
            self.orphans.clone(),
        );
        registry.register(
            "nic_health_changes",
            "Devices that became healthy or unhealthy, or went away, by what they became",
            self.health_changes.clone(),
        );
    }
}
