//! Memory of the tables.

/// Size of a hugepage on the architectures at hand.
const HUGEPAGE: usize = 2 << 20;

/// Asks the kernel for hugepages behind `memory`, which nothing has touched yet: look-ups go everywhere in a table, and
/// with a million flows in small pages most of them would have to wait for the page tables, too.
///
/// It is advice. Where the kernel does not follow it (`/sys/kernel/mm/transparent_hugepage/enabled` is `never`, or memory
/// is scarce) the table works as well, only slower.
pub(super) fn advise_hugepages<T>(memory: &[T]) {
    let begin = memory.as_ptr().addr();
    let first = begin.next_multiple_of(HUGEPAGE);
    let len = (begin + size_of_val(memory)).saturating_sub(first) / HUGEPAGE * HUGEPAGE;
    if len > 0 {
        let start = memory.as_ptr().wrapping_byte_add(first - begin).cast_mut();
        // SAFETY: the range lies within `memory`; the advice changes neither what the memory holds nor who may use it.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
    }
}
