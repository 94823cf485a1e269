//! What packet sockets had no room for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::get;

/// `PACKET_STATISTICS`: a `struct tpacket_stats`, which begins anew with each reading.
const PACKET_STATISTICS: libc::c_int = 6;

/// The receiving sockets of a port. They are the workers', and go with them.
#[derive(Debug)]
pub struct Losses(Vec<Weak<OwnedFd>>);

impl Losses {
    pub(super) fn new<'a>(sockets: impl Iterator<Item = &'a Arc<OwnedFd>>) -> Self {
        Self(sockets.map(Arc::downgrade).collect())
    }

    /// Packets that found a ring full, since the last call.
    pub fn take(&self) -> u64 {
        let one = |socket: &Weak<OwnedFd>| {
            // `tp_packets`, `tp_drops`.
            let [_, drops]: [u32; 2] = get(&*socket.upgrade()?, PACKET_STATISTICS).ok()?;
            Some(u64::from(drops))
        };
        self.0.iter().filter_map(one).sum()
    }
}
