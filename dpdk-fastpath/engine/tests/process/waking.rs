//! Workers that have nothing to do, and ports that DPDK makes.

use std::net::UdpSocket;
use std::time::Duration;

use culvert_api::fastpath::Waking;
use nix::sys::signal::Signal;

use crate::fastpath::FastPath;
use crate::netns::Netns;
use crate::pods::{far_node, meet};
use crate::{Case, within};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case {
        name: "net_taps_wake_a_worker_and_leave_it_asleep_without_packets",
        root: true,
        device: None,
        body: net_taps,
    }]
}

impl FastPath {
    /// Waits for a second without a packet in which the workers sleep: they make ten rounds each, and not thousands, as they
    /// would if they looked every 50 microseconds.
    pub(crate) fn sleeps(&self) {
        within(20, "workers sleep", || {
            let rounds = || self.counters().workers.iter().map(|worker| worker.polls).sum::<u64>();
            let before = rounds();
            std::thread::sleep(Duration::from_secs(1));
            (rounds() - before < 500).then_some(())
        });
    }

    /// What wakes workers at a port.
    pub(crate) fn waking(&self, port: &str) -> Waking {
        self.ports().into_iter().find(|listed| listed.name == port).unwrap().waking()
    }
}

fn net_taps() {
    let uplink = "uplink: { netTap: { name: cvtup0, mac: 02:00:00:00:aa:01 } }";
    let mut fast_path = FastPath::start_in(Netns::new("fp"), &format!("{uplink}\npodPorts: netTap"));
    let before = fast_path.info().mbufs_free;
    let listed = fast_path.ports().into_iter().find(|port| port.name == "cvtup0").unwrap();
    let segmentation = listed.segmentation.unwrap();
    assert!(segmentation.device_offloads.is_empty(), "{segmentation:?}");
    assert!(segmentation.reason.starts_with("net_tap lacks OUTER_IPV4_CKSUM"), "{segmentation:?}");
    let far = far_node(&fast_path);
    let (pod, there) = meet(&fast_path, far);
    assert_eq!(["cvtup0", "cvt-a"].map(|port| fast_path.waking(port)), [Waking::Kernel; 2]);
    fast_path.sleeps();

    let received = pod.netns.within(|| UdpSocket::bind(("10.244.1.2", 5000))).unwrap();
    received.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sent = there.netns.within(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    for n in 0..200_u64 {
        sent.send_to(&n.to_be_bytes(), ("10.244.1.2", 5000)).unwrap();
        let mut number = [0; 8];
        received.recv(&mut number).unwrap_or_else(|error| panic!("packet {n}: {error}"));
        assert_eq!(u64::from_be_bytes(number), n);
        std::thread::sleep(Duration::from_micros(n * 37 % 1000));
    }
    assert!(fast_path.detach("cvt-a").unwrap());
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}
