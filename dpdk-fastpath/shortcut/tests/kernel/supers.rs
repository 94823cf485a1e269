//! Packets that are to be cut, as a program with a packet socket makes them: of how many parts, the kernel does not know.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use culvert_packet::ip::Protocol;
use culvert_shortcut::End;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket};

use crate::datagram::Datagram;
use crate::frame::Segment;
use crate::node::{GATEWAY, Pod};
use crate::relay::{enter_of, passed};
use crate::tap::take_vnet_headers;
use crate::unusual::{PORT, SERVER, connected};
use crate::{Case, within};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` and the kinds of packets that are to be cut (linux/virtio_net.h).
const NEEDS_CSUM: u8 = 1;
const TCP: u8 = 1;
const FRAGMENTS: u8 = 3;
const DATAGRAMS: u8 = 5;

/// Where the transport header begins, and the checksums are in those of TCP and UDP.
const TRANSPORT: u16 = 34;
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("datagrams_in_one_of_which_nobody_knows_the_number_go_to_the_fast_path", datagrams),
        ("what_finds_its_uplink_gone_when_it_is_to_be_cut_goes_nowhere_and_is_counted", no_uplink),
    ]
}

/// Sends a frame from a pod, to be cut into parts with `size` bytes of data.
fn send(pod: &Pod, frame: &[u8], kind: u8, size: u16, checksum: u16) {
    let header = [u16::from_ne_bytes([NEEDS_CSUM, kind]), TRANSPORT, size, TRANSPORT, checksum];
    let packet = [&header.map(u16::to_ne_bytes).concat(), frame].concat();
    pod.netns.within(|| {
        let raw =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthIp).unwrap();
        take_vnet_headers(&raw);
        let tap = getifaddrs().unwrap().find(|it| it.interface_name == "tap0").unwrap();
        let to = *tap.address.unwrap().as_link_addr().unwrap();
        assert_eq!(sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap(), packet.len());
    });
}

fn datagrams() {
    let (node, pod, _uplink) = connected();
    let client = (pod.address, PORT);
    enter_of(Protocol::UDP, &node, (End::Door(3), End::Way(0)), (client, SERVER), (client, SERVER));
    let frame = Datagram::new((pod.mac, client), (GATEWAY, SERVER), 3000).frame();
    for kind in [DATAGRAMS, FRAGMENTS] {
        send(&pod, &frame, kind, 1000, UDP_CHECKSUM);
        let from =
            |frame: &[u8]| frame.get(26..30) == Some(&Ipv4Addr::octets(&pod.address)) && frame[23] == 17;
        let mut parts = 0;
        within("its parts are at the tap", || {
            parts += std::iter::from_fn(|| pod.tap.read()).filter(|frame| from(frame)).count();
            assert_eq!(passed(&node), []);
            (parts >= 3).then_some(())
        });
    }
    assert_eq!(node.dropped(), [0; 4]);
}

fn no_uplink() {
    let (node, pod, _uplink) = connected();
    let segment = Segment::new((pod.mac, (pod.address, PORT)), (GATEWAY, SERVER), 3000).frame();
    let sent = || send(&pod, &segment, TCP, 1000, TCP_CHECKSUM);
    sent();
    within("it goes by the short cut", || (!passed(&node).is_empty()).then_some(()));
    assert_eq!(node.dropped(), [0; 4]);
    node.netns.ip("link del wire");
    sent();
    within("it is counted", || (node.dropped() == [0, 1, 0, 0]).then_some(()));
    assert!(pod.tap.read().is_none_or(|frame| Segment::parse(&frame).is_none()));
}
