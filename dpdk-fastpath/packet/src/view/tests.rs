//! Headers agree byte for byte with those that etherparse writes.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{IcmpEchoHeader, IpFragOffset, IpNumber, Ipv6FlowLabel};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::Malformed;
use crate::arp::{Arp, ArpHeader, ArpOperation};
use crate::eth::{EthAddr, EthHeader, EthMut, EtherType};
use crate::icmp::{Icmp, IcmpHeader, IcmpMut, IcmpType};
use crate::icmpv6::{Icmpv6Header, Icmpv6Type};
use crate::ip::Protocol;
use crate::ipv4::{Ipv4, Ipv4Header, Ipv4Mut};
use crate::ipv6::{FragmentHeader, Ipv6, Ipv6Header, Ipv6Mut};
use crate::tcp::{Tcp, TcpFlags, TcpHeader, TcpMut};
use crate::udp::{Udp, UdpHeader, UdpMut};
use crate::vxlan::{Vxlan, VxlanHeader};

proptest! {
    #[test]
    fn ethernet(dst: [u8; 6], src: [u8; 6], ether_type: u16) {
        let other =
            etherparse::Ethernet2Header { source: src, destination: dst, ether_type: ether_type.into() };
        let mut bytes = other.to_bytes();
        let header = EthHeader::new(EthAddr(dst), EthAddr(src), EtherType(ether_type));
        prop_assert_eq!(header.as_bytes(), bytes);
        let mut view = EthMut::new(&mut bytes).unwrap();
        view.set_dst(EthAddr(src));
        view.set_src(EthAddr(dst));
        view.set_ether_type(EtherType(!ether_type));
        prop_assert_eq!((view.dst(), view.src()), (EthAddr(src), EthAddr(dst)));
        prop_assert_eq!(view.ether_type().0, !ether_type);
    }

    #[test]
    fn arp(operation: u16, macs: [[u8; 6]; 2], ips: [[u8; 4]; 2]) {
        let other = etherparse::ArpEthIpv4Packet {
            operation: etherparse::ArpOperation(operation),
            sender_mac: macs[0],
            sender_ipv4: ips[0],
            target_mac: macs[1],
            target_ipv4: ips[1],
        };
        let bytes = other.to_bytes();
        let (sender, target) = ((EthAddr(macs[0]), ips[0].into()), (EthAddr(macs[1]), ips[1].into()));
        let header = ArpHeader::new(ArpOperation(operation), sender, target);
        prop_assert_eq!(header.as_bytes(), &bytes[..]);
        let view = Arp::new(&bytes).unwrap();
        prop_assert_eq!(view.operation().0, operation);
        prop_assert_eq!((view.sender_mac(), view.sender_ip()), sender);
        prop_assert_eq!((view.target_mac(), view.target_ip()), target);
    }

    #[test]
    fn ipv4(
        (src, dst, protocol, ttl) in any::<([u8; 4], [u8; 4], u8, u8)>(),
        (class, identification, offset, dont, more) in any::<(u8, u16, u16, bool, bool)>(),
        options in 0usize..=10,
    ) {
        let options = vec![1; options * 4];
        let mut other = etherparse::Ipv4Header::new(32, ttl, IpNumber(protocol), src, dst).unwrap();
        other.options = options[..].try_into().unwrap();
        other.dscp = (class >> 2).try_into().unwrap();
        other.ecn = (class & 3).try_into().unwrap();
        other.identification = identification;
        other.dont_fragment = dont;
        other.more_fragments = more;
        other.fragment_offset = IpFragOffset::try_new(offset & 0x1fff).unwrap();
        other.set_payload_len(32).unwrap();
        other.header_checksum = other.calc_header_checksum();
        let wanted = [&other.to_bytes()[..], &[7; 32]].concat();

        let mut bytes = wanted.clone();
        bytes[1..14].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes[2..4].copy_from_slice(&wanted[2..4]);
        let mut view = Ipv4Mut::new(&mut bytes).unwrap();
        view.set_traffic_class(class);
        view.set_identification(identification);
        view.set_fragment(dont, more, u32::from(offset & 0x1fff) * 8);
        view.set_ttl(ttl);
        view.set_src(src.into());
        view.set_dst(dst.into());
        view.options_mut().copy_from_slice(&options);
        view.payload_mut().fill(7);
        bytes[9] = protocol;
        Ipv4Mut::new(&mut bytes).unwrap().update_checksum_with_options();
        prop_assert_eq!(&bytes, &wanted);

        let view = Ipv4::new(&bytes).unwrap();
        prop_assert!(view.checksum_is_valid());
        prop_assert_eq!((view.src(), view.dst()), (Ipv4Addr::from(src), Ipv4Addr::from(dst)));
        prop_assert_eq!((view.protocol().0, view.ttl(), view.traffic_class()), (protocol, ttl, class));
        prop_assert_eq!(view.identification(), identification);
        prop_assert_eq!(view.fragment_offset(), u32::from(offset & 0x1fff) * 8);
        prop_assert_eq!((view.dont_fragment(), view.more_fragments()), (dont, more));
        prop_assert_eq!((view.options(), view.payload()), (&options[..], &[7; 32][..]));
        prop_assert_eq!(view.header_len(), 20 + options.len());
        prop_assert_eq!(usize::from(view.total_len()), 52 + options.len());
    }

    #[test]
    fn ipv4_without_options(src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, len in 0u16..=65515) {
        let mut other = etherparse::Ipv4Header::new(len, ttl, IpNumber(protocol), src, dst).unwrap();
        other.header_checksum = other.calc_header_checksum();
        let mut header = Ipv4Header::new(src.into(), dst.into(), Protocol(protocol), ttl, len);
        header.update_checksum();
        prop_assert_eq!(header.as_bytes(), &other.to_bytes()[..]);
    }

    #[test]
    fn ipv6(
        (src, dst, next, hops) in any::<([u8; 16], [u8; 16], u8, u8)>(),
        class: u8,
        label in 0u32..1 << 20,
    ) {
        let other = etherparse::Ipv6Header {
            traffic_class: class,
            flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
            payload_length: 5,
            next_header: IpNumber(next),
            hop_limit: hops,
            source: src,
            destination: dst,
        };
        let wanted = [&other.to_bytes()[..], &[7; 5]].concat();
        let blank = Ipv6Header::new(Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, Protocol(0), 0, 5);
        let mut bytes = [blank.as_bytes(), &[7; 5]].concat();
        let mut view = Ipv6Mut::new(&mut bytes).unwrap();
        view.set_flow_label(label);
        view.set_traffic_class(class);
        view.set_next_header(Protocol(next));
        view.set_hop_limit(hops);
        view.set_src(src.into());
        view.set_dst(dst.into());
        prop_assert_eq!(&bytes, &wanted);
        let view = Ipv6::new(&bytes).unwrap();
        prop_assert_eq!((view.src(), view.dst()), (Ipv6Addr::from(src), Ipv6Addr::from(dst)));
        prop_assert_eq!((view.next_header().0, view.hop_limit(), view.payload_len()), (next, hops, 5));
        prop_assert_eq!((view.traffic_class(), view.flow_label()), (class, label));
    }

    #[test]
    fn ipv6_fragment(next: u8, offset in 0u16..1 << 13, more: bool, identification: u32) {
        let offset_units = IpFragOffset::try_new(offset).unwrap();
        let other = etherparse::Ipv6FragmentHeader::new(IpNumber(next), offset_units, more, identification);
        let header = FragmentHeader::new(Protocol(next), u32::from(offset) * 8, more, identification);
        prop_assert_eq!(header.as_bytes(), other.to_bytes());
        prop_assert_eq!((header.next_header().0, header.offset()), (next, u32::from(offset) * 8));
        prop_assert_eq!((header.more_fragments(), header.identification()), (more, identification));
    }

    #[test]
    fn tcp(ports: (u16, u16), sequence: u32, acknowledgement: u32, flags: u8, window: u16, checksum: u16) {
        let mut other = etherparse::TcpHeader::new(ports.0, ports.1, sequence, window);
        other.acknowledgment_number = acknowledgement;
        let bits: [&mut bool; 8] = [
            &mut other.fin, &mut other.syn, &mut other.rst, &mut other.psh,
            &mut other.ack, &mut other.urg, &mut other.ece, &mut other.cwr,
        ];
        for (i, bit) in bits.into_iter().enumerate() {
            *bit = flags >> i & 1 != 0;
        }
        other.checksum = checksum;
        let wanted = other.to_bytes();
        let mut bytes = [0; 20];
        bytes.copy_from_slice(TcpHeader::new(0, 0, sequence, acknowledgement, TcpFlags(flags)).as_bytes());
        let mut view = TcpMut::new(&mut bytes).unwrap();
        view.set_src_port(ports.0);
        view.set_dst_port(ports.1);
        view.set_window(window);
        view.set_checksum(checksum);
        prop_assert_eq!(&bytes, &wanted[..]);
        let view = Tcp::new(&bytes).unwrap();
        prop_assert_eq!((view.src_port(), view.dst_port(), view.flags().0), (ports.0, ports.1, flags));
        prop_assert_eq!((view.sequence(), view.acknowledgement()), (sequence, acknowledgement));
        prop_assert_eq!((view.window(), view.checksum(), view.header_len()), (window, checksum, 20));
    }

    #[test]
    fn udp(ports: (u16, u16), checksum: u16) {
        let other = etherparse::UdpHeader {
            source_port: ports.0, destination_port: ports.1, length: 11, checksum,
        };
        let mut bytes = [UdpHeader::new(0, 0, 0).as_bytes(), b"abcd"].concat();
        let mut view = UdpMut::new(&mut bytes).unwrap();
        view.set_src_port(ports.0);
        view.set_dst_port(ports.1);
        view.set_length(11);
        view.set_checksum(checksum);
        prop_assert_eq!(&bytes[..8], other.to_bytes());
        let view = Udp::new(&bytes).unwrap();
        prop_assert_eq!((view.src_port(), view.dst_port()), ports);
        prop_assert_eq!((view.length(), view.checksum(), view.payload()), (11, checksum, &b"abc"[..]));
    }

    #[test]
    fn icmp_echo(id: u16, seq: u16) {
        let echo = IcmpEchoHeader { id, seq };
        let other = etherparse::Icmpv4Header::new(etherparse::Icmpv4Type::EchoRequest(echo));
        let mut bytes = other.to_bytes();
        let header = IcmpHeader::echo(IcmpType::ECHO_REQUEST, id, seq);
        prop_assert_eq!(header.as_bytes(), &bytes[..]);
        let view = Icmp::new(&bytes).unwrap();
        prop_assert_eq!((view.identifier(), view.sequence(), view.checksum()), (id, seq, 0));
        let mut view = IcmpMut::new(&mut bytes).unwrap();
        view.set_identifier(!id);
        view.set_checksum(id);
        prop_assert_eq!((view.identifier(), view.checksum()), (!id, id));

        let other = etherparse::Icmpv6Header::new(etherparse::Icmpv6Type::EchoReply(echo));
        let header = Icmpv6Header::echo(Icmpv6Type::ECHO_REPLY, id, seq);
        prop_assert_eq!(header.as_bytes(), &other.to_bytes()[..]);
        prop_assert_eq!((header.identifier(), header.sequence()), (id, seq));
    }

    #[test]
    fn a_vni_has_24_bits(vni: u32) {
        let bytes = [VxlanHeader::new(vni).as_bytes(), &[0; 14]].concat();
        prop_assert_eq!(Vxlan::new(&bytes).unwrap().vni(), vni & 0xff_ffff);
        let [_, _, _, low] = vni.to_be_bytes();
        prop_assert_eq!((bytes[0], bytes[6], bytes[7]), (8, low, 0));
    }
}

