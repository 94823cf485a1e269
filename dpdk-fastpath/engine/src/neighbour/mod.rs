//! Ethernet addresses of the next hops on the uplink.
//!
//! A routed fast path cannot wait for the first packet to ask who its next hop is: every next hop that the tables
//! name is resolved as soon as it is named, and asked again before its answer grows old. [`Neighbours`] decides when
//! to ask whom; it neither sends nor reads a clock, so a test runs an hour in a microsecond.
//!
//! The states are those of Neighbour Unreachability Detection (RFC 4861, section 7.3.2), for ARP as for ND, with two
//! differences: there is no DELAY state, since nobody here watches for hints of upper layers; and an address that no
//! longer answers stays in use until broadcasts too have gone unanswered (RFC 7048, section 3).

mod announce;
mod frame;
mod state;

#[cfg(test)]
mod tests;

pub use announce::Announcements;
pub use frame::{write_announcement, write_solicitation};
pub use state::{Heard, Neighbours, Solicitation, State, Timing};
