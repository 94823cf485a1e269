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
