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
