//! To a pod, or through a tunnel.
//!
//! In: a packet and where it goes. Out: a frame for that port, one hop less to live, or an ICMP error when there are no
//! hops left or the packet is too long. Nothing of the packet changes before it is sure to go, so that the error quotes
//! what its sender sent.

use culvert_packet::answer::IcmpError;
use culvert_packet::encap::EncapError;
use culvert_packet::flow::entropy_port;
use culvert_packet::rewrite::decrement_ttl;
use culvert_packet::{PacketBuf, Parsed};

use super::fragment;
use super::frame::set_stations;
use super::stage::{Origin, Packet, Stage, Step};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::flow::Out;
use crate::table::{PortIndex, Unreachable};

/// What a tunnel's outer header may take from the packet inside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner {
    /// DSCP and ECN.
    pub(super) traffic_class: u8,
    /// Time to live or hop limit, as the packet goes into the tunnel.
    pub(super) ttl: u8,
}

impl Stage<'_> {
    /// Sends a packet, rewritten by `rewrite`, if it may go there.
    #[inline(always)]
    pub(super) fn send<B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        out: Out,
        rewrite: impl FnOnce(&mut [u8], &Parsed),
    ) -> Verdict {
        match self.clear(packet, out) {
            Step::Continue(packet) => self.transmit(packet, out, rewrite),
            Step::Break(verdict) => verdict,
        }
    }

    /// Whether a packet may go there: it can be reached, the packet has a hop left and fits.
    #[inline(always)]
    pub(super) fn clear<'b, B: PacketBuf>(&mut self, packet: Packet<'b, B>, out: Out) -> Step<Packet<'b, B>> {
        let mtu = match out {
            Out::Pod(index) => match self.view.port(index) {
                Some(port) => port.mtu,
                None => return self.stop(DropReason::NO_SUCH_PORT),
            },
            Out::Remote(slot) => {
                if packet.origin != Origin::Pod {
                    return self.stop(DropReason::TUNNEL_NOT_LOCAL);
                }
                match self.view.remote(slot) {
                    Some(remote) => remote.mtu,
                    None => return self.stop(DropReason::NO_ROUTE),
                }
            }
            Out::Nowhere => {
                return Step::Break(self.report(packet, DropReason::NO_ROUTE, IcmpError::NetUnreachable));
            }
        };
        if packet.parsed.ttl <= 1 {
            return Step::Break(self.report(packet, DropReason::TTL_EXCEEDED, IcmpError::TimeExceeded));
        }
        // Said of IPv4 packets that may be fragmented, too: we fragment nothing.
        let wire_len = packet.buf.offload().wire_len(packet.buf.data(), packet.parsed);
        if wire_len > u32::from(mtu) {
            return Step::Break(self.report(packet, DropReason::TOO_BIG, IcmpError::PacketTooBig { mtu }));
        }
        Step::Continue(packet)
    }

    /// Rewrites and sends a packet that is [`clear`](Self::clear) to go.
    #[inline(always)]
    pub(super) fn transmit<B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        out: Out,
        rewrite: impl FnOnce(&mut [u8], &Parsed),
    ) -> Verdict {
        let Packet { buf, parsed, mut hash, .. } = packet;
        let frame = buf.data_mut();
        // In one place only, so that it becomes part of this code.
        rewrite(frame, parsed);
        decrement_ttl(frame, parsed);
        if parsed.is_fragment() {
            hash = fragment::hash(frame, parsed);
        }
        match out {
            Out::Pod(index) => {
                let Some(port) = self.view.port(index) else { return self.drop(DropReason::NO_SUCH_PORT) };
                set_stations(frame, port.mac, self.local.gateway_mac);
                Verdict::Send(index)
            }
            Out::Remote(slot) => {
                let header = Inner { traffic_class: parsed.traffic_class, ttl: parsed.ttl - 1 };
                match self.encap(buf, slot, hash, header) {
                    Ok(uplink) => Verdict::Send(uplink),
                    Err(reason) => self.drop(reason),
                }
            }
            Out::Nowhere => self.drop(DropReason::NO_ROUTE),
        }
    }

    /// Puts a frame into the tunnel to a remote node; returns the uplink.
    #[inline(always)]
    pub(super) fn encap<B: PacketBuf>(
        &self,
        buf: &mut B,
        slot: u32,
        hash: u64,
        inner: Inner,
    ) -> Result<PortIndex, DropReason> {
        let remote = self.view.remote(slot).ok_or(DropReason::NO_ROUTE)?;
        let template = remote.template.as_ref().map_err(|why| match why {
            Unreachable::Unresolved => DropReason::NEXT_HOP_UNRESOLVED,
            Unreachable::NoWay => DropReason::NO_UPLINK,
        })?;
        let uplink = self.view.uplink().ok_or(DropReason::NO_UPLINK)?;
        let Inner { traffic_class, ttl } = inner;
        template.encap(buf, entropy_port(hash), traffic_class, ttl).map_err(|error| match error {
            EncapError::Headroom => DropReason::NO_HEADROOM,
            EncapError::Length => DropReason::TOO_BIG,
        })?;
        Ok(uplink)
    }
}
