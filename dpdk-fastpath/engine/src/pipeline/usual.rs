//! The usual packet's way, all of it.
//!
//! In: a burst. Out: of the packets that are TCP or UDP over plain IPv4, whole, in order, and either of an established
//! flow or on their way to a pod, those that nothing can happen to any more are ready to be sent. That is nearly all of
//! them. Nothing here decides what the other stages would decide otherwise, and a packet that is left to them is as it
//! was received; they know what is to be said about it.

use std::net::Ipv4Addr;

use culvert_packet::PacketBuf;
use culvert_packet::encap::{OVERHEAD_V4, inner_traffic_class};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::{FlowKey4, Tenant, entropy_port};
use culvert_packet::ip::Protocol;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::usual::{self, Usual};

use super::frame::{eth, set_stations};
use super::route::Destination;
use super::stage::Stage;
use crate::flow::{Moment, Out, Probe, Steady};
use crate::table::{Door, LocalNode, Port, PortIndex, PortKind, Way};

/// First byte of the first IPv4 address that is no unicast address.
const MULTICAST: u8 = 224;

/// What is usual at a port.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// From a pod.
    Pod {
        /// Destination and source of its frames.
        stations: [u8; 12],
        /// Its address.
        source: Ipv4Addr,
    },
    /// From the underlay.
    Tunnel {
        /// Destination of frames.
        station: EthAddr,
        /// Destination of packets.
        vtep: Ipv4Addr,
    },
    /// Nothing.
    Nothing,
}

impl Expected {
    pub(super) fn at(port: &Port, local: &LocalNode) -> Self {
        match port.kind {
            PortKind::Pod => match port.v4 {
                Some(source) if !local.gateway_mac.is_multicast() => {
                    let mut stations = [0; 12];
                    set_stations(&mut stations, local.gateway_mac, port.mac);
                    Self::Pod { stations, source }
                }
                _ => Self::Nothing,
            },
            PortKind::Uplink => match local.vtep4() {
                Some(vtep) if !local.vtep_mac.is_multicast() && local.tunnels.are_usual() => {
                    Self::Tunnel { station: port.mac, vtep }
                }
                _ => Self::Nothing,
            },
        }
    }
}

/// An IPv4 packet of a batch that has been admitted. No more than one cache line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) key: FlowKey4,
    pub(super) hash: u64,
    pub(super) probe: Probe,
    /// Where it goes if it belongs to no flow; known if the probe is absent.
    pub(super) destination: Destination,
    /// Slot of the remote node that it comes from; not of a pod's packet.
    pub(super) slot: u32,
    /// Length of the IP packet; 0 for one that is not usual.
    pub(super) len: u16,
    pub(super) tcp_flags: TcpFlags,
    /// Place of the buffer in the batch.
    pub(super) at: u8,
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
        destination: Destination::Pod(Out::Nowhere),
        slot: 0,
        len: 0,
        tcp_flags: TcpFlags(0),
        at: 0,
    };
}

