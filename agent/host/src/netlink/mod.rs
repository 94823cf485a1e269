//! rtnetlink: links, virtual functions, addresses and routes of one network namespace.

mod address;
mod error;
mod link;
mod monitor;
mod route;
mod vf;

use std::sync::Arc;

use futures::{Stream, TryStreamExt as _};
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
    dumping: Arc<Mutex<()>>,
}

impl Netlink {
    /// Opens a socket in the program's own network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::open)?;
        Ok(Self { handle, connection: tokio::spawn(connection), dumping: Arc::default() })
    }

    /// Opens a socket in `netns`.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::current();
        let opened = netns.run(|| {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        });
        let (connection, handle, _) = opened.map_err(NetlinkError::netns)?.map_err(NetlinkError::open)?;
        Ok(Self { handle, connection: tokio::spawn(connection), dumping: Arc::default() })
    }
}

impl Netlink {
    /// Collects a dump. It goes on to its end even if the caller stops waiting: one that is given up half-way would stand
    /// in the way of the next.
    async fn dump<T, S>(
        &self,
        request: impl FnOnce() -> S + Send + 'static,
    ) -> Result<Vec<T>, rtnetlink::Error>
    where
        T: Send + 'static,
        S: Stream<Item = Result<T, rtnetlink::Error>> + Send,
    {
        let dumping = Arc::clone(&self.dumping);
        let collect = async move {
            let _dumping = dumping.lock().await;
            request().try_collect().await
        };
        tokio::spawn(collect).await.unwrap_or(Err(rtnetlink::Error::RequestFailed))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
