//! What Culvert's programs say to each other and to their users: protocols, configuration and value types.
//!
//! Nothing here does I/O on its own: [`frame`] reads and writes streams that the caller opened.

#![forbid(unsafe_code)]

pub mod config;
pub mod frame;
pub mod value;

/// Protocol of the fast path's control socket, generated from `proto/fastpath.proto`.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]
pub mod fastpath {
    include!(concat!(env!("OUT_DIR"), "/culvert.fastpath.v1.rs"));
}

/// Protocol of the agent's socket, generated from `proto/agent.proto`; see [`frame`] for how it travels.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]
pub mod agent {
    include!(concat!(env!("OUT_DIR"), "/culvert.agent.v1.rs"));
}
