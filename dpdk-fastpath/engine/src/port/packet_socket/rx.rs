//! From a packet socket.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use culvert_dpdk::{Burst, Mempool};
use culvert_packet::offload::vnet::VnetHeader;
use zerocopy::IntoBytes as _;

use super::ring::Ring;
use crate::port::tap::{Behind, Budget, Ending, Spare, TapMemory, TapRx};

/// The receiving end of a packet socket; one worker's own.
#[derive(Debug)]
pub struct PacketRx {
    ring: Ring,
    /// Reads what is too long for a slot of the ring.
    long: TapRx,
    packets: Mempool,
}

impl PacketRx {
    pub(super) fn new(socket: Arc<OwnedFd>, ring: Ring, memory: TapMemory) -> Self {
        let packets = memory.packets.clone();
        Self { ring, long: TapRx::new(socket, Behind::Socket, memory, Budget::UNLIMITED), packets }
    }

    /// Readable when there is a packet.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.long.descriptor()
    }

    /// How the last turn ended.
    #[inline]
    pub fn ending(&self) -> Ending {
        self.long.ending()
    }

    /// Adds what has been received, as far as `burst` has room, and returns how many packets that is.
    pub fn rx<const N: usize>(&mut self, spare: &mut Spare, burst: &mut Burst<N>) -> usize {
        let before = burst.len();
        self.long.begin_turn();
        for _ in before..N {
            let Some(filled) = self.ring.filled() else {
                self.long.end_turn(false);
                break;
            };
            let mut header = VnetHeader::wire(false);
            let bytes = &mut header.as_mut_bytes()[..VnetHeader::SHORT];
            if filled.header.len() == bytes.len() {
                bytes.copy_from_slice(filled.header);
            }
            let is_several = filled.waits || header.is_super();
            // They may be as many as there is room for in all.
            if is_several && !burst.is_empty() {
                break;
            }
            if filled.waits {
                if !self.long.read(spare, burst) {
                    break;
                }
            } else if filled.is_whole && filled.frame.len() <= usize::from(self.packets.frame()) {
                let Some(packet) = self.packets.alloc_with(filled.frame) else {
                    // The kernel keeps it until there is room.
                    self.long.end_turn(true);
                    break;
                };
                self.long.admit(&header, packet, burst);
            } else {
                self.long.refuse();
            }
            self.ring.release();
            if is_several {
                break;
            }
        }
        burst.len() - before
    }
}
