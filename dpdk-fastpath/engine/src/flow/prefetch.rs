//! Cache prefetch.

/// Asks the processor to fetch the cache line that `at` begins in. Has no other effect.
#[inline(always)]
pub fn prefetch<T: ?Sized>(at: &T) {
    fetch(std::ptr::from_ref(at).cast());
}

/// The same for an element of a slice. Which there is or is not: no check is made for something that has no effect.
#[inline(always)]
pub(super) fn prefetch_element<T>(of: &[T], at: usize) {
    fetch(of.as_ptr().wrapping_add(at).cast());
}

#[inline(always)]
fn fetch(at: *const i8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch accesses no memory as far as the program can tell, and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
