mod abort;
mod arp;
mod echo;
mod error;
mod neighbour;
mod reset;

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
