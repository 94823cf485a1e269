//! Tracked flows: a connection and what it becomes. Its later packets are translated as the first one was, in both
//! directions, as long as its endpoint exists. When that is gone, a request that opens a connection, or is UDP, is decided
//! anew, any other is refused; what the endpoint may still say is delivered.

use std::net::IpAddr;

use super::choice::Trial;
use super::fragment::Served;
use super::state::{Signal, State};
use super::tables::{Lost, ServiceKey, Timeouts};
use super::{End, Inside, Model};
use crate::wire::dissect::{Packet, Piece, Upper};
use crate::wire::{ETH, ICMP, UDP, checksum, get16, put16, sctp};

/// One end: address, and port or identifier.
pub(crate) type Side = (IpAddr, u16);

/// What packets of one direction have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) tenant: u32,
    pub(crate) protocol: u8,
    pub(crate) src: Side,
    pub(crate) dst: Side,
}

impl Key {
    pub(crate) fn of(packet: &Packet, tenant: u32) -> Self {
        let (src, dst) = ((packet.src, packet.ports.0), (packet.dst, packet.ports.1));
        Self { tenant, protocol: packet.protocol, src, dst }
    }

    /// That of the packets that come back.
    pub(crate) fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) original: Key,
    pub(crate) translated: Key,
    /// The endpoint, as the service names it.
    pub(crate) backend: Side,
    pub(crate) state: State,
    /// When the last packet came, in steps of two seconds.
    pub(crate) seen: u64,
    /// When a packet came after that and could not be sent on. Whether that is a sign of life is for the engine to choose.
    pub(crate) refused: Option<u64>,
    pub(crate) service: ServiceKey,
    /// When its endpoint came; see [`Lives`](super::service::Lives). Or [`ITSELF`].
    pub(crate) life: u64,
}

/// Of a flow to a pod itself, through no service.
pub(crate) const ITSELF: u64 = u64::MAX;

impl Flow {
    pub(crate) fn served(&self) -> Served {
        Served { service: self.service, backend: self.backend, life: self.life }
    }
}

/// Room for flows: chunks of 256, each of which belongs to one IP version for ever once it has been needed. So much as a
/// sixteenth each version gets even if the other has used up everything. A flow that a packet ended leaves its place only
/// when the ageing has come by.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free_chunks: u32,
    /// Chunks that each version gets in any case.
    least: usize,
    /// Of IPv4 and of IPv6.
    places: [usize; 2],
    /// Places of flows that ended, at the most.
    ended: [usize; 2],
}

const CHUNK: usize = 256;

impl Room {
    pub(crate) fn new(flows: u32) -> Self {
        let chunks = flows.div_ceil(CHUNK as u32);
        Self { free_chunks: chunks, least: chunks as usize / 16, places: [0; 2], ended: [0; 2] }
    }

    /// Whether one more chunk can be had.
    fn has_chunk(&self, version: usize) -> bool {
        self.free_chunks > 0 || self.places[version] < self.least * CHUNK
    }
}

/// Whether there is a place for one more flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fits {
    Yes,
    /// Only if the engine comes across a flow that may go.
    Perhaps,
    No,
}

impl Model {
    pub(crate) fn tick(&self) -> u64 {
        self.seconds / 2
    }

    /// The flow that a key belongs to, and whether it is that of the replies.
    pub(crate) fn flow_of(&self, key: &Key) -> Option<(usize, bool)> {
        let reply = |flow: &Flow| flow.translated.reversed() == *key;
        let at = self.flows.iter().position(|flow| flow.original == *key || reply(flow))?;
        Some((at, self.flows[at].original != *key))
    }

    pub(crate) fn is_alive(&self, flow: &Flow) -> bool {
        flow.life == ITSELF || self.lives.get(flow.service, flow.backend) == Some(flow.life)
    }

    /// Whether the flow has been silent for too long, or is over since its endpoint is gone.
    pub(crate) fn may_go(&self, flow: &Flow, pressure: bool) -> bool {
        let timeouts = self.tables.node.as_ref().map_or(Timeouts::USUAL, |node| node.policy.timeouts);
        let silent = (self.tick() - flow.seen) * 2;
        silent > flow.state.patience(flow.original.protocol, &timeouts, pressure) || !self.is_alive(flow)
    }

