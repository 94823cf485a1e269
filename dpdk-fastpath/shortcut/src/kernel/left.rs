//! What another process has left of a pod's part.
//!
//! As long as somebody has the descriptors of its programs they work, with maps of their own, and forward what that process has
//! decided. The next one has programs and maps of its own as well, of its own version, and puts these programs in their places.

use std::os::fd::OwnedFd;

use super::Programs;
use super::link::{Attachment, Hook};
use super::netlink::Link;
use super::netns::Netns;
use super::pair::{Place, outer_name};
use super::pod::{Attached, enter, on_thread};
use crate::error::Failed;
use crate::layout::CULVERT0;

/// Goes on with the pair and the programs of a port, if they are whole and where they would be made.
pub(super) async fn resume(
    port: u16,
    tap: &Link,
    programs: &Programs,
    (home, group): (&Netns, u32),
    netns: &Netns,
    left: Vec<OwnedFd>,
) -> Result<(u32, Attached), Failed> {
    let [pod_egress, into_pod, from_pod] =
        <[OwnedFd; 3]>::try_from(left).map_err(|_| unfit("it is of another version"))?.map(Attachment::from);
    enter(home)?;
    let node = Place::here()?;
    let outer = from_pod.interface().map_err(Failed::to("find the interface in the node"))?;
    let outer = node.netlink.link_at(outer).await.map_err(Failed::to("find the interface in the node"))?;
    let index = CULVERT0 + u32::from(port);
    let is_own = outer.name == outer_name(port) && outer.peer == index && outer.mtu == tap.mtu;
    if !is_own || !is_on(&from_pod, &outer, Hook::Ingress)? {
        return Err(unfit("another interface is in the node"));
    }
    enter(netns)?;
    let pod = Place::here()?;
    let inner = pod.netlink.link_at(index).await.map_err(Failed::to("find the interface in the pod"))?;
    let is_own = inner.peer == outer.index && inner.mtu == tap.mtu;
    if !is_own || !is_on(&into_pod, &inner, Hook::Ingress)? || !is_on(&pod_egress, tap, Hook::Egress)? {
        return Err(unfit("another interface is in the pod"));
    }
    // What was decided by one of these two is dropped by an other one's second.
    programs.succeed("pod_egress", &pod_egress)?;
    programs.succeed("from_pod", &from_pod)?;
    programs.succeed("into_pod", &into_pod)?;
    let grouped = node.netlink.set_group(outer.index, group).await;
    grouped.map_err(Failed::to(format!("configure the interface {}", outer.name)))?;
    Ok((outer.index, Attached { pod_egress, into_pod, from_pod }))
}

fn is_on(program: &Attachment, link: &Link, hook: Hook) -> Result<bool, Failed> {
    let asked = program.is_on(link.index, hook);
    asked.map_err(Failed::to(format!("ask for the programs on the interface {}", link.name)))
}

fn unfit(why: &'static str) -> Failed {
    Failed::to("go on with what another process has left")(why)
}

/// Removes what another process has left of pods: the pairs whose programs these are, three of each. That takes some 50 ms for
/// each, in which the kernel waits for packets under way; they go to the fast path all the time, if its epoch has ended.
pub fn remove_left(pods: impl Iterator<Item = Vec<OwnedFd>> + Send) {
    let removed = on_thread(|runtime| {
        runtime.block_on(async {
            let node = Place::here()?;
            for left in pods {
                remove(&left, &node).await?;
            }
            Ok(())
        })
    });
    if let Err(Failed { action, cause }) = removed {
        tracing::warn!(action, %cause, "interfaces of the short cut are left behind");
    }
}

async fn remove(left: &[OwnedFd], node: &Place) -> Result<(), Failed> {
    for descriptor in left {
        let copy = descriptor.try_clone().map_err(Failed::to("copy a descriptor"))?;
        let program = Attachment::from(copy);
        // The others are in the pod, or gone with it.
        let is_here = |index: &u32| program.is_on(*index, Hook::Ingress).unwrap_or(false);
        if let Some(index) = program.interface().ok().filter(is_here) {
            let deleted = node.netlink.delete_index(index).await;
            deleted.map_err(Failed::to(format!("delete the interface {index} of the node")))?;
        }
    }
    Ok(())
}
