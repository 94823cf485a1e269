//! Random happenings.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::packet::{Odd, OddTunnel, Recipe, Sender, Shape, Transport, chunks, left, recipe, shape};
use super::sequence::Shift;
use super::*;
use crate::model::Model;
use crate::model::flow::Key;
use crate::model::tables::{Port, Said, ServiceKey};
use crate::model::tunnel::wrap;
use crate::wire::make::{self, Ip, checked};
use crate::wire::{ACK, ETH, FIN, Frame, ICMP, ICMPV6, RST, SCTP, SYN, TCP};

/// What happens to the node.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Packets come, those that follow each other at one port as a burst.
    Packets(Vec<Shot>),
    /// The agent speaks.
    Said(Said, How),
    /// It says what it said before, but for one endpoint of a service.
    Shift { service: Index, backend: Index, shift: Shift, how: How },
    /// A pod comes, or its port changes.
    Attach(usize, Port),
    /// The port of this index goes.
    Detach(u16),
    /// The uplink comes back.
    Uplink,
    /// These neighbours are known now.
    Neighbours(Vec<(IpAddr, Mac)>),
    /// This is known now of the ways to tunnel endpoints.
    PathMtus(Vec<(IpAddr, u16)>),
    /// Seconds go by, and the ageing comes by all flows.
    Time(u64),
    /// A pod opens many flows to a service that there is, one after the other; those with these numbers.
    Flood { pod: usize, service: Index, flows: Range<u16> },
}

/// How the agent says it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Whole,
    /// By what is different, if that can be; with everything that is as before, if `all`.
    Changes {
        all: bool,
    },
}

/// A packet to be.
#[derive(Debug, Clone)]
pub(crate) enum Shot {
    Fresh(Recipe),
    /// One more of a flow that is tracked.
    Tracked {
        flow: Index,
        part: Part,
        flags: u8,
        chunks: Vec<u8>,
        len: usize,
        shape: Shape,
        /// As of a [`Recipe`].
        left: Option<u16>,
    },
    /// An error about a packet of a tracked flow, or of a reply, from one end of the flow or from elsewhere.
    Error {
        flow: Index,
        reply: bool,
        kind: u8,
        code: u8,
        quoted: usize,
        len: usize,
        from: Option<usize>,
        wrong: bool,
    },
    /// An error of a router of the underlay about a packet to another node.
    Underlay(Underlay),
    /// ARP.
    Arp {
        sender: Sender,
        operation: u8,
        from: Mac,
        src: IpAddr,
        target: IpAddr,
        to: Mac,
    },
    /// Neighbour discovery.
    Discovery(Discovery),
    Bytes(u16, Vec<u8>),
}

/// Who sends a packet of a flow to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Request,
    Reply,
    /// The client, to the endpoint itself and as if it were translated already.
    Itself,
}

#[derive(Debug, Clone)]
pub(crate) struct Underlay {
    node: usize,
    /// The one that the node has not.
    other_vtep: bool,
    kind: u8,
    code: u8,
    /// Second word of the message.
    mtu: u32,
    quoted: usize,
    odd: OddError,
}

/// What is odd about such an error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OddError {
    Nothing,
    /// It is about a packet to us.
    Swapped,
    /// It is about a packet to another port.
    Port,
    /// The packet came from an address that is not ours.
    Source,
    Checksum,
}

#[derive(Debug, Clone)]
pub(crate) struct Discovery {
    sender: Sender,
    advertisement: bool,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    flags: u8,
    hops: u8,
    option: Option<(u8, Mac)>,
    right: bool,
    to: Mac,
}

