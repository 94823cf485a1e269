//! DPDK's hash table (`rte_hash`), which Culvert's own tables are compared with.

use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr::NonNull;

use dpdk_sys::rte_hash;

use crate::eal::Eal;
use crate::error::DpdkError;

/// Most keys of one [`HashTable::lookup_bulk`].
pub const BULK: usize = 64;

/// A table of keys of `LEN` bytes with a number for each. Readers take no lock (`RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF`),
/// also while several threads add.
pub struct HashTable<const LEN: usize> {
    table: NonNull<rte_hash>,
    name: String,
    _eal: Eal,
}

// SAFETY: created for several writers and lock-free readers, on any thread.
unsafe impl<const LEN: usize> Send for HashTable<LEN> {}
// SAFETY: as above; nothing that needs to be alone is done through a shared reference.
unsafe impl<const LEN: usize> Sync for HashTable<LEN> {}

impl<const LEN: usize> HashTable<LEN> {
    /// A table for `entries` keys, named `name` (at most 25 bytes, unique in the process).
    ///
    /// # Errors
    /// When there is no memory for it, or there is one of that name.
    pub fn create(eal: &Eal, name: &str, entries: u32) -> Result<Self, DpdkError> {
        let refused = |errno| DpdkError::new(&format!("hash {name}"), "create", errno);
        let text = CString::new(name).map_err(|_| refused(libc::EINVAL))?;
        // SAFETY: EAL is running; the name is terminated and is copied.
        let table = unsafe { dpdk_sys::shim_hash_create(text.as_ptr(), entries, LEN as u32) };
        match NonNull::new(table) {
            Some(table) => Ok(Self { table, name: name.to_owned(), _eal: eal.clone() }),
            // SAFETY: reads a variable of this thread.
            None => Err(refused(unsafe { dpdk_sys::shim_errno() })),
        }
    }

    /// Adds a key, or gives one that is there another value.
    ///
    /// # Errors
    /// When the table is full.
    pub fn add(&self, key: &[u8; LEN], value: usize) -> Result<(), DpdkError> {
        // DPDK keeps a pointer for each key and never looks behind it.
        let value = std::ptr::without_provenance_mut(value);
        // SAFETY: the table lives; LEN bytes are read.
        match unsafe { dpdk_sys::rte_hash_add_key_data(self.table.as_ptr(), key.as_ptr().cast(), value) } {
            0 => Ok(()),
            error => Err(DpdkError::new(&format!("hash {}", self.name), "add a key", -error)),
        }
    }

    /// Looks up to [`BULK`] keys up at once, with prefetching; no more than there is room for in `values`. Returns a bit
    /// for each that was found, the first key's the lowest; only these have their value written.
    #[inline]
    pub fn lookup_bulk(&self, keys: &[&[u8; LEN]], values: &mut [usize]) -> u64 {
        let count = keys.len().min(values.len()).min(BULK);
        let mut found = 0;
        if count > 0 {
            // SAFETY: the table lives; `count` pointers to LEN bytes each are read (a reference is a pointer), and at most
            // as many pointers are written, each as large as a usize, whose every value is legal.
            unsafe {
                dpdk_sys::rte_hash_lookup_bulk_data(
                    self.table.as_ptr(),
                    keys.as_ptr().cast::<*const c_void>().cast_mut(),
                    count as u32,
                    &raw mut found,
                    values.as_mut_ptr().cast(),
                );
            }
        }
        found
    }
}

impl<const LEN: usize> Drop for HashTable<LEN> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the table: this was its only handle.
        unsafe { dpdk_sys::rte_hash_free(self.table.as_ptr()) };
    }
}

impl<const LEN: usize> fmt::Debug for HashTable<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashTable({}, keys of {LEN} bytes)", self.name)
    }
}

/// Bytes of EAL's memory that are in use.
pub fn memory_used(_eal: &Eal) -> u64 {
    // SAFETY: EAL is running.
    unsafe { dpdk_sys::shim_memory_used() }
}
