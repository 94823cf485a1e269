use culvert_packet::sctp::{ChunkType, SctpChunks};

use super::*;
use crate::counter::DropReason as R;
use crate::flow::State;

/// A packet that asks for an association.
pub(super) fn init(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    testkit::sctp(src, dst, 0, &testkit::sctp_chunk(ChunkType::INIT, 0, &[1; 16]))
}

fn packet(src: SocketAddr, dst: SocketAddr, kind: ChunkType) -> Vec<u8> {
    testkit::sctp(src, dst, 0x0101_0101, &testkit::sctp_chunk(kind, 0, b"twelve bytes, and some more"))
}

fn states(node: &Node) -> Vec<State> {
    let v6 = node.flows.v6.iter().map(|hit| hit.state());
    node.flows.v4.iter().map(|hit| hit.state()).chain(v6).collect()
}

/// Sends a packet of pod A to the service, of which pod B is the endpoint, and one back; each must arrive as it should.
#[track_caller]
fn exchange(node: &mut Node, ips: &Ips, there: ChunkType, back: ChunkType) {
    let (client, vip, endpoint) = (at(ips.a, 1000), at(ips.vip, 80), at(ips.b, 36_412));
    let request = match there {
        ChunkType::INIT => init(client, vip),
        _ => packet(client, vip, there),
    };
    for (port, frame, to, src, dst) in [
        (POD_A, from_a(request), POD_B, client, endpoint),
        (POD_B, from_b(packet(endpoint, client, back)), POD_A, vip, client),
    ] {
        let outcome = node.run(port, &frame);
        assert_eq!(outcome.verdict, Verdict::Send(to));
        // With the right checksum, and not one byte of the chunks changed.
        let got = read(&outcome.frame);
        assert_eq!((got.src, got.dst), (src, dst));
        let chunks = usize::from(got.parsed.l4_offset) + 12;
        assert_eq!(outcome.frame[chunks..], frame[chunks..]);
    }
}

#[test]
fn associations_are_followed_from_init_to_the_end() {
    use ChunkType as T;
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.b, 36_412)])]);
        for (there, back, state) in [
            (T::INIT, T::INIT_ACK, State::CookieWait),
            (T::COOKIE_ECHO, T::COOKIE_ACK, State::Associated),
            (T::DATA, T(3), State::Associated),
            (T::SHUTDOWN, T::SHUTDOWN_ACK, State::ShutdownAck),
        ] {
            exchange(&mut node, &ips, there, back);
            assert_eq!(states(&node), [state]);
        }
        let complete = packet(at(ips.a, 1000), at(ips.vip, 80), T::SHUTDOWN_COMPLETE);
        assert_eq!(node.run(POD_A, &from_a(complete)).verdict, Verdict::Send(POD_B));
        assert_eq!(states(&node), [State::Closed]);
        // The same ports again, at once.
        exchange(&mut node, &ips, T::INIT, T::INIT_ACK);
        assert_eq!(states(&node), [State::CookieWait]);
        node.seconds += 6;
        node.age();
        assert_eq!(node.flow_count(), 0);
        assert_eq!((node.counters.flows().created, node.counters.flows().expired), (2, 2));
    }
}

#[test]
fn heartbeats_keep_an_association_that_says_nothing_else() {
    const HEARTBEAT: ChunkType = ChunkType(4);
    const HEARTBEAT_ACK: ChunkType = ChunkType(5);
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.b, 36_412)])]);
        exchange(&mut node, &ips, ChunkType::INIT, ChunkType::INIT_ACK);
        exchange(&mut node, &ips, ChunkType::COOKIE_ECHO, ChunkType::COOKIE_ACK);
        for _ in 0..10 {
            node.seconds += 200;
            node.age();
            exchange(&mut node, &ips, HEARTBEAT, HEARTBEAT_ACK);
        }
        node.seconds += 214;
        node.age();
        assert_eq!(node.flow_count(), 0);
    }
}

#[test]
fn a_packet_with_a_wrong_checksum_stays_wrong() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.b, 36_412)])]);
        let mut frame = from_a(init(at(ips.a, 1000), at(ips.vip, 80)));
        *frame.last_mut().unwrap() ^= 0x40;
        let mut outcome = node.run(POD_A, &frame);
        assert_eq!(outcome.verdict, Verdict::Send(POD_B));
        let parsed = parse(&outcome.frame).unwrap();
        assert_eq!(verify_transport(&outcome.frame, &parsed), Err(culvert_packet::Malformed::SctpChecksum));
        *outcome.frame.last_mut().unwrap() ^= 0x40;
        assert_eq!(read(&outcome.frame).dst, at(ips.b, 36_412));
    }
}

#[test]
fn an_association_that_is_not_tracked_is_aborted() {
    use ChunkType as T;
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.b, 36_412)])]);
        for (kind, answer) in [
            (T::DATA, SctpChunks::ABORT),
            (T::COOKIE_ECHO, SctpChunks::ABORT),
            (T::SHUTDOWN_ACK, SctpChunks::SHUTDOWN_COMPLETE),
        ] {
            let outcome = node.run(POD_A, &from_a(packet(at(ips.a, 1000), at(ips.vip, 80), kind)));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(read(&outcome.frame).parsed.sctp_chunks, answer);
        }
        let abort = packet(at(ips.a, 1000), at(ips.vip, 80), T::ABORT);
        node.assert_dropped(POD_A, &from_a(abort), R::FLOW_UNKNOWN);
        assert_eq!((node.dropped(R::FLOW_UNKNOWN), node.flow_count()), (4, 0));
    }
}

#[test]
fn an_association_whose_endpoint_is_gone_is_aborted_and_the_next_goes_elsewhere() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.b, 36_412)])]);
        exchange(&mut node, &ips, ChunkType::INIT, ChunkType::INIT_ACK);
        exchange(&mut node, &ips, ChunkType::COOKIE_ECHO, ChunkType::COOKIE_ACK);
        node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.on_b, 36_412)])]);
        let outcome = node.run(POD_A, &from_a(packet(at(ips.a, 1000), at(ips.vip, 80), ChunkType::DATA)));
        assert_eq!(read(&outcome.frame).parsed.sctp_chunks, SctpChunks::ABORT);
        assert_eq!((node.dropped(R::FLOW_ENDPOINT_GONE), node.flow_count()), (1, 0));
        let next = node.run(POD_A, &from_a(init(at(ips.a, 1000), at(ips.vip, 80))));
        assert_eq!(read(&inner(&next)).dst, at(ips.on_b, 36_412));
    }
}

#[test]
fn an_endpoint_that_is_not_ready_keeps_its_associations() {
    for ips in both() {
        let mut node = Node::new();
        let mut web = service(proto::Protocol::Sctp, ips.vip, &[(ips.b, 36_412)]);
        node.program(std::slice::from_ref(&web));
        exchange(&mut node, &ips, ChunkType::INIT, ChunkType::INIT_ACK);
        exchange(&mut node, &ips, ChunkType::COOKIE_ECHO, ChunkType::COOKIE_ACK);
        web.backends[0].draining = true;
        node.program(&[web]);
        exchange(&mut node, &ips, ChunkType::DATA, ChunkType(3));
        let next = node.run(POD_A, &from_a(init(at(ips.a, 2000), at(ips.vip, 80))));
        assert_eq!(read(&next.frame).parsed.sctp_chunks, SctpChunks::ABORT);
    }
}
