//! The usual packet's way, all of it.
//!
//! In: a burst. Out: of the packets that are TCP or UDP over plain IPv4, whole, in order, and either of an established
//! flow or on their way to a pod, those that nothing can happen to any more are ready to be sent. That is nearly all of
//! them. Nothing here decides what the other stages would decide otherwise, and a packet that is left to them is as it
//! was received; they know what is to be said about it.

use std::net::Ipv4Addr;

use culvert_packet::PacketBuf;
use culvert_packet::encap::OVERHEAD_V4;
use culvert_packet::flow::{FlowKey4, Tenant, entropy_port};
use culvert_packet::ip::Protocol;
use culvert_packet::rewrite::Translation4;
use culvert_packet::usual::{self, Front, Tunnelled, Usual};

use super::NOWHERE;
use super::frame::set_stations;
use super::stage::Stage;
use crate::flow::{Calm, Moment, OutBits, Probe, Steady};
use crate::table::{LocalNode, Port, PortIndex, PortKind};

/// What is usual at a port.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// From a pod: what its frames begin with, and its address.
    Pod(Front, Ipv4Addr),
    /// From the underlay.
    Tunnel(Tunnelled),
    /// Nothing.
    Nothing,
}

impl Expected {
    pub(super) fn at(port: &Port, local: &LocalNode) -> Self {
        match port.kind {
            PortKind::Pod | PortKind::Host => match port.v4 {
                Some(source) if !local.gateway_mac.is_multicast() => {
                    Self::Pod(Front::between(port.mac, local.gateway_mac), source)
                }
                _ => Self::Nothing,
            },
            PortKind::Uplink => match local.vtep4() {
                Some(vtep) if usual_tunnels(port, local) => {
                    let (port_number, vni) = (local.tunnels.port, local.vni.get());
                    Self::Tunnel(Tunnelled::new(port.mac, vtep, port_number, vni, local.vtep_mac))
                }
                _ => Self::Nothing,
            },
        }
    }
}

fn usual_tunnels(port: &Port, local: &LocalNode) -> bool {
    !local.vtep_mac.is_multicast() && !port.mac.is_multicast() && local.tunnels.are_usual()
}

/// What the later passes need to know of a usual packet. No more than one cache line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) key: FlowKey4,
    pub(super) hash: u64,
    pub(super) probe: Probe,
    /// What its flow looks like if the packet changes nothing about it.
    pub(super) calm: Calm,
    /// Slot of the remote node that it comes from; of a pod's packet that may open a flow, its place among the openings. Of a
    /// packet that is not usual, its place among the others of its version.
    pub(super) slot: u32,
    /// Where it goes if it belongs to no flow; known if the probe is absent.
    pub(super) out: OutBits,
    /// Length of the IP packet; 0 if the packet is not usual, or, if the probe is absent, has been delivered.
    pub(super) len: u16,
}

impl Lane {
    /// Of no packet.
    pub(super) const EMPTY: Self = Self {
        key: FlowKey4::new(
            Tenant::DEFAULT,
            Protocol(0),
            (Ipv4Addr::UNSPECIFIED, 0),
            (Ipv4Addr::UNSPECIFIED, 0),
        ),
        hash: 0,
        probe: Probe::ABSENT,
        calm: Calm::NEVER,
        slot: 0,
        out: OutBits::NOWHERE,
        len: 0,
    };

    #[inline(always)]
    pub(super) const fn is_usual(&self) -> bool {
        self.len != 0
    }
}

