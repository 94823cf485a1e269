use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::arp::{Arp, ArpOperation};
use crate::buf::{PacketBuf, TestBuf};
use crate::eth::EthAddr;
use crate::icmp::{Icmp, IcmpType};
use crate::icmpv6::{self, Icmpv6, Icmpv6Type, Neighbour};
use crate::ip::Protocol;
use crate::neighbour as from_scratch;
use crate::parse::{Fragment, L4, parse, verify_transport};
use crate::tcp::{Tcp, TcpFlags};
use crate::testkit::generate::{self, LegalPacket, Message, Net};
use crate::testkit::oracle::assert_checksums;
use crate::testkit::{self, MAC_A, MAC_B};
use crate::vlan::Tci;

const OURS: EthAddr = EthAddr([2, 0, 0, 0, 0, 0x99]);

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn macs(frame: &[u8]) -> (EthAddr, EthAddr) {
    (eth(frame).dst(), eth(frame).src())
}

/// Runs `answer` over a frame; on a refusal the frame must be as it was.
fn answered(
    frame: &[u8],
    answer: impl FnOnce(&mut TestBuf, &Parsed) -> Result<(), NoAnswer>,
) -> Result<Vec<u8>, NoAnswer> {
    let mut buf = TestBuf::new(frame);
    let parsed = parse(frame).unwrap();
    let verdict = answer(&mut buf, &parsed);
    if verdict.is_err() {
        assert_eq!(buf.data(), frame, "changed in spite of {verdict:?}");
    }
    verdict.map(|()| buf.data().to_vec())
}

fn echo(frame: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    answered(frame, |buf, parsed| echo_reply(buf.data_mut(), parsed))
}

fn error(frame: &[u8], error: IcmpError) -> Result<Vec<u8>, NoAnswer> {
    answered(frame, |buf, parsed| {
        let from = if parsed.l3 == L3::Ipv4 { v4("192.0.2.1").into() } else { v6("2001:db8::1").into() };
        icmp_error(buf, parsed, from, error)
    })
}

fn reset(frame: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    answered(frame, tcp_reset)
}

fn advertise(frame: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    answered(frame, |buf, parsed| {
        neighbour_advertisement(buf, parsed, OURS, icmpv6::ROUTER | icmpv6::OVERRIDE)
    })
}

fn resolve(frame: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    answered(frame, |buf, parsed| arp_reply(buf.data_mut(), parsed, OURS))
}

mod arp {
    use super::*;

    #[test]
    fn a_request_gets_its_reply_with_the_tag_it_came_with() {
        let request = testkit::arp_request(v4("10.0.0.1"), v4("10.0.0.254"));
        let tagged = testkit::padded(testkit::tagged(&request, Tci::of_vlan(9)), 64);
        for (frame, at) in [(request, 14), (tagged, 18)] {
            let reply = resolve(&frame).unwrap();
            assert_eq!(reply.len(), frame.len());
            assert_eq!(macs(&reply), (MAC_A, OURS));
            assert_eq!(&reply[12..at], &frame[12..at]);
            let arp = Arp::new(&reply[at..]).unwrap();
            assert_eq!(arp.operation(), ArpOperation::REPLY);
            assert_eq!((arp.sender_mac(), arp.sender_ip()), (OURS, v4("10.0.0.254")));
            assert_eq!((arp.target_mac(), arp.target_ip()), (MAC_A, v4("10.0.0.1")));
        }
    }

    #[test]
    fn replies_and_requests_of_a_group_get_none() {
        assert_eq!(resolve(&testkit::arp_reply(v4("10.0.0.1"), v4("10.0.0.2"))), Err(NoAnswer::NotAsked));
        let mut of_group = testkit::arp_request(v4("10.0.0.1"), v4("10.0.0.2"));
        of_group[22] |= 1;
        assert_eq!(resolve(&of_group), Err(NoAnswer::Group));
        assert_eq!(
            resolve(&testkit::udp(addr("10.0.0.1:1"), addr("10.0.0.2:2"), b"")),
            Err(NoAnswer::NotAsked)
        );
    }

    #[test]
    fn a_gratuitous_one_names_the_same_address_twice_and_goes_to_everybody() {
        let mut buf = TestBuf::new(b"old content");
        assert!(from_scratch::gratuitous_arp(&mut buf, OURS, v4("10.0.0.254")));
        assert_eq!(macs(buf.data()), (EthAddr::BROADCAST, OURS));
        let arp = Arp::new(&buf.data()[14..]).unwrap();
        assert_eq!((arp.operation(), arp.sender_mac()), (ArpOperation::REQUEST, OURS));
        assert_eq!((arp.sender_ip(), arp.target_ip()), (v4("10.0.0.254"), v4("10.0.0.254")));
        assert_eq!(buf.len(), 42);
    }
}

