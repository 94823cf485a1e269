//! The usual packet's way, all of it.
//!
//! In: a burst. Out: of the packets that are TCP or UDP over plain IPv4, whole, in order, and either of an established
//! flow or on their way to a pod, those that nothing can happen to any more are ready to be sent. That is nearly all of
//! them. Nothing here decides what the other stages would decide otherwise, and a packet that is left to them is as it
//! was received; they know what is to be said about it.

use std::net::Ipv4Addr;

use culvert_packet::PacketBuf;
use culvert_packet::encap::{decap, inner_traffic_class, outer_traffic_class};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::{FlowKey4, Tenant, entropy_port};
use culvert_packet::ip::Protocol;
use culvert_packet::usual::Usual;

use super::frame::{eth, set_stations};
use super::route::Destination;
use super::stage::{Origin, Stage};
use crate::flow::{Out, Probe};
use crate::table::{LocalNode, Port, PortIndex, PortKind};

/// First byte of the first IPv4 address that is no unicast address.
const MULTICAST: u8 = 224;

/// What is usual at a port.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// From a pod.
    Pod {
        /// Destination and source of its frames.
        stations: [EthAddr; 2],
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
                    Self::Pod { stations: [local.gateway_mac, port.mac], source }
                }
                _ => Self::Nothing,
            },
            PortKind::Uplink => match local.vtep4() {
                Some(vtep) if !local.vtep_mac.is_multicast() => Self::Tunnel { station: port.mac, vtep },
                _ => Self::Nothing,
            },
        }
    }
}

/// An IPv4 packet of a batch that has been admitted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    /// Place of the buffer in the batch.
    pub(super) at: u8,
    pub(super) what: What,
    pub(super) hash: u64,
    pub(super) probe: Probe,
}

/// What there is to know of an IPv4 packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Usual(Usual, Origin),
    /// Place among those that are not usual.
    Other(u8),
}

impl Stage<'_> {
    /// Lets a usual packet in: it is what a pod sends to its router, or another node through the tunnel, whose headers
    /// are then gone. `None`, and nothing has changed, for all that needs a closer look.
    #[inline(always)]
    pub(super) fn admit_usual<B: PacketBuf>(
        &mut self,
        expected: &Expected,
        buf: &mut B,
    ) -> Option<(Usual, Origin)> {
        match *expected {
            Expected::Pod { stations, source } => {
                let frame = buf.data();
                let usual = Usual::read(frame)?;
                let (header, key) = (eth(frame), usual.key(Tenant::DEFAULT));
                let may_pass = ([header.dst(), header.src()] == stations)
                    & (key.src() == source)
                    & (key.dst().octets()[0] < MULTICAST);
                if !may_pass {
                    return None;
                }
                if usual.end() < frame.len() {
                    buf.truncate(usual.end());
                }
                Some((usual, Origin::Pod))
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
    ) -> Option<(Usual, Origin)> {
        let frame = buf.data();
        let outer = Usual::read(frame)?;
        let addresses = outer.key(Tenant::DEFAULT);
        let ours = (outer.protocol == Protocol::UDP)
            & (outer.dst_port() == self.local.vxlan_port)
            & (eth(frame).dst() == station)
            & (addresses.dst() == vtep);
        if !ours {
            return None;
        }
        let tunnel = decap(frame, &outer.parsed()).ok()?;
        let inner = frame.get(tunnel.inner_offset..tunnel.inner_offset + tunnel.inner_len)?;
        let usual = Usual::read(inner)?;
        let may_pass = (tunnel.vni == self.local.vni.get())
            & (eth(inner).dst() == self.local.vtep_mac)
            & (usual.key(Tenant::DEFAULT).dst().octets()[0] < MULTICAST);
        let same = inner_traffic_class(usual.traffic_class, outer.traffic_class) == Some(usual.traffic_class);
        if !may_pass || !same {
            return None;
        }
        let (view, src) = (self.view, addresses.src());
        let slot = self.vteps.get(src.to_bits().into(), || view.remote_of_vtep(src.into()))?;
        buf.keep(tunnel.inner_offset, tunnel.inner_offset + usual.end())
            .then_some((usual, Origin::Tunnel(slot)))
    }

    /// Sends a usual packet if nothing stands against it, and returns the port. `None`, and the packet is as it was, for
    /// all that needs a closer look.
    #[inline(always)]
    pub(super) fn forward_usual<B: PacketBuf>(
        &mut self,
        buf: &mut B,
        usual: &Usual,
        origin: Origin,
        key: &FlowKey4,
        (hash, probe): (u64, Probe),
    ) -> Option<PortIndex> {
        if usual.ttl <= 1 {
            return None;
        }
        if probe.is_absent() {
            return match self.destination(key.tenant(), key.dst().into()) {
                Destination::Pod(out) => self.transmit_usual(buf, usual, origin, out, hash, Usual::hop),
                Destination::Local | Destination::Vip => None,
            };
        }
        // Requests come from the client's own port only: that is where its address was checked.
        let requests = origin == Origin::Pod;
        let (epoch, now) = (self.view.epoch(), self.now);
        let flow = self.flows.tables.v4.follow(probe, key, requests, epoch, now, usual.tcp_flags)?;
        let translation = flow.translation();
        let port = self.transmit_usual(buf, usual, origin, flow.out, hash, |usual, frame| {
            usual.hop_and_translate(frame, &translation);
        })?;
        self.tally.add(self.counters, flow.service, usual.len.into());
        Some(port)
    }

    #[inline(always)]
    fn transmit_usual<B: PacketBuf>(
        &self,
        buf: &mut B,
        usual: &Usual,
        origin: Origin,
        out: Out,
        hash: u64,
        rewrite: impl FnOnce(&Usual, &mut [u8]),
    ) -> Option<PortIndex> {
        match out {
            Out::Remote(slot) => {
                let remote = self.view.remote(slot)?;
                let template = remote.template.as_ref().ok()?;
                let uplink = self.view.uplink()?;
                if origin != Origin::Pod || usual.len > remote.mtu {
                    return None;
                }
                // First what may fail.
                let traffic_class = outer_traffic_class(usual.traffic_class);
                template.encap(buf, entropy_port(hash), traffic_class).ok()?;
                rewrite(usual, &mut buf.data_mut()[template.overhead()..]);
                Some(uplink)
            }
            Out::Pod(index) => {
                let port = self.view.port(index)?;
                if usual.len > port.mtu {
                    return None;
                }
                let frame = buf.data_mut();
                rewrite(usual, frame);
                set_stations(frame, port.mac, self.local.gateway_mac);
                Some(index)
            }
            Out::Nowhere => None,
        }
    }
}
