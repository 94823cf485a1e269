//! Next hops, our own addresses, and the ways to other nodes on the underlay.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_api::value::Mac;
use culvert_dpdk::Mbuf;
use culvert_packet::eth::EthAddr;

use super::FastPath;
use crate::neighbour::{Heard, State, write_announcement, write_solicitation};
use crate::pipeline::{Learned, Neighbour, PathMtu};

/// Questions to neighbours in one turn.
const QUESTIONS: usize = 64;

/// Until the next turn while a neighbour's answer is awaited, and while none is.
const BUSY_TURN: Duration = Duration::from_millis(2);
const IDLE_TURN: Duration = Duration::from_millis(100);

impl FastPath {
    /// Takes over what the tables say of next hops and own addresses.
    pub(super) fn follow_underlay(&mut self, now: Instant) {
        self.neighbours.follow(now, self.builder.next_hops());
        self.announcements.follow(now, self.underlay_addresses());
        self.tell_neighbours();
    }

    /// Listens to the underlay, asks neighbours, announces addresses. Returns when to be called again.
    pub(super) fn attend_underlay(&mut self, now: Instant) -> Instant {
        self.listen(now);
        self.forget_paths(now);
        self.ask_neighbours(now);
        self.announce(now);
        let awaited = |state| matches!(state, State::Incomplete | State::Probe | State::Stale);
        let awaiting = self.neighbours.iter().any(|(_, state, _)| awaited(state));
        let next = now + if awaiting { BUSY_TURN } else { IDLE_TURN };
        let due = [self.neighbours.next_due(), self.announcements.next_due(), self.path_mtus.next_due()];
        due.into_iter().flatten().fold(next, Instant::min).max(now)
    }

    fn listen(&mut self, now: Instant) {
        let Some(team) = self.ports.backend().team() else { return };
        let learned: Vec<_> = team.learned().collect();
        let (mut neighbours, mut paths) = (false, false);
        for learned in learned {
            match learned {
                Learned::Neighbour(neighbour) => neighbours |= self.hear_neighbour(now, neighbour),
                Learned::PathMtu(path) => paths |= self.hear_path(now, path),
            }
        }
        if neighbours {
            self.tell_neighbours();
        }
        if paths {
            self.tell_paths();
        }
    }

    /// Whether that is news.
    fn hear_neighbour(&mut self, now: Instant, heard: Neighbour) -> bool {
        let Ok(mac) = Mac::try_from(heard.mac.0) else { return false };
        let heard = Heard { address: heard.ip, mac, solicited: heard.solicited };
        let changed = self.neighbours.hear(now, heard);
        if changed {
            tracing::info!(neighbour = %heard.address, %mac, "neighbour resolved");
        }
        changed
    }

    /// Whether that is news.
    fn hear_path(&mut self, now: Instant, heard: PathMtu) -> bool {
        let Some(underlay) = self.tables.current().local().map(|local| local.underlay_mtu) else {
            return false;
        };
        let lowered = self.path_mtus.hear(now, heard, underlay);
        if let Some(mtu) = lowered {
            tracing::warn!(vtep = %heard.vtep, mtu, underlay, "a router on the way to a node takes only smaller packets");
        }
        lowered.is_some()
    }

    fn forget_paths(&mut self, now: Instant) {
        let over = self.path_mtus.expire(now);
        for vtep in &over {
            tracing::info!(%vtep, "the way to a node is tried with the full MTU again");
        }
        if !over.is_empty() {
            self.tell_paths();
        }
    }

    /// Lets the tables know what the ways to other nodes take.
    fn tell_paths(&mut self) {
        if self.builder.set_path_mtus(self.path_mtus.iter()) {
            self.publish();
        }
    }

    /// Goes on with what another process knew of neighbours that are followed; they are asked again when that is due.
    pub(super) fn recall_neighbours(&mut self, neighbours: &[(IpAddr, Mac)]) {
        let now = Instant::now();
        for &(address, mac) in neighbours {
            self.neighbours.hear(now, Heard { address, mac, solicited: false });
        }
        self.tell_neighbours();
    }

    /// Lets the tables know the neighbours' addresses.
    fn tell_neighbours(&mut self) {
        let known = || self.neighbours.iter().filter_map(|(hop, _, mac)| Some((hop, mac?)));
        if self.builder.set_neighbours(known().map(|(hop, mac)| (hop, EthAddr(mac.octets())))) {
            self.memory.has_neighbours(known());
            self.publish();
        }
    }

    fn ask_neighbours(&mut self, now: Instant) {
        let mut questions = Vec::new();
        let failed = self.neighbours.poll(now, QUESTIONS, &mut questions);
        for neighbour in &failed {
            tracing::warn!(%neighbour, "next hop on the uplink does not answer; asking on");
        }
        if !failed.is_empty() {
            self.tell_neighbours();
        }
        for question in questions {
            let Some(own) = self.underlay_addresses().find(|own| own.is_ipv4() == question.target.is_ipv4())
            else {
                continue;
            };
            self.send_on_uplink(|frame, mac| write_solicitation(frame, mac, own, question));
        }
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
}
