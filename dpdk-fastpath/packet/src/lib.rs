//! Packet headers, flow keys, checksums and encap templates; no DPDK, no unsafe, no allocation.
//!
//! Three ways to read a packet:
//!
//! - [`parse`](parse::parse) looks at a whole frame once and returns a small [`Parsed`]: offsets, ports and
//!   the few fields that forwarding needs. Everything on the data path ([`flow`], [`rewrite`], [`encap`],
//!   [`answer`]) takes the frame together with its `Parsed`.
//! - [`Usual::read`](usual::Usual::read) does the same for the kind that nearly all packets are of, several times faster.
//! - the views, one module per protocol ([`ipv4::Ipv4`] and its mutable twin [`ipv4::Ipv4Mut`], ...), give
//!   access to every field of one header.
//!
//! All check once, and their accessors cannot fail afterwards. The bytes of a packet never make a function
//! of this crate panic. The one way to a panic is a mistake of the caller: handing over a [`Parsed`] together
//! with a frame that is shorter than the one it was made from.
//!
//! Numbers are in host byte order wherever a function takes or returns them; wire order exists only inside
//! buffers.
//!
//! A packet on its way from a pod through a Service address into a tunnel:
//!
//! ```
//! use culvert_packet::encap::{Encapsulation, Endpoints, Marking, Template, Tunnel};
//! use culvert_packet::flow::{FlowKey4, Tenant, entropy_port};
//! use culvert_packet::ip::Protocol;
//! use culvert_packet::rewrite::{Translation4, decrement_ttl};
//! use culvert_packet::{TestBuf, PacketBuf, parse, testkit};
//!
//! let (client, vip) = ("10.244.0.5:40000".parse().unwrap(), "10.96.0.10:53".parse().unwrap());
//! let mut buf = TestBuf::new(&testkit::udp4(client, vip, b"query"));
//!
//! let parsed = parse(buf.data())?;
//! let key = FlowKey4::of(buf.data(), &parsed, Tenant::DEFAULT).expect("IPv4");
//!
//! // Once per flow:
//! let backend = ([10, 244, 1, 7].into(), 5353);
//! let to = FlowKey4::new(Tenant::DEFAULT, Protocol::UDP, (key.src(), key.src_port()), backend);
//! let translation = Translation4::new(&key, &to);
//! let template = Template::new(&Tunnel {
//!     outer_dst: testkit::MAC_B,
//!     outer_src: testkit::MAC_A,
//!     endpoints: Endpoints::V4 { src: [192, 168, 0, 1].into(), dst: [192, 168, 0, 2].into() },
//!     encapsulation: Encapsulation::Geneve,
//!     vni: 4096,
//!     udp_port: Encapsulation::Geneve.port(),
//!     marking: Marking::default(),
//!     zero_checksum6: false,
//!     inner_dst: [0x02, 0x63, 192, 168, 0, 2].into(),
//!     inner_src: [0x02, 0x63, 192, 168, 0, 1].into(),
//! });
//!
//! // Per packet:
//! translation.apply(buf.data_mut(), &parsed);
//! assert!(decrement_ttl(buf.data_mut(), &parsed));
//! buf.truncate(parsed.end());
//! template.encap(&mut buf, entropy_port(key.hash64()), parsed.traffic_class, parsed.ttl - 1).unwrap();
//! assert_eq!(parse(buf.data())?.dst_port, 6081);
//! # Ok::<(), culvert_packet::Malformed>(())
//! ```
#![forbid(unsafe_code)]

pub mod answer;
pub mod arp;
pub mod buf;
pub mod checksum;
pub mod crc32c;
pub mod encap;
pub mod eth;
pub mod flow;
pub mod fragment;
pub mod geneve;
pub mod icmp;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
mod malformed;
pub mod neighbour;
pub mod offload;
pub mod parse;
pub mod quote;
pub mod rewrite;
pub mod sctp;
pub mod tcp;
pub mod testkit;
#[cfg(test)]
mod tests;
pub mod udp;
pub mod usual;
mod view;
pub mod vlan;
pub mod vxlan;

pub use buf::{PacketBuf, TestBuf};
pub use malformed::Malformed;
pub use parse::{Parsed, parse};
