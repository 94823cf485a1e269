//! Raw bindings to libdpdk, and nothing else; [`culvert-dpdk`] makes them safe.
//!
//! - Exported functions of EAL, ethdev, hash, mbuf and mempool as `bindgen` finds them in the installed headers.
//! - `shim_*`: the C shim (`shim/shim.h`), for what DPDK has only as inline functions (at burst level) and for structs
//!   that differ from release to release.
//! - [`rte_mbuf`]: the shim's flat twin of the C struct. `shim.c` does not compile if a field lies elsewhere in the
//!   DPDK it is built against, and `tests/layout.rs` compares C's and Rust's idea of it.
//!
//! [`culvert-dpdk`]: ../culvert_dpdk/index.html
#![allow(missing_docs, non_camel_case_types)]

/// What bindgen wrote.
mod bindings {
    use super::{rte_hash, rte_mbuf, rte_mempool};

    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

/// A packet buffer.
pub type rte_mbuf = shim_mbuf;

/// A pool of packet buffers; only ever pointed to.
#[repr(C)]
pub struct rte_mempool {
    _opaque: [u8; 0],
    _neither_send_nor_sync: core::marker::PhantomData<*mut u8>,
}

/// A hash table; only ever pointed to.
#[repr(C)]
pub struct rte_hash {
    _opaque: [u8; 0],
    _neither_send_nor_sync: core::marker::PhantomData<*mut u8>,
}
