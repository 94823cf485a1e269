//! A pod's part.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use culvert_packet::eth::EthAddr;
use tokio::runtime::{self, Runtime};

use super::ioctl::{name_of_tap, netns_of_tap};
use super::left::resume;
use super::link::{Attachment, Hook};
use super::netlink::Link;
use super::netns::{Netns, NetnsId, aside};
use super::pair::{self, Pair, Place, outer_name};
use super::{Kernel, Programs};
use crate::error::{Failed, PodError};
use crate::slots::End;
use crate::ways;

/// What has become of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Its tap is still in the node's network namespace, or being renamed: there is no pod yet. Or the tap is gone with its pod.
    NotYet,
    /// Its pod may take the short cut.
    Joined,
}

/// A pod that is joined, until this is dropped and nobody else has the descriptors of the programs; the pair of interfaces is
/// not.
#[derive(Debug)]
pub(super) struct Pod {
    netns: NetnsId,
    tap: Link,
    /// Interface index of the pair's end in the node.
    node_side: u32,
    attached: Attached,
}

/// The programs of a pod.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) pod_egress: Attachment,
    pub(super) into_pod: Attachment,
    pub(super) from_pod: Attachment,
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
        self.resume_pod(port, tap, Vec::new())
    }

    /// The same, with what another process has `left`: the [descriptors](Self::pod) of its programs. If they are where they
    /// belong, this process's take their places, from one packet to the next; otherwise all is made anew. That process must
    /// have no slots in use any more.
    ///
    /// # Errors
    /// As of that.
    pub fn resume_pod(
        &mut self,
        port: u16,
        tap: BorrowedFd<'_>,
        left: Vec<OwnedFd>,
    ) -> Result<Joined, PodError> {
        let last = self.memory.doors().len() - 1;
        if usize::from(port) > last {
            return Err(PodError::Port { port, last });
        }
        let of = |failed| PodError::of(port, failed);
        let netns = netns_of_tap(tap).and_then(Netns::new);
        if netns.as_ref().is_err_and(is_gone) {
            self.leave_pod(port)?;
            return Ok(Joined::NotYet);
        }
        let netns = netns.map_err(Failed::to("find the network namespace of the tap")).map_err(of)?;
        if netns.id() == self.home.id() {
            self.leave_pod(port)?;
            return Ok(Joined::NotYet);
        }
        let Some(link) = on_thread(|runtime| runtime.block_on(find(tap, &netns))).map_err(of)? else {
            return Ok(Joined::NotYet);
        };
        let same = |pod: &Pod| pod.netns == netns.id() && pod.tap == link;
        if self.pods.get(&port).is_some_and(same) && self.is_whole(port) {
            return Ok(Joined::Joined);
        }
        self.leave_pod(port)?;
        let beside = self.pods.iter().filter(|(_, pod)| pod.netns == netns.id());
        let beside: Vec<u16> = beside.map(|(port, _)| *port).collect();
        let (programs, home, name) = (&mut self.programs, (&self.home, self.group), link.name.clone());
        let pod = on_thread(|runtime| {
            runtime.block_on(async {
                if !left.is_empty() {
                    match resume(port, &link, programs, home, &netns, left).await {
                        Ok((node_side, attached)) => {
                            return Ok(Pod { netns: netns.id(), tap: link, node_side, attached });
                        }
                        Err(Failed { action, cause }) => {
                            tracing::info!(port, action, %cause, "a pod's part of the short cut is made anew");
                        }
                    }
                }
                make(port, link, programs, home, (&netns, &beside)).await
            })
        });
        if pod.is_err() && name_of_tap(tap).is_ok_and(|now| now != name) {
            return Ok(Joined::NotYet);
        }
        let pod = pod.map_err(of)?;
        let mtu = pod.tap.mtu.try_into().unwrap_or(u16::MAX);
        let mac = EthAddr(pod.tap.mac);
        let door = ways::Pod { node_side: pod.node_side, tap: pod.tap.index, mtu, mac };
        self.memory.set_door(port, Some(&door));
        self.pods.insert(port, pod);
        Ok(Joined::Joined)
    }

    /// The descriptors of a port's programs. As long as anybody has them, decided connections go on.
    pub fn pod(&self, port: u16) -> Option<[BorrowedFd<'_>; 3]> {
        let Attached { pod_egress, into_pod, from_pod } = &self.pods.get(&port)?.attached;
        // What `resume` expects, of whatever version.
        Some([pod_egress.as_fd(), into_pod.as_fd(), from_pod.as_fd()])
    }

    /// Removes the short cut of a port, if it has one. It does not matter whether the pod is still there.
    ///
    /// # Errors
    /// When the pair of interfaces cannot be deleted. Nothing goes through it then.
    pub fn leave_pod(&mut self, port: u16) -> Result<(), PodError> {
        self.memory.set_door(port, None);
        let Some(Pod { node_side, .. }) = self.pods.remove(&port) else { return Ok(()) };
        let home = &self.home;
        // Not by its name, which another process may have given to a new one.
        let delete = |runtime: &Runtime| {
            enter(home)?;
            runtime.block_on(async { pair::delete_made(port, node_side, &Place::here()?).await })
        };
        on_thread(delete).map_err(|failed| PodError::of(port, failed))
    }

    /// Removes the short cuts of all ports, at once.
    pub(super) fn leave_all(&mut self) -> Result<(), Failed> {
        self.memory.close_doors();
        if std::mem::take(&mut self.pods).is_empty() {
            return Ok(());
        }
        let (home, group) = (&self.home, self.group);
        on_thread(|runtime| {
            enter(home)?;
            runtime.block_on(async { pair::delete_group(group, &Place::here()?).await })
        })
    }

    /// Whether the port has a short cut that is whole. Whoever deletes one of its interfaces, and be it with the pod's network
    /// namespace, deletes both.
    pub fn is_whole(&self, port: u16) -> bool {
        self.pods.get(&port).is_some_and(|pod| self.interfaces.exists(pod.node_side))
    }

    /// Whether packets may go by a port's short cut: it is whole, and was up when that was looked at.
    pub fn is_joined(&self, port: u16) -> bool {
        self.is_whole(port) && self.memory.is_open(End::Door(port))
    }

    /// Looks which pods have set their end of the pair down, or up again, or somebody the one in the node: what is sent through
    /// one that is down is lost, so it goes to the fast path.
    pub fn look_at_pods(&self) {
        for (port, pod) in &self.pods {
            self.memory.open_door(*port, self.interfaces.is_running(pod.node_side).then_some(pod.node_side));
        }
    }
}

