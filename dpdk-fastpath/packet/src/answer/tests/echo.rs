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

#[test]
fn the_reply_to_a_request_of_zeros_has_the_checksum_of_zeros() {
    let frame = testkit::echo_request(v4("10.0.0.1").into(), v4("10.0.0.2").into(), 0, 0, &[0; 6]);
    let reply = echo(&frame).unwrap();
    assert_checksums(&reply);
    assert_eq!(reply[36..38], [0xff, 0xff]);
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
