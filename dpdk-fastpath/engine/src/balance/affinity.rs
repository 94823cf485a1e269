//! Which endpoint each client used last.

use std::fmt;
use std::hint::spin_loop;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use zerocopy::FromBytes;

use crate::flow::{Tick, Zeroed};

#[cfg(test)]
mod tests;

/// Entries of a bucket.
const WAYS: usize = 4;

/// Address and port of an endpoint.
pub type Endpoint = (IpAddr, u16);

/// A client of a service, by a hash of both. Two that have the same share an entry: of a million clients, with a chance of
/// about one in 20 million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(u64);

impl Client {
    /// The client with this hash of a service with that one; all bits of both must be well spread.
    #[inline]
    pub const fn new(service: u64, client: u64) -> Self {
        let mixed = (client.rotate_left(32) ^ service).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // 0 is nobody.
        Self((mixed ^ mixed >> 32) | 1 << 63)
    }
}

/// Which endpoint each client used last, and when. Shared by all workers and all services, of both IP versions, and
/// independent of the tables: it holds addresses, whatever becomes of them.
///
/// A client's entry is in one bucket of four, which is locked for a few instructions. A full bucket forgets who has been
/// silent for longest. Nothing here is touched but when a flow is opened.
pub struct Affinity {
    buckets: Zeroed<Bucket>,
}

/// Two cache lines.
#[derive(Debug, FromBytes)]
#[repr(C, align(128))]
pub(crate) struct Bucket {
    clients: [AtomicU64; WAYS],
    /// IPv4 addresses as `::ffff:a.b.c.d`, high half first.
    addresses: [[AtomicU64; 2]; WAYS],
    used: [AtomicU32; WAYS],
    ports: [AtomicU16; WAYS],
    lock: AtomicU32,
}

/// Bytes of a bucket.
pub(crate) const CLIENTS_BUCKET: usize = size_of::<Bucket>();

const _: () = assert!(CLIENTS_BUCKET == 128);

/// What became of a client's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The endpoint that the client is to use.
    pub endpoint: Endpoint,
    /// Whether another client was forgotten before its time.
    pub evicted: bool,
}

impl Affinity {
    /// Room for `clients`, of whom less than 1 % find their bucket full; `None` if there is no memory. It is taken from the
    /// system as it is used, 128 bytes for each.
    pub fn new(clients: u32) -> Option<Self> {
        Some(Self::of(Zeroed::new(Self::buckets_for(clients))?))
    }

    /// Buckets for so many: a quarter full at the most, as buckets of four with one client on average.
    pub(crate) fn buckets_for(clients: u32) -> usize {
        (clients as usize).next_power_of_two()
    }

    /// These buckets, a power of two of them.
    pub(crate) fn of(buckets: Zeroed<Bucket>) -> Self {
        debug_assert!(buckets.len().is_power_of_two());
        Self { buckets }
    }

    /// Takes over the clients of a bucket that another process has filled, those that have been used within the longest
    /// timeout and find room. Returns how many.
    pub(crate) fn take_over(&self, left: &Bucket, now: Moment) -> u64 {
        let left = Guard(left);
        let mut taken = 0;
        for way in 0..WAYS {
            let client = Client(left.0.clients[way].load(Ordering::Relaxed));
            if client.0 >> 63 == 0 || left.age(way, now) > MAX_SECONDS {
                continue;
            }
            let bucket = self.lock(client);
            let used = Moment(left.0.used[way].load(Ordering::Relaxed));
            if let Some(free) = bucket.way_of(client).or_else(|| bucket.free()) {
                bucket.write(free, client, left.endpoint(way), used);
                taken += 1;
            }
        }
        taken
    }

