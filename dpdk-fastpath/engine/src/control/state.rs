//! All that the control thread owns.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use culvert_api::fastpath as proto;
use culvert_api::value::Mac;
use culvert_dpdk::Mbuf;
use culvert_packet::eth::EthAddr;

use super::error::{AttachError, ReplaceError};
use crate::clock::Clock;
use crate::counter::CounterSet;
use crate::flow::FlowTables;
use crate::neighbour::{Announcements, Heard, Neighbours, Solicitation, State, Timing};
use crate::neighbour::{write_announcement, write_solicitation};
use crate::port::{BackendError, DpdkBackend, Entry, ManagerError, PortManager};
use crate::quiescent::Publisher;
use crate::table::{Applied, Builder, MAX_PORTS, Port, Snapshot};
use crate::worker::{Team, WorkerError};

/// How long workers may take to move on to a new snapshot before that is reported.
const ADOPTION: Duration = Duration::from_secs(1);

/// Between two looks at whether they have.
const PAUSE: Duration = Duration::from_micros(10);

/// Questions to neighbours in one turn.
const QUESTIONS: usize = 64;

/// Until the next turn while a neighbour's answer is awaited, and while none is.
const BUSY_TURN: Duration = Duration::from_millis(2);
const IDLE_TURN: Duration = Duration::from_millis(100);

/// The fast path as its control thread sees it: ports, tables and neighbours, and what is published of them.
#[derive(Debug)]
pub struct FastPath {
    pub(super) instance: String,
    pub(super) started: Instant,
    /// CPU of each worker.
    pub(super) workers: Vec<u32>,
    pub(super) ports: PortManager<DpdkBackend>,
    builder: Builder,
    pub(super) tables: Publisher<Snapshot>,
    pub(super) counters: CounterSet,
    pub(super) flows: Arc<FlowTables>,
    pub(super) clock: Clock,
    neighbours: Neighbours,
    announcements: Announcements,
    questions: Vec<Solicitation>,
}

/// What [`FastPath::replace`] did.
#[derive(Debug)]
pub struct Replaced {
    /// What is in force now.
    pub applied: Applied,
    /// Until every worker used it.
    pub adopted_after: Duration,
}

