//! What single steps of a packet's way cost, on one packet that is in the cache: `cargo bench -p culvert-packet`.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use culvert_packet::buf::{PacketBuf, TestBuf};
use culvert_packet::checksum::checksum;
use culvert_packet::encap::{Encapsulation, Endpoints, Marking, Template, Tunnel};
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::parse;
use culvert_packet::rewrite::Translation4;
use culvert_packet::testkit::{MAC_A, MAC_B, udp4};
use culvert_packet::usual::{Front, Usual, hop_and_translate};

const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 244, 1, 2), 40_000);
const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 80);
const ENDPOINT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 244, 2, 10), 8080);

/// 60 bytes, 64 on the wire.
fn frame() -> Vec<u8> {
    udp4(SocketAddrV4::new(CLIENT.0, CLIENT.1), SocketAddrV4::new(SERVICE.0, SERVICE.1), &[0; 18])
}

fn key(dst: (Ipv4Addr, u16)) -> FlowKey4 {
    FlowKey4::new(Tenant::DEFAULT, Protocol::UDP, CLIENT, dst)
}

fn reading(c: &mut Criterion) {
    let frame = frame();
    c.bench_function("parse, any packet", |b| {
        b.iter(|| parse(black_box(&frame)));
    });
    c.bench_function("parse, usual packet", |b| {
        b.iter(|| Usual::read(black_box(&frame), black_box(&Front::ANY)));
    });
    let key = key(SERVICE);
    c.bench_function("hash of a key", |b| b.iter(|| black_box(&key).hash64()));
}

fn rewriting(c: &mut Criterion) {
    let (from, to) = (key(SERVICE), key(ENDPOINT));
    let mut packet = frame();
    let parsed = parse(&packet);
    let translation = Translation4::new(&from, &to);
    c.bench_function("translate, any packet", |b| {
        b.iter(|| parsed.as_ref().map(|parsed| translation.apply(black_box(&mut packet), parsed)).is_ok());
    });
    let mut packet = frame();
    c.bench_function("hop and translate, usual packet", |b| {
        b.iter(|| hop_and_translate(black_box(&mut packet), &translation));
    });
}

fn tunnelling(c: &mut Criterion) {
    let template = Template::new(&Tunnel {
        outer_dst: MAC_B,
        outer_src: MAC_A,
        endpoints: Endpoints::V4 {
            src: Ipv4Addr::new(192, 168, 100, 1),
            dst: Ipv4Addr::new(192, 168, 100, 2),
        },
        encapsulation: Encapsulation::Vxlan,
        vni: 1,
        udp_port: Encapsulation::Vxlan.port(),
        marking: Marking::default(),
        zero_checksum6: false,
        inner_dst: MAC_B,
        inner_src: MAC_A,
    });
    let mut buf = TestBuf::new(&frame());
    c.bench_function("encap and strip", |b| {
        b.iter(|| {
            let sent = template.encap(black_box(&mut buf), 50_000, 0, 64);
            buf.trim_front(template.overhead()) & sent.is_ok()
        });
    });
}

fn sums(c: &mut Criterion) {
    let bytes: Vec<u8> = (0..1500).map(|n| n as u8).collect();
    for len in [20, 1500] {
        let mut group = c.benchmark_group("checksum");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |b| b.iter(|| checksum(black_box(&bytes[..len]))));
        group.finish();
    }
}

criterion_group!(benches, reading, rewriting, tunnelling, sums);
criterion_main!(benches);
