//! What must come out, worked out slowly from the RFCs and without a line of the engine's own packet code.
//!
//! Addresses and checksums are written anew instead of being adjusted: RFC 791 (IPv4), 768 (UDP), 9293 (TCP),
//! 1071 (checksum), 7348 (VXLAN), 6864 (identification of packets that are never fragmented).

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::input::checksum::internet_checksum;
use crate::input::frame::{self, End, transport_checksum};
use crate::input::{From, ends};
use crate::work::Work;

/// First of the ports that tunnels may use as UDP source port (RFC 7348, section 5).
const DYNAMIC_PORTS: u16 = 49_152;

/// What is wrong with a packet that the engine sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Wrong {
    #[error("sent to {sent:?} instead of {expected:?}")]
    Port { sent: From, expected: From },
    #[error("{len} bytes instead of {expected}")]
    Length { len: usize, expected: usize },
    #[error("byte {at} is {byte:#04x} instead of {expected:#04x} ({field})")]
    Byte { at: usize, byte: u8, expected: u8, field: &'static str },
    #[error("{0:?} is no endpoint of the service")]
    Endpoint(End),
    #[error(
        "a packet of the flow from {0:?} went to another endpoint or over another path than the one before"
    )]
    Path(End),
    #[error("{0}: not a packet of this work")]
    Input(&'static str),
    #[error("all flows go to {0} of the service's {all} endpoints", all = frame::BACKENDS)]
    Spread(usize),
}

/// Holds what was sent against what should have been, packet by packet.
#[derive(Debug)]
pub(crate) struct Reference {
    work: Work,
    /// Endpoint and outer source port of each flow that was seen.
    paths: HashMap<(u8, End, End), (End, u16)>,
    checked: usize,
}

impl Reference {
    pub(crate) fn new(work: Work) -> Self {
        Self { work, paths: HashMap::new(), checked: 0 }
    }

    /// Packets that were right.
    pub(crate) fn checked(&self) -> usize {
        self.checked
    }

    /// Whether `sent`, which left through `out`, is what must become of `received`.
    pub(crate) fn check(&mut self, received: &[u8], out: From, sent: &[u8]) -> Result<(), Wrong> {
        let flow = ends(self.work, received).ok_or(Wrong::Input("not IPv4 with ports"))?;
        let (expected_out, expected) = match self.work {
            Work::W0 => (out, received.to_vec()),
            Work::W1 => (From::Underlay, self.tunnelled(routed(received, None, None), flow, flow.2, sent)?),
            Work::W3 | Work::W4 => {
                let (_, _, endpoint) =
                    ends(Work::W5, sent).ok_or(Wrong::Input("no tunnel packet was sent"))?;
                if !is_endpoint(endpoint, flow.2) {
                    return Err(Wrong::Endpoint(endpoint));
                }
                let packet = routed(received, None, Some(endpoint));
                (From::Underlay, self.tunnelled(packet, flow, endpoint, sent)?)
            }
            Work::W2 => (From::Pod(flow.2.0), delivered(&routed(&received[frame::OUTER..], None, None))),
            Work::W5 => {
                let nth = flow.1.1.wrapping_sub(frame::REMOTE_PORT);
                let service = (frame::VIP, frame::VIP_PORT.wrapping_add(nth));
                (From::Pod(flow.2.0), delivered(&routed(&received[frame::OUTER..], Some(service), None)))
            }
        };
        if out != expected_out {
            return Err(Wrong::Port { sent: out, expected: expected_out });
        }
        compare(sent, &expected)?;
        self.checked += 1;
        Ok(())
    }

    /// At the end: whether the service's flows were spread over all endpoints.
    pub(crate) fn finish(&self) -> Result<(), Wrong> {
        let endpoints: std::collections::HashSet<_> =
            self.paths.values().map(|(endpoint, _)| endpoint).collect();
        let balanced = matches!(self.work, Work::W3 | Work::W4);
        // With a hundred flows for each endpoint, none is without by chance.
        if balanced && self.paths.len() >= 1000 && endpoints.len() < usize::from(frame::BACKENDS) {
            return Err(Wrong::Spread(endpoints.len()));
        }
        Ok(())
    }

