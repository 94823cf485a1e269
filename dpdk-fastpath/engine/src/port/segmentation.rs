//! Whether the uplink's device cuts super-packets in tunnels itself (tunnel TSO).
//!
//! It is asked to if its driver says that it can do all that this takes; whatever it cannot, or must not be asked, the fast
//! path does. Not asked is for chains of mbufs: each packet is one, and so within any limit on segments that a driver has.

use std::fmt;

use culvert_api::config::fastpath::TunnelSegmentation;
use culvert_dpdk::{Mbuf, Mempool, PortInfo, TxOffloads, TxQueue};
use culvert_packet::PacketBuf as _;
use culvert_packet::offload::request::Request;

/// What it takes to cut TCP in a tunnel over IPv4, besides the tunnel.
const CUTTING: TxOffloads = TxOffloads::TCP_TSO
    .and(TxOffloads::TCP_CKSUM)
    .and(TxOffloads::IPV4_CKSUM)
    .and(TxOffloads::OUTER_IPV4_CKSUM);

const TUNNELS: [TxOffloads; 2] = [TxOffloads::VXLAN_TNL_TSO, TxOffloads::GENEVE_TNL_TSO];

/// What else is made use of: UDP, and tunnels with UDP checksums.
const MORE: TxOffloads = TxOffloads::UDP_CKSUM.and(TxOffloads::UDP_TSO).and(TxOffloads::OUTER_UDP_CKSUM);

/// Drivers whose outer UDP checksums are not to be had, whatever they say: most of the chips leave the field as it is
/// (X710 datasheet, section 8.4.4.2), or take the queue for malicious (openvswitch/ovs-issues, number 321).
const NO_OUTER_UDP: [&str; 3] = ["net_i40e", "net_iavf", "net_ice"];

/// Drivers that cut UDP into datagrams. DPDK has one word for that and for IP fragments (rte_mbuf_core.h calls
/// `RTE_MBUF_F_TX_UDP_SEG` the latter), and the receiver of one long datagram would not know it for many.
const DATAGRAMS: [&str; 1] = ["net_ice"];

/// What a device has been asked to do about packets in tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segmentation {
    /// Nothing, if packets are cut by the fast path.
    pub asked: TxOffloads,
    /// Why not more; empty: there is no more.
    pub reason: String,
}

impl Segmentation {
    /// What to ask a device for.
    pub fn new(wish: TunnelSegmentation, device: &PortInfo) -> Self {
        let driver = device.driver.as_str();
        if wish == TunnelSegmentation::Off {
            return Self::none("tunnelSegmentation is off");
        }
        let mut can = device.tx_offloads;
        if NO_OUTER_UDP.contains(&driver) {
            can = can.without(TxOffloads::OUTER_UDP_CKSUM);
        }
        if !DATAGRAMS.contains(&driver) {
            can = can.without(TxOffloads::UDP_TSO);
        }
        let of_tunnels = TUNNELS.into_iter().filter(|tunnel| can.contains(CUTTING.and(*tunnel)));
        let tunnels = of_tunnels.fold(TxOffloads::NONE, TxOffloads::and);
        if tunnels == TxOffloads::NONE {
            let missing = TUNNELS.map(|tunnel| CUTTING.and(tunnel).without(can));
            return Self::none(format_args!(
                "{driver} lacks {} (for VXLAN), {} (for Geneve)",
                missing[0], missing[1]
            ));
        }
        let asked = CUTTING.and(tunnels).and(MORE.without(MORE.without(can)));
        let lacks = TUNNELS.into_iter().fold(CUTTING.and(MORE), TxOffloads::and).without(asked);
        let reason = match lacks {
            TxOffloads::NONE => String::new(),
            _ => format!("{driver} lacks {lacks}"),
        };
        Self { asked, reason }
    }

    /// Nothing is asked, for this reason.
    pub fn none(reason: impl fmt::Display) -> Self {
        Self { asked: TxOffloads::NONE, reason: reason.to_string() }
    }

    /// Says so in the log.
    pub fn log(&self, port: &str) {
        let Self { asked, reason } = self;
        match *asked {
            TxOffloads::NONE => tracing::info!(port, reason, "packets in tunnels are cut by the fast path"),
            _ => tracing::info!(port, %asked, reason, "packets in tunnels are cut by the device"),
        }
    }
}

/// What became of a packet that something was still to be done about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The device will do it.
    Left,
    /// The device has not been asked, and the fast path is to do it.
    No,
    /// The driver has refused, and the fast path is to do it.
    Refused,
}

/// How a worker asks a device.
#[derive(Debug, Clone)]
pub struct Asking {
    asked: TxOffloads,
    /// Where super-packets live.
    pool: Mempool,
    /// How many workers ask.
    workers: u32,
    /// So many super-packets the device may have before it is looked again how many there are.
    credit: u32,
}