mod neighbour_discovery {
    use super::*;

    #[test]
    fn a_solicitation_gets_its_advertisement() {
        let request = testkit::neighbour_solicitation(v6("fd00::1"), v6("fd00::12:3456"));
        assert_checksums(&request);
        assert_eq!(eth(&request).dst(), EthAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
        let reply = advertise(&request).unwrap();
        assert_checksums(&reply);
        assert_eq!(macs(&reply), (MAC_A, OURS));
        let parsed = parse(&reply).unwrap();
        let ip = ipv6(&reply, &parsed);
        assert_eq!((ip.src(), ip.dst(), ip.hop_limit()), (v6("fd00::12:3456"), v6("fd00::1"), 255));
        let message = Neighbour::new(&reply[usize::from(parsed.l4_offset)..]).unwrap();
        assert_eq!(
            (message.kind(), message.target()),
            (Icmpv6Type::NEIGHBOUR_ADVERTISEMENT, v6("fd00::12:3456"))
        );
        assert_eq!(message.flags(), icmpv6::ROUTER | icmpv6::SOLICITED | icmpv6::OVERRIDE);
        assert_eq!(message.link_layer(icmpv6::TARGET_LINK_LAYER), Ok(Some(OURS)));
        assert_eq!(message.link_layer(icmpv6::SOURCE_LINK_LAYER), Ok(None));
    }

    /// A solicitation with these fields and options, checksum right.
    fn solicitation(src: &str, dst: &str, hop_limit: u8, options: &[u8]) -> Vec<u8> {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(v6("fd00::9").octets());
        message.extend(options);
        let mut frame = testkit::ipv6(v6(src), v6(dst), Protocol::ICMPV6, &message);
        frame[21] = hop_limit;
        testkit::fill_checksums(&mut frame);
        frame
    }

    #[test]
    fn who_has_no_address_yet_is_answered_through_all_nodes() {
        let reply = advertise(&solicitation("::", "ff02::1:ff00:9", 255, &[])).unwrap();
        assert_checksums(&reply);
        assert_eq!(macs(&reply), (EthAddr([0x33, 0x33, 0, 0, 0, 1]), OURS));
        let parsed = parse(&reply).unwrap();
        assert_eq!(ipv6(&reply, &parsed).dst(), v6("ff02::1"));
        let message = Neighbour::new(&reply[usize::from(parsed.l4_offset)..]).unwrap();
        assert_eq!(message.flags(), icmpv6::ROUTER | icmpv6::OVERRIDE);
    }

    #[test]
    fn a_unicast_probe_without_option_is_answered_to_where_it_came_from() {
        let reply = advertise(&solicitation("fd00::1", "fd00::9", 255, &[])).unwrap();
        assert_checksums(&reply);
        assert_eq!(macs(&reply), (MAC_A, OURS));
    }

    #[test]
    fn what_rfc_4861_calls_invalid_gets_none() {
        let invalid = Err(NoAnswer::Malformed(Malformed::NdInvalid));
        let source_option = [1, 1, 2, 0, 0, 0, 0, 1];
        for (why, frame, verdict) in [
            ("came over a router", solicitation("fd00::1", "fd00::9", 254, &[]), invalid.clone()),
            (
                "option of length 0",
                solicitation("fd00::1", "fd00::9", 255, &[1, 0, 0, 0, 0, 0, 0, 0]),
                invalid.clone(),
            ),
            (
                "option past the end",
                solicitation("fd00::1", "fd00::9", 255, &[1, 2, 0, 0, 0, 0, 0, 0]),
                invalid.clone(),
            ),
            ("half an option", solicitation("fd00::1", "fd00::9", 255, &[1]), invalid.clone()),
            ("probe with option", solicitation("::", "ff02::1:ff00:9", 255, &source_option), invalid.clone()),
            ("probe not to the group", solicitation("::", "fd00::9", 255, &[]), invalid),
            ("from a group", solicitation("ff02::1", "fd00::9", 255, &[]), Err(NoAnswer::Group)),
        ] {
            assert_eq!(advertise(&frame), verdict, "{why}");
        }
        let mut wrong = solicitation("fd00::1", "fd00::9", 255, &[]);
        wrong[56] ^= 1;
        assert_eq!(advertise(&wrong), Err(Malformed::IcmpChecksum.into()));
        let advertisement = advertise(&solicitation("fd00::1", "fd00::9", 255, &[])).unwrap();
        assert_eq!(advertise(&advertisement), Err(NoAnswer::NotAsked));
    }

    #[test]
    fn an_unsolicited_one_goes_to_all_nodes() {
        let mut buf = TestBuf::new(b"old content");
        assert!(from_scratch::unsolicited_advertisement(&mut buf, OURS, v6("fd00::9"), icmpv6::OVERRIDE));
        assert_checksums(buf.data());
        assert_eq!(macs(buf.data()), (EthAddr([0x33, 0x33, 0, 0, 0, 1]), OURS));
        let message = Neighbour::new(&buf.data()[54..]).unwrap();
        assert_eq!((message.target(), message.flags()), (v6("fd00::9"), icmpv6::OVERRIDE));
        assert_eq!(message.link_layer(icmpv6::TARGET_LINK_LAYER), Ok(Some(OURS)));
    }
}

mod errors {
    use super::*;

