//! News about interfaces.

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::SocketAddr;
use tokio::runtime;
use tokio::task::JoinHandle;

use super::{Link, NetlinkError};
use crate::netns::Netns;

/// Tells of every interface of the program's namespace that appears, changes or goes.
#[derive(Debug)]
pub struct LinkMonitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
    // Closing the last handle would end the connection.
    _handle: rtnetlink::Handle,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The interface is new, or something of it changed.
    Changed(Link),
    /// The interface is gone: removed, or moved to another namespace.
    Gone(Link),
    /// The kernel had to drop messages: read everything anew.
    Overrun,
}

impl LinkMonitor {
    /// Subscribes to RTNLGRP_LINK in the program's own network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(NetlinkError::open)?;
        Ok(Self { messages, connection: tokio::spawn(connection), _handle: handle })
    }

    /// Subscribes to RTNLGRP_LINK in `netns`.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::current();
        let opened = netns.run(|| {
            let _entered = runtime.enter();
            Self::open()
        });
        opened.map_err(NetlinkError::netns)?
    }

    /// The next piece of news; `None` once the socket is lost.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        loop {
            let (message, _) = self.messages.next().await?;
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    return Some(LinkEvent::Changed(link.into()));
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    return Some(LinkEvent::Gone(link.into()));
                }
                NetlinkPayload::Overrun(_) => return Some(LinkEvent::Overrun),
                _ => {}
            }
        }
    }
}

impl Drop for LinkMonitor {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
