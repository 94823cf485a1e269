//! What somebody in a pod sees and counts of its decided connections: people with tcpdump, and whoever adds up interfaces.

use std::os::fd::{AsRawFd as _, OwnedFd};

use culvert_shortcut::End;
use nix::sys::socket::{LinkAddr, recvfrom};

use crate::frame::Segment;
use crate::netns::Netns;
use crate::node::GATEWAY;
use crate::relay::passed;
use crate::unusual::send;
use crate::uplinks::{PORTS, SERVICE, Tunnelled, Uplink, is_marked};
use crate::{Case, within};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("what_is_sent_is_seen_and_counted_at_culvert0_alone", sent),
        ("what_is_received_is_seen_at_both_interfaces_and_counted_at_culvert0_alone", received),
    ]
}

const INTERFACES: [&str; 2] = ["tap0", "culvert0"];

/// Packets received and sent by the tap, and by `culvert0`.
fn counted(netns: &Netns) -> [[u64; 2]; 2] {
    INTERFACES.map(|name| {
        ["rx", "tx"].map(|direction| {
            let count = netns.run(&format!("cat /sys/class/net/{name}/statistics/{direction}_packets"));
            count.trim().parse().unwrap()
        })
    })
}

/// Where a packet socket has seen the packet of this identification, and whether as one that goes out.
fn seen(netns: &Netns, socket: &OwnedFd, identification: u16) -> Vec<(&'static str, bool)> {
    let indexes = INTERFACES.map(|name| netns.run(&format!("cat /sys/class/net/{name}/ifindex")));
    let mut frame = vec![0; 1 << 16];
    let mut all = Vec::new();
    while let Ok((len, Some(from))) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
        let at = indexes.iter().position(|index| index.trim() == from.ifindex().to_string()).unwrap();
        if is_marked(&frame[..len], identification) {
            all.push((INTERFACES[at], from.pkttype() == libc::PACKET_OUTGOING));
        }
    }
    all
}

fn sent() {
    let uplink = Uplink::new();
    let (node, pod) = (&uplink.node, &uplink.pod);
    // A tap has sent what is read.
    let by_tap = || std::iter::from_fn(|| pod.tap.read()).collect::<Vec<_>>();
    by_tap();
    let before = counted(&pod.netns);
    let mut segment = Segment::new((pod.mac, (pod.address, PORTS[0])), (GATEWAY, SERVICE), 100);
    segment.ip.identification = 7;
    send(&pod.netns, &segment.packet());
    within("it goes by the short cut", || {
        passed(node).iter().any(|(from, ..)| *from == End::Door(3)).then_some(())
    });
    assert_eq!(seen(&pod.netns, &uplink.in_pod, 7), [("culvert0", true)]);
    // Of the kernel's own accord, perhaps.
    let others = by_tap();
    assert!(!others.iter().any(|frame| is_marked(frame, 7)));
    let [tap, culvert0] = before;
    let expected = [[tap[0], tap[1] + others.len() as u64], [culvert0[0], culvert0[1] + 1]];
    assert_eq!(counted(&pod.netns), expected);
}

fn received() {
    let uplink = Uplink::new();
    let pod = &uplink.pod;
    // A short one, and one that goes by a queue where it might be merged with others.
    for (identification, len) in [(7, 100), (8, 1400)] {
        let before = counted(&pod.netns);
        let mut segment = uplink.segment(PORTS[0]);
        segment.ip.identification = identification;
        segment.payload.resize(len, 1);
        uplink.tap.write(&Tunnelled::default().frame(&segment));
        let mut at = Vec::new();
        within("it comes to the tap", || {
            at.extend(seen(&pod.netns, &uplink.in_pod, identification));
            at.iter().any(|(name, _)| *name == "tap0").then_some(())
        });
        assert_eq!(at, [("culvert0", false), ("tap0", false)]);
        let [tap, culvert0] = before;
        // The pod answers what nobody has asked it for, by the tap or not.
        let [[tap_received, _], [culvert0_received, _]] = counted(&pod.netns);
        assert_eq!([tap_received, culvert0_received], [tap[0], culvert0[0] + 1]);
    }
}