    /// A packet of a tracked flow.
    pub(crate) fn tracked(&mut self, inside: &Inside, at: usize, reply: bool, trial: &mut Trial<'_>) -> End {
        let flow = self.flows[at];
        let signal = Signal::of(inside.packet.upper);
        let connectionless = matches!(inside.packet.upper, Upper::Udp | Upper::Echo { .. });
        if reply && flow.state == State::SynSent && signal.goes_on() {
            return self.stray(inside, at, trial);
        }
        let begins_anew = connectionless || signal.opens();
        let alive = self.is_alive(&flow);
        if !reply && begins_anew && (!alive || flow.state.is_over()) {
            self.end(at);
            return self.route(inside, trial);
        }
        if !reply && !alive {
            self.end(at);
            return match self.node().policy.lost {
                Lost::Reselect => self.route(inside, trial),
                Lost::Drop => self.drop(inside.port, "flow-endpoint-gone"),
                Lost::Reset => self.refuse(inside, "flow-endpoint-gone", trial),
            };
        }
        let (src, dst) = if reply {
            (flow.original.dst, flow.original.src)
        } else {
            (flow.translated.src, flow.translated.dst)
        };
        let way = self.way(inside.key.tenant, dst.0);
        let tick = self.tick();
        if let Err(end) = self.clear(inside, &way, dst.0, trial) {
            self.flows[at].refused = Some(tick);
            return end;
        }
        let to = Key { src, dst, ..inside.key };
        if let Err(why) = self.note_first(inside, to, flow.served()) {
            return self.drop(inside.port, why);
        }
        let kept = &mut self.flows[at];
        kept.refused = None;
        kept.state = kept.state.next(reply, signal);
        kept.seen = tick;
        if alive && flow.life != ITSELF {
            self.counters.translated(flow.service, inside.packet.len());
        }
        self.transmit(inside, &way, rewritten(inside, src, dst), trial)
    }

    pub(super) fn end(&mut self, at: usize) {
        let flow = self.flows.swap_remove(at);
        self.room.ended[version(&flow.original)] += 1;
        self.counters.expired += 1;
    }

    /// The ageing has come by all flows.
    pub(crate) fn age(&mut self) {
        let over: Vec<bool> = self.flows.iter().map(|flow| self.may_go(flow, false)).collect();
        let mut over = over.into_iter();
        self.flows.retain(|_| over.next() == Some(false));
        self.counters.expired = self.counters.created - self.flows.len() as u64;
        self.room.ended = [0; 2];
    }

    /// Makes room for a flow, as far as it is certain.
    pub(crate) fn make_room(&mut self, key: &Key) -> Fits {
        let version = version(key);
        let live = self.flows.iter().filter(|flow| self::version(&flow.original) == version).count();
        let room = &mut self.room;
        room.ended[version] = room.ended[version].min(room.places[version] - live);
        if live + room.ended[version] < room.places[version] {
            return Fits::Yes;
        }
        if room.has_chunk(version) {
            room.free_chunks = room.free_chunks.saturating_sub(1);
            room.places[version] += CHUNK;
            return Fits::Yes;
        }
        let ended = room.ended[version] > 0;
        let goes = |flow: &Flow| self::version(&flow.original) == version && self.may_go(flow, true);
        if ended || self.flows.iter().any(goes) { Fits::Perhaps } else { Fits::No }
    }

    /// Whether so many more flows may come across the limit.
    pub(crate) fn is_tight(&self, more: usize) -> bool {
        // Each version may need a chunk more.
        self.room.free_chunks < 2 && (self.free(0) < more || self.free(1) < more)
    }

    /// Whether the ageing may be in a hurry.
    pub(crate) fn is_short(&self) -> bool {
        let short = |version: usize| self.free(version) < self.room.places[version] / 8;
        self.room.free_chunks == 0 && (short(0) || short(1))
    }

    /// Places that are free for sure.
    fn free(&self, n: usize) -> usize {
        let live = self.flows.iter().filter(|flow| version(&flow.original) == n).count();
        let places = self.room.places[n];
        places - self.room.ended[n].min(places - live) - live
    }

    /// The engine has let these flows go to make room for another; `false` if it must not have.
    pub(crate) fn let_go(&mut self, gone: &[Key]) -> bool {
        for key in gone {
            let Some((at, false)) = self.flow_of(key) else { return false };
            if !self.may_go(&self.flows[at], true) {
                return false;
            }
            self.flows.swap_remove(at);
            self.counters.expired += 1;
        }
        true
    }
}

