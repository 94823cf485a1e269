//! Tenants that have the same addresses as the cluster's own pods, and as each other.

use culvert_packet::arp::Arp;
use culvert_packet::encap::decap;
use culvert_packet::eth::EthHeader;
use proptest::prelude::*;

use super::*;
use crate::counter::DropReason as R;

/// On this node and on node B.
const RED: u32 = 7;
/// On this node and on nodes B and C.
const BLUE: u32 = 9;

const RED_A: PortIndex = PortIndex(3);
const BLUE_A: PortIndex = PortIndex(4);
const BLUE_B: PortIndex = PortIndex(5);
/// In the cluster's own domain this is on another node.
const RED_FAR: PortIndex = PortIndex(6);

/// MAC address of a pod of these tests.
const fn mac_of(port: PortIndex) -> EthAddr {
    EthAddr([2, 0, 0, 0, 1, port.0 as u8])
}

const fn vni_of(tenant: u32) -> u32 {
    if tenant == 0 { VNI } else { 1000 + tenant }
}

/// The tenants that other nodes have: the same ranges as their own pods.
pub(super) fn on_nodes(last: u8) -> Vec<proto::TenantRanges> {
    let ranges = |tenant| proto::TenantRanges {
        tenant,
        pod_cidrs: vec![prefix(&format!("10.{last}.0.0"), 24), prefix(&format!("fd00:{last}::"), 64)],
    };
    if last == 2 { vec![ranges(RED), ranges(BLUE)] } else { vec![ranges(BLUE)] }
}

fn tenant(id: u32, gateways: [&str; 2]) -> proto::Tenant {
    proto::Tenant {
        id,
        vni: vni_of(id),
        gateways: gateways.map(|gateway| octets(ip(gateway))).to_vec(),
        pod_cidrs: vec![prefix("10.1.0.0", 24), prefix("fd00:1::", 64)],
        name: format!("tenant-{id}"),
    }
}

/// The node of all tests, with pods of two tenants that have the addresses of its own.
fn node() -> Node {
    with_tenants(Node::new())
}

fn with_tenants(mut node: Node) -> Node {
    node.configure(|local| {
        local.tenants =
            vec![tenant(BLUE, ["10.1.0.254", "fd00:1::fe"]), tenant(RED, ["10.1.0.1", "fd00:1::1"])];
    });
    let [v4, v6] = both();
    for (index, tenant, addresses) in [
        (RED_A, RED, [v4.a, v6.a]),
        (BLUE_A, BLUE, [v4.a, v6.a]),
        (BLUE_B, BLUE, [v4.b, v6.b]),
        (RED_FAR, RED, [v4.on_c, v6.on_c]),
    ] {
        let mut port = pod(&format!("t{}", index.0), mac_of(index), addresses);
        port.tenant = Tenant::new(tenant).unwrap();
        node.builder.attach(index, port).unwrap();
    }
    node.publish();
    node
}

/// What a pod of these tests sends to its router.
fn from(port: PortIndex, frame: Vec<u8>) -> Vec<u8> {
    testkit::with_macs(frame, GATEWAY_MAC, mac_of(port))
}

/// What node B sends through the tunnel of a tenant.
fn through(tenant: u32, inner: Vec<u8>) -> Vec<u8> {
    let inner = testkit::with_macs(inner, VTEP_MAC, NODE_B_VTEP_MAC);
    let src = "192.168.0.2:50000".parse().unwrap();
    testkit::with_macs(testkit::vxlan(src, ip("192.168.0.1"), vni_of(tenant), &inner), UPLINK_MAC, NODE_B_MAC)
}

/// The network identifier and the inner frame of a packet that was sent to the uplink.
#[track_caller]
fn tunnelled_in(outcome: &Outcome) -> (u32, Vec<u8>) {
    assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
    let outer = read(&outcome.frame);
    let tunnel = decap(&outcome.frame, &outer.parsed).unwrap();
    (tunnel.vni, outcome.frame[tunnel.inner_offset..][..tunnel.inner_len].to_vec())
}

#[test]
fn the_same_packet_of_each_tenant_leaves_in_its_own_network() {
    let mut node = node();
    for nothing_is_usual in [false, true] {
        node.pipeline.nothing_is_usual = nothing_is_usual;
        for ips in both() {
            let packet = || testkit::udp(at(ips.a, 1000), at(ips.on_b, 2000), b"same");
            for (port, frame, tenant) in [
                (POD_A, from_a(packet()), 0),
                (RED_A, from(RED_A, packet()), RED),
                (BLUE_A, from(BLUE_A, packet()), BLUE),
            ] {
                let (vni, inner) = tunnelled_in(&node.run(port, &frame));
                assert_eq!(vni, vni_of(tenant));
                assert_eq!((read(&inner).src, read(&inner).dst), (at(ips.a, 1000), at(ips.on_b, 2000)));
            }
        }
    }
}

