//! The time stamp counter: the only clock a data path can afford.

use crate::eal::Eal;

/// Ticks now. Constant rate on every CPU Culvert supports; do not compare values of different sockets too closely.
#[inline]
pub fn now() -> u64 {
    // SAFETY: reads a CPU register.
    unsafe { dpdk_sys::shim_tsc() }
}

/// Ticks per second, as EAL measured at start.
pub fn hz(_eal: &Eal) -> u64 {
    // SAFETY: EAL is running.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
