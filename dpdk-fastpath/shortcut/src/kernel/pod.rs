//! A pod's part.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use aya::programs::TcAttachType;
use aya::programs::tc::SchedClassifierLink;
use tokio::runtime::{self, Runtime};

use super::ioctl::{name_of_tap, netns_of_tap};
use super::netlink::Link;
use super::netns::{Netns, NetnsId, aside};
use super::pair::{self, Pair, Place, outer_name};
use super::{Kernel, Programs};
use crate::error::{Failed, PodError};

/// What has become of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Its tap is still in the node's network namespace: there is no pod yet.
    NotYet,
    /// Its pod may take the short cut.
    Joined,
}

/// A pod that is joined, until this is dropped; the pair of interfaces is not.
#[derive(Debug)]
pub(super) struct Pod {
    netns: NetnsId,
    tap: Link,
    /// Interface index of the pair's end in the node.
    pub(super) node_side: u32,
    _links: [SchedClassifierLink; 3],
}

impl Kernel {
    /// Makes the short cut of a port, whose tap has the descriptor `tap`: a pair of interfaces from the node to the pod, and
    /// the programs there. One that is whole stays.
    ///
    /// If it fails, the port has no short cut, and nothing of it is left.
    ///
    /// # Errors
    /// When the process may not, or the kernel refuses.
    pub fn join_pod(&mut self, port: u16, tap: BorrowedFd<'_>) -> Result<Joined, PodError> {
        let last = self.memory.doors().len() - 1;
        if usize::from(port) > last {
            return Err(PodError::Port { port, last });
        }
        let of = |failed| PodError::of(port, failed);
        let netns = netns_of_tap(tap).and_then(Netns::new);
        let netns = netns.map_err(Failed::to("find the network namespace of the tap")).map_err(of)?;
        if netns.id() == self.home.id() {
            self.leave_pod(port)?;
            return Ok(Joined::NotYet);
        }
        let link = on_thread(|runtime| runtime.block_on(find(tap, &netns))).map_err(of)?;
        let same = |pod: &Pod| pod.netns == netns.id() && pod.tap == link;
        if self.pods.get(&port).is_some_and(same) && self.is_joined(port) {
            return Ok(Joined::Joined);
        }
        self.leave_pod(port)?;
        let (programs, home) = (&mut self.programs, &self.home);
        let pod = on_thread(|runtime| runtime.block_on(make(port, link, programs, home, &netns)));
        let pod = pod.map_err(of)?;
        let door = &self.memory.doors()[usize::from(port)];
        door.tap.store(pod.tap.index, Ordering::Relaxed);
        door.mtu.store(pod.tap.mtu.try_into().unwrap_or(u16::MAX), Ordering::Relaxed);
        for (to, octet) in door.mac.iter().zip(pod.tap.mac) {
            to.store(octet, Ordering::Relaxed);
        }
        door.node_side.store(pod.node_side, Ordering::Release);
        self.pods.insert(port, pod);
        Ok(Joined::Joined)
    }

    /// Removes the short cut of a port, if it has one. It does not matter whether the pod is still there.
    ///
    /// # Errors
    /// When the pair of interfaces cannot be deleted. Nothing goes through it then.
    pub fn leave_pod(&mut self, port: u16) -> Result<(), PodError> {
        let Some(door) = self.memory.doors().get(usize::from(port)) else { return Ok(()) };
        door.node_side.store(0, Ordering::Release);
        if self.pods.remove(&port).is_none() {
            return Ok(());
        }
        let home = &self.home;
        let delete = |runtime: &Runtime| {
            enter(home)?;
            runtime.block_on(async { pair::delete(port, &Place::here()?).await })
        };
        on_thread(delete).map_err(|failed| PodError::of(port, failed))
    }

    /// Whether the port has a short cut that is whole. Whoever deletes one of its interfaces, and be it with the pod's network
    /// namespace, deletes both.
    pub fn is_joined(&self, port: u16) -> bool {
        self.pods.get(&port).is_some_and(|pod| self.interfaces.exists(pod.node_side))
    }
}

/// The tap, as it is in its network namespace.
async fn find(tap: BorrowedFd<'_>, netns: &Netns) -> Result<Link, Failed> {
    enter(netns)?;
    let place = Place::here()?;
    let name = name_of_tap(tap).map_err(Failed::to("learn the name of the tap"))?;
    place.netlink.link(&name).await.map_err(Failed::to(format!("find the tap {name} in the pod")))
}

/// Makes the pair of interfaces, and puts the programs where they belong.
async fn make(
    port: u16,
    tap: Link,
    programs: &mut Programs,
    home: &Netns,
    netns: &Netns,
) -> Result<Pod, Failed> {
    enter(home)?;
    let node = Place::here()?;
    enter(netns)?;
    let pod = Place::here()?;
    let made = async {
        let Pair { outer, inner } = pair::make(port, tap.mtu, (&node, home), &pod).await?;
        let into_pod = programs.attach("into_pod", &inner.name, TcAttachType::Ingress)?;
        let pod_egress = programs.attach("pod_egress", &tap.name, TcAttachType::Egress)?;
        enter(home)?;
        let from_pod = programs.attach("from_pod", &outer.name, TcAttachType::Ingress)?;
        Ok((outer.index, [into_pod, pod_egress, from_pod]))
    };
    match made.await {
        Ok((node_side, links)) => Ok(Pod { netns: netns.id(), tap, node_side, _links: links }),
        Err(failed) => {
            if let Err(left) = pair::delete(port, &node).await {
                tracing::warn!(interface = outer_name(port), ?left, "is left behind");
            }
            Err(failed)
        }
    }
}

fn enter(netns: &Netns) -> Result<(), Failed> {
    netns.enter().map_err(Failed::to("enter a network namespace"))
}

/// Does something on a thread of its own, which may change its network namespace.
fn on_thread<T: Send>(work: impl FnOnce(&Runtime) -> Result<T, Failed> + Send) -> Result<T, Failed> {
    let with_runtime = || {
        let runtime = runtime::Builder::new_current_thread().enable_io().build();
        work(&runtime.map_err(Failed::to("start a runtime"))?)
    };
    aside(with_runtime).unwrap_or_else(|error: io::Error| Err(Failed::to("start a thread")(error)))
}
