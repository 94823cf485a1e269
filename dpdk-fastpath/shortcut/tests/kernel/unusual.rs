//! What the short cut leaves to the fast path.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::Duration;

use culvert_shortcut::End;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::frame::Segment;
use crate::netns::Netns;
use crate::node::{EPOCH, GATEWAY, Node, Pod};
use crate::relay::{Station, enter_plain, passed};
use crate::tap::Tap;
use crate::{Case, within};

/// The other end of the connection.
pub(crate) const SERVER: Station = (Ipv4Addr::new(10, 244, 2, 3), 80);
/// This end's port.
pub(crate) const PORT: u16 = 1000;
/// Packets to the other node.
pub(crate) const WAY_MTU: u16 = 1200;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("what_is_unusual_goes_to_the_fast_path", unusual),
        ("a_slot_of_another_epoch_is_not_used", epochs),
        ("a_pod_that_has_left_is_no_destination", closed),
        ("what_a_pod_sends_and_gets_while_culvert0_is_down_goes_to_the_fast_path", down),
        ("what_a_pod_sends_by_culvert0_itself_goes_nowhere_and_is_counted", culvert0),
        ("what_the_node_sends_by_culvert0_itself_reaches_no_pod_and_is_counted", into_pod),
    ]
}

/// Where a packet went.
#[derive(Debug, PartialEq)]
pub(crate) enum Went {
    ToTheFastPath,
    ByTheShortCut,
}

pub(crate) use Went::{ByTheShortCut, ToTheFastPath};

/// A node with one pod at port 3, whose uplink is a tap, and a connection of that pod.
pub(crate) fn connected() -> (Node, Pod, Tap) {
    let mut node = Node::new(1);
    let uplink = node.netns.within(|| Tap::new("wire"));
    node.netns.ip("link set wire up");
    node.connect(2, WAY_MTU);
    let pod = node.pod(3);
    enter_plain(&node, (End::Door(3), End::Way(0)), (pod.address, PORT), SERVER);
    (node, pod, uplink)
}

/// A segment of the connection.
fn segment(pod: &Pod) -> Segment {
    Segment::new((pod.mac, (pod.address, PORT)), (GATEWAY, SERVER), 100)
}

/// Sends an IP packet from a pod, and sees where it goes.
pub(crate) fn went(node: &Node, pod: &Pod, packet: &[u8]) -> Went {
    send(&pod.netns, packet);
    within("the packet goes somewhere", || {
        let at_tap = std::iter::from_fn(|| pod.tap.read()).any(|frame| {
            // The kernel gives an identification to those that have none, and a checksum.
            let head = |packet: &[u8]| [&packet[2..4], &packet[6..10], &packet[12..20]].concat();
            frame.len() == packet.len() + 14 && head(&frame[14..]) == head(packet)
        });
        let by_short_cut = passed(node).iter().any(|(from, ..)| *from == End::Door(3));
        assert!(!(at_tap && by_short_cut));
        match (at_tap, by_short_cut) {
            (true, _) => Some(ToTheFastPath),
            (_, true) => Some(ByTheShortCut),
            _ => None,
        }
    })
}

/// Sends an IP packet, wherever its destination leads.
pub(crate) fn send(netns: &Netns, packet: &[u8]) {
    netns.within(|| {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        let to = SockaddrIn::from(SocketAddrV4::new(SERVER.0, 0));
        assert_eq!(sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap(), packet.len());
    });
}

fn unusual() {
    let (node, pod, _uplink) = connected();
    type Change = fn(&mut Segment);
    let mut packet = Segment { payload: vec![1; 39], ..segment(&pod) }.packet();
    for (header, expected) in [(0xe0, ByTheShortCut), (0xf0, ToTheFastPath)] {
        // Of 56 bytes, and of 60, where 59 are left.
        packet[32] = header;
        assert_eq!(went(&node, &pod, &packet), expected, "{header:#x}");
    }
    let changes: [(&str, Change, Went); 13] = [
        ("nothing", |_| {}, ByTheShortCut),
        ("the last hop", |s| s.ip.time_to_live = 1, ToTheFastPath),
        ("two hops", |s| s.ip.time_to_live = 2, ByTheShortCut),
        ("IP options", |s| s.ip.options = [1, 1, 1, 0].into(), ToTheFastPath),
        ("a first fragment", |s| s.ip.more_fragments = true, ToTheFastPath),
        ("a last fragment", |s| s.ip.fragment_offset = 100.try_into().unwrap(), ToTheFastPath),
        ("TCP options", |s| s.tcp.set_options_raw(&[1; 12]).unwrap(), ByTheShortCut),
        ("a SYN", |s| (s.tcp.syn, s.tcp.ack) = (true, false), ToTheFastPath),
        ("as long as may be", |s| s.payload.resize(usize::from(WAY_MTU) - 40, 1), ByTheShortCut),
        ("too long", |s| s.payload.resize(usize::from(WAY_MTU) - 39, 1), ToTheFastPath),
        ("another port", |s| s.tcp.destination_port = 81, ToTheFastPath),
        ("another protocol", |s| s.ip.protocol = etherparse::IpNumber::UDP, ToTheFastPath),
        ("the end", |s| s.tcp.fin = true, ByTheShortCut),
    ];
    for (change, apply, expected) in changes {
        let mut segment = segment(&pod);
        apply(&mut segment);
        assert_eq!(went(&node, &pod, &segment.packet()), expected, "{change}");
    }
    assert_eq!(node.dropped(), [0; 4]);
}

