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
