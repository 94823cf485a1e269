//! The veth pair that leads from the node into a pod.

use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::util::online_cpus;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::ioctl::Interfaces;
use super::netlink::{Link, Netlink};
use super::netns::Netns;
use crate::error::Failed;
use crate::layout::{CULVERT0, DOORS};

/// The pair has no more queues than this.
const MAX_QUEUES: usize = 16;

/// What the names of the pods' ends begin with.
const INNER: &str = "culvert";

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

/// Makes the pair of a port, for packets of `mtu` bytes, the node's end in this group; it is still down. What a process before
/// this one has left, to which the port or the pod may have had another number, goes first: in the pod only the pairs of the
/// ports `kept` stay. What there is of it stays if it fails.
///
/// The pod does not notice it: there is no ARP, and there are no addresses. What a CPU puts into its queue at the node's end it
/// takes out itself, and merges, at the pod's end. The kernel merges there only what comes from an end that takes no long
/// segments (`veth_skb_is_eligible_for_gro` in `drivers/net/veth.c`).
pub(super) async fn make(
    port: u16,
    (mtu, group): (u32, u32),
    (node, netns): (&Place, &Netns),
    pod: &Place,
    kept: &[u16],
) -> Result<Pair, Failed> {
    let outer = outer_name(port);
    delete(port, node).await?;
    clear(pod, kept).await?;
    let inner = free_name(pod).await?;
    let made = format!("make the interfaces {outer} and {inner}");
    let peer = sized(LinkMessageBuilder::<LinkUnspec>::new().name(&*outer), mtu)
        .setns_by_fd(netns.as_fd().as_raw_fd())
        .append_extra_attribute(LinkAttribute::Group(group))
        .build();
    let pair = LinkVeth::new(&inner, &outer).index(CULVERT0 + u32::from(port));
    let pair = sized(pair, mtu).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    pod.netlink.add(pair).await.map_err(Failed::to(made))?;

    let outer_made = format!("configure the interface {outer}");
    let inner_made = format!("configure the interface {inner}");
    node.interfaces.set_tso(&outer, false).map_err(Failed::to(&*outer_made))?;
    pod.interfaces.set_gro(&inner, true).map_err(Failed::to(&*inner_made))?;
    let outer = without_addresses(node, &outer).await.map_err(Failed::to(outer_made))?;
    let inner = without_addresses(pod, &inner).await.map_err(Failed::to(inner_made))?;
    Ok(Pair { outer, inner })
}

/// Sets a pair up.
pub(super) async fn set_up(outer: &Link, node: &Place, inner: &Link, pod: &Place) -> Result<(), Failed> {
    for (link, place) in [(outer, node), (inner, pod)] {
        let up = place.netlink.up(link.index).await;
        up.map_err(Failed::to(format!("set up the interface {}", link.name)))?;
    }
    Ok(())
}

/// Deletes the pair of a port, if there is one.
pub(super) async fn delete(port: u16, node: &Place) -> Result<(), Failed> {
    let name = outer_name(port);
    node.netlink.delete(&name).await.map_err(Failed::to(format!("delete the interface {name}")))
}

/// Deletes all pairs whose ends in the node are in this group.
pub(super) async fn delete_group(group: u32, node: &Place) -> Result<(), Failed> {
    let failed = Failed::to(format!("delete the interfaces of group {group}"));
    node.netlink.delete_group(group).await.map_err(failed)
}

/// A group of interfaces that nobody else has. The first half of all numbers is left to people.
pub(super) fn new_group() -> u32 {
    RandomState::new().hash_one(()) as u32 | 1 << 31
}

/// Deletes the pair of a port that was made with this index at the node's end, if it is still there.
pub(super) async fn delete_made(port: u16, index: u32, node: &Place) -> Result<(), Failed> {
    let name = outer_name(port);
    node.netlink.delete_index(index).await.map_err(Failed::to(format!("delete the interface {name}")))
}

/// Deletes the pairs in a pod, but for those of the ports `kept`.
async fn clear(pod: &Place, kept: &[u16]) -> Result<(), Failed> {
    for Link { index, name, .. } in list(pod).await? {
        let port = index.checked_sub(CULVERT0).filter(|port| *port < DOORS && name.starts_with(INNER));
        if port.is_some_and(|port| !kept.iter().any(|kept| u32::from(*kept) == port)) {
            let deleted = pod.netlink.delete(&name).await;
            deleted.map_err(Failed::to(format!("delete the interface {name} in the pod")))?;
        }
    }
    Ok(())
}

async fn list(pod: &Place) -> Result<Vec<Link>, Failed> {
    pod.netlink.links().await.map_err(Failed::to("list the interfaces in the pod"))
}

/// A name that no interface in the pod has: a pod may have several ports.
async fn free_name(pod: &Place) -> Result<String, Failed> {
    let taken = list(pod).await?;
    let mut names = (0..).map(|number: u32| format!("{INNER}{number}"));
    Ok(names
        .find(|name| taken.iter().all(|link| link.name != *name))
        .expect("there are fewer interfaces than names"))
}

async fn without_addresses(place: &Place, name: &str) -> std::io::Result<Link> {
    let link = place.netlink.link(name).await?;
    place.netlink.without_addresses(link.index).await?;
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
