//! Uplinks that are interfaces of the kernel's: veth pairs whose other ends are in a node that is the kernel alone.

use std::net::UdpSocket;
use std::time::Duration;

use culvert_api::fastpath::Waking;
use etherparse::PacketBuilder;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::fastpath::{FastPath, configuration, run};
use crate::netns::Netns;
use crate::pods::{Pod, be_a_node, meet, tables_with_remote};
use crate::shares::Halted;
use crate::{Case, within};

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![
        root("a_remote_pod_is_reached_by_packet_sockets_with_whatever_the_kernel_leaves_open", || {
            remote_node("afPacket: { interface: uplink0 }", "");
        }),
        root("packet_sockets_of_two_workers_share_what_comes_in_at_an_address_of_their_own", || {
            remote_node("afPacket: { interface: uplink0, mac: 02:00:00:00:aa:07 }", "workers: [0, 1]");
        }),
        root("tunnel_packets_that_two_veths_leave_uncut_are_cut", uncut),
        root("what_finds_the_ring_of_a_packet_socket_full_is_counted", full_ring),
        root("a_remote_pod_is_reached_by_af_xdp", || remote_node("afXdp: { interface: uplink0 }", "")),
        root("an_interface_that_cannot_be_the_uplink_is_refused_by_name_and_reason", refusals),
    ]
}

/// A namespace with one end of a veth pair, for such an uplink, and another that is a node, with the other.
pub(crate) fn connected(uplink: &str) -> (Netns, Netns) {
    let (near, far) = (Netns::new("fp"), Netns::new("far"));
    near.ip(&format!("link add uplink0 type veth peer name cvtup0 netns {}", far.name()));
    near.ip("link set uplink0 up");
    if uplink.starts_with("afXdp") {
        // What an XDP program sees of a veth has no checksum that its other end has left to a NIC.
        let ethtool = far.command("ethtool").args(["-K", "cvtup0", "tx", "off"]).output().unwrap();
        assert!(ethtool.status.success(), "{ethtool:?}");
    }
    be_a_node(&far);
    (near, far)
}

fn remote_node(uplink: &str, more: &str) {
    let (near, far) = connected(uplink);
    let mut fast_path = FastPath::start_in(near, &format!("uplink: {{ {uplink} }}\n{more}"));
    let before = fast_path.info().mbufs_free;
    let _pods = meet(&fast_path, far);
    // DPDK's driver of AF_XDP has no interrupts.
    let waking = if uplink.starts_with("afXdp") { Waking::Never } else { Waking::Kernel };
    assert_eq!(fast_path.waking("uplink0"), waking);
    let refused = fast_path.counters().drops.into_iter().find(|drop| drop.name == "vnet-header");
    assert_eq!(refused.map_or(0, |drop| drop.value), 0, "frames with a header that was not understood");
    assert!(fast_path.detach("cvt-a").unwrap());
    if !uplink.starts_with("afXdp") {
        // Its driver keeps some for the kernel, at times more and at times less.
        fast_path.wait_for_buffers(before);
    }
    fast_path.stop(Signal::SIGTERM);
}