#[test]
fn the_same_packet_of_each_network_reaches_its_tenants_pod() {
    let mut node = node();
    for ips in both() {
        for (tenant, port, mac) in
            [(0, POD_A, POD_A_MAC), (RED, RED_A, mac_of(RED_A)), (BLUE, BLUE_A, mac_of(BLUE_A))]
        {
            let outcome =
                node.run(UPLINK, &through(tenant, testkit::udp(at(ips.on_b, 1), at(ips.a, 2), b"same")));
            assert_eq!(outcome.verdict, Verdict::Send(port));
            assert_eq!(read(&outcome.frame).macs, (mac, GATEWAY_MAC));
        }
    }
}

#[test]
fn a_tenants_pods_see_each_other_and_nobody_else() {
    let mut node = node();
    for ips in both() {
        let to = |dst| testkit::udp(at(ips.a, 1), at(dst, 2), b"x");
        // Red has no such pod, though the cluster and blue have.
        let told = node.run(RED_A, &from(RED_A, to(ips.b)));
        assert_eq!(told.verdict, Verdict::Send(RED_A));
        assert_eq!(icmp(&told.frame), kind(&ips, (3, 1), (1, 3)));
        assert_eq!(node.run(BLUE_A, &from(BLUE_A, to(ips.b))).verdict, Verdict::Send(BLUE_B));
        assert_eq!(node.run(POD_A, &from_a(to(ips.b))).verdict, Verdict::Send(POD_B));
        // Node C has no pods of red; one of red's is here, with an address of that node.
        assert_eq!(node.run(RED_A, &from(RED_A, to(ips.on_c))).verdict, Verdict::Send(RED_FAR));
        assert_eq!(tunnelled_in(&node.run(BLUE_A, &from(BLUE_A, to(ips.on_c)))).0, vni_of(BLUE));
    }
}

#[test]
fn a_network_that_is_nobodys_and_a_node_without_the_tenant_are_dropped_by_reason() {
    let mut node = node();
    let packet = || testkit::udp(at(ip("10.2.0.7"), 1), at(ip("10.1.0.5"), 2), b"x");
    node.assert_dropped(UPLINK, &through(RED + 1, packet()), R::TUNNEL_WRONG_VNI);
    // From node C, which has no pods of red.
    let inner = testkit::with_macs(packet(), VTEP_MAC, NODE_B_VTEP_MAC);
    let outer = |tenant| {
        let src = "[2001:db8::3]:50000".parse().unwrap();
        let mut frame = testkit::vxlan(src, ip("2001:db8::1"), vni_of(tenant), &inner);
        testkit::fill_checksums(&mut frame);
        testkit::with_macs(frame, UPLINK_MAC, NODE_B_MAC)
    };
    node.assert_dropped(UPLINK, &outer(RED), R::TUNNEL_UNKNOWN_SOURCE);
    assert_eq!(node.run(UPLINK, &outer(BLUE)).verdict, Verdict::Send(BLUE_A));
    // A node that has none of the tenants takes none of their packets.
    let mut without = Node::new();
    without.assert_dropped(UPLINK, &through(RED, packet()), R::TUNNEL_WRONG_VNI);
}

#[test]
fn each_tenant_has_a_router_of_its_own() {
    let mut node = node();
    for (ips, blue) in both().into_iter().zip(["10.1.0.254", "fd00:1::fe"]) {
        let blue = ip(blue);
        let ping = |to| testkit::echo_request(ips.a, to, 1, 1, b"x");
        for (port, router, other) in [(RED_A, ips.gateway, blue), (BLUE_A, blue, ips.gateway)] {
            let pong = node.run(port, &from(port, ping(router)));
            assert_eq!(read(&pong.frame).src.ip(), router);
            // The other's router is a pod's address at most, and no pod has it.
            let told = node.run(port, &from(port, ping(other)));
            assert_eq!(icmp(&told.frame), kind(&ips, (3, 1), (1, 3)));
            // So are the underlay's addresses.
            let told = node.run(port, &from(port, ping(ips.vtep)));
            assert_eq!(icmp(&told.frame), kind(&ips, (3, 0), (1, 0)));
            assert_eq!(read(&told.frame).src.ip(), router);
        }
    }
    let (IpAddr::V4(a), IpAddr::V4(blue)) = (ip("10.1.0.5"), ip("10.1.0.254")) else { unreachable!() };
    let ask = testkit::with_macs(testkit::arp_request(a, blue), EthAddr([0xff; 6]), mac_of(BLUE_A));
    let mut ask = ask;
    ask[22..28].copy_from_slice(&mac_of(BLUE_A).0);
    let reply = node.run(BLUE_A, &ask);
    assert_eq!(Arp::new(&reply.frame[EthHeader::LEN..]).unwrap().sender_mac(), GATEWAY_MAC);
}