    const ALL: [IcmpError; 6] = [
        IcmpError::TimeExceeded,
        IcmpError::NetUnreachable,
        IcmpError::HostUnreachable,
        IcmpError::PortUnreachable,
        IcmpError::Prohibited,
        IcmpError::PacketTooBig { mtu: 1450 },
    ];

    #[test]
    fn each_error_has_the_type_code_and_mtu_of_its_rfc() {
        let v4_wanted = [(11, 0, 0), (3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 13, 0), (3, 4, 1450)];
        let v6_wanted = [(3, 0, 0), (1, 0, 0), (1, 3, 0), (1, 4, 0), (1, 1, 0), (2, 0, 1450)];
        let (a, b) = (addr("10.0.0.1:1000"), addr("10.0.0.2:53"));
        for (kind, wanted) in ALL.into_iter().zip(v4_wanted) {
            let frame = error(&testkit::udp(a, b, b"x"), kind).unwrap();
            let icmp = Icmp::new(&frame[34..]).unwrap();
            assert_eq!((icmp.kind().0, icmp.code(), icmp.mtu()), wanted, "{kind:?}");
        }
        let (a, b) = (addr("[fd00::1]:1000"), addr("[fd00::2]:53"));
        for (kind, wanted) in ALL.into_iter().zip(v6_wanted) {
            let frame = error(&testkit::udp(a, b, b"x"), kind).unwrap();
            let icmp = Icmpv6::new(&frame[54..]).unwrap();
            assert_eq!((icmp.kind().0, icmp.code(), icmp.mtu()), wanted, "{kind:?}");
        }
    }

    #[test]
    fn an_error_comes_from_the_same_ip_version_only() {
        let frame = testkit::udp(addr("10.0.0.1:1"), addr("10.0.0.2:2"), b"");
        let wrong = IpAddr::V6(v6("fd00::1"));
        let verdict = answered(&frame, |buf, parsed| icmp_error(buf, parsed, wrong, IcmpError::TimeExceeded));
        assert_eq!(verdict, Err(NoAnswer::NotAsked));
    }

    #[test]
    fn without_headroom_there_is_no_error_and_no_change() {
        let frame = testkit::udp(addr("10.0.0.1:1"), addr("10.0.0.2:2"), &[0; 1000]);
        let mut buf = TestBuf::with_headroom(&frame, 27);
        let parsed = parse(&frame).unwrap();
        let verdict = icmp_error(&mut buf, &parsed, v4("10.0.0.9").into(), IcmpError::TimeExceeded);
        assert_eq!((verdict, buf.data()), (Err(NoAnswer::Room), &frame[..]));
    }

    /// What the rules say about a packet of hosts in a unicast frame.
    fn deserves_error(packet: &LegalPacket) -> Result<(), NoAnswer> {
        match &packet.message {
            _ if packet.fragment() == Fragment::Later => Err(NoAnswer::Fragment),
            Message::Icmp { kind: 3 | 4 | 5 | 11 | 12, .. } if !packet.is_v6() => Err(NoAnswer::Error),
            Message::Icmp { kind: 0..128 | 137, .. } if packet.is_v6() => Err(NoAnswer::Error),
            _ => Ok(()),
        }
    }

