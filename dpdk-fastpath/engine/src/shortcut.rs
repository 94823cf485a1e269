//! The short cut as the control thread sees it: what the kernel is told of pods, nodes and epochs, so that it may forward
//! connections that workers have decided (see [`pipeline`](crate::pipeline)).
//!
//! Slots are good under one epoch. Before workers get another snapshot the kernel is told of its epoch; from then on it uses
//! none of the slots that there are, and each connection's next packet comes here, to be decided again.
//!
//! While there is no forwarder the kernel goes on with the slots of the last one (see [`Remains`]). The next one has programs and
//! slots of its own. When its workers forward by what that one knew, it ends that one's epoch, before it works by
//! anything newer; from then on the old programs leave all packets to the workers, and one after the other is replaced.

mod remains;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_api::config::fastpath::ShortCut;
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use culvert_shortcut::layout::DOORS;
use culvert_shortcut::{
    Drops, End, Joined, Kernel, Memory, Remote, Slots, Surroundings, Tunnelled, Unheard, end_epoch_of,
};

use self::remains::{GLOBALS, OPENED, UPLINK, kept_as};
use crate::control::chain;
use crate::keep::Keep;
use crate::port::packet_socket::Sees;
use crate::port::{Device, Entry};
use crate::table::{MAX_PORTS, PortIndex, PortKind, Remotes, Snapshot};

pub(crate) use self::remains::{Remains, is_program};

/// Slots, two for each connection: 4 MB of the kernel's memory.
pub(crate) const SLOTS: u32 = 1 << 16;

const _: () = assert!(MAX_PORTS <= DOORS as usize, "each pod may join");

/// How long pods join in one go. One whose interfaces have to be made takes longer, some 10 ms for each of its programs, while others
/// wait for this thread.
const TURN: Duration = Duration::from_millis(10);

/// Between two looks at whether pods have come, or have lost their interface, or set it down.
const LOOKS: Duration = Duration::from_millis(200);

/// Until it is tried again with a pod that could not be joined.
const RETRY: Duration = Duration::from_secs(60);

/// The programs in the kernel, or why they are not there.
#[derive(Debug)]
pub struct Loaded(Result<Kernel, String>);

impl Loaded {
    /// They are not, for this reason.
    pub fn none(reason: &str) -> Self {
        Self(Err(reason.to_owned()))
    }

    /// Begins with that, and with what another forwarder has left. The time stamp counter counts `hz` in a second.
    pub fn start(self, hz: u64, keep: &Keep, left: Remains) -> Shortcut {
        let (keep, left) = (keep.clone(), left);
        match self.0 {
            Ok(mut kernel) => {
                kernel.outlive(keep.is_kept());
                let slots = Arc::new(Slots::new(Arc::clone(kernel.memory()), hz));
                Shortcut { kernel: Some(kernel), slots: Some(slots), keep, left, ..Shortcut::none("") }
            }
            Err(reason) => Shortcut { keep, left, ..Shortcut::none(&reason) },
        }
    }
}

/// The short cut, or why there is none.
#[derive(Debug)]
pub struct Shortcut {
    kernel: Option<Kernel>,
    slots: Option<Arc<Slots>>,
    /// Why there is none.
    off: String,
    keep: Keep,
    /// What another forwarder has left.
    left: Remains,
    surroundings: Option<Surroundings>,
    remotes: Arc<Remotes>,
    /// Whether the uplink has joined.
    has_uplink: bool,
    /// The uplink whose programs another forwarder has left.
    left_uplink: Option<(String, EthAddr, bool)>,
    /// Ports whose pods have joined, or could not.
    ports: BTreeMap<PortIndex, Member>,
    next: Instant,
}

/// A port whose pod has joined, or could not.
#[derive(Debug)]
struct Member {
    name: String,
    address: Ipv4Addr,
    /// When it is looked at again.
    again: Instant,
}

impl Shortcut {
    /// None, for this reason.
    pub fn none(reason: &str) -> Self {
        Self {
            kernel: None,
            slots: None,
            off: reason.to_owned(),
            keep: Keep::nobody(),
            left: Remains::default(),
            surroundings: None,
            remotes: Arc::default(),
            has_uplink: false,
            left_uplink: None,
            ports: BTreeMap::new(),
            next: Instant::now(),
        }
    }

    /// As it is wanted, and as far as the kernel can.
    pub fn load(wanted: ShortCut) -> Loaded {
        if wanted == ShortCut::Off {
            return Loaded::none("switched off");
        }
        Loaded(Kernel::load(SLOTS).map_err(|error| {
            let reason = chain(&error);
            tracing::info!(reason, "there is no short cut: all packets go by the fast path");
            reason.strip_prefix("short cut: ").unwrap_or(&reason).to_owned()
        }))
    }

    /// What workers write.
    pub fn slots(&self) -> Option<&Arc<Slots>> {
        self.slots.as_ref()
    }

    /// What another forwarder's has opened.
    pub fn unheard(&self) -> Option<&Arc<Unheard>> {
        self.left.unheard.as_ref()
    }