    /// Clients that there is room for, as long as none finds its bucket full.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    fn lock(&self, client: Client) -> Guard<'_> {
        let bucket = &self.buckets[client.0 as usize & (self.buckets.len() - 1)];
        while bucket.lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        Guard(bucket)
    }

    /// The endpoint that a client used within `seconds`.
    pub fn find(&self, client: Client, now: Moment, seconds: u32) -> Option<Endpoint> {
        let bucket = self.lock(client);
        let way = bucket.way_of(client)?;
        bucket.is_fresh(way, now, seconds).then(|| bucket.endpoint(way))
    }

    /// When the client's entry expires, in seconds from now; `None` if there is none.
    pub fn expires(&self, client: Client, now: Moment, seconds: u32) -> Option<u32> {
        let bucket = self.lock(client);
        let way = bucket.way_of(client)?;
        let age = bucket.age(way, now);
        bucket.is_fresh(way, now, seconds).then(|| u64::from(seconds).saturating_sub(age) as u32)
    }

    /// Notes that a client uses an endpoint now. Should it have used another within `seconds`, by what another worker did
    /// meanwhile, and `may_keep` that: it keeps that one.
    pub fn keep(
        &self,
        client: Client,
        endpoint: Endpoint,
        now: Moment,
        seconds: u32,
        may_keep: impl FnOnce(Endpoint) -> bool,
    ) -> Kept {
        let bucket = self.lock(client);
        if let Some(way) = bucket.way_of(client) {
            let before = bucket.endpoint(way);
            let fresh = bucket.is_fresh(way, now, seconds);
            let endpoint = if fresh && may_keep(before) { before } else { endpoint };
            bucket.write(way, client, endpoint, now);
            return Kept { endpoint, evicted: false };
        }
        let (way, evicted) = match bucket.free() {
            Some(way) => (way, false),
            // What is older than any timeout may be is nobody's loss.
            None => {
                let way = bucket.oldest(now);
                (way, bucket.age(way, now) <= MAX_SECONDS)
            }
        };
        bucket.write(way, client, endpoint, now);
        Kept { endpoint, evicted }
    }
}

/// Longest timeout that the Kubernetes API admits.
const MAX_SECONDS: u64 = 86_400;

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Affinity").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// A locked bucket.
struct Guard<'a>(&'a Bucket);

impl Guard<'_> {
    fn way_of(&self, client: Client) -> Option<usize> {
        self.0.clients.iter().position(|held| held.load(Ordering::Relaxed) == client.0)
    }

    fn free(&self) -> Option<usize> {
        self.0.clients.iter().position(|held| held.load(Ordering::Relaxed) == 0)
    }

    fn oldest(&self, now: Moment) -> usize {
        (0..WAYS).max_by_key(|&way| self.age(way, now)).unwrap_or(0)
    }

    /// Seconds since the last use, less than one [`Tick`] too many or too few.
    fn age(&self, way: usize, now: Moment) -> u64 {
        u64::from(now.0.wrapping_sub(self.0.used[way].load(Ordering::Relaxed))) * Tick::SECONDS
    }

    /// Never less than `seconds` are granted; up to two ticks more.
    fn is_fresh(&self, way: usize, now: Moment, seconds: u32) -> bool {
        self.age(way, now) < u64::from(seconds) + Tick::SECONDS
    }

    fn endpoint(&self, way: usize) -> Endpoint {
        let [high, low] = &self.0.addresses[way];
        let bits = |half: &AtomicU64| u128::from(half.load(Ordering::Relaxed));
        let address = Ipv6Addr::from_bits(bits(high) << 64 | bits(low)).to_canonical();
        (address, self.0.ports[way].load(Ordering::Relaxed))
    }

    fn write(&self, way: usize, client: Client, (address, port): Endpoint, now: Moment) {
        let bits = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        self.0.clients[way].store(client.0, Ordering::Relaxed);
        self.0.addresses[way][0].store((bits >> 64) as u64, Ordering::Relaxed);
        self.0.addresses[way][1].store(bits as u64, Ordering::Relaxed);
        self.0.ports[way].store(port, Ordering::Relaxed);
        self.0.used[way].store(now.0, Ordering::Relaxed);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.lock.store(0, Ordering::Release);
    }
}

/// A moment in steps of a [`Tick`], for nearly three centuries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u32);

impl Moment {
    /// The moment at some time after the same start as that of the ticks.
    pub const fn after(elapsed: std::time::Duration) -> Self {
        Self((elapsed.as_secs() / Tick::SECONDS) as u32)
    }
}

/// Counts the turns of the ticks' counter. Every worker has one, which must see a tick every day.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calendar {
    turns: u16,
    last: u16,
}

impl Calendar {
    /// That of a worker whose first moment this is.
    pub const fn from(now: Moment) -> Self {
        Self { turns: (now.0 >> 16) as u16, last: now.0 as u16 }
    }

    /// The moment of a tick that is not before those seen.
    #[inline]
    pub fn at(&mut self, now: Tick) -> Moment {
        let tick = now.bits();
        self.turns += u16::from(tick < self.last);
        self.last = tick;
        Moment(u32::from(self.turns) << 16 | u32::from(tick))
    }
}