impl Stage<'_> {
    /// Lets a usual packet in that a pod sends to its router. `None`, and nothing has changed, for all that needs a closer
    /// look.
    #[inline(always)]
    pub(super) fn admit_usual_from_pod<B: PacketBuf>(
        front: &Front,
        source: Ipv4Addr,
        buf: &mut B,
    ) -> Option<Usual> {
        let frame = buf.data();
        let usual = Usual::read(frame, front)?;
        if usual.src() != source || buf.offload().partial {
            return None;
        }
        if usual.end() < frame.len() {
            buf.truncate(usual.end());
        }
        Some(usual)
    }

    /// Lets a usual packet in that another node sends through the tunnel, whose headers are then gone. With it comes the
    /// slot of that node. `None`, and nothing has changed, for all that needs a closer look.
    #[inline(always)]
    pub(super) fn admit_usual_from_tunnel<B: PacketBuf>(
        &mut self,
        expected: &Tunnelled,
        buf: &mut B,
    ) -> Option<(Usual, u32)> {
        let (src, usual) = usual::tunnelled(buf.data(), expected)?;
        let view = self.view;
        let key = u32::from_ne_bytes(src.octets());
        let slot = self.vteps.get(key.into(), || view.remote_of_vtep(src.into()).unwrap_or(NOWHERE));
        (slot != NOWHERE && buf.trim_front(OVERHEAD_V4)).then_some((usual, slot))
    }

    /// Sends a usual packet if nothing stands against it, and returns the port. `None`, and the packet is as it was, for
    /// all that needs a closer look; but the time of its flow may be that of the packet already.
    #[inline(always)]
    pub(super) fn forward_usual<B: PacketBuf>(
        &mut self,
        moment: &Moment,
        from_pod: bool,
        lane: &Lane,
        buf: &mut B,
    ) -> Option<PortIndex> {
        let key = &lane.key;
        if lane.probe.is_absent() {
            if !lane.is_usual() {
                return lane.out.port();
            }
            // A connection of its own has to be told from one through a service.
            if from_pod && lane.calm == Calm::NEVER && usual::opens(buf.data()) {
                return None;
            }
            return self.transmit_usual(lane, from_pod, lane.out, buf, None);
        }
        // Requests come from the client's own port only: that is where its address was checked.
        let Steady { translation, out, service } =
            self.tables.v4.follow(lane.probe, key, from_pod, moment, lane.calm)?;
        let port = self.transmit_usual(lane, from_pod, out, buf, Some(&translation))?;
        self.tally.add(self.counters, service, lane.len);
        Some(port)
    }

    /// Whether [`transmit_usual`](Self::transmit_usual) would send a packet of a pod, unless there is no room for what goes in
    /// front of it.
    #[inline(always)]
    pub(super) fn may_leave<B: PacketBuf>(&self, lane: &Lane, out: OutBits, buf: &B) -> bool {
        let mtu = match out.port() {
            Some(index) => self.doors.get(usize::from(index.0)).map(|door| door.mtu),
            None => self.ways.get(out.slot()).map(|way| way.mtu),
        };
        let hops = usual::ttl_and_traffic_class(buf.data()).map_or(0, |(ttl, _)| ttl);
        hops > 1 && mtu.is_some_and(|mtu| lane.len <= mtu)
    }

    #[inline(always)]
    pub(super) fn transmit_usual<B: PacketBuf>(
        &self,
        lane: &Lane,
        from_pod: bool,
        out: OutBits,
        buf: &mut B,
        translation: Option<&Translation4>,
    ) -> Option<PortIndex> {
        if let Some(index) = out.port() {
            return self.deliver_usual(index, lane.len, buf, translation);
        }
        let (ttl, traffic_class) = usual::ttl_and_traffic_class(buf.data())?;
        if ttl <= 1 {
            return None;
        }
        let way = self.ways.get(out.slot())?;
        if !from_pod || lane.len > way.mtu {
            return None;
        }
        let frame = way.template.encap_usual(buf, lane.len, entropy_port(lane.hash), traffic_class)?;
        rewrite(frame, translation);
        Some(way.uplink)
    }

    /// The same to a pod on this node, with an IP packet of `len` bytes.
    #[inline(always)]
    pub(super) fn deliver_usual<B: PacketBuf>(
        &self,
        index: PortIndex,
        len: u16,
        buf: &mut B,
        translation: Option<&Translation4>,
    ) -> Option<PortIndex> {
        let (ttl, _) = usual::ttl_and_traffic_class(buf.data())?;
        let door = self.doors.get(usize::from(index.0))?;
        if ttl <= 1 || len > door.mtu {
            return None;
        }
        let frame = buf.data_mut();
        rewrite(frame, translation);
        set_stations(frame, door.mac, self.local.gateway_mac);
        Some(index)
    }
}

/// Takes a hop off a packet that is sure to go, and translates it. Not a closure, so that it becomes part of its callers.
#[inline(always)]
fn rewrite(frame: &mut [u8], translation: Option<&Translation4>) {
    match translation {
        Some(translation) => usual::hop_and_translate(frame, translation),
        None => usual::hop(frame),
    }
}
