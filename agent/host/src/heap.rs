//! The program's heap, as glibc keeps it.

use nix::libc;

/// Freed memory at the end of the heap goes back to the kernel when there are this many bytes of it.
const TRIM_THRESHOLD: libc::c_int = 64 << 10;

/// The heap grows by this many bytes more than is asked for.
const TOP_PAD: libc::c_int = 16 << 10;

/// Keeps the heap small: all threads share one arena, and what was freed goes back to the kernel soon.
///
/// glibc gives each thread an arena of its own, and each keeps what one look at the machine needed. The price, threads
/// that wait for each other, does not count in a program that mostly sleeps. To be called before there are threads.
pub fn keep_small() {
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD), (libc::M_TOP_PAD, TOP_PAD)]
    {
        // SAFETY: mallopt(3) takes two integers, locks the allocator while it changes it, and refuses what it does not
        // know; memory that was allocated before stays valid.
        let known = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(known, 1, "mallopt({parameter}, {value})");
    }
}
