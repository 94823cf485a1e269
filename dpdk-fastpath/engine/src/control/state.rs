//! All that the control thread owns.

use std::hint;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use culvert_api::fastpath as proto;
use culvert_api::value::Mac;
use culvert_packet::eth::EthAddr;

use super::error::{AttachError, ReplaceError};
use super::remember::Memory;
use crate::clock::Clock;
use crate::counter::CounterSet;
use crate::flow::{FlowTables, KEPT_AS, TakenOver, Takeover};
use crate::keep::{Beat, Keep};
use crate::neighbour::{Announcements, Neighbours, Timing};
use crate::path_mtu::PathMtus;
use crate::port::{BackendError, Device, Devices, Entry, ManagerError, PortManager};
use crate::quiescent::Publisher;
use crate::shortcut::Shortcut;
use crate::table::{Applied, Builder, MAX_PORTS, Port, PortIndex, PortKind, Snapshot, TableError};
use crate::worker::{Team, WorkerError};

/// How long workers may take to move on to a new snapshot before that is reported.
const ADOPTION: Duration = Duration::from_secs(1);

/// How long that is waited for without sleep: most workers are done with a round by then.
const SPIN: Duration = Duration::from_micros(20);

/// Between two looks afterwards.
const PAUSE: Duration = Duration::from_micros(10);

/// Between two looks at whether all flows of another process are taken over.
const TAKEOVER: Duration = Duration::from_millis(100);

/// The fast path as its control thread sees it: ports, tables and neighbours, and what is published of them.
#[derive(Debug)]
pub struct FastPath {
    pub(super) instance: String,
    pub(super) started: Instant,
    /// CPU of each worker.
    pub(super) workers: Vec<u32>,
    pub(super) ports: PortManager<Devices>,
    pub(super) builder: Builder,
    pub(super) tables: Publisher<Snapshot>,
    pub(super) counters: CounterSet,
    pub(super) flows: Arc<FlowTables>,
    pub(super) clock: Clock,
    pub(super) neighbours: Neighbours,
    pub(super) announcements: Announcements,
    pub(super) path_mtus: PathMtus,
    pub(super) memory: Memory,
    /// How this process took over from another, but for the flows as long as it does.
    restart: proto::Restart,
    /// The flows that it takes over, and who keeps them meanwhile.
    takeover: Option<(Arc<Takeover>, Keep)>,
    /// Where this thread shows that it goes on.
    beat: Beat,
    pub(super) shortcut: Shortcut,
}

/// What [`FastPath::replace`] or [`FastPath::change`] did.
#[derive(Debug)]
pub struct Published {
    /// What is in force now.
    pub applied: Applied,
    /// Until every worker used it.
    pub adopted_after: Duration,
}

impl FastPath {
    /// A fast path whose workers run, without ports and with empty tables. `instance` tells it from every other process.
    pub fn new(
        instance: String,
        backend: Devices,
        tables: Publisher<Snapshot>,
        counters: CounterSet,
        flows: Arc<FlowTables>,
        clock: Clock,
    ) -> Self {
        let workers: Vec<_> = backend.team().into_iter().flat_map(Team::cpus).collect();
        Self {
            instance,
            started: Instant::now(),
            ports: PortManager::new(backend, MAX_PORTS, workers.len()),
            workers,
            builder: Builder::new(),
            tables,
            counters,
            flows,
            clock,
            neighbours: Neighbours::new(Timing::default()),
            announcements: Announcements::default(),
            path_mtus: PathMtus::default(),
            memory: Memory::default(),
            restart: proto::Restart::default(),
            takeover: None,
            beat: Beat::default(),
            shortcut: Shortcut::none("is not wanted"),
        }
    }

