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

use super::{Behind, TapMemory};

/// The receiving end of a tap; one worker's own.
#[derive(Debug)]
pub struct TapRx {
    descriptor: Arc<OwnedFd>,
    behind: Behind,
    memory: TapMemory,
    refused: u64,
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
    pub fn new(descriptor: Arc<OwnedFd>, behind: Behind, memory: TapMemory) -> Self {
        Self { descriptor, behind, memory, refused: 0 }
    }

    /// Readable when there is a packet.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Frames since the last call that were too long for an mbuf, or whose header asked for what cannot be.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Adds what has been received, as far as `burst` has room, and returns how many packets that is. Takes at most `most`
    /// frames, those that it refuses included: who sends nothing else gets no longer a turn.
    pub fn rx<const N: usize>(&mut self, spare: &mut Spare, burst: &mut Burst<N>, most: usize) -> usize {
        let before = burst.len();
        let room = (N - before).min(most);
        for _ in 0..room {
            match self.next(spare) {
                Next::Packet(packet) => {
                    // There is room.
                    let _ = burst.push(packet);
                }
                Next::Refused => self.refused += 1,
                Next::Nothing => break,
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
            return Next::Nothing;
        };
        let mut header = VnetHeader::wire(false);
        let first = small.len();
        let read = readv(
            &*self.descriptor,
            &mut [
                IoSliceMut::new(header.as_mut_bytes()),
                IoSliceMut::new(small.data_mut()),
                IoSliceMut::new(&mut large.data_mut()[first..]),
            ],
        );
        let most = large.len();
        let len = match read {
            Ok(read) if read > VnetHeader::LEN => read - VnetHeader::LEN,
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
        match self.accept(&header, &mut packet) {
            Some(offload) => {
                packet.set_offload(offload);
                Next::Packet(packet)
            }
            None => Next::Refused,
        }
    }

    fn accept(&self, header: &VnetHeader, packet: &mut Mbuf) -> Option<Offload> {
        let offload = header.offload(packet.data_mut()).ok()?;
        if self.behind == Behind::Host {
            return Some(offload);
        }
        if offload.segment.is_some() {
            return None;
        }
        // The checksum of a tunnel over IPv4 nobody looks at.
        if offload.partial
            && let Ok(parsed) = parse(packet.data())
            && parsed.l3 == L3::Ipv6
        {
            complete(packet.data_mut(), &parsed);
        }
        Some(Offload::NONE)
    }
}

enum Next {
    Packet(Mbuf),
    Refused,
    Nothing,
}

/// An mbuf as long as it can be, to be read into.
fn emptied(mut mbuf: Mbuf) -> Option<Mbuf> {
    let room = mbuf.tailroom();
    mbuf.append(room)?;
    Some(mbuf)
}
