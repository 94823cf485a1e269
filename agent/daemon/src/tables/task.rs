//! Turns every snapshot of the cluster's objects into tables.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Compiler, Problems, Settings, TableSet};
use crate::fastpath::Desired;
use crate::health::{Reporter, State};
use crate::kube::Snapshot;

/// The task that builds tables.
#[derive(Debug)]
pub struct Builder {
    /// What the tables depend on besides.
    pub settings: Settings,
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
        let (mut compiler, mut reported) = (None::<Compiler>, Problems::default());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.objects.changed() => if changed.is_err() { return },
            }
            let since = Instant::now();
            let snapshot = self.objects.borrow_and_update().clone();
            let (settings, objects, before) =
                (self.settings.clone(), snapshot.objects.clone(), compiler.take());
            let compile = move || match before {
                None => Compiler::whole(settings, objects),
                Some(mut compiler) => {
                    compiler.update(objects);
                    compiler
                }
            };
            let Ok(compiled) = tokio::task::spawn_blocking(compile).await else {
                self.health.set(State::Failed, "building tables failed; those in force stay");
                continue;
            };
            self.publish(&snapshot, compiled.tables().clone(), since);
            self.report(&snapshot, compiled.problems(), &mut reported);
            compiler = Some(compiled);
        }
    }

    fn publish(&self, snapshot: &Snapshot, mut tables: TableSet, since: Instant) {
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
    fn report(&self, snapshot: &Snapshot, problems: &Problems, reported: &mut Problems) {
        let (new, gone) = reported.changes(problems);
        for new in new {
            warn!("{new}");
        }
        for gone in gone {
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
        let count = snapshot.problems.len() + problems.len();
        let first = snapshot.problems.iter().map(String::as_str).chain(problems.lines()).next();
        let (state, detail) = match (first, count) {
            _ if !snapshot.synced => {
                let first = first.unwrap_or("not everything could be read yet");
                (State::Degraded, format!("not synced: {first}"))
            }
            (None, _) => (State::Ok, counts),
            (Some(one), 1) => (State::Degraded, format!("{counts}; {one}")),
            (Some(first), _) => {
                (State::Degraded, format!("{counts}; {first}; and {} more problems", count - 1))
            }
        };
        self.health.set(state, detail);
        *reported = problems.clone();
    }
}
