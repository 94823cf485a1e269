//! A handful of packets that travel together.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use crate::mbuf::Mbuf;

/// Up to `N` packets, in order. Derefs to a slice of [`Mbuf`]; those left when it is dropped go back to their pools in
/// one call.
///
/// No allocation: the array lies where the burst lies. Receive and transmit work on it in place.
pub struct Burst<const N: usize = 64> {
    /// The first `len` are initialised.
    mbufs: [MaybeUninit<Mbuf>; N],
    len: usize,
}

impl<const N: usize> Burst<N> {
    /// How many packets it can hold; at most 65535, the drivers' limit.
    pub const CAPACITY: usize = {
        assert!(N > 0 && N <= u16::MAX as usize);
        N
    };

    /// No packets yet.
    #[inline]
    pub const fn new() -> Self {
        // Evaluated so that a useless N does not compile.
        let _ = Self::CAPACITY;
        Self { mbufs: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Whether no packet fits any more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == N
    }

    /// Adds a packet at the end; gives it back if the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        if self.is_full() {
            return Err(mbuf);
        }
        self.mbufs[self.len].write(mbuf);
        self.len += 1;
        Ok(())
    }

    /// Moves all packets of another burst to the end of this one; `false`, and nothing has changed, if there is no room for
    /// all of them.
    #[inline]
    pub fn append(&mut self, other: &mut Self) -> bool {
        let fits = other.len <= N - self.len;
        if fits {
            // What comes back is not counted there.
            self.mbufs[self.len..self.len + other.len].swap_with_slice(&mut other.mbufs[..other.len]);
            self.len += std::mem::take(&mut other.len);
        }
        fits
    }

    /// Takes the last packet out.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: this one was within `len`, hence initialised, and is not any more, hence not read again.
        Some(unsafe { self.mbufs[self.len].assume_init_read() })
    }

    /// Takes all packets out, first one first. Those not taken when the iterator is dropped are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_, N> {
        let len = std::mem::take(&mut self.len);
        Drain { burst: self, next: 0, len }
    }

    /// Frees all packets.
    #[inline]
    pub fn clear(&mut self) {
        let len = std::mem::take(&mut self.len);
        free(&mut self.mbufs[..len]);
    }

    /// Frees the first packet, if there is one; the others move to the front.
    #[inline]
    pub(crate) fn drop_front(&mut self) {
        if self.is_empty() {
            return;
        }
        free(&mut self.mbufs[..1]);
        // SAFETY: the first packet has just been given back.
        unsafe { self.forget_front(1) };
    }

    /// The unused part of the array.
    #[inline]
    pub(crate) fn free_slots(&mut self) -> &mut [MaybeUninit<Mbuf>] {
        &mut self.mbufs[self.len..]
    }

    /// Takes the next `n` slots as packets.
    ///
    /// # Safety
    /// `n` is at most `free_slots().len()`, and these have been initialised.
    #[inline]
    pub(crate) unsafe fn grow(&mut self, n: usize) {
        debug_assert!(n <= N - self.len);
        self.len += n;
    }

    /// Forgets the first `n` packets, which somebody else owns now; the others move to the front.
    ///
    /// # Safety
    /// The first `n` packets were given away.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        self.len -= n;
        if self.len > 0 && n > 0 {
            let start = self.mbufs.as_mut_ptr();
            // SAFETY: both ranges lie within the array; the source's packets are read once and its slots are no longer
            // counted, except where they have been overwritten with packets that were read.
            unsafe { std::ptr::copy(start.add(n), start, self.len) };
        }
    }
}

#[inline]
fn free(mbufs: &mut [MaybeUninit<Mbuf>]) {
    if !mbufs.is_empty() {
        // SAFETY: callers pass initialised mbufs that are counted nowhere any more; Mbuf is a transparent pointer, and
        // MaybeUninit does not change that.
        unsafe { dpdk_sys::shim_free_bulk(mbufs.as_mut_ptr().cast(), mbufs.len() as u32) };
    }
}

impl<const N: usize> Default for Burst<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Burst<N> {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { std::slice::from_raw_parts(self.mbufs.as_ptr().cast(), self.len) }
    }
}

impl<const N: usize> DerefMut for Burst<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { std::slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().cast(), self.len) }
    }
}

impl<const N: usize> Drop for Burst<N> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<const N: usize> fmt::Debug for Burst<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// See [`Burst::drain`].
pub struct Drain<'a, const N: usize> {
    /// Counts none of the packets any more.
    burst: &'a mut Burst<N>,
    next: usize,
    len: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.len {
            return None;
        }
        // SAFETY: slots next..len are initialised, and each is read once.
        let mbuf = unsafe { self.burst.mbufs[self.next].assume_init_read() };
        self.next += 1;
        Some(mbuf)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len - self.next, Some(self.len - self.next))
    }
}

impl<const N: usize> ExactSizeIterator for Drain<'_, N> {}

impl<const N: usize> Drop for Drain<'_, N> {
    fn drop(&mut self) {
        free(&mut self.burst.mbufs[self.next..self.len]);
    }
}

impl<const N: usize> fmt::Debug for Drain<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drain({} left)", self.len - self.next)
    }
}
