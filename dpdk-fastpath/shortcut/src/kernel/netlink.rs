//! Links of one network namespace (rtnetlink(7)).

use std::io;

use futures::TryStreamExt as _;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkGetRequest, LinkUnspec};

/// A netlink socket. It stays with the network namespace where it was opened.
pub(super) struct Netlink(Handle);

/// What matters of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Of a pair: the index of the other end, where that is; else 0.
    pub(super) peer: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread, in a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// The interface of this name.
    pub(super) async fn link(&self, name: &str) -> io::Result<Link> {
        one(self.0.link().get().match_name(name)).await
    }

    /// The interface of this index.
    pub(super) async fn link_at(&self, index: u32) -> io::Result<Link> {
        one(self.0.link().get().match_index(index)).await
    }

    /// All interfaces.
    pub(super) async fn links(&self) -> io::Result<Vec<Link>> {
        let all: Vec<_> = self.0.link().get().execute().try_collect().await.map_err(from_netlink)?;
        Ok(all.into_iter().map(Link::from).collect())
    }

    /// Makes what `message` describes.
    pub(super) async fn add(&self, message: LinkMessage) -> io::Result<()> {
        self.0.link().add(message).execute().await.map_err(from_netlink)
    }

    /// Lets an interface have no IPv6 address of its own accord.
    pub(super) async fn without_addresses(&self, index: u32) -> io::Result<()> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let attribute = LinkAttribute::AfSpecUnspec(vec![mode]);
        let message = LinkUnspec::new_with_index(index).append_extra_attribute(attribute).build();
        match self.0.link().set(message).execute().await.map_err(from_netlink) {
            // There is no IPv6 on this interface.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            result => result,
        }
    }

    /// Sets an interface up.
    pub(super) async fn up(&self, index: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.0.link().set(message).execute().await.map_err(from_netlink)
    }

    /// Puts an interface into a group.
    pub(super) async fn set_group(&self, index: u32, group: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::Group(group));
        self.0.link().set(message.build()).execute().await.map_err(from_netlink)
    }

    /// Deletes the interface of this name; that there is none is as well.
    pub(super) async fn delete(&self, name: &str) -> io::Result<()> {
        match self.link(name).await {
            Ok(link) => self.delete_index(link.index).await,
            Err(error) => unless_gone(Err(error)),
        }
    }

    /// Deletes all interfaces of a group at once, which takes not much longer than one; that there are none is as well.
    pub(super) async fn delete_group(&self, group: u32) -> io::Result<()> {
        let mut request = self.0.link().del(0);
        request.message_mut().attributes.push(LinkAttribute::Group(group));
        unless_gone(request.execute().await.map_err(from_netlink))
    }

    /// The same by its index, which no other interface ever has.
    pub(super) async fn delete_index(&self, index: u32) -> io::Result<()> {
        unless_gone(self.0.link().del(index).execute().await.map_err(from_netlink))
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link =
            Self { index: message.header.index, name: String::new(), mac: [0; 6], mtu: 0, peer: 0 };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(octets) => link.mac = octets.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Link(peer) => link.peer = peer,
                _ => {}
            }
        }
        link
    }
}

/// The interface that is asked for.
async fn one(asked: LinkGetRequest) -> io::Result<Link> {
    let message = asked.execute().try_next().await.map_err(from_netlink)?;
    message.map(Link::from).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// That there is no such interface is as well.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// What the kernel has answered.
fn from_netlink(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
