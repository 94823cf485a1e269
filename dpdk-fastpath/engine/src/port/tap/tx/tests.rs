use std::cell::RefCell;
use std::net::SocketAddr;

use culvert_packet::buf::TestBuf;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::testkit;
use zerocopy::FromBytes;

use super::*;

/// A segment of the connection from this port, with so many bytes behind so many others.
fn segment(port: u16, before: u32, len: usize) -> TestBuf {
    let ends: (SocketAddr, SocketAddr) = (([10, 244, 1, 2], port).into(), ([10, 244, 2, 3], 80).into());
    let payload: Vec<u8> = (before..).take(len).map(|n| n as u8).collect();
    let mut frame = testkit::tcp(ends.0, ends.1, TcpFlags::ACK, &payload);
    frame[38..42].copy_from_slice(&(1000 + before).to_be_bytes());
    testkit::fill_checksums(&mut frame);
    TestBuf::new(&frame)
}

/// What is written of a burst: header and frame of each write.
fn written(burst: &mut [TestBuf]) -> Vec<(Offload, Vec<u8>)> {
    let all = RefCell::new(Vec::new());
    let write = |parts: &[IoSlice<'_>]| {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let (header, frame) = VnetHeader::read_from_prefix(&bytes).unwrap();
        let mut frame = frame.to_vec();
        all.borrow_mut().push((header.offload(&mut frame).unwrap(), frame));
        true
    };
    let mut plan = Plan::new();
    plan.make(burst);
    plan.write(burst, write, &mut |_| panic!("nothing is dropped"));
    all.into_inner()
}

fn ports(written: &[(Offload, Vec<u8>)]) -> Vec<(u16, usize)> {
    written.iter().map(|(_, frame)| (parse(frame).unwrap().src_port, frame.len() - 54)).collect()
}

#[test]
fn segments_of_each_connection_are_written_together_though_they_alternate() {
    let mut burst = [
        segment(1, 0, 500),
        segment(2, 0, 400),
        segment(1, 500, 500),
        segment(2, 400, 400),
        segment(1, 1000, 10),
    ];
    let written = written(&mut burst);
    assert_eq!(ports(&written), [(1, 1010), (2, 800)]);
    let sizes: Vec<_> = written.iter().map(|(offload, _)| offload.segment.unwrap().get()).collect();
    assert_eq!(sizes, [500, 400]);
    let expected: Vec<u8> = (0..1010).map(|n| n as u8).collect();
    assert_eq!(written[0].1[54..], expected);
}

#[test]
fn a_connection_stays_in_order_around_what_cannot_be_merged() {
    // A segment without data, and one that came twice.
    let mut burst = [
        segment(1, 0, 500),
        segment(1, 500, 0),
        segment(1, 500, 500),
        segment(1, 500, 500),
        segment(1, 1000, 500),
    ];
    let written = written(&mut burst);
    assert_eq!(ports(&written), [(1, 500), (1, 0), (1, 500), (1, 1000)]);
    assert!(written[..3].iter().all(|(offload, _)| *offload == Offload::NONE));
}

#[test]
fn what_the_kernel_does_not_take_is_dropped_whole() {
    let mut burst = [segment(1, 0, 500), segment(2, 0, 400), segment(1, 500, 500)];
    let (mut plan, mut dropped) = (Plan::new(), 0);
    plan.make(&burst);
    plan.write(&mut burst, |parts| parts.len() < 3, &mut |_| dropped += 1);
    assert_eq!(dropped, 2);
}
