//! A packet buffer that costs as little as one can without unsafe code.

use culvert_packet::PacketBuf;
use culvert_packet::offload::Offload;

/// Bytes of a buffer.
const SIZE: usize = 320;
/// Bytes in front of a new packet, as `RTE_PKTMBUF_HEADROOM`.
const HEADROOM: usize = 128;

/// A packet in place, like an mbuf's: nothing on the heap, two numbers that say where it is.
#[derive(Debug, Clone)]
pub(super) struct Buffer {
    bytes: [u8; SIZE],
    start: u16,
    end: u16,
}

impl Buffer {
    /// Holds `packet`; `None` if that is too long.
    pub(super) fn new(packet: &[u8]) -> Option<Self> {
        let (mut bytes, end) = ([0; SIZE], HEADROOM + packet.len());
        bytes.get_mut(HEADROOM..end)?.copy_from_slice(packet);
        Some(Self { bytes, start: HEADROOM as u16, end: end as u16 })
    }
}

impl PacketBuf for Buffer {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..usize::from(self.end)]
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[usize::from(self.start)..usize::from(self.end)]
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        self.start.into()
    }

    #[inline(always)]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.headroom() {
            return None;
        }
        self.start -= n as u16;
        Some(self.data_mut())
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len();
        if fits {
            self.start += n as u16;
        }
        fits
    }

    #[inline(always)]
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = usize::from(self.end);
        if n > SIZE - end {
            return None;
        }
        self.end += n as u16;
        Some(&mut self.bytes[end..end + n])
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len as u16;
        }
    }

    #[inline(always)]
    fn offload(&self) -> Offload {
        Offload::NONE
    }

    fn set_offload(&mut self, _: Offload) {}

    #[inline(always)]
    fn len(&self) -> usize {
        usize::from(self.end - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_shrinks_on_both_sides_within_its_bytes() {
        let mut buffer = Buffer::new(b"abc").unwrap();
        buffer.prepend(2).unwrap()[..2].copy_from_slice(b"xy");
        buffer.append(1).unwrap()[0] = b'd';
        assert_eq!(buffer.data(), b"xyabcd");
        assert!(buffer.prepend(HEADROOM - 1).is_none() && buffer.append(SIZE).is_none());
        assert!(!buffer.trim_front(7) && buffer.trim_front(4));
        buffer.truncate(3);
        assert_eq!(buffer.data(), b"cd");
        buffer.truncate(1);
        assert_eq!((buffer.data(), buffer.len()), (&b"c"[..], 1));
        assert!(Buffer::new(&[0; SIZE]).is_none());
    }
}
