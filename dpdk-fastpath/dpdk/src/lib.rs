//! A safe wrapper over the parts of DPDK that Culvert uses.