/// 0 for IPv4, 1 for IPv6.
fn version(key: &Key) -> usize {
    usize::from(key.src.0.is_ipv6())
}

/// The packet with other ends.
pub(crate) fn rewritten(inside: &Inside, src: Side, dst: Side) -> Vec<u8> {
    let Packet { upper_at, protocol, .. } = inside.packet;
    let mut frame = inside.frame.clone();
    match inside.packet.upper {
        Upper::Sctp { .. } => return rewritten_sctp(inside, src, dst),
        Upper::Echo { .. } => return rewritten_echo(inside, src, dst),
        _ => {}
    }
    if inside.packet.piece == Piece::Later {
        set_addresses(&mut frame, src.0, dst.0);
        return frame;
    }
    let field = upper_at + checksum::field(protocol).expect("TCP or UDP");
    if inside.left.partial {
        set_ends(&mut frame, upper_at, src, dst);
        let sum = checksum::partial(src.0, dst.0, protocol, frame.len() - upper_at);
        put16(&mut frame, field, sum);
        return frame;
    }
    // A datagram may be shorter than what IP carries, and is longer than its first fragment.
    let datagram = || upper_at + usize::from(get16(&frame, upper_at + 4));
    let end = if protocol == UDP { datagram().min(frame.len()) } else { frame.len() };
    let right = |frame: &[u8], src, dst| checksum::transport(src, dst, protocol, &frame[upper_at..end]);
    let before = right(&frame, inside.packet.src, inside.packet.dst);
    set_ends(&mut frame, upper_at, src, dst);
    let after = right(&frame, src.0, dst.0);
    let carry = if inside.packet.is_fragment() { checksum::shifted } else { checksum::carried };
    let carried = carry(get16(&frame, field), before, after, protocol);
    put16(&mut frame, field, carried);
    frame
}

/// The checksum of SCTP covers no addresses; if it was wrong, it stays so by the same bits, as a CRC is linear.
fn rewritten_sctp(inside: &Inside, src: Side, dst: Side) -> Vec<u8> {
    let at = inside.packet.upper_at;
    let mut frame = inside.frame.clone();
    let before = sctp::checksum(&frame[at..]);
    set_ends(&mut frame, at, src, dst);
    let after = sctp::checksum(&frame[at..]);
    for n in 0..4 {
        frame[at + 8 + n] ^= before[n] ^ after[n];
    }
    frame
}

/// Sets addresses and ports, and makes the header checksum of IPv4 right.
fn set_ends(frame: &mut [u8], upper_at: usize, src: Side, dst: Side) {
    set_addresses(frame, src.0, dst.0);
    put16(frame, upper_at, src.1);
    put16(frame, upper_at + 2, dst.1);
}

fn set_addresses(frame: &mut [u8], src: IpAddr, dst: IpAddr) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame[ETH + 12..ETH + 20].copy_from_slice(&[src.octets(), dst.octets()].concat());
            checksum::fill_ipv4(&mut frame[ETH..]);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame[ETH + 8..ETH + 40].copy_from_slice(&[src.octets(), dst.octets()].concat());
        }
        _ => unreachable!("a flow is of one IP version"),
    }
}

/// An echo with other ends and another identifier.
fn rewritten_echo(inside: &Inside, src: Side, dst: Side) -> Vec<u8> {
    let Packet { upper_at, protocol, .. } = inside.packet;
    let mut frame = inside.frame.clone();
    let before = checksum::transport(inside.packet.src, inside.packet.dst, protocol, &frame[upper_at..]);
    let head = [frame[upper_at], frame[upper_at + 1], frame[upper_at + 2], frame[upper_at + 3]];
    set_ends(&mut frame, upper_at, src, dst);
    frame[upper_at..upper_at + 4].copy_from_slice(&head);
    put16(&mut frame, upper_at + 4, src.1);
    let after = checksum::transport(src.0, dst.0, protocol, &frame[upper_at..]);
    // Without a pseudo header there may be no change at all.
    if protocol != ICMP || src.1 != inside.packet.ports.0 {
        let carry = if inside.packet.is_fragment() { checksum::shifted } else { checksum::carried };
        let carried = carry(get16(&frame, upper_at + 2), before, after, protocol);
        put16(&mut frame, upper_at + 2, carried);
    }
    frame
}
