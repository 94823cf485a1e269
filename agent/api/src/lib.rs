//! What Culvert's programs say to each other and to their users: protocols, configuration and value types.
//!
//! Nothing here does I/O on its own: [`frame`] reads and writes streams that the caller opened.

#![forbid(unsafe_code)]

pub mod config;
pub mod errors;
pub mod frame;
pub mod hash;
pub mod value;

/// Generated code; the nesting is that of the protobuf packages.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]
mod proto {
    pub mod fastpath {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/culvert.fastpath.v1.rs"));
        }
    }
    pub mod agent {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/culvert.agent.v1.rs"));
        }
    }
}

/// Protocol of the agent's socket, from `proto/agent.proto`; see [`frame`] for how it travels.
pub use proto::agent::v1 as agent;
/// Protocol of the fast path's control socket, from `proto/fastpath.proto`.
pub use proto::fastpath::v1 as fastpath;

/// The protocols between kubelet and a node's plugins; see the comments in `proto/`.
#[cfg(feature = "grpc")]
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]
pub mod kubelet {
    pub mod v1beta1 {
        include!(concat!(env!("OUT_DIR"), "/v1beta1.rs"));
    }
    pub mod pluginregistration {
        include!(concat!(env!("OUT_DIR"), "/pluginregistration.rs"));
    }
    pub mod podresources {
        include!(concat!(env!("OUT_DIR"), "/v1.rs"));
    }
}
