//! To a tap.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use culvert_dpdk::{Burst, Mbuf};
use culvert_packet::offload::Offload;
use culvert_packet::offload::merge::Merge;
use culvert_packet::offload::vnet::VnetHeader;
use culvert_packet::{PacketBuf, parse};
use nix::sys::uio::writev;
use zerocopy::IntoBytes;

use super::wire::Cutter;
use super::{Behind, kernel};
use crate::worker::BURST;

/// Super-packets that are looked through for one that a packet may join, latest first.
const OPEN: usize = 8;

/// A transmitting end of a tap; one worker's own.
pub struct TapTx {
    descriptor: Arc<OwnedFd>,
    way: Way,
}

enum Way {
    Host(Box<Plan>),
    Wire(Box<Cutter>),
}

/// Which packets of a burst are written together.
struct Plan {
    runs: [Run; BURST],
    len: usize,
    /// Of each packet that joined another: the next of its run, or itself; and where its payload lies.
    next: [u8; BURST],
    payload: [(u16, u16); BURST],
}

/// Packets that are written together.
#[derive(Clone, Copy)]
struct Run {
    first: u8,
    last: u8,
    merge: Option<Merge>,
    /// Whether packets may join.
    open: bool,
}

impl TapTx {
    pub(in crate::port) fn new(descriptor: Arc<OwnedFd>, behind: Behind) -> Self {
        let way = match behind {
            Behind::Host => Way::Host(Box::new(Plan::new())),
            Behind::Wire | Behind::Socket => {
                Way::Wire(Box::new(Cutter::new(behind.header(), kernel::cuts_udp())))
            }
        };
        Self { descriptor, way }
    }

    /// Sends what the kernel takes and frees all. Returns how many packets it did not take; each is shown to `dropping`.
    pub fn tx_or_drop_with(&mut self, burst: &mut Burst<BURST>, mut dropping: impl FnMut(&Mbuf)) -> usize {
        let mut dropped = 0;
        let mut drop = |packet: &Mbuf| {
            dropped += 1;
            dropping(packet);
        };
        let write = |parts: &[IoSlice<'_>]| writev(&*self.descriptor, parts).is_ok();
        match &mut self.way {
            Way::Host(plan) => {
                plan.make(burst);
                plan.write(burst, write, &mut drop);
            }
            Way::Wire(cutter) => cutter.write(burst, write, drop),
        }
        burst.clear();
        dropped
    }
}

impl Plan {
    fn new() -> Self {
        let run = Run { first: 0, last: 0, merge: None, open: false };
        Self { runs: [run; BURST], len: 0, next: [0; BURST], payload: [(0, 0); BURST] }
    }

    /// Finds out which packets may be written together. Packets of a flow stay in order.
    fn make<B: PacketBuf>(&mut self, burst: &[B]) {
        self.len = 0;
        for (at, packet) in burst.iter().enumerate() {
            if !self.join(burst, at, packet) {
                let merge =
                    if burst.len() > 1 { Merge::begin(packet.data(), packet.offload()) } else { None };
                self.runs[self.len] = Run { first: at as u8, last: at as u8, merge, open: merge.is_some() };
                self.len += 1;
            }
        }
    }

    fn join<B: PacketBuf>(&mut self, burst: &[B], at: usize, packet: &B) -> bool {
        let open = self.runs[..self.len].iter_mut().rev().filter(|run| run.open).take(OPEN);
        for run in open {
            let (first, Some(merge)) = (burst[usize::from(run.first)].data(), &mut run.merge) else {
                continue;
            };
            if !merge.is_same_flow(first, packet.data()) {
                continue;
            }
            let Some(payload) = merge.join(first, packet.data(), packet.offload()) else {
                // What comes later must not be sent before this packet.
                run.open = false;
                return false;
            };
            self.payload[at] = (payload.start as u16, payload.end as u16);
            self.next[usize::from(run.last)] = at as u8;
            run.last = at as u8;
            return true;
        }
        false
    }

    fn write<B: PacketBuf>(
        &self,
        burst: &mut [B],
        write: impl Fn(&[IoSlice<'_>]) -> bool,
        drop: &mut impl FnMut(&B),
    ) {
        for run in &self.runs[..self.len] {
            let (first, last) = (usize::from(run.first), usize::from(run.last));
            let header = match &run.merge {
                Some(merge) => merge.finish(burst[first].data_mut()),
                None => header(&burst[first]),
            };
            let mut parts = [IoSlice::new(&[]); BURST + 1];
            parts[0] = IoSlice::new(header.as_bytes());
            parts[1] = IoSlice::new(burst[first].data());
            let (mut at, mut len) = (first, 2);
            while at != last {
                at = usize::from(self.next[at]);
                let (start, end) = self.payload[at];
                parts[len] = IoSlice::new(&burst[at].data()[usize::from(start)..usize::from(end)]);
                len += 1;
            }
            if write(&parts[..len]) {
                continue;
            }
            let mut at = first;
            drop(&burst[at]);
            while at != last {
                at = usize::from(self.next[at]);
                drop(&burst[at]);
            }
        }
    }
}

/// The header for a packet to a host.
fn header(packet: &impl PacketBuf) -> VnetHeader {
    match (packet.offload(), parse(packet.data())) {
        (Offload::NONE, _) | (_, Err(_)) => VnetHeader::wire(false),
        (offload, Ok(parsed)) => VnetHeader::of(packet.data(), &parsed, offload),
    }
}

impl fmt::Debug for TapTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TapTx({:?})", self.descriptor)
    }
}

#[cfg(test)]
mod tests;