fn epochs() {
    let (node, pod, _uplink) = connected();
    let packet = segment(&pod).packet();
    assert_eq!(went(&node, &pod, &packet), ByTheShortCut);
    for epoch in [EPOCH + 1, 0] {
        node.kernel.memory().set_epoch(epoch);
        assert_eq!(went(&node, &pod, &packet), ToTheFastPath, "{epoch}");
    }
    node.kernel.memory().set_epoch(EPOCH);
    assert_eq!(went(&node, &pod, &packet), ByTheShortCut);
}

fn closed() {
    let (mut node, pod, _uplink) = connected();
    let other = node.pod(4);
    let to = (other.address, 80);
    enter_plain(&node, (End::Door(3), End::Door(4)), (pod.address, PORT), to);
    let packet = Segment::new((pod.mac, (pod.address, PORT)), (GATEWAY, to), 100).packet();
    assert_eq!(went(&node, &pod, &packet), ByTheShortCut);
    node.kernel.leave_pod(4).unwrap();
    assert_eq!(went(&node, &pod, &packet), ToTheFastPath);
    // And no source.
    node.kernel.leave_pod(3).unwrap();
    assert_eq!(went(&node, &pod, &segment(&pod).packet()), ToTheFastPath);
}

fn down() {
    let (mut node, pod, _uplink) = connected();
    let other = node.pod(4);
    let to = (other.address, 80);
    enter_plain(&node, (End::Door(3), End::Door(4)), (pod.address, PORT), to);
    let sent = segment(&pod).packet();
    let got = Segment::new((pod.mac, (pod.address, PORT)), (GATEWAY, to), 100).packet();
    let ends = [
        (&node.netns, "culvert-p3", &sent),
        (&pod.netns, "culvert0", &sent),
        (&other.netns, "culvert0", &got),
    ];
    for (port, (netns, name, packet)) in [3, 3, 4].into_iter().zip(ends) {
        let looked = |is_joined| {
            within("its state is seen", || {
                node.kernel.look_at_pods();
                (node.kernel.is_joined(port) == is_joined).then_some(())
            });
        };
        looked(true);
        assert_eq!(went(&node, &pod, packet), ByTheShortCut);
        netns.ip(&format!("link set {name} down"));
        looked(false);
        assert!(node.kernel.is_whole(port));
        assert_eq!(went(&node, &pod, packet), ToTheFastPath, "{name} is down");
        netns.ip(&format!("link set {name} up"));
        looked(true);
        assert_eq!(went(&node, &pod, packet), ByTheShortCut, "{name} is up again");
    }
}

fn culvert0() {
    let (node, pod, uplink) = connected();
    // The pod's owner gives both ends all that they need.
    for (netns, name, own, other) in [(&node.netns, "culvert-p3", 1, 2), (&pod.netns, "culvert0", 2, 1)] {
        netns.ip(&format!("link set {name} arp on"));
        netns.ip(&format!("addr add 10.9.9.{own}/24 dev {name}"));
        assert!(netns.ip(&format!("route get 10.9.9.{other}")).contains(name));
    }
    let ping = |netns: &Netns, to: &str| {
        let arguments = ["netns", "exec", netns.name(), "ping", "-n", "-c", "2", "-i", "0.1", "-W", "1", to];
        Command::new("ip").args(arguments).output().unwrap().status.success()
    };
    assert!(!ping(&pod.netns, "10.9.9.1"));
    let arrived = node.netns.run("cat /sys/class/net/culvert-p3/statistics/rx_packets");
    let arrived: u64 = arrived.trim().parse().unwrap();
    assert!(arrived > 0);
    assert_eq!(node.dropped(), [arrived, 0, 0, 0], "it was the program that dropped it");
    assert_eq!(passed(&node), []);
    assert!(std::iter::from_fn(|| uplink.read()).all(|frame| Segment::parse(&frame).is_none()));
}

fn into_pod() {
    let (node, pod, _uplink) = connected();
    for command in [
        "link set culvert-p3 arp on".to_owned(),
        "addr add 10.9.9.1/32 dev culvert-p3".to_owned(),
        format!("route add {} dev culvert-p3", pod.address),
        format!("neigh add {} lladdr {} dev culvert-p3", pod.address, pod.mac),
    ] {
        node.netns.ip(&command);
    }
    let to = (pod.address, 5000);
    let receiver = pod.netns.within(|| UdpSocket::bind(to).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = node.netns.within(|| UdpSocket::bind(("10.9.9.1", 0)).unwrap());
    sender.send_to(b"from the node", to).unwrap();
    // So it is that, and nothing else, which is wrong with it.
    node.netns.ip(&format!("link set culvert-p3 address {GATEWAY}"));
    // Which takes the neighbours away.
    node.netns.ip(&format!("neigh replace {} lladdr {} dev culvert-p3", pod.address, pod.mac));
    sender.send_to(b"from the gateway", to).unwrap();
    let mut data = [0; 100];
    let len = receiver.recv(&mut data).unwrap();
    assert_eq!(&data[..len], b"from the gateway");
    assert_eq!(node.dropped(), [0, 0, 1, 0]);
}
