//! Packets as scapy 2.5.0 makes and reads them, in hexadecimal: an implementation that is not ours.

use super::*;

/// UDP from 10.1.0.2 to 10.1.1.3, TTL 63, traffic class 0xb9, as it is inside all tunnels here.
const INNER: &str =
    "0263c0a800020263c0a80001080045b90021000100003f11660c0a0100020a01010313880035000d87287175657279";

/// `Ether()/IP(flags="DF", id=0, tos=1)/UDP(chksum=0)/GENEVE(vni=5001, proto=0x6558)` and the inner frame.
const GENEVE4: &str = concat!(
    "020000000101020000000102080045010053000040004011b945c0a80001c0a80002c35017c1003f00000000655800138900",
    "0263c0a800020263c0a80001080045b90021000100003f11660c0a0100020a01010313880035000d87287175657279",
);

/// `Ether()/IPv6(tc=1)/UDP()/GENEVE(vni=5001, proto=0x6558)` and the inner frame.
const GENEVE6: &str = concat!(
    "02000000010102000000010286dd60100000003f1140fd000000000000000000000000000001fd0000000000000000000000",
    "00000002c35017c1003fc2f800006558001389000263c0a800020263c0a80001080045b90021000100003f11660c0a010002",
    "0a01010313880035000d87287175657279",
);

/// `Ether()/IPv6(tc=1)/UDP()/VXLAN(vni=5001)` and the inner frame.
const VXLAN6: &str = concat!(
    "02000000010102000000010286dd60100000003f1140fd000000000000000000000000000001fd0000000000000000000000",
    "00000002c35012b5003f255d08000000001389000263c0a800020263c0a80001080045b90021000100003f11660c0a010002",
    "0a01010313880035000d87287175657279",
);

/// Geneve with two options, neither of them critical.
const OPTIONS: &str = concat!(
    "02000000010202000000010108004500005f000100004011f939c0a80002c0a80001c35017c1004b2f850300655800138900",
    "0102010101020304010302000263c0a800020263c0a80001080045b90021000100003f11660c0a0100020a01010313880035",
    "000d87287175657279",
);

/// The same, the first one critical.
const CRITICAL: &str = concat!(
    "02000000010202000000010108004500005f000100004011f939c0a80002c0a80001c35017c1004bb0440340655800138900",
    "0102800101020304010302000263c0a800020263c0a80001080045b90021000100003f11660c0a0100020a01010313880035",
    "000d87287175657279",
);

/// The same as a control message.
const OAM: &str = concat!(
    "02000000010202000000010108004500005f000100004011f939c0a80002c0a80001c35017c1004b2f050380655800138900",
    "0102010101020304010302000263c0a800020263c0a80001080045b90021000100003f11660c0a0100020a01010313880035",
    "000d87287175657279",
);

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// What a template makes of the inner frame.
fn encapsulated(encapsulation: Encapsulation, endpoints: (&str, &str)) -> Vec<u8> {
    let endpoints = Endpoints::new(endpoints.0.parse().unwrap(), endpoints.1.parse().unwrap()).unwrap();
    let tunnel = Tunnel { encapsulation, vni: 5001, udp_port: encapsulation.port(), ..tunnel(endpoints) };
    let mut buf = TestBuf::new(&bytes(INNER));
    Template::new(&tunnel).encap(&mut buf, 50_000, 0xb9, 63).unwrap();
    buf.data().to_vec()
}

#[test]
fn geneve_over_ipv4_is_what_scapy_makes() {
    let made = encapsulated(Encapsulation::Geneve, ("192.168.0.1", "192.168.0.2"));
    assert_eq!(made, bytes(GENEVE4));
}

#[test]
fn geneve_and_vxlan_over_ipv6_are_what_scapy_makes_checksums_included() {
    let ends = ("fd00::1", "fd00::2");
    assert_eq!(encapsulated(Encapsulation::Geneve, ends), bytes(GENEVE6));
    assert_eq!(encapsulated(Encapsulation::Vxlan, ends), bytes(VXLAN6));
}

#[test]
fn options_that_scapy_writes_are_passed_over_unless_they_are_critical() {
    let verdict = |hex| {
        let mut buf = TestBuf::new(&bytes(hex));
        let decap = decap_geneve(buf.data(), &parse(buf.data()).unwrap())?;
        decap.strip(&mut buf);
        Ok((decap.vni, buf.data().to_vec()))
    };
    assert_eq!(verdict(OPTIONS), Ok((5001, bytes(INNER))));
    assert_eq!(verdict(CRITICAL), Err(DecapError::CriticalOption));
    assert_eq!(verdict(OAM), Err(DecapError::Control));
}
