//! culvert-fastpath: the poll-mode forwarding engine.

pub mod app;
pub mod clock;
pub mod control;
pub mod counter;
pub mod flow;
pub mod neighbour;
pub mod pipeline;
pub mod port;
pub mod preflight;
pub mod quiescent;
pub mod table;
pub mod worker;