    /// Writes down from now on what the next process is to know, and goes on with what was `recalled` of the tables: the
    /// snapshot that the workers have is made of them.
    pub fn remember(
        &mut self,
        memory: Memory,
        recalled: Option<(Builder, Applied)>,
        neighbours: &[(IpAddr, Mac)],
    ) {
        self.memory = memory;
        if let Some((builder, applied)) = recalled {
            self.builder = builder;
            self.publish_tables(applied, Instant::now());
            self.follow_underlay(Instant::now());
            self.recall_neighbours(neighbours);
        }
    }

    /// Starts ports again that another process had: those whose devices are still there, and those that programs find at a
    /// socket.
    pub fn restore(&mut self, ports: &[proto::Port]) {
        for port in ports.iter().filter(|port| port.kind() != proto::PortKind::Uplink) {
            let shares = port.device() != proto::PortDevice::Unspecified;
            if !shares && !self.ports.backend().has_left(&port.name) {
                continue;
            }
            let request = proto::AttachPortRequest {
                name: port.name.clone(),
                addresses: port.addresses.clone(),
                mac: port.mac.clone(),
                mtu: port.mtu,
                tenant: port.tenant,
                owner: port.owner.clone(),
                device: port.device,
                socket: port.socket.clone(),
                kind: port.kind,
            };
            self.ports.prefer(u16::try_from(port.number).ok().map(PortIndex));
            let attached = Port::try_from(&request).map_err(AttachError::from).and_then(|port| {
                let mac = Mac::try_from(port.mac.0).unwrap_or_else(|_| Mac::local_from(0));
                self.start_port(port, mac).map(|_| ())
            });
            if let Err(error) = attached {
                tracing::warn!(port = port.name, error = super::chain(&error), "port not taken over");
            }
        }
        self.ports.prefer(None);
        self.ports.backend_mut().drop_left();
        self.memory.has_ports(self.list_ports());
    }

    /// Lets workers poll that were held, and decide from now on on what went by the short cut of another process.
    pub fn release(&mut self) {
        self.ports.backend().team().into_iter().for_each(|team| team.hold(false));
        self.shortcut.succeed();
    }

    /// How many ports there are besides the uplink.
    pub fn attached(&self) -> usize {
        self.ports.iter().filter(|entry| entry.port.kind != PortKind::Uplink).count()
    }

    /// Tells how this process took over, from now on. What it takes over is let go once all of it is entered, also by the
    /// keeper.
    pub fn restarted(&mut self, restart: proto::Restart, takeover: Option<Arc<Takeover>>, keep: &Keep) {
        self.restart = restart;
        self.takeover = takeover.map(|takeover| (takeover, keep.clone()));
    }

    /// How this process took over, or is about to.
    pub(super) fn restart(&self) -> proto::Restart {
        match &self.takeover {
            Some((takeover, _)) => with_flows(self.restart.clone(), &takeover.taken()),
            None => self.restart.clone(),
        }
    }

    /// Lets go of what another process left once nobody needs it; `false` if it is too early.
    fn finish_takeover(&mut self) -> bool {
        let in_use = |(takeover, _): &mut (Arc<Takeover>, Keep)| {
            // Workers drop it when they find nothing more; it is to be unmapped here, not there.
            takeover.is_done() && Arc::strong_count(takeover) == 1
        };
        if let Some((takeover, keep)) = self.takeover.take_if(in_use) {
            let taken = takeover.taken();
            self.restart = with_flows(self.restart.clone(), &taken);
            if let Some(segment) = self.flows.segment() {
                keep.store(KEPT_AS, &[segment.as_fd()]);
            }
            let TakenOver { flows, over, gone, no_room, damaged, .. } = taken;
            tracing::info!(
                flows,
                over,
                gone,
                no_room,
                damaged,
                "all flows of the process before are taken over"
            );
        }
        self.takeover.is_none()
    }

    /// Shows there that this thread, the control thread, goes on.
    pub fn shows(&mut self, beat: Beat) {
        beat.begin();
        self.beat = beat;
    }

    /// Has decided connections go by the short cut, if there is one.
    pub fn take_shortcut(&mut self, shortcut: Shortcut) {
        self.shortcut = shortcut;
    }