#[test]
fn an_error_goes_back_through_the_tunnel_that_the_packet_came_from() {
    let mut node = node();
    for ips in both() {
        let told = node.run(UPLINK, &through(BLUE, testkit::udp(at(ips.on_b, 1), at(ips.nobody, 2), b"x")));
        let (vni, inner) = tunnelled_in(&told);
        assert_eq!((vni, icmp(&inner)), (vni_of(BLUE), kind(&ips, (3, 1), (1, 3))));
        assert_ne!(read(&inner).src.ip(), ips.gateway);
    }
}

/// A service at the same virtual address in every tenant, each with an endpoint of its own.
fn services(protocol: proto::Protocol, ips: &Ips) -> Vec<proto::Service> {
    let mut services = Vec::new();
    for (tenant, endpoint) in [(0, (ips.b, 8080)), (RED, (ips.on_b, 9090)), (BLUE, (ips.b, 7070))] {
        services.push(proto::Service { tenant, ..service(protocol, ips.vip, &[endpoint]) });
    }
    services
}

#[test]
fn the_same_virtual_address_is_each_tenants_own_service() {
    for ips in both() {
        let mut node = node();
        node.program(&services(proto::Protocol::Udp, &ips));
        // More than once: the later ones find the flow.
        for _ in 0..3 {
            let ask = || testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"same");
            let own = node.run(POD_A, &from_a(ask()));
            assert_eq!((own.verdict, read(&own.frame).dst), (Verdict::Send(POD_B), at(ips.b, 8080)));
            let blue = node.run(BLUE_A, &from(BLUE_A, ask()));
            assert_eq!((blue.verdict, read(&blue.frame).dst), (Verdict::Send(BLUE_B), at(ips.b, 7070)));
            let (vni, red) = tunnelled_in(&node.run(RED_A, &from(RED_A, ask())));
            assert_eq!((vni, read(&red).dst), (vni_of(RED), at(ips.on_b, 9090)));

            let reply = |src| testkit::udp(src, at(ips.a, 1000), b"same");
            let own = node.run(POD_B, &from_b(reply(at(ips.b, 8080))));
            assert_eq!((own.verdict, read(&own.frame).src), (Verdict::Send(POD_A), at(ips.vip, 80)));
            let blue = node.run(BLUE_B, &from(BLUE_B, reply(at(ips.b, 7070))));
            assert_eq!((blue.verdict, read(&blue.frame).src), (Verdict::Send(BLUE_A), at(ips.vip, 80)));
            let red = node.run(UPLINK, &through(RED, reply(at(ips.on_b, 9090))));
            assert_eq!((red.verdict, read(&red.frame).src), (Verdict::Send(RED_A), at(ips.vip, 80)));
            // The same reply in another's network belongs to no flow of theirs.
            let other = node.run(UPLINK, &through(BLUE, reply(at(ips.on_b, 9090))));
            assert_eq!((other.verdict, read(&other.frame).src), (Verdict::Send(BLUE_A), at(ips.on_b, 9090)));
        }
        assert_eq!(node.flow_count(), 3);
    }
}

#[test]
fn connections_without_record_stay_in_their_tenant() {
    for ips in both() {
        let mut node = with_tenants(Node::with_flows(1));
        let mut services = services(proto::Protocol::Udp, &ips);
        services.push(proto::Service { port: 81, ..service(proto::Protocol::Udp, ips.vip, &[(ips.b, 1)]) });
        node.program(&services);
        for n in 0..node.flows.capacity() as u16 {
            node.run(POD_A, &from_a(testkit::udp(at(ips.a, n + 1), at(ips.vip, 81), b"")));
        }
        // The port tells that there is no record.
        let (client, marked) = (at(ips.a, 40_000), at(ips.a, 40_000 - 32_768));
        let ask = || testkit::udp(client, at(ips.vip, 80), b"same");
        let own = node.run(POD_A, &from_a(ask()));
        assert_eq!((own.verdict, read(&own.frame).src), (Verdict::Send(POD_B), marked));
        let reply = |src| testkit::udp(src, marked, b"same");
        // Blue's has the same address, and nothing to answer yet.
        let blue = node.run(BLUE_B, &from(BLUE_B, reply(at(ips.b, 7070))));
        assert_eq!((blue.verdict, read(&blue.frame).src), (Verdict::Send(BLUE_A), at(ips.b, 7070)));
        let blue = node.run(BLUE_A, &from(BLUE_A, ask()));
        assert_eq!((blue.verdict, read(&blue.frame).dst), (Verdict::Send(BLUE_B), at(ips.b, 7070)));
        let (vni, red) = tunnelled_in(&node.run(RED_A, &from(RED_A, ask())));
        assert_eq!((vni, read(&red).src, read(&red).dst), (vni_of(RED), marked, at(ips.on_b, 9090)));
        for (outcome, port) in [
            (node.run(POD_B, &from_b(reply(at(ips.b, 8080)))), POD_A),
            (node.run(BLUE_B, &from(BLUE_B, reply(at(ips.b, 7070)))), BLUE_A),
            (node.run(UPLINK, &through(RED, reply(at(ips.on_b, 9090)))), RED_A),
        ] {
            assert_eq!(outcome.verdict, Verdict::Send(port));
            assert_eq!((read(&outcome.frame).src, read(&outcome.frame).dst), (at(ips.vip, 80), client));
        }
        let other = node.run(UPLINK, &through(BLUE, reply(at(ips.on_b, 9090))));
        assert_eq!((other.verdict, read(&other.frame).src), (Verdict::Send(BLUE_A), at(ips.on_b, 9090)));
        assert_eq!(node.counters.flows().stateless, 6);
    }
}

