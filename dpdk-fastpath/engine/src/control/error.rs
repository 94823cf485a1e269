//! Why a call is refused.

use crate::port::{BackendError, ManagerError};
use crate::table::TableError;

/// Why a port was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The request makes no sense, or not together with what is there.
    #[error(transparent)]
    Refused(#[from] TableError),
    /// The port could not be made.
    #[error(transparent)]
    Port(#[from] ManagerError<BackendError>),
}

/// Why tables were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// They make no sense.
    #[error(transparent)]
    Refused(#[from] TableError),
    /// The uplink cannot carry such packets.
    #[error("local node {node}: underlay_mtu {mtu}: the uplink carries packets of at most {max} bytes")]
    UnderlayMtu {
        /// The node.
        node: String,
        /// What was asked for.
        mtu: u32,
        /// What the uplink carries.
        max: u16,
    },
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
