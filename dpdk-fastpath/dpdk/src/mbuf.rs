//! One packet in DPDK's memory.

use std::fmt;
use std::num::NonZeroU16;
use std::ptr::NonNull;

use culvert_packet::buf::PacketBuf;
use culvert_packet::offload::Offload;
use culvert_packet::offload::request::Request;
use dpdk_sys::rte_mbuf;

use crate::tx_offload::{self, FLAGS};

/// One packet: owns one `rte_mbuf`, and gives it back to its pool when dropped.
///
/// Always a single segment with no other owner, so its bytes are one slice. Fields are read and written right in the C
/// struct; no call is made for them.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf has one owner, and pools take mbufs back from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership.
    ///
    /// # Safety
    /// A live mbuf with one segment, a reference count of 1, its own (direct) buffer and consistent lengths, which nobody
    /// else uses or frees.
    #[inline]
    pub(crate) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Self(mbuf)
    }

    #[inline]
    fn raw(&self) -> &rte_mbuf {
        // SAFETY: this type owns a live mbuf (from_raw).
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: this type owns a live mbuf, alone (from_raw).
        unsafe { self.0.as_mut() }
    }

    /// Bytes free behind the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        let raw = self.raw();
        usize::from(raw.buf_len) - usize::from(raw.data_off) - usize::from(raw.data_len)
    }

    /// Number of the port it was received from; 65535 if from none.
    #[inline]
    pub fn port(&self) -> u16 {
        self.raw().port
    }

    /// Asks the CPU to load the mbuf's fields soon.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.0.as_ptr().cast());
    }

    /// Asks the CPU to load the first cache line of the packet soon; reads the mbuf's fields to find it.
    #[inline]
    pub fn prefetch_data(&self) {
        prefetch(self.start());
    }

    /// Says what a driver is asked to do, in place of the [offload](PacketBuf::offload).
    pub(crate) fn ask(&mut self, request: &Request) {
        request.prepare(self.data_mut());
        let raw = self.raw_mut();
        raw.ol_flags = raw.ol_flags & !FLAGS | tx_offload::flags(request);
        raw.tx_offload = tx_offload::fields(request);
    }

    /// For functions of DPDK that work on one packet and leave it to its owner.
    pub(crate) fn as_ptr(&mut self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let raw = self.raw();
        raw.buf_addr.cast::<u8>().wrapping_add(usize::from(raw.data_off))
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        let raw = self.raw_mut();
        // Callers have checked it against buf_len, a u16.
        raw.data_len = len as u16;
        raw.pkt_len = len as u32;
    }
}

#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it does not fault on any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    // Elsewhere the intrinsic is not stable, and the hint is not worth a call.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl PacketBuf for Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        // SAFETY: data_off + data_len is within the buffer (from_raw, kept by every method), which this mbuf owns and which
        // the kernel handed over zeroed, so every byte is initialised.
        unsafe { std::slice::from_raw_parts(self.start(), usize::from(self.raw().data_len)) }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`; and `self` is borrowed mutably, so nobody else looks at the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.start(), usize::from(self.raw().data_len)) }
    }

    #[inline]
    fn headroom(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.headroom() {
            return None;
        }
        let len = self.len() + n;
        self.raw_mut().data_off -= n as u16;
        self.set_len(len);
        Some(self.data_mut())
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> bool {
        let Some(len) = self.len().checked_sub(n) else { return false };
        self.raw_mut().data_off += n as u16;
        self.set_len(len);
        true
    }

    #[inline]
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let len = self.len();
        self.set_len(len + n);
        Some(&mut self.data_mut()[len..])
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.set_len(len);
        }
    }

    #[inline]
    fn offload(&self) -> Offload {
        let raw = self.raw();
        if raw.ol_flags & PARTIAL == 0 {
            return Offload::NONE;
        }
        let size = if raw.ol_flags & SEGMENT == 0 { 0 } else { (raw.tx_offload >> SEGMENT_SIZE) as u16 };
        Offload { segment: NonZeroU16::new(size), partial: true }
    }

    #[inline]
    fn set_offload(&mut self, offload: Offload) {
        let raw = self.raw_mut();
        raw.ol_flags &= !FLAGS;
        if offload.partial {
            raw.ol_flags |= PARTIAL;
        }
        if let Some(size) = offload.segment {
            raw.ol_flags |= SEGMENT;
            raw.tx_offload = u64::from(size.get()) << SEGMENT_SIZE;
        }
    }

    #[inline]
    fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }
}

// An offload is kept where DPDK keeps what drivers are to do (rte_mbuf_core.h), under the names of TCP's whatever the
// protocol: a driver never sees it, since packets are made fit for the wire, or it is asked in its own terms, before they
// are handed to one.

const PARTIAL: u64 = dpdk_sys::SHIM_TX_TCP_CKSUM;
const SEGMENT: u64 = dpdk_sys::SHIM_TX_TCP_SEG;
/// Lowest bit of `tso_segsz` in `tx_offload`.
const SEGMENT_SIZE: u32 = dpdk_sys::SHIM_TSO_SEGSZ;

impl Drop for Mbuf {
    fn drop(&mut self) {
        let mut mbuf = self.0.as_ptr();
        // SAFETY: the mbuf is live and ours alone; after this nobody has it.
        unsafe { dpdk_sys::shim_free_bulk(&raw mut mbuf, 1) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mbuf({} bytes, port {})", self.len(), self.port())
    }
}
