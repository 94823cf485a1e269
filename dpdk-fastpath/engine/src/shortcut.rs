//! The short cut as the control thread sees it: what the kernel is told of pods, nodes and epochs, so that it may forward
//! connections that workers have decided (see [`pipeline`](crate::pipeline)).
//!
//! Slots are good under one epoch. Before workers get another snapshot the kernel is told of its epoch; from then on it uses
//! none of the slots that there are, and each connection's next packet comes here, to be decided again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_api::config::fastpath::ShortCut;
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use culvert_shortcut::{End, Joined, Kernel, Memory, Remote, Slots, Surroundings, Tunnelled};

use crate::control::chain;
use crate::port::packet_socket::Sees;
use crate::port::{Device, Entry};
use crate::table::{PortIndex, PortKind, Remotes, Snapshot};

/// Slots, two for each connection: 4 MB of the kernel's memory.
pub(crate) const SLOTS: u32 = 1 << 16;

/// Pods that may join. When the process ends the kernel waits for every program of theirs to be out of use, three for each pod
/// and some 10 ms for each of these: the next process cannot begin before.
const MOST_PODS: usize = 16;

/// Between two looks at whether pods have come, or have lost their interface.
const LOOKS: Duration = Duration::from_millis(200);

/// Until it is tried again with a pod that could not be joined.
const RETRY: Duration = Duration::from_secs(60);

/// The short cut, or why there is none.
#[derive(Debug)]
pub struct Shortcut {
    kernel: Option<Kernel>,
    slots: Option<Arc<Slots>>,
    /// Why there is none.
    off: String,
    surroundings: Option<Surroundings>,
    remotes: Arc<Remotes>,
    /// Whether the uplink has joined.
    has_uplink: bool,
    /// Ports whose pods have joined, or could not: with their address, and when it is looked at them again.
    ports: BTreeMap<PortIndex, (Ipv4Addr, Instant)>,
    next: Instant,
}

impl Shortcut {
    /// None, for this reason.
    pub fn none(reason: &str) -> Self {
        Self {
            kernel: None,
            slots: None,
            off: reason.to_owned(),
            surroundings: None,
            remotes: Arc::default(),
            has_uplink: false,
            ports: BTreeMap::new(),
            next: Instant::now(),
        }
    }

    /// As it is wanted, and as far as the kernel can. The time stamp counter counts `hz` in a second.
    pub fn start(wanted: ShortCut, hz: u64) -> Self {
        if wanted == ShortCut::Off {
            return Self::none("switched off");
        }
        match Kernel::load(SLOTS) {
            Ok(kernel) => {
                let slots = Arc::new(Slots::new(Arc::clone(kernel.memory()), hz));
                Self { kernel: Some(kernel), slots: Some(slots), ..Self::none("") }
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::info!(reason, "there is no short cut: all packets go by the fast path");
                Self::none(reason.strip_prefix("short cut: ").unwrap_or(&reason))
            }
        }
    }

    /// What workers write.
    pub fn slots(&self) -> Option<&Arc<Slots>> {
        self.slots.as_ref()
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

    /// Whether decided connections of a port's pod may go by it; of the uplink, those with pods of other nodes.
    pub fn is_joined(&self, port: PortIndex, kind: PortKind) -> bool {
        let Some(kernel) = &self.kernel else { return false };
        let tunnels = || self.surroundings.is_some_and(|surroundings| surroundings.tunnelled.is_some());
        if kind == PortKind::Uplink { self.has_uplink && tunnels() } else { kernel.is_joined(port.0) }
    }

    /// Tells the kernel what workers are about to work by.
    pub fn follow(&mut self, next: &Snapshot) {
        let Some(memory) = self.kernel.as_ref().map(|kernel| Arc::clone(kernel.memory())) else { return };
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
        match kernel.join_uplink(interface, mac, apart) {
            Ok(()) => {
                self.has_uplink = true;
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

    /// Takes in pods that have come since, and those whose interface somebody has removed. Returns when to be called again.
    pub fn attend<'a>(&mut self, now: Instant, ports: impl Iterator<Item = &'a Entry<Device>>) -> Instant {
        let Some(kernel) = &mut self.kernel else { return now + RETRY };
        if now < self.next {
            return self.next;
        }
        self.next = now + LOOKS;
        for Entry { index, port, device, .. } in ports {
            let Device::Tap(_, tap) = device else { continue };
            let is_pod = port.kind == PortKind::Pod && port.tenant == Tenant::DEFAULT;
            let Some((tap, address)) = tap.upgrade().filter(|_| is_pod).zip(port.v4) else { continue };
            let is_due = match self.ports.get(index) {
                Some((_, again)) => !kernel.is_joined(index.0) && now >= *again,
                None => self.ports.len() < MOST_PODS,
            };
            if !is_due {
                continue;
            }
            match kernel.leave_pod(index.0).and_then(|()| kernel.join_pod(index.0, tap.as_fd())) {
                Ok(Joined::NotYet) => {
                    if let Some((address, _)) = self.ports.remove(index) {
                        kernel.memory().set_place(address, End::Door(index.0), false);
                    }
                }
                Ok(Joined::Joined) => {
                    self.ports.insert(*index, (address, now));
                    kernel.memory().set_place(address, End::Door(index.0), true);
                    // That takes long enough for others to wait for this thread: one at a time.
                    self.next = now;
                    tracing::debug!(port = port.name, "connections of this port may go by the short cut");
                    break;
                }
                Err(error) => {
                    self.ports.insert(*index, (address, now + RETRY));
                    tracing::warn!(port = port.name, reason = chain(&error), "no short cut for this port");
                }
            }
        }
        self.next
    }

    /// Lets go of a pod, whose port has changed or goes.
    pub fn leave(&mut self, index: PortIndex) {
        let Some(kernel) = &mut self.kernel else { return };
        if let Some((address, _)) = self.ports.remove(&index) {
            kernel.memory().set_place(address, End::Door(index.0), false);
        }
        if let Err(error) = kernel.leave_pod(index.0) {
            tracing::warn!(reason = chain(&error), "a pod's part of the short cut stays");
        }
    }

    /// From now on all packets go by the fast path.
    pub fn stop(&self) {
        self.kernel.iter().for_each(|kernel| kernel.memory().set_epoch(0));
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
        let way = view.ways().get(slot as usize).and_then(Option::as_ref);
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
