//! The control thread: what it owns, and the socket through which it is told what to do.
//!
//! [`FastPath`] owns ports, tables and neighbours, and is used by one thread; it publishes what the workers need and
//! never touches what they use. [`Service`] speaks gRPC and hands each call over to that thread.

mod error;
mod listing;
mod remember;
mod service;
mod socket;
mod state;
mod underlay;

pub use error::{AttachError, ReplaceError, chain};
pub use remember::{KEPT_TABLES, Memory, RecallError, Recalled};
pub use service::{Call, Service};
pub use socket::{ControlSocket, SocketError};
pub use state::{FastPath, Published};
