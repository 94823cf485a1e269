//! Connections to services that the kernel opens: what it is told of services, and what is heard of connections.
//!
//! A worker that has opened a connection to a service writes down how it chose: from then on the kernel chooses the same for
//! others, as long as tables are the same and a worker looks from time to time. What it has opened is marked, and is told of
//! before workers look at any packet that came later.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use crate::layout::{BACKENDS, Backend, CHOICES, NOWHERE, OPENED, OPENINGS, Opening};
use crate::listener::Listener;
use crate::memory::Memory;
use crate::slots::{Direction, End, Slots};

/// A service, by what its packets are for: address and port, of TCP and the default tenant.
pub type Served = (Ipv4Addr, u16);

/// What a worker would choose for new connections to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Where packets to it go; `None` if a worker has to open connections to it.
    pub to: Option<End>,
}

/// Who writes and who listens.
#[derive(Debug)]
pub(crate) struct Openings {
    /// When each was written, by the clock of the slots.
    written: Mutex<[u64; OPENINGS]>,
    listener: Listener,
}

impl Default for Openings {
    fn default() -> Self {
        Self { written: Mutex::new([0; OPENINGS]), listener: Listener::default() }
    }
}

/// The next opening of a place in the table goes to another service after so many seconds.
const TURN: u64 = 1;

/// As `open_to_service` in `bpf/openings.h`.
fn place_of((vip, port): Served) -> usize {
    let (vip, port) = (u32::from_ne_bytes(vip.octets()), u32::from(port.to_be()));
    ((vip ^ port.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b1) >> 25) as usize
}

impl Slots {
    /// Whether the kernel opens connections to this service, as the tables of this serial number say.
    pub fn is_opened_by_kernel(&self, serial: u64, service: Served) -> bool {
        let opening = &self.memory().openings()[place_of(service)];
        opening.serial.load(Ordering::Acquire) == serial && is_for(opening, service)
    }

