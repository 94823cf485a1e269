//! Packet headers, flow keys, checksums and encap templates; no DPDK, no unsafe.