    /// Why there is none; `None` if there is one.
    pub fn why_not(&self) -> Option<&str> {
        if self.kernel.is_some() { None } else { Some(&self.off) }
    }

    /// How many pods have joined.
    pub fn pods(&self) -> usize {
        let Some(kernel) = &self.kernel else { return 0 };
        self.ports.keys().filter(|port| kernel.is_joined(port.0)).count()
    }

    /// What its programs have dropped, by reason; `None` if nobody knows.
    pub fn dropped(&self) -> Option<Drops> {
        let dropped = self.kernel.as_ref()?.dropped();
        dropped
            .inspect_err(|error| tracing::debug!(reason = chain(error), "no counters of the short cut"))
            .ok()
    }

    /// Whether decided connections of a port's pod may go by it; of the uplink, those with pods of other nodes.
    pub fn is_joined(&self, port: PortIndex, kind: PortKind) -> bool {
        let Some(kernel) = &self.kernel else { return false };
        let tunnels = || self.surroundings.is_some_and(|surroundings| surroundings.tunnelled.is_some());
        if kind == PortKind::Uplink { self.has_uplink && tunnels() } else { kernel.is_joined(port.0) }
    }

    /// Tells the kernel what workers are about to work by.
    pub fn follow(&mut self, next: &Snapshot) {
        let Some(memory) = self.kernel.as_ref().map(|kernel| Arc::clone(kernel.memory())) else { return };
        // Before the epoch: under a new one nothing is chosen by old tables.
        memory.set_serial(next.serial());
        let surroundings = surroundings(next);
        let epoch = surroundings.map_or(0, |_| next.epoch());
        let is_same = Arc::ptr_eq(&self.remotes, next.shared_remotes());
        if is_same && self.surroundings == surroundings && memory.epoch() == epoch {
            return;
        }
        if self.surroundings != surroundings || memory.epoch() != epoch {
            memory.set_epoch(0);
        }
        if self.surroundings != surroundings {
            surroundings.iter().for_each(|surroundings| memory.set_surroundings(surroundings));
            self.surroundings = surroundings;
        }
        if !is_same {
            self.remotes = Arc::clone(next.shared_remotes());
            set_ways(&memory, next);
        }
        memory.set_epoch(epoch);
    }

    /// Takes an uplink in that is an interface of the kernel's, before packet sockets are there; `mac` is the address of the fast
    /// path there, `apart` if it is none of the interface's. Returns what the sockets are to see.
    pub fn join_uplink(&mut self, interface: &str, mac: EthAddr, apart: bool) -> Sees {
        let Some(kernel) = &mut self.kernel else { return Sees::All };
        if self.left.uplink.as_ref().is_some_and(|left| Kernel::has_left_uplink(interface, left)) {
            // Until the workers forward.
            self.left_uplink = Some((interface.to_owned(), mac, apart));
            return Sees::TheRest;
        }
        if self.left.uplink.take().is_some() {
            self.keep.forget(UPLINK);
        }
        match kernel.join_uplink(interface, mac, apart) {
            Ok(()) => {
                self.has_uplink = true;
                kernel.uplink().iter().for_each(|uplink| self.keep.store(UPLINK, &[*uplink]));
                Sees::TheRest
            }
            Err(error) => {
                tracing::warn!(
                    uplink = interface,
                    reason = chain(&error),
                    "there is no short cut to other nodes"
                );
                Sees::All
            }
        }
    }

    /// Has workers, who forward from now on, decide on what went by the short cut of another forwarder meanwhile.
    pub fn succeed(&mut self) {
        // The workers have it.
        self.left.unheard = None;
        let is_ended = self.left.globals.take().map(|globals| end_epoch_of(globals.as_fd()));
        if let Some(Err(error)) = &is_ended {
            tracing::error!(%error, "the short cut of the process before does not end, and is removed");
        }
        if self.kernel.is_none() && is_ended.is_some() {
            self.keep.forget(GLOBALS);
            self.keep.forget(OPENED);
        }
        if self.kernel.is_none() || !matches!(is_ended, Some(Ok(()))) {
            // What cannot be ended would go on by what is no longer true.
            self.left.remove(&self.keep);
        }
        let Some(kernel) = &mut self.kernel else { return };
        match kernel.globals().and_then(|globals| Ok((globals, kernel.opened()?))) {
            Ok((globals, opened)) => {
                self.keep.store(GLOBALS, &[globals]);
                self.keep.store(OPENED, &opened);
            }
            Err(error) => tracing::error!(%error, "the short cut cannot be kept"),
        }
        let Some((interface, mac, apart)) = self.left_uplink.take() else { return };
        let joined = match self.left.uplink.take() {
            Some(left) => kernel.resume_uplink(&interface, mac, apart, left),
            None => kernel.join_uplink(&interface, mac, apart),
        };
        match joined {
            Ok(()) => self.has_uplink = true,
            Err(error) => {
                tracing::warn!(uplink = interface, reason = chain(&error), "no short cut to other nodes");
            }
        }
        match kernel.uplink() {
            Some(uplink) => self.keep.store(UPLINK, &[uplink]),
            None => self.keep.forget(UPLINK),
        }
    }