    proptest! {
        #[test]
        fn an_error_quotes_the_packet_to_its_sender_with_right_checksums(
            packet in generate::packet(),
            kind in prop::sample::select(ALL.to_vec()),
        ) {
            let frame = packet.frame();
            let parsed = parse(&frame).unwrap();
            let verdict = error(&frame, kind);
            prop_assert_eq!(verdict.clone().map(|_| ()), deserves_error(&packet));
            let Ok(report) = verdict else { return Ok(()) };

            assert_checksums(&report);
            prop_assert_eq!(macs(&report), (packet.eth_src, packet.eth_dst));
            let read = parse(&report).unwrap();
            prop_assert_eq!((read.vlan, read.l4, read.ttl), (packet.vlan, L4::Icmp, 64));
            prop_assert_eq!(read.end(), report.len());
            let longest = match packet.net {
                Net::V4 { src, .. } => {
                    let ip = ipv4(&report, &read);
                    prop_assert_eq!((ip.src(), ip.dst()), (v4("192.0.2.1"), src));
                    576
                }
                Net::V6 { src, .. } => {
                    let ip = ipv6(&report, &read);
                    prop_assert_eq!((ip.src(), ip.dst()), (v6("2001:db8::1"), src));
                    1280
                }
            };
            let head = usize::from(read.l4_offset) + 8;
            let quote = &report[head..];
            prop_assert_eq!(quote, &frame[usize::from(parsed.l3_offset)..][..quote.len()]);
            let room = longest - (head - usize::from(read.l3_offset));
            prop_assert_eq!(quote.len(), room.min(parsed.l3_len as usize));
            prop_assert_eq!(error(&report, kind), Err(NoAnswer::Error));
        }
    }
}

mod resets {
    use super::*;

    fn segment(flags: TcpFlags, data: &[u8]) -> Vec<u8> {
        testkit::tcp(addr("10.0.0.1:1000"), addr("10.0.0.2:80"), flags, data)
    }

    #[test]
    fn the_numbers_are_those_of_rfc_9293() {
        use TcpFlags as F;
        for (flags, data, wanted) in [
            (F::SYN, &b""[..], (0, 1001, F::RST | F::ACK)),
            (F::SYN, b"fast open", (0, 1010, F::RST | F::ACK)),
            (F::FIN, b"abc", (0, 1004, F::RST | F::ACK)),
            (F::SYN | F::FIN, b"", (0, 1002, F::RST | F::ACK)),
            (F::PSH, b"abc", (0, 1003, F::RST | F::ACK)),
            (F::ACK, b"abc", (2000, 0, F::RST)),
            (F::SYN | F::ACK, b"", (2000, 0, F::RST)),
        ] {
            let answer = reset(&segment(flags, data)).unwrap();
            assert_checksums(&answer);
            let tcp = Tcp::new(&answer[34..]).unwrap();
            assert_eq!((tcp.sequence(), tcp.acknowledgement(), tcp.flags()), wanted, "{flags:?}");
            assert_eq!((tcp.src_port(), tcp.dst_port()), (80, 1000));
            assert_eq!((macs(&answer), answer.len()), ((MAC_A, MAC_B), 54));
        }
    }

    #[test]
    fn a_reset_is_not_reset() {
        assert_eq!(reset(&segment(TcpFlags::RST, b"")), Err(NoAnswer::Error));
        assert_eq!(reset(&reset(&segment(TcpFlags::SYN, b"")).unwrap()), Err(NoAnswer::Error));
    }

    proptest! {
        #[test]
        fn every_segment_of_a_host_gets_a_short_and_right_one(packet in generate::packet()) {
            let frame = packet.frame();
            let parsed = parse(&frame).unwrap();
            let verdict = reset(&frame);
            if parsed.l4 != L4::Tcp {
                prop_assert_eq!(verdict, Err(NoAnswer::NotAsked));
            } else if parsed.is_fragment() {
                prop_assert_eq!(verdict, Err(NoAnswer::Fragment));
            } else if parsed.tcp_flags.contains(TcpFlags::RST) {
                prop_assert_eq!(verdict, Err(NoAnswer::Error));
            } else {
                let answer = verdict.unwrap();
                assert_checksums(&answer);
                let read = parse(&answer).unwrap();
                prop_assert_eq!((read.src_port, read.dst_port), (parsed.dst_port, parsed.src_port));
                prop_assert_eq!((read.l4, read.l4_len(), read.vlan), (L4::Tcp, 20, packet.vlan));
                prop_assert_eq!(macs(&answer), (packet.eth_src, packet.eth_dst));
            }
        }
    }
}

mod echoes {
    use super::*;

    #[test]
    fn a_request_with_a_wrong_checksum_gets_none() {
        let mut frame = testkit::echo_request(v4("10.0.0.1").into(), v4("10.0.0.2").into(), 1, 2, b"data");
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(echo(&frame), Err(Malformed::IcmpChecksum.into()));
    }