/// Whether that was said of a tap that somebody has deleted, and be it with its network namespace.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// The tap, as it is in its network namespace; `None` while it is being renamed, or when it is gone.
async fn find(tap: BorrowedFd<'_>, netns: &Netns) -> Result<Option<Link>, Failed> {
    enter(netns)?;
    let place = Place::here()?;
    let name = match name_of_tap(tap) {
        Err(error) if is_gone(&error) => return Ok(None),
        name => name.map_err(Failed::to("learn the name of the tap"))?,
    };
    match place.netlink.link(&name).await {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        link => link.map(Some).map_err(Failed::to(format!("find the tap {name} in the pod"))),
    }
}

/// Makes the pair of interfaces, beside those of other ports of the pod, and puts the programs where they belong.
async fn make(
    port: u16,
    tap: Link,
    programs: &mut Programs,
    (home, group): (&Netns, u32),
    (netns, beside): (&Netns, &[u16]),
) -> Result<Pod, Failed> {
    enter(home)?;
    let node = Place::here()?;
    enter(netns)?;
    let pod = Place::here()?;
    let made = async {
        let Pair { outer, inner } = pair::make(port, (tap.mtu, group), (&node, home), &pod, beside).await?;
        let into_pod = programs.attach("into_pod", inner.index, Hook::Ingress)?;
        let pod_egress = programs.attach("pod_egress", tap.index, Hook::Egress)?;
        enter(home)?;
        let from_pod = programs.attach("from_pod", outer.index, Hook::Ingress)?;
        // The node itself must get nothing that a pod writes there, and be there nobody who forwards.
        programs.leave("nothing", &outer.name)?;
        pair::set_up(&outer, &node, &inner, &pod).await?;
        Ok((outer.index, Attached { pod_egress, into_pod, from_pod }))
    };
    match made.await {
        Ok((node_side, attached)) => Ok(Pod { netns: netns.id(), tap, node_side, attached }),
        Err(failed) => {
            if let Err(left) = pair::delete(port, &node).await {
                tracing::warn!(interface = outer_name(port), ?left, "is left behind");
            }
            Err(failed)
        }
    }
}

pub(super) fn enter(netns: &Netns) -> Result<(), Failed> {
    netns.enter().map_err(Failed::to("enter a network namespace"))
}

/// Does something on a thread of its own, which may change its network namespace.
pub(super) fn on_thread<T: Send>(
    work: impl FnOnce(&Runtime) -> Result<T, Failed> + Send,
) -> Result<T, Failed> {
    let with_runtime = || {
        let runtime = runtime::Builder::new_current_thread().enable_io().build();
        work(&runtime.map_err(Failed::to("start a runtime"))?)
    };
    aside(with_runtime).unwrap_or_else(|error: io::Error| Err(Failed::to("start a thread")(error)))
}
