//! Keeps the fast path programmed: notices when it comes, goes and comes back, and gives it ports and tables.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_api::fastpath::{Changes, Info, Restart};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::difference::difference;
use super::{FastPath, FastPathError};
use crate::health::{Reporter, State};
use crate::metrics::Metrics;
use crate::pods::Overlay;
use crate::tables::TableSet;

/// How often the fast path is asked whether it is still the same.
const PROBE: Duration = Duration::from_millis(250);
/// How often while ports are made again.
const RESTORE_PROBE: Duration = Duration::from_millis(20);
/// Wait after the first failure; doubles with each further one, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The fast path is put to work again this long after it is back, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long after a failure a port is tried again.
const RETRY_PORTS: Duration = Duration::from_secs(5);

/// The tables that the fast path should have, and since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The tables.
    pub tables: Arc<TableSet>,
    /// When they became what they are.
    pub since: Instant,
}

/// Says how the process that is met took over from one before it.
fn tell_of_restart(info: &Info) {
    let Some(restart) = info.restart.as_ref().filter(|restart| restart.restarts > 0) else { return };
    let Restart { restarts, reason, flows_kept, ports_kept, refused, .. } = restart;
    let gap_ms = restart.gap_microseconds.div_ceil(1000);
    warn!(restarts, reason, gap_ms, flows_kept, ports_kept, refused, "the fast path was restarted");
}

/// The task that keeps the fast path programmed.
#[derive(Debug)]
pub struct Keeper {
    /// The fast path.
    pub fastpath: FastPath,
    /// What it should hold; `None` while nothing is known.
    pub desired: watch::Receiver<Option<Desired>>,
    /// The pods' ports.
    pub overlay: Arc<Overlay>,
    /// How long programming takes.
    pub metrics: Metrics,
    /// What was last heard of the fast path; `None` while it is away.
    pub info: watch::Sender<Option<Info>>,
    /// The part's line.
    pub health: Reporter,
}

/// What is known of one process of the fast path.
struct Met {
    instance: String,
    /// Highest revision seen or sent.
    revision: u64,
    /// The tables it was given by us, and their revision.
    given: Option<(u64, Arc<TableSet>)>,
    ports: Ports,
}

impl Met {
    /// Whether it has its tables, and its ports as far as that is possible.
    fn is_settled(&self) -> bool {
        self.given.is_some() && !self.is_restoring()
    }

    fn is_restoring(&self) -> bool {
        matches!(self.ports, Ports::Restoring(_))
    }
}

/// How far the ports of one process are restored.
enum Ports {
    /// A task is at it.
    Restoring(JoinHandle<Result<Vec<String>, FastPathError>>),
    /// It is done; these were lost, and are tried again when it is time.
    Restored { lost: Vec<String>, again: Instant },
}

