//! The veth pair that leads from the node into a pod.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::util::online_cpus;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::ioctl::Interfaces;
use super::netlink::{Link, Netlink};
use super::netns::Netns;
use crate::error::Failed;
use crate::layout::CULVERT0;

/// The pair has no more queues than this.
const MAX_QUEUES: usize = 16;

/// A network namespace as one speaks to it.
pub(super) struct Place {
    pub(super) netlink: Netlink,
    interfaces: Interfaces,
}

/// Both ends.
#[derive(Debug)]
pub(super) struct Pair {
    /// In the node.
    pub(super) outer: Link,
    /// In the pod.
    pub(super) inner: Link,
}

impl Place {
    /// That of the calling thread, which must be in a tokio runtime.
    pub(super) fn here() -> Result<Self, Failed> {
        let netlink = Netlink::open().map_err(Failed::to("open a netlink socket"))?;
        let interfaces = Interfaces::open().map_err(Failed::to("open a socket"))?;
        Ok(Self { netlink, interfaces })
    }
}

/// The name of the node's end.
pub(super) fn outer_name(port: u16) -> String {
    format!("culvert-p{port}")
}

/// Makes the pair of a port, for packets of `mtu` bytes, and sets it up. One that a process before this one has left goes
/// first. What there is of it stays if it fails.
///
/// The pod does not notice it: there is no ARP, and there are no addresses. What a CPU puts into its queue at the node's end it
/// takes out itself, and merges, at the pod's end. The kernel merges there only what comes from an end that takes no long
/// segments (`veth_skb_is_eligible_for_gro` in `drivers/net/veth.c`).
pub(super) async fn make(
    port: u16,
    mtu: u32,
    (node, netns): (&Place, &Netns),
    pod: &Place,
) -> Result<Pair, Failed> {
    let outer = outer_name(port);
    delete(port, node).await?;
    let inner = free_name(pod).await?;
    let made = format!("make the interfaces {outer} and {inner}");
    let peer = sized(LinkMessageBuilder::<LinkUnspec>::new().name(&*outer), mtu)
        .setns_by_fd(netns.as_fd().as_raw_fd())
        .build();
    let pair = LinkVeth::new(&inner, &outer).index(CULVERT0 + u32::from(port));
    let pair = sized(pair, mtu).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    pod.netlink.add(pair).await.map_err(Failed::to(made))?;

    let outer_set = format!("set up the interface {outer}");
    let inner_set = format!("set up the interface {inner}");
    node.interfaces.set_tso(&outer, false).map_err(Failed::to(&*outer_set))?;
    pod.interfaces.set_gro(&inner, true).map_err(Failed::to(&*inner_set))?;
    let outer = set_up(node, &outer).await.map_err(Failed::to(outer_set))?;
    let inner = set_up(pod, &inner).await.map_err(Failed::to(inner_set))?;
    Ok(Pair { outer, inner })
}

/// Deletes the pair of a port, if there is one.
pub(super) async fn delete(port: u16, node: &Place) -> Result<(), Failed> {
    let name = outer_name(port);
    node.netlink.delete(&name).await.map_err(Failed::to(format!("delete the interface {name}")))
}

/// A name that no interface in the pod has: a pod may have several ports.
async fn free_name(pod: &Place) -> Result<String, Failed> {
    let taken = pod.netlink.names().await.map_err(Failed::to("list the interfaces in the pod"))?;
    let mut names = (0..).map(|number: u32| format!("culvert{number}"));
    Ok(names.find(|name| !taken.contains(name)).expect("there are fewer interfaces than names"))
}

async fn set_up(place: &Place, name: &str) -> std::io::Result<Link> {
    let link = place.netlink.link(name).await?;
    place.netlink.without_addresses(link.index).await?;
    place.netlink.up(link.index).await?;
    Ok(link)
}

/// What both ends have.
fn sized<T>(link: LinkMessageBuilder<T>, mtu: u32) -> LinkMessageBuilder<T> {
    let queues = online_cpus().map_or(1, |cpus| cpus.len()).clamp(1, MAX_QUEUES) as u32;
    link.arp(false)
        .mtu(mtu)
        .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
        .append_extra_attribute(LinkAttribute::NumRxQueues(queues))
}