#[test]
fn a_view_ends_where_its_header_says() {
    let mut bytes =
        [Ipv4Header::new([1; 4].into(), [2; 4].into(), Protocol(253), 1, 3).as_bytes(), b"abcdef"].concat();
    assert_eq!(Ipv4::new(&bytes).unwrap().payload(), b"abc");
    assert_eq!(Ipv4Mut::new(&mut bytes).unwrap().payload_mut(), b"abc");
    bytes.truncate(22);
    assert_eq!(Ipv4::new(&bytes).err(), Some(Malformed::Ipv4TotalLength));
    bytes.truncate(19);
    assert_eq!(Ipv4::new(&bytes).err(), Some(Malformed::Ipv4Truncated));
    assert_eq!(Ipv4Mut::new(&mut bytes).err(), Some(Malformed::Ipv4Truncated));
}

#[test]
fn group_addresses_are_those_of_their_rfcs() {
    assert_eq!(EthAddr::of_ipv4_multicast([224, 128, 2, 3].into()), EthAddr([1, 0, 0x5e, 0, 2, 3]));
    assert_eq!(
        EthAddr::of_ipv6_multicast("ff02::1:ff12:3456".parse().unwrap()).to_string(),
        "33:33:ff:12:34:56"
    );
    for (text, multicast, unicast) in [
        ([0xff; 6], true, false),
        ([1, 0, 0, 0, 0, 0], true, false),
        ([0; 6], false, false),
        ([2, 0, 0, 0, 0, 1], false, true),
    ] {
        let mac = EthAddr(text);
        assert_eq!((mac.is_multicast(), mac.is_unicast()), (multicast, unicast), "{mac}");
    }
    assert!(EthAddr([0xff; 6]).is_broadcast() && !EthAddr([1, 0, 0, 0, 0, 0]).is_broadcast());
}
