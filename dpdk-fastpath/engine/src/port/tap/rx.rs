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
        Self { descriptor, behind, memory, budget, ending: Ending::default() }
    }

    /// Readable when there is a packet.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
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
        self.begin_turn();
        for _ in 0..room {
            if self.budget.is_spent() || !self.read(spare, burst) {
                break;
            }
        }
        burst.len() - before
    }

    /// Begins a turn, which ends with the port's share spent unless something else ends it.
    pub(in crate::port) fn begin_turn(&mut self) {
        self.budget.refill();
        self.ending = Ending { spent: true, ..Ending::default() };
    }

    /// Ends a turn, as there is no packet, or for want of mbufs if it is `dry`.
    pub(in crate::port) fn end_turn(&mut self, dry: bool) {
        (self.ending.spent, self.ending.dry) = (false, dry);
    }

    /// Counts a frame as refused.
    pub(in crate::port) fn refuse(&mut self) {
        self.ending.refused += 1;
    }

    /// Adds the next frame; `false`, and the turn ends, if there is none, or no room for it. At packet sockets a frame can become
    /// as many packets as `burst` has room for.
    pub(in crate::port) fn read<const N: usize>(&mut self, spare: &mut Spare, burst: &mut Burst<N>) -> bool {
        let mut header = VnetHeader::wire(false);
        match self.next(&mut header, spare) {
            Next::Packet(packet) => {
                self.budget.spend(packet.len());
                self.admit(&header, packet, burst);
            }
            Next::TooLong => self.refuse(),
            end @ (Next::Nothing | Next::Dry) => {
                self.end_turn(matches!(end, Next::Dry));
                return false;
            }
        }
        true
    }

    /// Adds a frame that has come behind this header, or counts it as refused.
    pub(in crate::port) fn admit<const N: usize>(
        &mut self,
        header: &VnetHeader,
        mut packet: Mbuf,
        burst: &mut Burst<N>,
    ) {
        let admitted = match header.offload(packet.data_mut()) {
            Ok(offload) if self.behind == Behind::Host => {
                packet.set_offload(offload);
                burst.push(packet).is_ok()
            }
            Ok(offload) if offload.segment.is_none() => {
                packet.set_offload(offload);
                finish(&mut packet);
                burst.push(packet).is_ok()
            }
            // Two interfaces that are no real wire hand over what nobody has cut yet: packets of a tunnel that the other end
            // wanted cut, or one in a tunnel of the kernel's.
            Ok(offload) => self.cut(false, offload, packet, burst),
            Err(_) => match header.offload_inside(packet.data()) {
                Ok(offload) => self.cut(true, offload, packet, burst),
                Err(_) => false,
            },
        };
        self.ending.refused += u64::from(!admitted);
    }

    fn next(&mut self, header: &mut VnetHeader, spare: &mut Spare) -> Next {
        let TapMemory { packets, super_packets } = &self.memory;
        let (Some(mut small), Some(mut large)) = (
            spare.small.take().or_else(|| emptied(packets.alloc()?)),
            spare.large.take().or_else(|| emptied(super_packets.alloc()?)),
        ) else {
            // The kernel keeps it until there is room.
            return Next::Dry;
        };
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
            return Next::TooLong;
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
        Next::Packet(packet)
    }

    /// Cuts a super-packet, or the one in a tunnel; `false` if that cannot be, or not here.
    fn cut<const N: usize>(
        &self,
        tunnels: bool,
        offload: Offload,
        mut packet: Mbuf,
        burst: &mut Burst<N>,
    ) -> bool {
        if self.behind != Behind::Socket {
            return false;
        }
        packet.set_offload(offload);
        let cutting = Cutting { tunnels, pool: self.memory.packets.clone() };
        let mut all = true;
        cutting.cut(packet, |segment| all &= burst.push(segment).is_ok()) && all
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
    TooLong,
    Nothing,
    Dry,
}

/// An mbuf as long as it can be, to be read into.
fn emptied(mut mbuf: Mbuf) -> Option<Mbuf> {
    let room = mbuf.tailroom();
    mbuf.append(room)?;
    Some(mbuf)
}