fn arp() -> impl Strategy<Value = Shot> {
    let sender = prop_oneof![(0_usize..3).prop_map(Sender::Pod), Just(Sender::Stranger)];
    let address = || {
        select(vec!["10.1.0.1", "10.1.0.5", "10.1.0.6", "192.168.0.1", "192.168.0.2", "0.0.0.0"]).prop_map(ip)
    };
    let mac = || select(vec![pod_mac(0), pod_mac(1), UPLINK_MAC, [2, 0, 0, 0, 2, 0], [0xff; 6], [0; 6]]);
    (sender, select(vec![1_u8, 1, 2, 3]), mac(), address(), address(), mac(), any::<bool>()).prop_map(
        |(sender, operation, from, src, target, to, own)| {
            let from = if let (Sender::Pod(n), true) = (sender, own) { pod_mac(n) } else { from };
            Shot::Arp { sender, operation, from, src, target, to }
        },
    )
}

fn discovery() -> impl Strategy<Value = Shot> {
    let six = |text: &str| text.parse::<Ipv6Addr>().expect("an address of this file");
    let address =
        select(vec!["fd00:1::1", "fd00:1::5", "2001:db8::1", "2001:db8::3", "fe80::5", "::", "ff02::1"])
            .prop_map(six);
    let dst = select(vec!["ff02::1:ff00:1", "fd00:1::1", "2001:db8::1", "ff02::1"]).prop_map(six);
    let target =
        select(vec!["fd00:1::1", "2001:db8::1", "2001:db8::1", "2001:db8::3", "fd00:1::5", "ff02::1"])
            .prop_map(six);
    let sender = prop_oneof![Just(Sender::Pod(0)), Just(Sender::Pod(3)), Just(Sender::Stranger)];
    let option = prop::option::of((
        select(vec![1_u8, 2]),
        select(vec![pod_mac(0), UPLINK_MAC, [2, 0, 0, 0, 2, 2], [0xff; 6]]),
    ));
    let to = select(vec![[0x33, 0x33, 0xff, 0, 0, 1], GATEWAY_MAC, UPLINK_MAC, [2, 9, 9, 9, 9, 9]]);
    let odds =
        (select(vec![255_u8, 255, 255, 64]), prop::bool::weighted(0.9), select(vec![0_u8, 0x20, 0x40, 0x60]));
    (sender, any::<bool>(), address, dst, target, option, to, odds).prop_map(
        |(sender, advertisement, src, dst, target, option, to, (hops, right, flags))| {
            Shot::Discovery(Discovery {
                sender,
                advertisement,
                src,
                dst,
                target,
                flags,
                hops,
                option,
                right,
                to,
            })
        },
    )
}

fn underlay() -> impl Strategy<Value = Shot> {
    use OddError as O;
    let kind = select(vec![1_u8, 2, 2, 3, 3, 4, 5, 11, 12]);
    let code = select(vec![0_u8, 1, 4, 4]);
    let mtu = select(vec![0_u32, 1280, 1400, 9000, 0x1_0000, u32::MAX]);
    let quoted = select(vec![20_usize, 24, 28, 40, 44, 60, 200]);
    let odd =
        prop_oneof![6 => Just(O::Nothing), 1 => select(vec![O::Swapped, O::Port, O::Source, O::Checksum])];
    (0..NODES.len(), prop::bool::weighted(0.1), kind, code, mtu, quoted, odd).prop_map(
        |(node, other_vtep, kind, code, mtu, quoted, odd)| {
            Shot::Underlay(Underlay { node, other_vtep, kind, code, mtu, quoted, odd })
        },
    )
}

fn error() -> impl Strategy<Value = Shot> {
    let kind = select(vec![1_u8, 2, 3, 3, 3, 4, 5, 11, 12]);
    let quoted = select(vec![20_usize, 28, 44, 48, 60, 200, 1200]);
    let from = prop_oneof![3 => Just(None), 1 => (0_usize..10).prop_map(Some)];
    (any::<(Index, bool)>(), kind, 0_u8..5, quoted, 0_usize..80, from, prop::bool::weighted(0.1)).prop_map(
        |((flow, reply), kind, code, quoted, len, from, wrong)| Shot::Error {
            flow,
            reply,
            kind,
            code,
            quoted,
            len,
            from,
            wrong,
        },
    )
}