impl Stage<'_> {
    /// Lets a usual packet in: it is what a pod sends to its router, or another node through the tunnel, whose headers
    /// are then gone. With it comes the slot of that node. `None`, and nothing has changed, for all that needs a closer
    /// look.
    #[inline(always)]
    pub(super) fn admit_usual<B: PacketBuf>(
        &mut self,
        expected: &Expected,
        buf: &mut B,
    ) -> Option<(Usual, u32)> {
        match *expected {
            Expected::Pod { stations, source } => {
                let frame = buf.data();
                let usual = Usual::read(frame)?;
                let key = usual.key(Tenant::DEFAULT);
                let may_pass = (frame.first_chunk() == Some(&stations))
                    & (key.src() == source)
                    & (key.dst().octets()[0] < MULTICAST);
                if !may_pass {
                    return None;
                }
                if usual.end() < frame.len() {
                    buf.truncate(usual.end());
                }
                Some((usual, 0))
            }
            Expected::Tunnel { station, vtep } => self.admit_usual_from_tunnel(station, vtep, buf),
            Expected::Nothing => None,
        }
    }

    #[inline(always)]
    fn admit_usual_from_tunnel<B: PacketBuf>(
        &mut self,
        station: EthAddr,
        vtep: Ipv4Addr,
        buf: &mut B,
    ) -> Option<(Usual, u32)> {
        let frame = buf.data();
        let outer = Usual::read(frame)?;
        let addresses = outer.key(Tenant::DEFAULT);
        let ours = (outer.protocol == Protocol::UDP)
            & (addresses.dst_port() == self.local.tunnels.port)
            & (eth(frame).dst() == station)
            & (addresses.dst() == vtep);
        if !ours {
            return None;
        }
        let (vni, inner) = usual::decap(frame)?;
        let usual = Usual::read(inner)?;
        let ((_, outer_class), (_, class)) =
            (usual::ttl_and_traffic_class(frame)?, usual::ttl_and_traffic_class(inner)?);
        let may_pass = (vni == self.local.vni.get())
            & (eth(inner).dst() == self.local.vtep_mac)
            & (usual.key(Tenant::DEFAULT).dst().octets()[0] < MULTICAST)
            & (inner_traffic_class(class, outer_class) == Some(class));
        if !may_pass {
            return None;
        }
        let (view, src) = (self.view, addresses.src());
        let slot = self.vteps.get(src.to_bits().into(), || view.remote_of_vtep(src.into()))?;
        buf.keep(OVERHEAD_V4, OVERHEAD_V4 + usual.end()).then_some((usual, slot))
    }

    /// Sends a usual packet if nothing stands against it, and returns the port. `None`, and the packet is as it was, for
    /// all that needs a closer look.
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
            return match lane.destination {
                Destination::Pod(out) => self.transmit_usual(lane, from_pod, out, buf, usual::hop),
                Destination::Local | Destination::Vip => None,
            };
        }
        // Requests come from the client's own port only: that is where its address was checked.
        let Steady { translation, out, service } =
            self.tables.v4.follow(lane.probe, key, from_pod, moment, lane.tcp_flags)?;
        let port = self.transmit_usual(lane, from_pod, out, buf, |frame| {
            usual::hop_and_translate(frame, key.protocol(), &translation);
        })?;
        self.tally.add(self.counters, service, lane.len.into());
        Some(port)
    }

    #[inline(always)]
    fn transmit_usual<B: PacketBuf>(
        &self,
        lane: &Lane,
        from_pod: bool,
        out: Out,
        buf: &mut B,
        rewrite: impl FnOnce(&mut [u8]),
    ) -> Option<PortIndex> {
        let (mtu, exit) = match out {
            Out::Remote(slot) => {
                let way = self.ways.get(slot as usize)?.as_ref()?;
                if !from_pod || buf.headroom() < way.template.overhead() {
                    return None;
                }
                (way.mtu, Exit::Tunnel(way))
            }
            Out::Pod(index) => {
                let door = self.doors.get(usize::from(index.0))?;
                (door.mtu, Exit::Door(door, index))
            }
            Out::Nowhere => return None,
        };
        let (ttl, traffic_class) = usual::ttl_and_traffic_class(buf.data())?;
        if lane.len > mtu || ttl <= 1 {
            return None;
        }
        // In one place only, so that it becomes part of this code.
        let frame = buf.data_mut();
        rewrite(frame);
        match exit {
            Exit::Door(door, index) => {
                set_stations(frame, door.mac, self.local.gateway_mac);
                Some(index)
            }
            Exit::Tunnel(way) => {
                let traffic_class = way.template.outer_traffic_class(traffic_class);
                let sent = way.template.encap(buf, entropy_port(lane.hash), traffic_class);
                debug_assert!(sent.is_ok(), "there is room for the headers, and a packet fits into a tunnel");
                Some(way.uplink)
            }
        }
    }
}

/// Where a packet leaves.
enum Exit<'a> {
    Door(&'a Door, PortIndex),
    Tunnel(&'a Way),
}
