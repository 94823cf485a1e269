//! rtnetlink: links, virtual functions, addresses and routes of one network namespace.

mod address;
pub(crate) mod attr;
mod error;
mod fib;
mod link;
mod monitor;
pub(crate) mod raw;
mod route;
#[cfg(any(test, feature = "fake"))]
pub mod standin;
mod vf;

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt as _};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use tokio::runtime;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub use error::{NetlinkCause, NetlinkError};
pub use fib::{FibRoute, Hop};
pub use link::{Link, LinkChange, OperState};
pub use monitor::{LinkEvent, LinkMonitor};
use raw::RawNetlink;
pub use route::Route;
pub use vf::{VfChange, VfCounters, VfRates, VfSettings, VfVlanTag};

use crate::netns::Netns;

/// A netlink socket of one network namespace. It stays with the namespace where it was opened.
///
/// Needs a tokio runtime; requests of several tasks may be under way at once.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// For what rtnetlink's types do not carry.
    raw: RawNetlink,
    connection: JoinHandle<()>,
    /// Held from a dump's request to its end: the kernel answers EBUSY to a second one on the same socket meanwhile.
    dumping: Arc<Mutex<()>>,
}

impl Netlink {
    /// Opens a socket in the program's own network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_here().map_err(NetlinkError::open)
    }

    /// Opens a socket in `netns`.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::current();
        let opened = netns.run(|| {
            let _entered = runtime.enter();
            Self::open_here()
        });
        opened.map_err(NetlinkError::netns)?.map_err(NetlinkError::open)
    }

    fn open_here() -> io::Result<Self> {
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        let socket = connection.socket_mut().socket_mut();
        // The kernel's own words about errors; kernels before 4.12 have none.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let raw = RawNetlink::open(NETLINK_ROUTE)?;
        Ok(Self { handle, raw, connection: tokio::spawn(connection), dumping: Arc::default() })
    }

    /// Has `kernel`, the socket of a [`standin::FakeKernel`], answer whatever concerns virtual functions.
    #[cfg(any(test, feature = "fake"))]
    pub fn with_stand_in(mut self, kernel: std::os::unix::net::UnixDatagram) -> io::Result<Self> {
        self.raw = RawNetlink::from_datagram(kernel)?;
        Ok(self)
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