impl FastPath {
    /// A fast path whose workers run, without ports and with empty tables. `instance` tells it from every other process.
    pub fn new(
        instance: String,
        backend: DpdkBackend,
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
            questions: Vec::with_capacity(QUESTIONS),
        }
    }

    /// Starts a port whose kernel interface has the address `mac`, or changes the one of that name, and lets packets
    /// through.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn attach(&mut self, port: Port, mac: Mac) -> Result<&Entry<culvert_dpdk::Port>, AttachError> {
        let index = self.ports.index_for(&port.name)?;
        let before = self.ports.get(&port.name).map(|entry| entry.port.clone());
        // Checked against everything else first: a port that is refused is never made.
        self.builder.attach(index, port.clone())?;
        if before.is_none() {
            self.counters.restart_port(index);
        }
        match self.ports.attach(port, mac) {
            Ok(entry) => {
                publish(&mut self.builder, &mut self.tables);
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

    /// Stops and removes a pod's port; false if there is none of that name.
    ///
    /// # Errors
    /// When it is the uplink, or could not be stopped; then it is listed no more, and packets no longer reach it.
    pub fn detach(&mut self, name: &str) -> Result<bool, ManagerError<BackendError>> {
        let Some(leaving) = self.ports.detach(name)? else { return Ok(false) };
        self.builder.detach(leaving.index());
        publish(&mut self.builder, &mut self.tables);
        self.ports.close(leaving)?;
        tracing::info!(port = name, "port detached");
        Ok(true)
    }

    /// Takes over the agent's tables and publishes them.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn replace(&mut self, tables: &proto::Tables) -> Result<Replaced, ReplaceError> {
        let begin = Instant::now();
        self.check_underlay_mtu(tables)?;
        let applied = self.builder.apply(tables)?;
        self.counters.reserve_services(applied.service_slots);
        for slot in &applied.new_services {
            self.counters.restart_service(*slot);
        }
        publish(&mut self.builder, &mut self.tables);
        let adopted_after = begin.elapsed();
        let now = Instant::now();
        self.neighbours.follow(now, self.builder.next_hops());
        self.announcements.follow(now, self.underlay_addresses());
        self.tell_neighbours();
        tracing::info!(
            revision = tables.revision,
            synced = tables.synced,
            services = applied.services,
            backends = applied.backends,
            remotes = applied.remotes,
            micros = adopted_after.as_micros(),
            "tables replaced"
        );
        Ok(Replaced { applied, adopted_after })
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

    /// Does what time brings: listens to neighbours, asks them, announces addresses. Returns when to be called again.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn turn(&mut self, now: Instant) -> Result<Instant, WorkerError> {
        if let Some(team) = self.ports.backend().team() {
            team.check()?;
        }
        self.tables.reclaim();
        self.hear_neighbours(now);
        self.ask_neighbours(now);
        self.announce(now);
        let awaiting = self
            .neighbours
            .iter()
            .any(|(_, state, _)| matches!(state, State::Incomplete | State::Probe | State::Stale));
        let next = now + if awaiting { BUSY_TURN } else { IDLE_TURN };
        let due = [self.neighbours.next_due(), self.announcements.next_due()].into_iter().flatten();
        Ok(due.fold(next, Instant::min).max(now))
    }

    fn hear_neighbours(&mut self, now: Instant) {
        let mut changed = false;
        let Some(team) = self.ports.backend().team() else { return };
        for heard in team.learned() {
            let Ok(mac) = Mac::try_from(heard.mac.0) else { continue };
            let heard = Heard { address: heard.ip, mac, solicited: heard.solicited };
            if self.neighbours.hear(now, heard) {
                tracing::info!(neighbour = %heard.address, %mac, "neighbour resolved");
                changed = true;
            }
        }
        if changed {
            self.tell_neighbours();
        }
    }

    /// Lets the tables know the neighbours' addresses.
    fn tell_neighbours(&mut self) {
        let known = self.neighbours.iter().filter_map(|(hop, _, mac)| Some((hop, EthAddr(mac?.octets()))));
        if self.builder.set_neighbours(known) {
            publish(&mut self.builder, &mut self.tables);
        }
    }

    fn ask_neighbours(&mut self, now: Instant) {
        let mut questions = std::mem::take(&mut self.questions);
        if self.neighbours.poll(now, QUESTIONS, &mut questions) {
            tracing::warn!("a neighbour on the uplink does not answer any more");
            self.tell_neighbours();
        }
        for question in questions.drain(..) {
            let Some(own) = self.underlay_addresses().find(|own| own.is_ipv4() == question.target.is_ipv4())
            else {
                continue;
            };
            self.send_on_uplink(|frame, mac| write_solicitation(frame, mac, own, question));
        }
        self.questions = questions;
    }

    fn announce(&mut self, now: Instant) {
        let due: Vec<_> = self.announcements.poll(now).collect();
        for address in due {
            self.send_on_uplink(|frame, mac| write_announcement(frame, mac, address));
        }
    }

    /// Has a worker send what `write` makes of an empty buffer and the uplink's Ethernet address. What cannot be sent
    /// is lost, as it could be on the wire.
    fn send_on_uplink(&mut self, write: impl FnOnce(&mut Mbuf, EthAddr) -> bool) {
        let Some(uplink) = self.ports.uplink() else { return };
        let (index, worker, mac) = (uplink.index, uplink.worker, uplink.port.mac);
        let backend = self.ports.backend();
        let Some(mut frame) = backend.pool().alloc() else { return };
        if let (true, Some(team)) = (write(&mut frame, mac), backend.team()) {
            // Refused means that more frames wait than a worker sends in a moment.
            let _ = team.inject(worker, index, frame);
        }
    }

    fn underlay_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let underlay = self.tables.current().local().map(|local| local.underlay.clone()).unwrap_or_default();
        underlay.into_iter().map(|own| own.net.addr())
    }

    /// Ends everything in order: workers, then ports. Goes on where something fails; what failed has been logged.
    pub fn shut_down(mut self) {
        if let Err(error) = self.ports.backend().stop_workers() {
            tracing::error!(%error, "stopping the workers");
        }
        for error in self.ports.close_all() {
            tracing::error!(error = super::chain(&error), "closing a port");
        }
    }
}

/// Lets workers use what the builder knows, and waits until all of them do. Snapshots that some worker still uses after
/// a second are dropped later.
fn publish(builder: &mut Builder, tables: &mut Publisher<Snapshot>) {
    tables.publish(builder.snapshot());
    let deadline = Instant::now() + ADOPTION;
    while tables.reclaim() > 0 {
        if Instant::now() > deadline {
            tracing::error!(waited = ?ADOPTION, "a worker still uses tables that were replaced");
            return;
        }
        thread::sleep(PAUSE);
    }
}
