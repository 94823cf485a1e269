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
    assert_eq!(resolve(&testkit::udp(addr("10.0.0.1:1"), addr("10.0.0.2:2"), b"")), Err(NoAnswer::NotAsked));
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
