//! rtnetlink: links, virtual functions, addresses and routes of one network namespace.

mod address;
mod error;
mod link;
mod monitor;
mod route;
mod vf;

use tokio::runtime;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub use error::{NetlinkCause, NetlinkError};
pub use link::{Link, LinkChange, OperState};
pub use monitor::{LinkEvent, LinkMonitor};
pub use route::Route;
pub use vf::{VfChange, VfRates, VfSettings, VfVlanTag};

use crate::netns::Netns;

/// A netlink socket of one network namespace. It stays with the namespace where it was opened.
///
/// Needs a tokio runtime; requests of several tasks may be under way at once.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
    /// Held from a dump's request to its end: the kernel answers EBUSY to a second one on the same socket meanwhile.
    dumping: Mutex<()>,
}

impl Netlink {
    /// Opens a socket in the program's own network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::open)?;
        Ok(Self { handle, connection: tokio::spawn(connection), dumping: Mutex::default() })
    }

    /// Opens a socket in `netns`.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::current();
        let opened = netns.run(|| {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        });
        let (connection, handle, _) = opened.map_err(NetlinkError::netns)?.map_err(NetlinkError::open)?;
        Ok(Self { handle, connection: tokio::spawn(connection), dumping: Mutex::default() })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
