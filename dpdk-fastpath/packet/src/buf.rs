//! What a packet buffer can do, whoever owns the memory.

use crate::offload::Offload;

/// One packet in one contiguous piece of memory, with room to grow on both sides: an mbuf, or a [`TestBuf`].
pub trait PacketBuf {
    /// The packet.
    fn data(&self) -> &[u8];

    /// The packet, to be changed in place.
    fn data_mut(&mut self) -> &mut [u8];

    /// Bytes that the packet can grow by at its front.
    fn headroom(&self) -> usize;

    /// Grows the packet by `n` bytes at its front and returns the whole packet, the new bytes first and
    /// undefined; `None`, and nothing changed, if there is less headroom.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;

    /// Drops `n` bytes from the front; `false`, and nothing changed, if the packet is shorter.
    fn trim_front(&mut self, n: usize) -> bool;

    /// Grows the packet by `n` bytes at its end and returns these, undefined; `None`, and nothing changed, if
    /// there is less tailroom.
    fn append(&mut self, n: usize) -> Option<&mut [u8]>;

    /// Drops what follows the first `len` bytes; no effect on a packet that is no longer than that.
    fn truncate(&mut self, len: usize);

    /// What is still to be done about the packet before it may go over a wire. Whoever replaces the packet by another sets
    /// that, too.
    fn offload(&self) -> Offload;

    /// Notes what is still to be done.
    fn set_offload(&mut self, offload: Offload);

    /// Length of the packet in bytes.
    fn len(&self) -> usize {
        self.data().len()
    }

    /// Whether the packet holds no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A [`PacketBuf`] on the heap, with the headroom of an mbuf and no limit at the end: for tests and tools.
#[derive(Debug, Clone)]
pub struct TestBuf {
    bytes: Vec<u8>,
    start: usize,
    offload: Offload,
}

impl TestBuf {
    /// Bytes in front of a new packet, as `RTE_PKTMBUF_HEADROOM`.
    pub const HEADROOM: usize = 128;

    /// A buffer that holds `packet`.
    pub fn new(packet: &[u8]) -> Self {
        Self::with_headroom(packet, Self::HEADROOM)
    }

    /// A buffer that holds `packet` and can grow by `headroom` bytes at its front.
    pub fn with_headroom(packet: &[u8], headroom: usize) -> Self {
        let mut bytes = vec![0xa5; headroom];
        bytes.extend_from_slice(packet);
        Self { bytes, start: headroom, offload: Offload::NONE }
    }
}

impl PacketBuf for TestBuf {
    fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(n)?;
        Some(self.data_mut())
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len();
        if fits {
            self.start += n;
        }
        fits
    }

    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.bytes.len();
        self.bytes.resize(end + n, 0xa5);
        Some(&mut self.bytes[end..])
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_and_shrinks_on_both_sides_and_keeps_the_rest() {
        let mut buf = TestBuf::with_headroom(b"abc", 2);
        assert!(buf.prepend(3).is_none());
        assert_eq!(buf.data(), b"abc");
        buf.prepend(2).unwrap()[..2].copy_from_slice(b"xy");
        buf.append(1).unwrap()[0] = b'd';
        assert_eq!(buf.data(), b"xyabcd");
        assert!(!buf.trim_front(7));
        assert!(buf.trim_front(4));
        buf.truncate(9);
        buf.truncate(1);
        assert_eq!(buf.data(), b"c");
        assert!(!buf.is_empty());
    }
}
