//! From a tap.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use culvert_dpdk::{Burst, Mbuf};
use culvert_packet::offload::vnet::VnetHeader;
use culvert_packet::offload::{Offload, complete};
use culvert_packet::parse::L3;
use culvert_packet::{PacketBuf, parse};
use nix::sys::uio::readv;
use zerocopy::IntoBytes;

use super::{Behind, Budget, TapMemory};
use crate::port::Cutting;

/// The receiving end of a tap; one worker's own.
#[derive(Debug)]
pub struct TapRx {
    descriptor: Arc<OwnedFd>,
    behind: Behind,
    memory: TapMemory,
    budget: Budget,
    ending: Ending,
    /// What is left of a super-packet that was cut, last first; at packet sockets.
    backlog: Option<Box<Backlog>>,
}

/// Why the last turn of a port ended, and what else became of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Frames that were too long for an mbuf, or whose header asked for what cannot be.
    pub refused: u64,
    /// The port has used up its share of the round.
    pub spent: bool,
    /// There were no mbufs to receive into.
    pub dry: bool,
}

#[derive(Debug)]
struct Backlog {
    cutting: Cutting,
    segments: Burst<SEGMENTS>,
}

/// Most segments of a super-packet: 64 KB of the smallest MSS that is usual, 536 bytes.
const SEGMENTS: usize = 128;

/// Empty mbufs for the next packet from any tap, each as long as it can be: a worker's own.
#[derive(Debug, Default)]
pub struct Spare {
    small: Option<Mbuf>,
    large: Option<Mbuf>,
}

impl TapRx {
    /// Reads from a descriptor that does not block and hands over one frame at a time, behind its vnet header, as a tap's
    /// queue does.
    pub fn new(descriptor: Arc<OwnedFd>, behind: Behind, memory: TapMemory, budget: Budget) -> Self {
        let cutting = || Cutting { tunnels: true, pool: memory.packets.clone() };
        let backlog = (behind == Behind::Socket)
            .then(|| Box::new(Backlog { cutting: cutting(), segments: Burst::new() }));
        Self { descriptor, behind, memory, budget, ending: Ending::default(), backlog }
    }

    /// Readable when there is a packet; `None` where that is not said of all, as segments may wait here.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.backlog.is_none().then(|| self.descriptor.as_fd())
    }

    /// How the last turn ended.
    #[inline]
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// A turn: adds what has been received, as far as `burst` has room and the budget allows, and returns how many packets
    /// that is. Takes at most `most` frames, those that it refuses included: who sends nothing else gets no longer a turn.
    pub fn rx<const N: usize>(&mut self, spare: &mut Spare, burst: &mut Burst<N>, most: usize) -> usize {
        let before = burst.len();
        let room = (N - before).min(most);
        self.budget.refill();
        self.ending = Ending { spent: true, ..Ending::default() };
        for _ in 0..room {
            if let Some(segment) = self.backlog.as_mut().and_then(|backlog| backlog.segments.pop()) {
                // There is room.
                let _ = burst.push(segment);
                continue;
            }
            if self.budget.is_spent() {
                break;
            }
            match self.next(spare) {
                Next::Packet(packet) => {
                    self.budget.spend(packet.len());
                    // There is room.
                    let _ = burst.push(packet);
                }
                Next::Refused => self.ending.refused += 1,
                Next::Segments => {}
                end @ (Next::Nothing | Next::Dry) => {
                    (self.ending.spent, self.ending.dry) = (false, matches!(end, Next::Dry));
                    break;
                }
            }
        }
        burst.len() - before
    }

    fn next(&mut self, spare: &mut Spare) -> Next {
        let TapMemory { packets, super_packets } = &self.memory;
        let (Some(mut small), Some(mut large)) = (
            spare.small.take().or_else(|| emptied(packets.alloc()?)),
            spare.large.take().or_else(|| emptied(super_packets.alloc()?)),
        ) else {
            // The kernel keeps it until there is room.
            return Next::Dry;
        };
        let mut header = VnetHeader::wire(false);
        let (first, header_len) = (small.len(), self.behind.header());
        let read = readv(
            &*self.descriptor,
            &mut [
                IoSliceMut::new(&mut header.as_mut_bytes()[..header_len]),
                IoSliceMut::new(small.data_mut()),
                IoSliceMut::new(&mut large.data_mut()[first..]),
            ],
        );
        let most = large.len();
        let len = match read {
            Ok(read) if read > header_len => read - header_len,
            _ => {
                *spare = Spare { small: Some(small), large: Some(large) };
                return Next::Nothing;
            }
        };
        // The kernel says how long the frame was, even if there was less room.
        if len > most {
            *spare = Spare { small: Some(small), large: Some(large) };
            return Next::Refused;
        }
        let mut packet = if len <= first {
            spare.large = Some(large);
            small
        } else {
            large.data_mut()[..first].copy_from_slice(small.data());
            spare.small = Some(small);
            large
        };
        packet.truncate(len);
        let Ok(offload) = header.offload(packet.data_mut()) else { return self.cut(&header, packet) };
        packet.set_offload(offload);
        match self.behind {
            Behind::Host => Next::Packet(packet),
            Behind::Wire | Behind::Socket if offload.segment.is_some() => Next::Refused,
            Behind::Wire | Behind::Socket => {
                finish(&mut packet);
                Next::Packet(packet)
            }
        }
    }

    /// Cuts a super-packet in a tunnel: two interfaces that are no real wire hand over what nobody has cut yet.
    fn cut(&mut self, header: &VnetHeader, mut packet: Mbuf) -> Next {
        let Some(Backlog { cutting, segments }) = self.backlog.as_deref_mut() else { return Next::Refused };
        let Ok(offload) = header.offload_inside(packet.data()) else { return Next::Refused };
        packet.set_offload(offload);
        let mut all = true;
        let cut = cutting.cut(packet, |segment| all &= segments.push(segment).is_ok());
        segments.reverse();
        if cut && all { Next::Segments } else { Next::Refused }
    }
}

/// Makes a packet from a wire what it was there.
fn finish(packet: &mut Mbuf) {
    // The checksum of a tunnel over IPv4 nobody looks at.
    if packet.offload().partial
        && let Ok(parsed) = parse(packet.data())
        && parsed.l3 == L3::Ipv6
    {
        complete(packet.data_mut(), &parsed);
    }
    packet.set_offload(Offload::NONE);
}

enum Next {
    Packet(Mbuf),
    /// They are in the backlog.
    Segments,
    Refused,
    Nothing,
    Dry,
}

/// An mbuf as long as it can be, to be read into.
fn emptied(mut mbuf: Mbuf) -> Option<Mbuf> {
    let room = mbuf.tailroom();
    mbuf.append(room)?;
    Some(mbuf)
}