pub(crate) fn tracked() -> impl Strategy<Value = Shot> {
    let flags = select(vec![SYN, SYN | ACK, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, 0]);
    let len = prop_oneof![12 => 0_usize..40, 1 => select(vec![1300_usize, 1440, 1500, 4000])];
    let part = prop_oneof![4 => Just(Part::Request), 4 => Just(Part::Reply), 1 => Just(Part::Itself)];
    ((any::<Index>(), part), flags, chunks(), len, shape(), left()).prop_map(
        |((flow, part), flags, chunks, len, shape, left)| Shot::Tracked {
            flow,
            part,
            flags,
            chunks,
            len,
            shape,
            left,
        },
    )
}

fn shot() -> impl Strategy<Value = Shot> {
    prop_oneof![
        10 => recipe().prop_map(Shot::Fresh),
        10 => tracked(),
        3 => error(),
        1 => underlay(),
        1 => arp(),
        1 => discovery(),
        1 => (0_u16..8, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(port, bytes)| Shot::Bytes(port, bytes)),
    ]
}

pub(crate) fn how() -> impl Strategy<Value = How> {
    let changes = prop::option::weighted(0.6, any::<bool>());
    changes.prop_map(|changes| changes.map_or(How::Whole, |all| How::Changes { all }))
}

pub(crate) fn packets() -> impl Strategy<Value = Event> {
    prop::collection::vec(shot(), 1..30).prop_map(Event::Packets)
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        14 => packets(),
        3 => (tables::said(false), how()).prop_map(|(said, how)| Event::Said(said, how)),
        1 => (0_usize..6).prop_flat_map(|n| (Just(n), tables::pod(n))).prop_map(|(n, port)| Event::Attach(n, port)),
        1 => (0_u16..7).prop_map(Event::Detach),
        1 => Just(Event::Uplink),
        1 => tables::neighbours().prop_map(Event::Neighbours),
        1 => tables::path_mtus().prop_map(Event::PathMtus),
        2 => select(vec![1_u64, 3, 12, 31, 62, 125, 4_000, 90_000]).prop_map(Event::Time),
        2 => (0_usize..6, any::<Index>(), select(vec![0..10_u16, 0..300]))
            .prop_map(|(pod, service, flows)| Event::Flood { pod, service, flows }),
    ]
}

impl Shot {
    /// The port where it comes in, and the frame; `None` if there is no such flow.
    pub(crate) fn frame(&self, model: &Model) -> Option<(u16, Frame)> {
        match self {
            Self::Fresh(recipe) => Some(recipe.frame(&model.tables)),
            Self::Bytes(port, bytes) => Some((*port, bytes.clone().into())),
            Self::Arp { sender, operation, from, src, target, to } => {
                let (IpAddr::V4(src), IpAddr::V4(target)) = (src, target) else { return None };
                let arp = make::arp(*operation, (*from, src.octets()), ([0; 6], target.octets()));
                let frame = [&to[..], from, &[8, 6], &arp].concat();
                Some((port(*sender), frame.into()))
            }
            Self::Discovery(message) => Some(message.frame()),
            Self::Underlay(error) => error.frame(model),
            Self::Error { flow, reply, kind, code, quoted, len, from, wrong } => {
                let (original, translated) = one_of(model, *flow)?;
                // The packet as its receiver got it, and who reports it to its sender.
                let key = if *reply { original.reversed() } else { translated };
                let about =
                    of_flow(model, &key, transport(&key, ACK, &[0]), *len, (Shape::Plain, None)).1.bytes;
                let at = about.windows(2).position(|pair| pair == [8, 0] || pair == [0x86, 0xdd])? + 2;
                let inner = crate::wire::dissect::dissect(&about).ok();
                let inner = inner.as_ref().and_then(|packet| crate::wire::show::inner(&about, packet));
                let mut packet = inner.map_or_else(|| about[at..].to_vec(), |inner| inner[ETH..].to_vec());
                if *wrong {
                    let last = packet.len() - 1;
                    packet[last] ^= 1;
                }
                let list = PEERS[usize::from(key.src.0.is_ipv6())];
                let reporter = from.map_or(key.dst.0, |n| ip(list[n % list.len()]));
                let back = Key { src: (reporter, 0), dst: key.src, ..key };
                let error = Transport::Error { kind: *kind, code: *code, about: packet, quoted: *quoted };
                Some(of_flow(model, &back, error, 0, (Shape::Plain, None)))
            }
            Self::Tracked { flow, part, flags, chunks, len, shape, left } => {
                let (original, translated) = one_of(model, *flow)?;
                let key = match part {
                    Part::Request => original,
                    Part::Reply => translated.reversed(),
                    Part::Itself => translated,
                };
                Some(of_flow(model, &key, transport(&key, *flags, chunks), *len, (*shape, *left)))
            }
        }
    }
}

