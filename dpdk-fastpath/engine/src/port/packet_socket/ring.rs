//! The memory that the kernel puts what a packet socket receives into: TPACKET_V2 of packet(7) and
//! Documentation/networking/packet_mmap.rst.
//!
//! A ring of slots, each long enough for a packet of the MTU. Each begins with a `struct tpacket2_hdr`, whose first word says
//! whose the slot is: the kernel's until it has put a frame there, and ours from then on until we give it back. So
//! receiving takes no call. Of a frame that is too long for a slot the kernel keeps the whole in the socket's queue, to
//! be read as if there were no ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_packet::eth::EthHeader;
use culvert_packet::offload::vnet::VnetHeader;
use nix::errno::Errno;

use super::set;

/// Slots of a ring for packets of the usual MTU, and of any: bursts of 10 ms at 200,000 packets per second.
const SLOTS: usize = 2048;
const LEAST_SLOTS: usize = 512;

/// What lies in front of a frame in its slot: two headers, a vnet header, and what rounds that up.
const BEFORE: usize = 128;

/// The kernel takes memory for so many bytes at once.
const BLOCK: usize = 1 << 16;

/// `PACKET_COPY_THRESH`: whether frames that are too long for a slot are kept whole.
const PACKET_COPY_THRESH: libc::c_int = 7;

/// A ring of slots that a socket receives into.
#[derive(Debug)]
pub(super) struct Ring {
    memory: NonNull<u8>,
    slot: usize,
    slots: usize,
    /// The slot that is filled next.
    next: usize,
}

/// A slot with a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled<'a> {
    /// The `struct virtio_net_hdr`; empty if there is none.
    pub(super) header: &'a [u8],
    /// The frame, or its beginning.
    pub(super) frame: &'a [u8],
    /// Whether the whole frame waits in the socket's queue.
    pub(super) waits: bool,
    /// Whether this is the whole frame.
    pub(super) is_whole: bool,
}

// SAFETY: it owns its mapping, which may be read and unmapped by any thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Makes the ring of a socket that receives nothing yet and has been told about vnet headers, for packets of up to `mtu`
    /// bytes.
    ///
    /// # Errors
    /// With what could not be done, when the kernel refuses.
    pub(super) fn new(socket: &OwnedFd, mtu: usize) -> Result<Self, (&'static str, io::Error)> {
        // Powers of two fill blocks without a rest.
        let slot = (mtu + EthHeader::LEN + BEFORE).next_power_of_two().max(2048);
        let slots = (SLOTS * 2048 / slot).max(LEAST_SLOTS);
        let block = BLOCK.max(slot);
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set(socket, libc::PACKET_VERSION, &version).map_err(|error| ("have a ring", error))?;
        set(socket, PACKET_COPY_THRESH, &1_i32).map_err(|error| ("keep long packets", error))?;
        let request = libc::tpacket_req {
            tp_block_size: block as u32,
            tp_block_nr: (slots * slot / block) as u32,
            tp_frame_size: slot as u32,
            tp_frame_nr: slots as u32,
        };
        set(socket, libc::PACKET_RX_RING, &request).map_err(|error| ("have a ring", error))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, that replaces no other.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                slots * slot,
                protection,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast()) {
            Some(memory) if start != libc::MAP_FAILED => Ok(Self { memory, slot, slots, next: 0 }),
            _ => Err(("have its ring mapped", Errno::last().into())),
        }
    }

    /// The first word of a slot.
    fn status(&self) -> &AtomicU32 {
        // SAFETY: the slot lies in the mapping, which lives as long as `self`, and begins at a multiple of 2048; the kernel
        // writes this word at any time, and all of it at once.
        unsafe { self.memory.add(self.next * self.slot).cast().as_ref() }
    }

    /// The next frame; `None` if none has come. It stays until it is [released](Self::release).
    pub(super) fn filled(&self) -> Option<Filled<'_>> {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the slot lies in the mapping. It is ours until `release`, which takes `&mut self`, and the kernel, which
        // has written the word that says so after everything else, does not write to it meanwhile.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.memory.add(self.next * self.slot).as_ptr(), self.slot) };
        let word = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes) as usize;
        // `tp_len`, `tp_snaplen`, `tp_mac`.
        let (len, here) = (word(4), word(8));
        let at = usize::from(u16::from_ne_bytes([bytes[12], bytes[13]]));
        let header_at = at.saturating_sub(VnetHeader::SHORT);
        Some(Filled {
            header: bytes.get(header_at..at).unwrap_or_default(),
            frame: bytes.get(at..at + here).unwrap_or_default(),
            waits: status & libc::TP_STATUS_COPY != 0,
            is_whole: here == len && here > 0,
        })
    }

    /// Gives the slot of the next frame back.
    pub(super) fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.slots;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of this length; nothing refers to it but `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.slots * self.slot) };
    }
}