impl Asking {
    /// As one of so many workers, of a device that has been configured for so much. `pool` is that of super-packets: a device
    /// keeps those it has sent until it needs their places, so that it may have most of them but not all, or nothing could
    /// be received any more.
    pub fn new(asked: TxOffloads, pool: &Mempool, workers: u16) -> Self {
        Self { asked, pool: pool.clone(), workers: workers.max(1).into(), credit: 0 }
    }

    /// Leaves what is to be done about a packet in a tunnel to the device, if it can do it.
    pub fn leave(&mut self, queue: &mut TxQueue, packet: &mut Mbuf) -> Asked {
        if self.asked == TxOffloads::NONE {
            return Asked::No;
        }
        let Some(request) = Request::of(packet.data(), packet.offload(), true) else { return Asked::No };
        let may = self.asked.contains(TxOffloads::needed(&request));
        if !may || request.segment.is_some() && !self.has_credit() {
            return Asked::No;
        }
        if queue.leave(packet, &request) { Asked::Left } else { Asked::Refused }
    }

    /// Whether the device may have one more super-packet.
    fn has_credit(&mut self) -> bool {
        if self.credit == 0 {
            let spare = self.pool.available().saturating_sub(self.pool.size() / 4);
            self.credit = spare / self.workers;
        }
        let has = self.credit > 0;
        self.credit = self.credit.saturating_sub(1);
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(driver: &str, tx_offloads: TxOffloads) -> PortInfo {
        PortInfo {
            driver: driver.to_owned(),
            max_rx_queues: 1,
            max_tx_queues: 1,
            mtu: (68, 1500),
            if_index: None,
            rx_offloads: 0,
            tx_offloads,
            rss: 0,
        }
    }

    fn asked(driver: &str, can: TxOffloads) -> (TxOffloads, String) {
        let Segmentation { asked, reason } =
            Segmentation::new(TunnelSegmentation::Auto, &device(driver, can));
        (asked, reason)
    }

    #[test]
    fn a_device_is_asked_for_a_complete_set_or_for_nothing() {
        let vxlan = CUTTING.and(TxOffloads::VXLAN_TNL_TSO);
        let all = vxlan.and(TxOffloads::GENEVE_TNL_TSO).and(MORE);
        assert_eq!(
            asked("net_x", vxlan),
            (vxlan, "net_x lacks UDP_CKSUM, UDP_TSO, OUTER_UDP_CKSUM, GENEVE_TNL_TSO".to_owned())
        );
        for missing in [TxOffloads::TCP_TSO, TxOffloads::IPV4_CKSUM, TxOffloads::OUTER_IPV4_CKSUM] {
            let (asked, reason) = asked("net_x", all.without(missing));
            assert_eq!(asked, TxOffloads::NONE);
            assert_eq!(reason, format!("net_x lacks {missing} (for VXLAN), {missing} (for Geneve)"));
        }
        let igb = TxOffloads::IPV4_CKSUM.and(TxOffloads::TCP_CKSUM).and(TxOffloads::TCP_TSO);
        assert_eq!(asked("net_e1000_igb", igb).0, TxOffloads::NONE);
        assert_eq!(asked("net_x", TxOffloads::NONE).0, TxOffloads::NONE);
        // What nobody here knows what to do with is not asked for.
        let unknown = TxOffloads::from_bits(u64::MAX);
        assert_eq!(asked("net_x", unknown), asked("net_x", all));
    }

    #[test]
    fn what_a_driver_says_of_udp_is_not_believed_of_all() {
        let all = TUNNELS.into_iter().fold(CUTTING.and(MORE), TxOffloads::and);
        let without = |offload: TxOffloads| all.without(offload);
        assert_eq!(asked("net_x", all), (without(TxOffloads::UDP_TSO), "net_x lacks UDP_TSO".to_owned()));
        let ice = asked("net_ice", all);
        assert_eq!(ice, (without(TxOffloads::OUTER_UDP_CKSUM), "net_ice lacks OUTER_UDP_CKSUM".to_owned()));
        assert_eq!(asked("net_i40e", all).0, without(TxOffloads::UDP_TSO.and(TxOffloads::OUTER_UDP_CKSUM)));
    }

    #[test]
    fn what_is_switched_off_is_not_asked_for() {
        let all = TUNNELS.into_iter().fold(CUTTING.and(MORE), TxOffloads::and);
        let off = Segmentation::new(TunnelSegmentation::Off, &device("net_x", all));
        assert_eq!(off, Segmentation::none("tunnelSegmentation is off"));
    }
}