/// A flow that is tracked, or that went lately without being tracked, and what it becomes.
fn one_of(model: &Model, which: Index) -> Option<(Key, Key)> {
    let tracked = model.flows.iter().map(|flow| (flow.original, flow.translated));
    let lately = &model.overflow.lately;
    let few = model.flows.len().min(lately.len());
    // With a full table as many of the one kind as of the other.
    let all: Vec<_> = match few {
        0 => tracked.chain(lately.iter().copied()).collect(),
        _ => tracked.take(few).chain(lately.iter().copied().take(few)).collect(),
    };
    (!all.is_empty()).then(|| all[which.index(all.len())])
}

impl Underlay {
    fn frame(&self, model: &Model) -> Option<(u16, Frame)> {
        let mut tunnels = model.tables.node.as_ref()?.tunnels;
        let (name, vteps, _) = NODES[self.node];
        let known = model.tables.remotes.get(name).map(|remote| remote.vtep);
        let vtep = known.filter(|_| !self.other_vtep).unwrap_or_else(|| ip(vteps[1]));
        let version = usize::from(vtep.is_ipv6());
        let (own, router) = (ip(VTEPS[version]), ip(ROUTERS[version]));
        let mut ends = (own, vtep);
        match self.odd {
            OddError::Swapped => ends = (vtep, own),
            OddError::Source => ends.0 = router,
            OddError::Port => tunnels.port += 1,
            OddError::Nothing | OddError::Checksum => {}
        }
        let about = wrap(tunnels, ends, 50_000, (0, 64), 1, &[0; 60]);
        let quote = &about[..self.quoted.min(about.len())];
        let protocol = [ICMP, ICMPV6][version];
        let message = make::icmp(self.kind, self.code, self.mtu.to_be_bytes(), quote);
        let mut message = checked(router, own, protocol, message);
        if let OddError::Checksum = self.odd {
            message[2] ^= 1;
        }
        let packet = make::ip(router, own, Ip { protocol, hops: 64, class: 0 }, &message);
        Some((UPLINK, make::frame(UPLINK_MAC, [2, 0, 0, 0, 9, 9], &packet).into()))
    }
}

fn port(sender: Sender) -> u16 {
    if let Sender::Pod(n) = sender { n as u16 + 1 } else { UPLINK }
}

/// What the packets with this key are.
fn transport(key: &Key, flags: u8, chunks: &[u8]) -> Transport {
    let ports = (key.src.1, key.dst.1);
    match key.protocol {
        TCP => Transport::Tcp { ports, flags },
        SCTP => Transport::Sctp { ports, chunks: chunks.to_vec() },
        ICMP | ICMPV6 => Transport::Echo { request: flags & ACK == 0, identifier: key.src.1, sequence: 0 },
        _ => Transport::Udp { ports, with_checksum: true },
    }
}

