//! Packet headers, flow keys, checksums and encap templates; no DPDK, no unsafe, no allocation.
//!
//! Two ways to read a packet:
//!
//! - [`parse`](parse::parse) looks at a whole frame once and returns a small [`Parsed`]: offsets,
//!   ports and the few fields that forwarding needs. Everything on the data path ([`flow`], [`rewrite`], [`encap`], [`answer`]) takes the
//!   frame together with its `Parsed`.
//! - the views, one module per protocol ([`ipv4::Ipv4`] and its mutable twin [`ipv4::Ipv4Mut`], ...), give access to
//!   every field of one header.
//!
//! Both check once, and their accessors cannot fail afterwards. The bytes of a packet never make a function of this
//! crate panic. The one way to a panic is a mistake of the caller: handing over a [`Parsed`] together with a frame
//! that is shorter than the one it was made from.
//!
//! Numbers are in host byte order wherever a function takes or returns them; wire order exists only inside buffers.
#![forbid(unsafe_code)]

pub mod answer;
pub mod arp;
pub mod buf;
pub mod checksum;
pub mod encap;
pub mod eth;
pub mod flow;
pub mod icmp;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
mod malformed;
pub mod neighbour;
pub mod parse;
pub mod rewrite;
pub mod tcp;
pub mod testkit;
#[cfg(test)]
mod tests;
pub mod udp;
mod view;
pub mod vlan;
pub mod vxlan;

pub use buf::{PacketBuf, TestBuf};
pub use malformed::Malformed;
pub use parse::{Parsed, parse};