    /// The packet in the tunnel to the remote node. Which source port it has there is the engine's choice, as long as
    /// that is the same for all packets of a flow.
    fn tunnelled(
        &mut self,
        ip: Vec<u8>,
        flow: (u8, End, End),
        endpoint: End,
        sent: &[u8],
    ) -> Result<Vec<u8>, Wrong> {
        let port = sent.get(34..36).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
        let source_port = port.max(DYNAMIC_PORTS);
        let path = *self.paths.entry(flow).or_insert((endpoint, source_port));
        if path != (endpoint, source_port) {
            return Err(Wrong::Path(flow.1));
        }
        let udp_len = (8 + 8 + 14 + ip.len()) as u16;
        let mut outer_ip = vec![0x45, 0];
        outer_ip.extend((20 + udp_len).to_be_bytes());
        // Identification 0, don't fragment, 64 hops, UDP.
        outer_ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        outer_ip.extend(frame::LOCAL_VTEP.octets());
        outer_ip.extend(frame::REMOTE_VTEP.octets());
        let checksum = internet_checksum(&[&outer_ip]);
        put(&mut outer_ip, 10, checksum);
        let mut udp = Vec::new();
        udp.extend(source_port.to_be_bytes());
        udp.extend(frame::VXLAN_PORT.to_be_bytes());
        udp.extend(udp_len.to_be_bytes());
        udp.extend([0, 0]);
        let vxlan = [&[0x08, 0, 0, 0][..], &(frame::VNI << 8).to_be_bytes()].concat();
        let outer_eth = [&frame::REMOTE_MAC[..], &frame::LOCAL_MAC, &[8, 0]].concat();
        let inner_eth = [&frame::REMOTE_VTEP_MAC[..], &frame::LOCAL_VTEP_MAC, &[8, 0]].concat();
        Ok([outer_eth, outer_ip, udp, vxlan, inner_eth, ip].concat())
    }
}

/// The IP packet of an Ethernet frame after one hop, with its ends changed; without padding.
fn routed(received: &[u8], new_src: Option<End>, new_dst: Option<End>) -> Vec<u8> {
    let total = usize::from(u16::from_be_bytes([received[16], received[17]]));
    let mut ip = received[14..14 + total].to_vec();
    ip[8] -= 1;
    if let Some((address, port)) = new_src {
        ip[12..16].copy_from_slice(&address.octets());
        put(&mut ip, 20, port);
    }
    if let Some((address, port)) = new_dst {
        ip[16..20].copy_from_slice(&address.octets());
        put(&mut ip, 22, port);
    }
    put(&mut ip, 10, 0);
    let checksum = internet_checksum(&[&ip[..20]]);
    put(&mut ip, 10, checksum);
    let udp = ip[9] == 17;
    let at = if udp { 26 } else { 36 };
    // A UDP checksum of 0 means that there is none.
    if !udp || ip[at..at + 2] != [0, 0] {
        put(&mut ip, at, 0);
        let (src, dst) = (address(&ip, 12), address(&ip, 16));
        let checksum = transport_checksum(src, dst, ip[9], &ip[20..]);
        put(&mut ip, at, if udp && checksum == 0 { 0xffff } else { checksum });
    }
    ip
}

/// The frame that a pod gets.
fn delivered(ip: &[u8]) -> Vec<u8> {
    [&frame::POD_MAC[..], &frame::GATEWAY_MAC, &[8, 0], ip].concat()
}

/// Whether this is one of those behind a port of the service.
fn is_endpoint((address, port): End, (_, service_port): End) -> bool {
    let number = u32::from(address).wrapping_sub(u32::from(frame::REMOTE_POD));
    let nth = service_port.wrapping_sub(frame::VIP_PORT);
    number < u32::from(frame::BACKENDS) && port == frame::REMOTE_PORT.wrapping_add(nth)
}

