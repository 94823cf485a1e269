use super::*;
use crate::counter::DropReason as R;

#[test]
fn pods_ping_the_router_and_the_tunnel_endpoint() {
    let mut node = Node::new();
    for ips in both() {
        for target in [ips.gateway, ips.vtep] {
            let request = from_a(testkit::echo_request(ips.a, target, 7, 1, b"ping"));
            let outcome = node.run(POD_A, &testkit::padded(request, 80));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(icmp(&outcome.frame), kind(&ips, (0, 0), (129, 0)));
            let reply = read(&outcome.frame);
            assert_eq!(
                (reply.macs, reply.src.ip(), reply.dst.ip()),
                ((POD_A_MAC, GATEWAY_MAC), target, ips.a)
            );
            assert!(outcome.frame.ends_with(b"ping"));
        }
    }
    assert_eq!(node.answered("echo-reply"), 4);
}

#[test]
fn another_nodes_pods_ping_the_router_through_the_tunnel() {
    let mut node = Node::new();
    for ips in both() {
        let outcome = node.run_tunnelled(testkit::echo_request(ips.on_b, ips.gateway, 7, 1, b"ping"));
        let reply = inner(&outcome);
        assert_eq!(icmp(&reply), kind(&ips, (0, 0), (129, 0)));
        assert_eq!(read(&reply).macs, (NODE_B_VTEP_MAC, VTEP_MAC));
        assert_eq!((read(&reply).src.ip(), read(&reply).dst.ip()), (ips.gateway, ips.on_b));
    }
}

#[test]
fn nothing_else_is_served_there() {
    let mut node = Node::new();
    for ips in both() {
        for target in [ips.gateway, ips.vtep] {
            let reset = node.run(POD_A, &from_a(syn(at(ips.a, 1000), at(target, 22))));
            assert_eq!(reset.verdict, Verdict::Send(POD_A));
            let reset = read(&reset.frame);
            assert_eq!((reset.src, reset.dst), (at(target, 22), at(ips.a, 1000)));
            assert!(reset.parsed.tcp_flags.contains(TcpFlags::RST));

            let refused = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(target, 53), b"x")));
            assert_eq!(refused.verdict, Verdict::Send(POD_A));
            assert_eq!(icmp(&refused.frame), kind(&ips, (3, 3), (1, 4)));
            assert_eq!(read(&refused.frame).src.ip(), ips.gateway);
        }
        let mut wrong = from_a(testkit::echo_request(ips.a, ips.gateway, 7, 1, b"ping"));
        *wrong.last_mut().unwrap() ^= 1;
        node.assert_dropped(POD_A, &wrong, R::NOT_SERVED);
    }
    assert_eq!((node.answered("tcp-reset"), node.answered("unreachable")), (4, 4));
    assert_eq!(node.dropped(R::NOT_SERVED), 4 + 4 + 2);
}