#[test]
fn a_virtual_address_is_served_in_its_tenant_only() {
    let ips = both()[0];
    let mut node = node();
    node.program(&services(proto::Protocol::Tcp, &ips)[1..2]);
    let told = node.run(BLUE_A, &from(BLUE_A, syn(at(ips.a, 1000), at(ips.vip, 80))));
    assert_eq!(icmp(&told.frame), (3, 0));
    assert_eq!(
        tunnelled_in(&node.run(RED_A, &from(RED_A, syn(at(ips.a, 1000), at(ips.vip, 80))))).0,
        vni_of(RED)
    );
}

#[test]
fn a_tenant_that_leaves_a_node_is_reached_there_no_more() {
    let mut node = node();
    let ips = both()[0];
    let packet = from(RED_A, testkit::udp(at(ips.a, 1), at(ips.on_b, 2), b"x"));
    assert_eq!(tunnelled_in(&node.run(RED_A, &packet)).0, vni_of(RED));
    node.configure(|local| local.tenants.retain(|tenant| tenant.id == BLUE));
    node.assert_dropped(RED_A, &packet, R::NO_ROUTE);
    node.assert_dropped(
        UPLINK,
        &through(RED, testkit::udp(at(ips.on_b, 1), at(ips.a, 2), b"")),
        R::TUNNEL_WRONG_VNI,
    );
}

/// The tenants' pods, and the cluster's own.
const PODS: [(PortIndex, u32); 6] =
    [(POD_A, 0), (POD_B, 0), (RED_A, RED), (RED_FAR, RED), (BLUE_A, BLUE), (BLUE_B, BLUE)];

proptest! {
    #[test]
    fn no_packet_gets_from_one_tenant_to_another(
        packets in prop::collection::vec((0..PODS.len(), 0..7_usize, any::<bool>(), 0..3_u16, any::<bool>()), 1..60),
    ) {
        let mut node = node();
        let [v4, v6] = both();
        let all: Vec<_> = [v4, v6].iter().flat_map(|ips| services(proto::Protocol::Udp, ips)).collect();
        node.program(&all);
        for (pod, to, over6, port, from_afar) in packets {
            let ips = if over6 { v6 } else { v4 };
            let (index, tenant) = PODS[pod];
            let src = match index {
                POD_A | RED_A | BLUE_A => ips.a,
                RED_FAR => ips.on_c,
                _ => ips.b,
            };
            let dst = [ips.a, ips.b, ips.on_b, ips.on_c, ips.nobody, ips.vip, ips.gateway][to];
            let outcome = if from_afar {
                node.run(UPLINK, &through(tenant, testkit::udp(at(ips.on_b, 80), at(dst, 1000 + port), b"x")))
            } else {
                let frame = testkit::udp(at(src, 1000 + port), at(dst, 80), b"x");
                let mac = node.view.port(index).unwrap().mac;
                node.run(index, &testkit::with_macs(frame, GATEWAY_MAC, mac))
            };
            match outcome.verdict {
                Verdict::Send(UPLINK) => prop_assert_eq!(tunnelled_in(&outcome).0, vni_of(tenant)),
                Verdict::Send(port) => prop_assert_eq!(node.view.port(port).unwrap().tenant.get(), tenant),
                Verdict::Drop(_) => {}
                Verdict::Learned => prop_assert!(false, "{:?}", node.pipeline.learned()),
            }
        }
    }
}