/// A packet with this key from where its source is.
fn of_flow(
    model: &Model,
    key: &Key,
    transport: Transport,
    len: usize,
    (shape, left): (Shape, Option<u16>),
) -> (u16, Frame) {
    let owner = |(_, port): &(&u16, &Port)| port.tenant == key.tenant && port.addresses.contains(&key.src.0);
    let sender = match model.tables.ports.iter().find(owner) {
        Some((index, _)) if *index > 0 => Sender::Pod(usize::from(*index) - 1),
        _ => Sender::Node(match model.way(key.tenant, key.src.0) {
            crate::model::route::Way::Remote(name) => {
                NODES.iter().position(|node| node.0 == name).unwrap_or(0)
            }
            _ => 0,
        }),
    };
    let recipe = Recipe {
        sender,
        src: Some(key.src.0),
        dst: key.dst.0,
        transport,
        len,
        hops: 64,
        class: 0,
        shape,
        left,
        odd: Odd::Nothing,
        outer_class: 0,
        tenant: key.tenant == TENANT,
        odd_tunnel: OddTunnel::Nothing,
    };
    recipe.frame(&model.tables)
}

impl Discovery {
    fn frame(&self) -> (u16, Frame) {
        let mut body = self.target.octets().to_vec();
        if let Some((kind, mac)) = self.option {
            body.extend([kind, 1]);
            body.extend(mac);
        }
        let kind = if self.advertisement { 136 } else { 135 };
        let (src, dst) = (self.src.into(), self.dst.into());
        let mut message = checked(src, dst, ICMPV6, make::icmp(kind, 0, [self.flags, 0, 0, 0], &body));
        message[3] ^= u8::from(!self.right);
        let packet = make::ip(src, dst, Ip { protocol: ICMPV6, hops: self.hops, class: 0 }, &message);
        let from = if let Sender::Pod(n) = self.sender { pod_mac(n) } else { [2, 0, 0, 0, 2, 2] };
        (port(self.sender), make::frame(self.to, from, &packet).into())
    }
}

/// The packets of a flood, from one of the pods that can reach the service.
pub(crate) fn flood(model: &Model, pod: usize, service: Index, flows: Range<u16>) -> Vec<(u16, Frame)> {
    let services = &model.tables.services;
    if services.is_empty() {
        return Vec::new();
    }
    let service = service.index(services.len());
    let ServiceKey { tenant, vip, .. } = services[service].key;
    let reaches = |(addresses, of): &(&[&str], u32)| {
        *of == tenant && addresses.iter().any(|own| ip(own).is_ipv4() == vip.is_ipv4())
    };
    let pods: Vec<_> = (0..PODS.len()).filter(|pod| reaches(&PODS[*pod])).collect();
    flood_of(model, pods[pod % pods.len()], service, flows)
}

/// First packets of the flows with these numbers from a pod to the service at this place.
pub(crate) fn flood_of(model: &Model, pod: usize, service: usize, flows: Range<u16>) -> Vec<(u16, Frame)> {
    let service = model.tables.services[service].key;
    let transport = |n: u16| {
        // Most of them above 32768.
        let ports = (32_700 + n, service.port);
        match service.protocol {
            TCP => Transport::Tcp { ports, flags: SYN },
            SCTP => Transport::Sctp { ports, chunks: vec![1] },
            ICMP | ICMPV6 => Transport::Echo { request: true, identifier: ports.0, sequence: 0 },
            _ => Transport::Udp { ports, with_checksum: true },
        }
    };
    let recipe = |n| Recipe {
        sender: Sender::Pod(pod),
        src: None,
        dst: service.vip,
        transport: transport(n),
        len: 0,
        hops: 64,
        class: 0,
        shape: Shape::Plain,
        left: None,
        odd: Odd::Nothing,
        outer_class: 0,
        tenant: false,
        odd_tunnel: OddTunnel::Nothing,
    };
    flows.map(|n| recipe(n).frame(&model.tables)).collect()
}