    /// Takes in pods that have come since, and those whose interface somebody has removed; leaves pods alone that have set theirs
    /// down, as long as it is. Returns when to be called again.
    pub fn attend<'a>(&mut self, now: Instant, ports: impl Iterator<Item = &'a Entry<Device>>) -> Instant {
        let Self { kernel: Some(kernel), keep, left, ports: members, next, .. } = self else {
            return now + RETRY;
        };
        if now < *next {
            return *next;
        }
        *next = now + LOOKS;
        let begin = Instant::now();
        kernel.look_at_pods();
        for Entry { index, port, device, .. } in ports {
            let Device::Tap(_, tap) = device else { continue };
            let is_pod = port.kind == PortKind::Pod && port.tenant == Tenant::DEFAULT;
            let Some((tap, address)) = tap.upgrade().filter(|_| is_pod).zip(port.v4) else { continue };
            let is_due = |member: &Member| !kernel.is_whole(index.0) && now >= member.again;
            if !members.get(index).is_none_or(is_due) {
                continue;
            }
            let left = left.pods.remove(&port.name).unwrap_or_default();
            let (name, was_left) = (kept_as(&port.name), !left.is_empty());
            let member = |again| Member { name: port.name.clone(), address, again };
            let joined = kernel.leave_pod(index.0).and_then(|()| {
                if members.contains_key(index) {
                    // A program is on an interface only once.
                    keep.close(&name);
                }
                kernel.resume_pod(index.0, tap.as_fd(), left)
            });
            match kernel.pod(index.0) {
                Some(programs) => keep.store(&name, &programs),
                None if was_left => keep.forget(&name),
                None => {}
            }
            match joined {
                Ok(Joined::NotYet) => {
                    if let Some(Member { address, .. }) = members.remove(index) {
                        kernel.memory().set_place(address, End::Door(index.0), false);
                    }
                    continue;
                }
                Ok(Joined::Joined) => {
                    members.insert(*index, member(now));
                    kernel.memory().set_place(address, End::Door(index.0), true);
                    tracing::debug!(port = port.name, "connections of this port may go by the short cut");
                }
                Err(error) => {
                    members.insert(*index, member(now + RETRY));
                    tracing::warn!(port = port.name, reason = chain(&error), "no short cut for this port");
                }
            }
            let took = begin.elapsed();
            if took >= TURN {
                // As long for others.
                *next = Instant::now() + took;
                return *next;
            }
        }
        // Nobody has these ports any more.
        left.remove(keep);
        *next
    }

    /// Lets go of a pod, whose port has changed or goes.
    pub fn leave(&mut self, index: PortIndex) {
        let Some(kernel) = &mut self.kernel else { return };
        let member = self.ports.remove(&index);
        if let Some(Member { address, .. }) = &member {
            kernel.memory().set_place(*address, End::Door(index.0), false);
        }
        if let Err(error) = kernel.leave_pod(index.0) {
            tracing::warn!(reason = chain(&error), "a pod's part of the short cut stays");
        }
        // The port may join again at once.
        member.iter().for_each(|member| self.keep.close(&kept_as(&member.name)));
    }

    /// The end of this process: if it is the `last`, all packets go by the taps and nothing is left; otherwise decided connections
    /// go on.
    pub fn end(&mut self, is_last: bool) {
        let Some(mut kernel) = self.kernel.take_if(|_| is_last) else { return };
        for name in self.ports.values().map(|member| kept_as(&member.name)).chain([UPLINK.to_owned()]) {
            self.keep.forget(&name);
        }
        kernel.outlive(false);
    }
}

/// What holds for all packets; `None` as long as there is no uplink, or nothing is known of this node.
fn surroundings(view: &Snapshot) -> Option<Surroundings> {
    let (local, uplink) = (view.local()?, view.port(view.uplink()?)?);
    let tunnelled = local.vtep4().filter(|_| local.tunnels.are_usual()).map(|vtep| Tunnelled {
        vtep,
        port: local.tunnels.port,
        vni: local.vni.get(),
        mac: local.vtep_mac,
    });
    Some(Surroundings { gateway: local.gateway_mac, uplink: uplink.mac, tunnelled })
}

/// Only nodes that are reached over IPv4, by headers that are the same for all packets.
fn set_ways(memory: &Memory, view: &Snapshot) {
    for slot in 0.. {
        let way = view.ways().get(slot as usize).filter(|way| way.mtu > 0);
        let way = way.zip(view.remote(slot)).and_then(|(way, remote)| match remote.vtep {
            IpAddr::V4(vtep) if remote.tenant == Tenant::DEFAULT => {
                let pods = remote.pods4.map(|net| (net.network(), net.netmask()));
                Some(Remote { vtep, template: &way.template, mtu: way.mtu, pods })
            }
            _ => None,
        });
        if !memory.set_way(slot, way.as_ref()) {
            break;
        }
    }
}
