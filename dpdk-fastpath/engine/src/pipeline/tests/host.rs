//! The host's port: to packets it is a pod's.

use super::*;
use crate::counter::DropReason as R;
use crate::table::PortKind;

const HOST: PortIndex = PortIndex(3);
const HOST_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xcc]);

/// A node whose host has a port, and the host's address of each IP version beside the others.
fn with_host() -> (Node, [(Ips, IpAddr); 2]) {
    let mut node = Node::new();
    let [v4, v6] = both();
    let own = [ip("10.1.0.2"), ip("fd00:1::2")];
    let port = Port { kind: PortKind::Host, ..pod("culvert0", HOST_MAC, own) };
    node.builder.attach(HOST, port).unwrap();
    let services = [(v4.vip, v4.b), (v6.vip, v6.b)];
    let services = services.map(|(vip, b)| service(proto::Protocol::Udp, vip, &[(b, 8080)]));
    node.program(&services);
    (node, [(v4, own[0]), (v6, own[1])])
}

fn from_host(frame: Vec<u8>) -> Vec<u8> {
    testkit::with_macs(frame, GATEWAY_MAC, HOST_MAC)
}

#[test]
fn the_host_reaches_pods_here_and_elsewhere_and_services_and_gets_the_replies() {
    let (mut node, ips) = with_host();
    for (ips, host) in ips {
        let here = node.run(HOST, &from_host(testkit::udp(at(host, 1000), at(ips.a, 2000), b"x")));
        assert_eq!(here.verdict, Verdict::Send(POD_A));
        let there = node.run(HOST, &from_host(testkit::udp(at(host, 1000), at(ips.on_b, 2000), b"x")));
        assert_eq!(there.verdict, Verdict::Send(UPLINK));
        let back = node.run_tunnelled(testkit::udp(at(ips.on_b, 2000), at(host, 1000), b"x"));
        assert_eq!(back.verdict, Verdict::Send(HOST));
        assert_eq!(read(&back.frame).macs, (HOST_MAC, GATEWAY_MAC));

        let asked = node.run(HOST, &from_host(testkit::udp(at(host, 1001), at(ips.vip, 80), b"x")));
        assert_eq!(asked.verdict, Verdict::Send(POD_B));
        assert_eq!(read(&asked.frame).dst, at(ips.b, 8080));
        let reply =
            testkit::with_macs(testkit::udp(at(ips.b, 8080), at(host, 1001), b"x"), GATEWAY_MAC, POD_B_MAC);
        let reply = node.run(POD_B, &reply);
        assert_eq!(reply.verdict, Verdict::Send(HOST));
        assert_eq!(read(&reply.frame).src, at(ips.vip, 80));

        let to_host = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(host, 10250), b"x")));
        assert_eq!(to_host.verdict, Verdict::Send(HOST));
    }
}

#[test]
fn the_host_sends_only_from_the_addresses_of_its_port() {
    let (mut node, ips) = with_host();
    for (ips, host) in ips {
        for source in [ips.a, ips.gateway, ips.vtep, ips.elsewhere] {
            let frame = from_host(testkit::udp(at(source, 1000), at(ips.b, 2000), b"x"));
            node.assert_dropped(HOST, &frame, R::SPOOFED_ADDRESS);
        }
        let frame = testkit::udp(at(host, 1000), at(ips.b, 2000), b"x");
        node.assert_dropped(HOST, &testkit::with_macs(frame, GATEWAY_MAC, POD_A_MAC), R::SPOOFED_MAC);
    }
}