fn compare(sent: &[u8], expected: &[u8]) -> Result<(), Wrong> {
    if sent.len() != expected.len() {
        return Err(Wrong::Length { len: sent.len(), expected: expected.len() });
    }
    match sent.iter().zip(expected).position(|(sent, expected)| sent != expected) {
        None => Ok(()),
        Some(at) => {
            let tunnelled = sent.len() > frame::OUTER && sent[..6] == frame::REMOTE_MAC;
            Err(Wrong::Byte { at, byte: sent[at], expected: expected[at], field: field(at, tunnelled) })
        }
    }
}

/// What lies at an offset of a frame.
fn field(at: usize, tunnelled: bool) -> &'static str {
    match at {
        _ if tunnelled && at >= frame::OUTER => field(at - frame::OUTER, false),
        42..50 if tunnelled => "VXLAN header",
        0..12 => "Ethernet addresses",
        12..14 => "EtherType",
        22 => "time to live",
        24..26 => "IPv4 checksum",
        26..34 => "IPv4 addresses",
        14..34 => "IPv4 header",
        34..38 => "ports",
        _ => "transport header or data",
    }
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::frame::{Flags, REMOTE_POD, REMOTE_PORT, Transport, VIP, VIP_PORT, client, from_pod};

    /// A packet to the service, and what an engine that does everything right makes of it: taken down by hand.
    fn good() -> (Vec<u8>, Vec<u8>) {
        let received = from_pod(Transport::Udp, client(7, frame::PORTS), (VIP, VIP_PORT), Flags::Ack);
        let hop = from_pod(Transport::Udp, client(7, frame::PORTS), (REMOTE_POD, REMOTE_PORT), Flags::Ack);
        let head = "020000006402020000006401080045000060000040004011f138c0a86401c0a86402\
                    c00012b5004c0000 0800000000000100 02000000f10202000000f1010800";
        let head: String = head.chars().filter(char::is_ascii_hexdigit).collect();
        let mut sent: Vec<u8> =
            (0..head.len()).step_by(2).map(|at| u8::from_str_radix(&head[at..at + 2], 16).unwrap()).collect();
        sent.extend(&hop[14..]);
        let at = frame::OUTER + 22;
        sent[at] = 63;
        // One hop less takes 0x0100 from the sum, so the checksum grows by as much.
        sent[at + 2] += 1;
        (received, sent)
    }

    #[test]
    fn what_is_right_passes() {
        let (received, sent) = good();
        Reference::new(Work::W3).check(&received, From::Underlay, &sent).unwrap();
    }

    #[test]
    fn a_single_wrong_bit_anywhere_is_found() {
        let (received, sent) = good();
        for bit in 0..sent.len() * 8 {
            let mut reference = Reference::new(Work::W3);
            reference.check(&received, From::Underlay, &sent).unwrap();
            let mut wrong = sent.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            reference.check(&received, From::Underlay, &wrong).unwrap_err();
        }
    }

    #[test]
    fn a_packet_that_leaves_elsewhere_or_cut_is_found() {
        let (received, sent) = good();
        let mut reference = Reference::new(Work::W3);
        let pod = From::Pod(client(7, frame::PORTS).0);
        assert!(matches!(reference.check(&received, pod, &sent), Err(Wrong::Port { .. })));
        let cut = &sent[..sent.len() - 1];
        assert!(matches!(reference.check(&received, From::Underlay, cut), Err(Wrong::Length { .. })));
        reference.check(&received, From::Underlay, &received).unwrap_err();
    }

    #[test]
    fn an_engine_with_one_favourite_endpoint_is_found() {
        let mut reference = Reference::new(Work::W4);
        let endpoint = (REMOTE_POD, REMOTE_PORT);
        reference.paths = (0..1000)
            .map(|n| ((17, client(n, frame::PORTS), (VIP, VIP_PORT)), (endpoint, DYNAMIC_PORTS)))
            .collect();
        assert_eq!(reference.finish(), Err(Wrong::Spread(1)));
    }
}