    /// Has the short cut take in the uplink that is about to be attached, an interface of the kernel's with another address than
    /// `mac` if that is `apart`.
    pub fn join_uplink(&mut self, interface: &str, mac: Mac, apart: bool) {
        let sees = self.shortcut.join_uplink(interface, EthAddr(mac.octets()), apart);
        self.ports.backend_mut().set_sees(sees);
    }

    /// Starts a port whose kernel interface has the address `mac`, or changes the one of that name, and lets packets
    /// through.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn attach(&mut self, port: Port, mac: Mac) -> Result<(), AttachError> {
        self.start_port(port, mac)?;
        self.memory.has_ports(self.list_ports());
        Ok(())
    }

    fn start_port(&mut self, port: Port, mac: Mac) -> Result<&Entry<Device>, AttachError> {
        let index = self.ports.index_for(&port.name)?;
        let before = self.ports.get(&port.name).map(|entry| entry.port.clone());
        // Checked against everything else first: a port that is refused is never made.
        self.builder.attach(index, port.clone())?;
        if before.is_none() {
            self.counters.restart_port(index);
        }
        if before.as_ref() != Some(&port) {
            // Before its old address counts under another epoch. It joins again as it is then.
            self.shortcut.leave(index);
        }
        match self.ports.attach(port, mac) {
            Ok(entry) => {
                publish(&mut self.builder, &mut self.tables, &mut self.shortcut);
                let (name, owner) = (&entry.port.name, &entry.port.owner);
                tracing::info!(port = %name, %owner, worker = entry.worker, new = before.is_none(), "port attached");
                Ok(entry)
            }
            Err(error) => {
                self.builder.detach(index);
                if let Some(before) = before {
                    self.builder.attach(index, before)?;
                }
                Err(error.into())
            }
        }
    }

    /// Lets packets of a port through that somebody else receives from and sends to, such as a benchmark.
    ///
    /// # Errors
    /// As for [`Builder::attach`].
    pub fn adopt(&mut self, index: PortIndex, port: Port) -> Result<(), TableError> {
        self.builder.attach(index, port)?;
        self.publish();
        Ok(())
    }

    /// Stops and removes a port that was attached; false if there is none of that name.
    ///
    /// # Errors
    /// When it is the uplink, or could not be stopped; then it is listed no more, and packets no longer reach it.
    pub fn detach(&mut self, name: &str) -> Result<bool, ManagerError<BackendError>> {
        let Some(leaving) = self.ports.detach(name)? else { return Ok(false) };
        self.builder.detach(leaving.index());
        self.shortcut.leave(leaving.index());
        self.publish();
        self.memory.has_ports(self.list_ports());
        self.ports.close(leaving)?;
        tracing::info!(port = name, "port detached");
        Ok(true)
    }

    /// Takes over the agent's tables and publishes them.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn replace(&mut self, tables: &proto::Tables) -> Result<Published, ReplaceError> {
        let begin = Instant::now();
        self.check_underlay_mtu(tables)?;
        let applied = self.builder.apply(tables)?;
        let published = self.publish_tables(applied, begin);
        self.memory.replaced(tables);
        self.follow_underlay(Instant::now());
        let Published { applied, adopted_after } = &published;
        tracing::info!(
            revision = tables.revision,
            synced = tables.synced,
            services = applied.services,
            backends = applied.backends,
            remotes = applied.remotes,
            micros = adopted_after.as_micros(),
            "tables replaced"
        );
        Ok(published)
    }

    /// Changes the agent's tables and publishes them.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn change(&mut self, changes: &proto::Changes) -> Result<Published, TableError> {
        let begin = Instant::now();
        let applied = self.builder.change(changes)?;
        let published = self.publish_tables(applied, begin);
        self.memory.changed(changes);
        if !changes.remotes.is_empty() || !changes.removed_remotes.is_empty() {
            self.follow_underlay(Instant::now());
        }
        tracing::debug!(
            revision = changes.revision,
            services = changes.services.len(),
            removed_services = changes.removed_services.len(),
            remotes = changes.remotes.len(),
            removed_remotes = changes.removed_remotes.len(),
            micros = published.adopted_after.as_micros(),
            "tables changed"
        );
        Ok(published)
    }

    fn publish_tables(&mut self, applied: Applied, begin: Instant) -> Published {
        self.counters.reserve_services(applied.service_slots);
        for slot in &applied.new_services {
            self.counters.restart_service(*slot);
        }
        self.publish();
        Published { applied, adopted_after: begin.elapsed() }
    }

    /// Lets workers use what the builder knows.
    pub(super) fn publish(&mut self) {
        publish(&mut self.builder, &mut self.tables, &mut self.shortcut);
    }

    fn check_underlay_mtu(&self, tables: &proto::Tables) -> Result<(), ReplaceError> {
        match (&tables.node, self.ports.uplink()) {
            (Some(node), Some(uplink)) if node.underlay_mtu > u32::from(uplink.port.mtu) => {
                let (node, mtu) = (node.name.clone(), node.underlay_mtu);
                Err(ReplaceError::UnderlayMtu { node, mtu, max: uplink.port.mtu })
            }
            _ => Ok(()),
        }
    }

    /// Does what time brings: sees whether the workers run, drops what they no longer use, and looks after the underlay.
    /// Returns when to be called again.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn turn(&mut self, now: Instant) -> Result<Instant, WorkerError> {
        self.beat.beat();
        if let Some(team) = self.ports.backend().team() {
            team.check()?;
        }
        self.tables.reclaim();
        self.flows.give_back();
        let next = self.attend_underlay(now).min(self.shortcut.attend(now, self.ports.iter()));
        Ok(if self.finish_takeover() { next } else { next.min(now + TAKEOVER) })
    }

    /// Stops the workers and closes what two processes cannot have at once, so that another one can go on where they end.
    /// Meanwhile the short cut goes on by what was decided.
    pub fn stop_forwarding(&mut self) {
        if let Err(error) = self.ports.backend_mut().stop_workers() {
            tracing::error!(%error, "stopping the workers");
        }
        for error in self.ports.close_those(|device| matches!(device, Device::Dpdk { .. })) {
            tracing::error!(error = super::chain(&error), "closing a port");
        }
    }

    /// Ends everything in order: workers, then ports. Goes on where something fails; what failed has been logged.
    ///
    /// What is kept for another process stays kept; unless this is the last, also the short cut.
    pub fn shut_down(mut self, is_last: bool) {
        self.shortcut.end(is_last);
        self.ports.backend_mut().let_go();
        self.stop_forwarding();
        for error in self.ports.close_all() {
            tracing::error!(error = super::chain(&error), "closing a port");
        }
    }
}

fn with_flows(restart: proto::Restart, taken: &TakenOver) -> proto::Restart {
    proto::Restart {
        flows_kept: taken.flows,
        flows_over: taken.over + taken.gone,
        flows_without_room: taken.no_room,
        flows_damaged: taken.damaged,
        ..restart
    }
}

/// Lets workers use what the builder knows, and waits until all of them do. Snapshots that some worker still uses after
/// a second are dropped later.
fn publish(builder: &mut Builder, tables: &mut Publisher<Snapshot>, shortcut: &mut Shortcut) {
    let snapshot = builder.snapshot();
    shortcut.follow(&snapshot);
    tables.publish(snapshot);
    let begin = Instant::now();
    while tables.reclaim() > 0 {
        match begin.elapsed() {
            waited if waited < SPIN => hint::spin_loop(),
            waited if waited < ADOPTION => thread::sleep(PAUSE),
            waited => {
                tracing::error!(?waited, "a worker still uses tables that were replaced");
                return;
            }
        }
    }
}
