//! The control socket.

mod socket;

pub use socket::{ControlSocket, SocketError};