    /// Lets the kernel open connections to a service as long as there are no other tables: `choose` names a backend for each
    /// part of all hashes, from the lowest on. `false` if that is too much to be written down, or for now.
    pub fn open_by_kernel(
        &self,
        (serial, service): (u64, Served),
        choose: impl ExactSizeIterator<Item = u8>,
        backends: impl ExactSizeIterator<Item = Choice>,
        now: u64,
    ) -> bool {
        let Ok(mut written) = self.openings.written.try_lock() else { return false };
        let (at, choices) = (place_of(service), choose.len());
        let openings = self.memory().openings();
        if choices == 0 || choices > CHOICES || backends.len() > BACKENDS || serial == 0 {
            return false;
        }
        let opening = &openings[at];
        let is_others = opening.serial.load(Ordering::Relaxed) == serial && !is_for(opening, service);
        if is_others && now.saturating_sub(written[at]) < self.second() * TURN {
            return false;
        }
        written[at] = now;
        // What is half written must not be used.
        opening.serial.swap(0, Ordering::SeqCst);
        opening.vip.store(u32::from_ne_bytes(service.0.octets()), Ordering::SeqCst);
        opening.port.store(service.1.to_be(), Ordering::SeqCst);
        opening.choices.store(choices as u32, Ordering::Relaxed);
        let mut choose = choose;
        for word in &opening.choice[..choices.div_ceil(8)] {
            let bytes = std::array::from_fn(|_| choose.next().unwrap_or_default());
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        for (backend, choice) in opening.backends.iter().zip(backends) {
            put(backend, &choice);
        }
        opening.serial.store(serial, Ordering::SeqCst);
        true
    }

    /// Whether something is to be heard of connections that the kernel has opened, or somebody is just listening.
    #[inline]
    pub fn are_any_opened(&self) -> bool {
        self.openings.listener.has_to_listen(self.memory().globals())
    }

    /// Whether something is to be [told](Self::hear_of_opened) again.
    #[inline]
    pub fn are_any_waiting(&self) -> bool {
        self.openings.listener.is_waiting.load(Ordering::Relaxed)
    }

    /// Tells of all connections that the kernel has opened to services before this is called, of each once, with the epoch that
    /// it was opened in and the direction of the client. If it is `false` that is returned, it is told again the next time.
    pub fn hear_of_opened(&self, tell: impl FnMut(u32, &Direction) -> bool) {
        let memory = self.memory();
        self.openings.listener.listen(memory.globals(), memory.opened(), memory.buckets(), tell);
    }

    /// What the kernel would choose for a connection to a service with this hash, for tests without it.
    #[doc(hidden)]
    pub fn choice_of_kernel(&self, serial: u64, service: Served, hash: u64) -> Option<Choice> {
        let opening = &self.memory().openings()[place_of(service)];
        if !self.is_opened_by_kernel(serial, service) {
            return None;
        }
        let load = Ordering::Relaxed;
        let part = ((u128::from(hash) * u128::from(opening.choices.load(load))) >> 64) as usize;
        let index = opening.choice[part / 8].load(load).to_ne_bytes()[part % 8];
        let Backend { address, way_out, port, .. } = &opening.backends[usize::from(index)];
        let to = Some(way_out.load(load)).filter(|way_out| *way_out != NOWHERE).map(End::from_bits);
        let address = Ipv4Addr::from(address.load(load).to_ne_bytes());
        Some(Choice { address, port: u16::from_be(port.load(load)), to })
    }

    /// Does what the kernel does when it opens a connection, for tests without it. `false` if there is no slot.
    #[doc(hidden)]
    pub fn open_as_kernel(&self, epoch: u32, [request, reply]: [&Direction; 2], now: u64) -> bool {
        if !self.enter_awaited(epoch, reply, now, || {}) || !self.enter(epoch, request, now) {
            return false;
        }
        let (at, memory) = (self.bucket_of(request.from, &request.key), self.memory());
        if let Some(slot) = self.slot(request.from, &request.key) {
            slot.flags.fetch_or(OPENED, Ordering::SeqCst);
        }
        memory.opened()[at / 64].fetch_or(1 << (at % 64), Ordering::SeqCst);
        memory.globals().has_opened.store(1, Ordering::SeqCst);
        true
    }
}

impl Memory {
    /// From now on the kernel opens connections to services by what is written for tables of this number, and no others; none
    /// at all if it is 0.
    pub fn set_serial(&self, serial: u64) {
        self.globals().serial.store(serial, Ordering::SeqCst);
    }

    /// The number of the tables by which the kernel opens connections to services.
    pub fn serial(&self) -> u64 {
        self.globals().serial.load(Ordering::SeqCst)
    }

    /// Whether a worker has said so.
    pub fn is_alive(&self) -> bool {
        self.globals().alive.load(Ordering::Relaxed) != 0
    }

    /// Says that a worker will soon hear of connections that the kernel opens; `at` is the time, in nanoseconds of
    /// `CLOCK_MONOTONIC`. `None`: none are to be opened.
    pub fn set_alive(&self, at: Option<u64>) {
        self.globals().alive.store(at.unwrap_or(0), Ordering::Relaxed);
    }
}

fn is_for(opening: &Opening, (vip, port): Served) -> bool {
    opening.vip.load(Ordering::Relaxed) == u32::from_ne_bytes(vip.octets())
        && opening.port.load(Ordering::Relaxed) == port.to_be()
}

fn put(backend: &Backend, choice: &Choice) {
    let Choice { address, port, to } = choice;
    backend.address.store(u32::from_ne_bytes(address.octets()), Ordering::Relaxed);
    backend.port.store(port.to_be(), Ordering::Relaxed);
    backend.way_out.store(to.and_then(End::to_bits).unwrap_or(NOWHERE), Ordering::Relaxed);
}