/// What another fast path does: it hands over several packets of a tunnel as one that is to be cut between them, which a
/// wire would have done.
fn uncut() {
    const COUNT: usize = 40;
    const EACH: usize = 1200;
    let (near, far) = connected("afPacket");
    let fast_path = FastPath::start_in(near, "uplink: { afPacket: { interface: uplink0 } }");
    fast_path.replace(tables_with_remote(&["10.244.2.2"])).unwrap();
    let pod = Pod::attach(&fast_path, "cvt-a", 2);
    within(5, "the pod is reached", || far.ping(&pod.ipv4).then_some(()));
    let server = pod.netns.within(|| UdpSocket::bind("0.0.0.0:9000")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let segments: Vec<u8> = (0..COUNT as u8)
        .flat_map(|number| {
            let mut segment = vec![0x08, 0, 0, 0, 0, 0x10, 0, 0];
            PacketBuilder::ethernet2([2, 0, 0, 0, 0xff, 3], [2, 0, 0, 0, 0xff, 2])
                .ipv4([10, 244, 2, 2], [10, 244, 1, 2], 64)
                .udp(9000, 9000)
                .write(&mut segment, &[number; EACH])
                .unwrap();
            segment
        })
        .collect();
    let client = far.within(|| UdpSocket::bind("192.168.7.2:50000")).unwrap();
    setsockopt(&client, sockopt::UdpGsoSegment, &((segments.len() / COUNT) as i32)).unwrap();
    client.send_to(&segments, "192.168.7.1:4789").unwrap();
    let mut datagram = [0; 2048];
    for number in 0..COUNT as u8 {
        let len = server.recv(&mut datagram).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
        assert_eq!(datagram[..len], [number; EACH], "datagram {number}");
    }
    fast_path.stop(Signal::SIGTERM);
}

/// More packets than there are slots, while no worker looks.
fn full_ring() {
    const SENT: u64 = 5000;
    const SLOTS: u64 = 2048;
    let (near, far) = connected("afPacket");
    let fast_path = FastPath::start_in(near, "uplink: { afPacket: { interface: uplink0 } }\nhangSeconds: 0");
    fast_path.replace(tables_with_remote(&["10.244.2.2"])).unwrap();
    within(5, "the next hop is known", || far.ping("192.168.7.1").then_some(()));
    let lost = || {
        let port = fast_path.ports().into_iter().find(|port| port.name == "uplink0").unwrap();
        let drops = port.drops.into_iter().find(|drop| drop.name == "rx-ring-full");
        drops.map_or(0, |drop| drop.value)
    };
    assert_eq!(lost(), 0);
    let socket = far.within(|| UdpSocket::bind("192.168.7.2:50000")).unwrap();
    let halted = Halted::new(fast_path.processes()[1]);
    (0..SENT).for_each(|_| assert_eq!(socket.send_to(&[0; 18], "192.168.7.1:9").unwrap(), 18));
    drop(halted);
    let counted = within(5, "it is counted", || Some(lost()).filter(|lost| *lost > 0));
    assert!((SENT - SLOTS..SENT).contains(&counted), "{counted} of {SENT}");
    assert_eq!(lost(), counted, "once");
    assert!(fast_path.port("uplink0").rx_dropped >= counted);
    let all = fast_path.counters().drops.into_iter().find(|drop| drop.name == "rx-ring-full").unwrap();
    assert_eq!(all.value, counted);
    fast_path.stop(Signal::SIGTERM);
}

fn refusals() {
    let directory = tempfile::tempdir().unwrap();
    for (uplink, reason) in [
        ("afPacket: { interface: cvtnone }", "interface cvtnone: there is none of this name"),
        ("afPacket: { interface: lo }", "interface lo: has no Ethernet address"),
        ("afXdp: { interface: cvtnone }", "interface cvtnone: there is none of this name"),
    ] {
        let config = configuration(&directory, &format!("uplink: {{ {uplink} }}"));
        let output = run(&["--config", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the uplink does not start: ") && said.contains(reason), "{said}");
    }
    let (near, _far) = connected("");
    for (lines, change, reason) in [
        (
            "uplink: { afXdp: { interface: uplink0 } }\nworkers: [0, 1]",
            "up",
            "has 1 queues, and there are 2 workers",
        ),
        (
            "uplink: { afPacket: { interface: uplink0 } }",
            "down",
            "is down: set it up (`ip link set uplink0 up`)",
        ),
    ] {
        near.ip(&format!("link set uplink0 {change}"));
        let config = configuration(&directory, lines);
        let mut command = near.command("timeout");
        let output = command.args(["20", crate::fastpath::BINARY, "--config"]).arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}
