//! Turns every snapshot of the cluster's objects into tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use culvert_api::config::agent::Overlay;
use culvert_api::fastpath::Tables;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Built, build};
use crate::fastpath::Desired;
use crate::health::{Reporter, State};
use crate::kube::Snapshot;

/// The task that builds tables.
#[derive(Debug)]
pub struct Builder {
    /// Name of this node.
    pub node: String,
    /// The overlay's settings.
    pub overlay: Overlay,
    /// The cluster's objects.
    pub objects: watch::Receiver<Arc<Snapshot>>,
    /// Where the tables go.
    pub desired: watch::Sender<Option<Desired>>,
    /// The part's line.
    pub health: Reporter,
}

impl Builder {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut reported = BTreeSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.objects.changed() => if changed.is_err() { return },
            }
            let since = Instant::now();
            let snapshot = self.objects.borrow_and_update().clone();
            let (node, overlay, objects) = (self.node.clone(), self.overlay.clone(), snapshot.clone());
            let Ok(built) =
                tokio::task::spawn_blocking(move || build(&objects.objects, &node, &overlay)).await
            else {
                self.health.set(State::Failed, "building tables failed; those in force stay");
                continue;
            };
            self.report(&snapshot, &built, &mut reported);
            self.publish(&snapshot, built.tables, since);
        }
    }

    fn publish(&self, snapshot: &Snapshot, mut tables: Tables, since: Instant) {
        // Without its own Node object this node knows too little to forget anything.
        tables.synced = snapshot.synced && tables.node.is_some();
        self.desired.send_if_modified(|desired| {
            if desired.as_ref().is_some_and(|d| *d.tables == tables) {
                return false;
            }
            *desired = Some(Desired { tables: Arc::new(tables), since });
            true
        });
    }

    /// Logs each problem once, when it comes and when it goes.
    fn report(&self, snapshot: &Snapshot, built: &Built, reported: &mut BTreeSet<String>) {
        let problems: BTreeSet<String> = built.problems.iter().cloned().collect();
        for new in problems.difference(reported) {
            warn!("{new}");
        }
        for gone in reported.difference(&problems) {
            info!("no longer: {gone}");
        }
        let objects = &snapshot.objects;
        let counts = format!(
            "{} nodes, {} services, {} endpointslices, {} pods",
            objects.nodes.len(),
            objects.services.len(),
            objects.slices.len(),
            objects.pods.len()
        );
        let all: Vec<&String> = snapshot.problems.iter().chain(&problems).collect();
        match all.as_slice() {
            _ if !snapshot.synced => {
                let first = all.first().map_or("not everything could be read yet", |p| p.as_str());
                self.health.set(State::Degraded, format!("not synced: {first}"));
            }
            [] => self.health.set(State::Ok, counts),
            [one] => self.health.set(State::Degraded, format!("{counts}; {one}")),
            [first, rest @ ..] => {
                self.health
                    .set(State::Degraded, format!("{counts}; {first}; and {} more problems", rest.len()));
            }
        }
        *reported = problems;
    }
}
