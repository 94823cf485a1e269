//! culvert-fastpath: the poll-mode forwarding engine.
//!
//! # One packet's way
//! A [`worker`] polls its ports. What it receives in one go from one [`port`], a burst, goes through the [`pipeline`]: each
//! packet is parsed and admitted, its flow is looked up in the [`flow`] tables, and it is translated, routed, put into or
//! taken out of a tunnel, answered or dropped; the verdict says through which port it leaves. All decisions come from one
//! immutable snapshot of the [`table`]s, which the worker takes anew for each round ([`quiescent`]), and what happened is
//! counted where only this worker writes ([`counter`]).
//!
//! # One change's way
//! The agent calls the [`control`] socket. The control thread checks what it is told, builds the next snapshot, publishes it
//! and waits until every worker uses it. It also asks the underlay for the Ethernet addresses of next hops ([`neighbour`]),
//! and learns the answers from the pipeline. It never touches a packet, and a worker never waits for it.

pub mod app;
pub mod balance;
pub mod clock;
pub mod control;
pub mod counter;
pub mod explain;
pub mod flow;
pub mod keep;
pub mod neighbour;
pub mod path_mtu;
pub mod pipeline;
pub mod port;
pub mod preflight;
pub mod quiescent;
mod resume;
mod shortcut;
pub mod table;
pub mod worker;
