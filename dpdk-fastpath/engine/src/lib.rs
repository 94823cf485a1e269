//! culvert-fastpath: the poll-mode forwarding engine.

pub mod control;
pub mod neighbour;
pub mod preflight;
pub mod port;