    #[test]
    fn a_ping_of_death_cannot_be_answered_piece_by_piece() {
        let whole = testkit::echo_request(v4("10.0.0.1").into(), v4("10.0.0.2").into(), 1, 2, &[7; 3000]);
        let verdicts: Vec<_> = testkit::fragments4(&whole, 1500).iter().map(|f| echo(f)).collect();
        assert_eq!(verdicts, [Err(NoAnswer::Fragment), Err(NoAnswer::NotAsked), Err(NoAnswer::NotAsked)]);
    }

    proptest! {
        #[test]
        fn every_request_of_a_host_gets_its_own_data_back(packet in generate::packet()) {
            let frame = packet.frame();
            let parsed = parse(&frame).unwrap();
            let verdict = echo(&frame);
            let asked = if packet.is_v6() { Icmpv6Type::ECHO_REQUEST.0 } else { IcmpType::ECHO_REQUEST.0 };
            if parsed.l4 != L4::Echo || parsed.icmp_type != asked {
                prop_assert_eq!(verdict, Err(NoAnswer::NotAsked));
                return Ok(());
            }
            if parsed.is_fragment() {
                prop_assert_eq!(verdict, Err(NoAnswer::Fragment));
                return Ok(());
            }
            let reply = verdict.unwrap();
            assert_checksums(&reply);
            let read = parse(&reply).unwrap();
            prop_assert_eq!(verify_transport(&reply, &read), Ok(()));
            prop_assert_eq!(read.icmp_type, if packet.is_v6() { Icmpv6Type::ECHO_REPLY.0 } else { 0 });
            prop_assert_eq!(macs(&reply), (packet.eth_src, packet.eth_dst));
            prop_assert_eq!(read.ttl, 64);
            let body = usize::from(read.l4_offset) + 4;
            prop_assert_eq!(&reply[body..], &frame[body..]);
            let addresses = match packet.net {
                Net::V4 { src, dst, .. } => {
                    let ip = ipv4(&reply, &read);
                    (ip.src(), ip.dst()) == (dst, src)
                }
                Net::V6 { src, dst, .. } => {
                    let ip = ipv6(&reply, &read);
                    (ip.src(), ip.dst()) == (dst, src)
                }
            };
            prop_assert!(addresses);
            prop_assert_eq!(echo(&reply), Err(NoAnswer::NotAsked));
        }
    }
}

/// Every answer that could be provoked by a packet of this pair of addresses.
fn all_answers(src: IpAddr, dst: IpAddr, macs: (EthAddr, EthAddr)) -> [Result<Vec<u8>, NoAnswer>; 3] {
    let frame = |frame| testkit::with_macs(frame, macs.0, macs.1);
    let (from, to) = (SocketAddr::new(src, 1000), SocketAddr::new(dst, 80));
    [
        echo(&frame(testkit::echo_request(src, dst, 1, 1, b"data"))),
        error(&frame(testkit::udp(from, to, b"data")), IcmpError::PortUnreachable),
        reset(&frame(testkit::tcp(from, to, TcpFlags::SYN, b""))),
    ]
}

#[test]
fn nothing_is_answered_to_or_from_a_group_or_nobody() {
    for (src, dst) in [
        ("0.0.0.0", "10.0.0.2"),
        ("0.1.2.3", "10.0.0.2"),
        ("127.0.0.1", "10.0.0.2"),
        ("224.0.0.1", "10.0.0.2"),
        ("240.0.0.1", "10.0.0.2"),
        ("255.255.255.255", "10.0.0.2"),
        ("10.0.0.1", "224.0.0.251"),
        ("10.0.0.1", "255.255.255.255"),
        ("::", "fd00::2"),
        ("::1", "fd00::2"),
        ("ff02::1", "fd00::2"),
        ("fd00::1", "ff02::1"),
    ] {
        for verdict in all_answers(src.parse().unwrap(), dst.parse().unwrap(), (MAC_B, MAC_A)) {
            assert_eq!(verdict, Err(NoAnswer::Group), "{src} to {dst}");
        }
    }
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"), ("fe80::1", "fe80::2")] {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        assert!(all_answers(src, dst, (MAC_B, MAC_A)).iter().all(Result::is_ok), "{src} to {dst}");
        for macs in
            [(EthAddr::BROADCAST, MAC_A), (EthAddr([1, 0, 0x5e, 0, 0, 1]), MAC_A), (MAC_B, EthAddr::ZERO)]
        {
            for verdict in all_answers(src, dst, macs) {
                assert_eq!(verdict, Err(NoAnswer::Group), "{macs:?}");
            }
        }
    }
}