impl Keeper {
    /// Runs until `stop`. The fast path is left as it is then.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut met: Option<Met> = None;
        let mut wait = FIRST_WAIT;
        let (mut changed, mut asked) = (false, Instant::now());
        loop {
            // A change need not wait for the question who is there, as long as that is asked often enough.
            let hurry = changed && wait == FIRST_WAIT && asked.elapsed() < PROBE;
            let done = match &mut met {
                Some(known) if hurry && known.is_settled() => {
                    self.publish(known).await.map(|()| self.report(known))
                }
                _ => {
                    asked = Instant::now();
                    self.step(&mut met).await
                }
            };
            let pause = match done {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    if met.as_ref().is_some_and(Met::is_restoring) { RESTORE_PROBE } else { PROBE }
                }
                Err(e) => {
                    let state = if e.is_away() {
                        self.info.send_replace(None);
                        State::Degraded
                    } else {
                        State::Failed
                    };
                    self.health.set(state, e.to_string());
                    let pause = wait;
                    wait = (wait * 2).min(LONGEST_WAIT);
                    pause
                }
            };
            let change = async {
                // The other end is gone only when the agent stops.
                if self.desired.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => changed = false,
                () = change => changed = true,
            }
        }
    }

    /// Asks who is there, and gives it what it lacks.
    async fn step(&mut self, met: &mut Option<Met>) -> Result<(), FastPathError> {
        let info = self.fastpath.info().await?;
        let now = match met.take() {
            Some(known) if known.instance == info.instance => known,
            before => self.meet(&info, before).await,
        };
        let met = met.insert(now);
        met.revision = met.revision.max(info.revision);
        self.info.send_replace(Some(info));
        self.publish(met).await?;
        self.restore(met).await;
        self.report(met);
        Ok(())
    }

    async fn meet(&self, info: &Info, before: Option<Met>) -> Met {
        info!(instance = info.instance, version = info.version, revision = info.revision, "fast path met");
        tell_of_restart(info);
        if let Some(Met { ports: Ports::Restoring(task), .. }) = before {
            // Two at once would be in each other's way. Its calls fail, or reach the new process, which does no harm.
            let _ = task.await;
        }
        let ports = Ports::Restoring(self.start_restoring());
        Met { instance: info.instance.clone(), revision: info.revision, given: None, ports }
    }

    async fn publish(&mut self, met: &mut Met) -> Result<(), FastPathError> {
        let Some(desired) = self.desired.borrow_and_update().clone() else { return Ok(()) };
        if met.given.as_ref().is_some_and(|(_, given)| Arc::ptr_eq(given, &desired.tables)) {
            return Ok(());
        }
        // A fast path that knows of no node at all would refuse tables without one.
        if desired.tables.node.is_none() && met.revision == 0 {
            return Ok(());
        }
        if !self.change(met, &desired).await? {
            self.replace(met, &desired).await?;
        }
        self.metrics.programmed(desired.since.elapsed());
        met.given = Some((met.revision, desired.tables));
        Ok(())
    }

    /// Sends what is different from the tables that are in force; `false` where that cannot be told, or is refused.
    async fn change(&self, met: &mut Met, desired: &Desired) -> Result<bool, FastPathError> {
        let given = met.given.as_ref().filter(|(revision, _)| *revision == met.revision);
        let Some(changes) = given.and_then(|(_, given)| difference(given, &desired.tables)) else {
            return Ok(false);
        };
        let changes = Changes { base: met.revision, revision: met.revision + 1, ..changes };
        match self.fastpath.apply_changes(changes).await {
            Ok(answer) => {
                met.revision = answer.revision;
                debug!(revision = answer.revision, took = ?desired.since.elapsed(), "changes in force");
                Ok(true)
            }
            Err(FastPathError::Refused { status, .. }) => {
                warn!("changes refused, the whole tables are sent: {}", status.message());
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    async fn replace(&self, met: &mut Met, desired: &Desired) -> Result<(), FastPathError> {
        met.revision += 1;
        let answer = self.fastpath.replace_tables(desired.tables.message(met.revision)).await?;
        debug!(
            revision = answer.revision,
            services = answer.services,
            backends = answer.backends,
            remotes = answer.remotes,
            took = ?desired.since.elapsed(),
            "tables in force"
        );
        Ok(())
    }

    /// Looks after the task that restores ports.
    async fn restore(&self, met: &mut Met) {
        match &mut met.ports {
            Ports::Restoring(task) if task.is_finished() => {
                let lost = match task.await {
                    Ok(Ok(lost)) => lost,
                    Ok(Err(e)) => vec![e.to_string()],
                    Err(e) => vec![e.to_string()],
                };
                met.ports = Ports::Restored { lost, again: Instant::now() + RETRY_PORTS };
            }
            Ports::Restored { lost, again } if !lost.is_empty() && *again <= Instant::now() => {
                met.ports = Ports::Restoring(self.start_restoring());
            }
            Ports::Restoring(_) | Ports::Restored { .. } => {}
        }
    }

    fn start_restoring(&self) -> JoinHandle<Result<Vec<String>, FastPathError>> {
        let (fastpath, overlay) = (self.fastpath.clone(), self.overlay.clone());
        tokio::spawn(async move {
            let ports: HashSet<String> = fastpath.ports().await?.ports.into_iter().map(|p| p.name).collect();
            let lost = overlay.restore(&ports).await;
            for problem in &lost {
                warn!("port not made again: {problem}");
            }
            Ok(lost)
        })
    }

    fn report(&self, met: &Met) {
        let lost = match &met.ports {
            Ports::Restored { lost, .. } => lost.as_slice(),
            Ports::Restoring(_) => return self.health.set(State::Starting, "ports of pods are made again"),
        };
        match &met.given {
            None => self.health.set(State::Starting, "connected; this node's Node object is not known yet"),
            Some(_) if !lost.is_empty() => {
                let detail = format!("ports not made again: {}, the first: {}", lost.len(), lost[0]);
                self.health.set(State::Degraded, detail);
            }
            Some((_, tables)) if !tables.synced => {
                self.health.set(
                    State::Degraded,
                    "programmed, but not synced: the folder of manifests or this node's Node is missing",
                );
            }
            Some((_, tables)) => {
                let counts =
                    format!("{} services, {} remote nodes", tables.services.len(), tables.remotes.len());
                self.health.set(State::Ok, format!("revision {}, {counts}", met.revision));
            }
        }
    }
}
