//! Pods of one node.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use culvert_api::fastpath as api;
use nix::sys::signal::Signal;
use tonic::Code;

use crate::fastpath::FastPath;
use crate::netns::Netns;
use crate::{Case, within};

const GATEWAYS: [&str; 2] = ["10.244.1.1", "fd00:10:244:1::1"];
pub(crate) const VIP: &str = "10.96.0.10";

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![
        root("pods_reach_their_gateway_each_other_and_a_service_over_both_ip_versions", connectivity),
        root("ports_that_come_and_go_leave_no_buffer_and_no_interface_behind", no_leak),
        root("a_port_that_leaves_under_traffic_takes_no_buffer_along", leave_under_traffic),
        root("attaching_a_port_again_changes_its_addresses_and_keeps_its_interface", attach_again),
        root("a_wrong_request_is_refused_by_name_and_changes_nothing", wrong_requests),
        root("tables_of_an_older_revision_are_refused", older_tables),
        root("new_tables_are_in_force_within_milliseconds", publish_time),
        root("the_next_hop_of_a_remote_node_is_asked_for_on_the_uplink", next_hop),
        root("a_pod_of_a_remote_node_is_reached_through_the_kernels_vxlan", remote_node),
        root("two_workers_send_through_each_others_ports", two_workers),
        root("two_workers_share_what_comes_in_at_an_uplink_and_from_a_pod_if_it_has_two_queues", shared_taps),
        root("an_idle_fast_path_leaves_the_cpu_to_others", idle),
        // Where the kernel has no such device, the guest of hw-tests has: its case is like this one.
        Case {
            device: Some("/dev/vhost-net"),
            ..root("pods_whose_packets_vhost_net_moves_reach_each_other_and_a_service", vhost_net)
        },
        root("sigint_ends_it_in_order_too", || FastPath::start().stop(Signal::SIGINT)),
    ]
}

fn bytes(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn prefix(text: &str) -> api::Prefix {
    let (address, length) = text.split_once('/').unwrap();
    api::Prefix { address: bytes(address), prefix_len: length.parse().unwrap() }
}

/// Tables of a node with one service, whose endpoints are these pods at port 8080.
pub(crate) fn tables(revision: u64, backends: &[&str]) -> api::Tables {
    let backend =
        |address: &&str| api::Backend { address: bytes(address), port: 8080, ..api::Backend::default() };
    api::Tables {
        revision,
        synced: true,
        node: Some(api::LocalNode {
            name: "node-a".into(),
            gateways: GATEWAYS.map(bytes).to_vec(),
            gateway_mac: vec![2, 0, 0, 0, 0xff, 1],
            underlay: vec![api::UnderlayAddress {
                address: bytes("192.168.7.1"),
                prefix_len: 24,
                router: vec![],
            }],
            vtep_mac: vec![2, 0, 0, 0, 0xff, 2],
            vni: 4096,
            pod_cidrs: vec![prefix("10.244.1.0/24"), prefix("fd00:10:244:1::/64")],
            ..api::LocalNode::default()
        }),
        remotes: Vec::new(),
        services: vec![api::Service {
            namespace: "default".into(),
            name: "web".into(),
            protocol: api::Protocol::Tcp.into(),
            vip: bytes(VIP),
            port: 80,
            backends: backends.iter().map(backend).collect(),
            ..api::Service::default()
        }],
    }
}

pub(crate) fn request(name: &str, addresses: &[&str]) -> api::AttachPortRequest {
    api::AttachPortRequest {
        name: name.into(),
        addresses: addresses.iter().copied().map(bytes).collect(),
        mac: vec![2, 0, 0, 0, 1, name.bytes().last().unwrap()],
        mtu: 1450,
        tenant: 0,
        owner: format!("default/{name}"),
        ..api::AttachPortRequest::default()
    }
}

/// A namespace that has a port of the fast path.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) ipv4: String,
    pub(crate) ipv6: String,
}

impl Pod {
    pub(crate) fn attach(fast_path: &FastPath, name: &str, number: u8) -> Self {
        Self::attach_with(fast_path, name, number, 1450)
    }

    /// Does what the agent and the CNI do.
    pub(crate) fn attach_with(fast_path: &FastPath, name: &str, number: u8, mtu: u32) -> Self {
        let netns = Netns::new("pod");
        let (ipv4, ipv6) = (format!("10.244.1.{number}"), format!("fd00:10:244:1::{number:x}"));
        fast_path.attach(api::AttachPortRequest { mtu, ..request(name, &[&ipv4, &ipv6]) }).unwrap();
        fast_path.netns.ip(&format!("link set {name} netns {}", netns.name()));
        netns.ip(&format!("link set {name} name eth0"));
        netns.ip("link set eth0 up");
        netns.ip(&format!("addr add {ipv4}/32 dev eth0"));
        netns.ip(&format!("addr add {ipv6}/128 dev eth0 nodad"));
        for gateway in GATEWAYS {
            netns.ip(&format!("route add {gateway} dev eth0 scope link"));
            netns.ip(&format!("route add default via {gateway} dev eth0"));
        }
        Self { netns, ipv4, ipv6 }
    }
}

fn connectivity() {
    let mut fast_path = FastPath::start();
    let before = fast_path.info();
    assert_eq!((before.revision, before.synced, before.workers), (0, false, 1));
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    for gateway in GATEWAYS {
        assert!(a.netns.ping(gateway), "gateway {gateway}");
    }
    assert!(a.netns.ping(&b.ipv4) && b.netns.ping(&a.ipv4), "pod to pod, IPv4");
    assert!(a.netns.ping(&b.ipv6) && b.netns.ping(&a.ipv6), "pod to pod, IPv6");
    through_the_service(&a, &b);

    let counters = fast_path.counters();
    let port = fast_path.port("cvt-a");
    assert!(port.rx_packets >= 12, "{port:?}");
    assert!(counters.workers[0].packets > 0 && counters.workers[0].polls > 0, "{:?}", counters.workers);
    assert_eq!(counters.flows_created, 1, "{counters:?}");

    assert!(fast_path.detach("cvt-a").unwrap() && fast_path.detach("cvt-b").unwrap());
    assert!(!a.netns.ip("-o link").contains("eth0"), "the interface has left the pod");
    fast_path.wait_for_buffers(before.mbufs_free);
    fast_path.stop(Signal::SIGTERM);
}

/// One connection over the service's address, with more data than fits into any queue.
pub(crate) fn through_the_service(client: &Pod, server: &Pod) {
    const BYTES: usize = 1 << 20;
    let address: SocketAddr = format!("{}:8080", server.ipv4).parse().unwrap();
    let listener = server.netns.within(|| TcpListener::bind(address)).unwrap();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (mut stream, from) = listener.accept().unwrap();
            stream.write_all(&vec![7; BYTES]).unwrap();
            from.ip().to_string()
        });
        let vip = format!("{VIP}:80").parse().unwrap();
        let stream = client.netns.within(|| TcpStream::connect_timeout(&vip, Duration::from_secs(5)));
        // A refused connection must not leave the server waiting for ever.
        let Ok(mut stream) = stream else {
            let _ = server.netns.within(|| TcpStream::connect(address));
            panic!("the service does not answer: {stream:?}");
        };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received.len() == BYTES && received.iter().all(|byte| *byte == 7));
        assert_eq!(stream.peer_addr().unwrap(), vip);
        assert_eq!(served.join().unwrap(), client.ipv4, "the client's address is kept");
    });
}

fn no_leak() {
    let mut fast_path = FastPath::start();
    let before = fast_path.info().mbufs_free;
    fast_path.replace(tables(1, &[])).unwrap();
    for round in 0..3 {
        let pods: Vec<_> = (0..5)
            .map(|n| (format!("cvt-{n}"), Pod::attach(&fast_path, &format!("cvt-{n}"), 10 + n)))
            .collect();
        assert!(pods[0].1.netns.ping(&pods[1].1.ipv4), "round {round}");
        assert!(fast_path.info().mbufs_free + 4 > before, "an idle port holds no buffers");
        for (name, _) in &pods {
            assert!(fast_path.detach(name).unwrap());
        }
        fast_path.wait_for_buffers(before);
    }
    assert!(!fast_path.detach("cvt-0").unwrap(), "detaching twice succeeds");
    assert_eq!(fast_path.ports().len(), 1);
    fast_path.stop(Signal::SIGTERM);
}

fn leave_under_traffic() {
    let mut fast_path = FastPath::start();
    let before = fast_path.info().mbufs_free;
    fast_path.replace(tables(1, &[])).unwrap();
    let a = Pod::attach(&fast_path, "cvt-a", 2);
    let socket = a.netns.within(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopper = Stopper(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Refused while the pod has no port: the message comes back as an ICMP error, or there is no route.
                let _ = socket.send_to(&[0; 1000], ("10.244.1.3", 9));
            }
        });
        for _ in 0..5 {
            let b = Pod::attach(&fast_path, "cvt-b", 3);
            within(5, "packets reach the pod", || (fast_path.port("cvt-b").tx_packets > 1000).then_some(()));
            assert!(fast_path.detach("cvt-b").unwrap());
            drop(b);
        }
        assert!(fast_path.detach("cvt-a").unwrap(), "the sender's own port");
        drop(stopper);
    });
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}

/// Says stop when it goes, also by a panic: the sender must not keep a failed test from ending.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn attach_again() {
    let fast_path = FastPath::start();
    fast_path.replace(tables(1, &[])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    let moved = fast_path.attach(request("cvt-b", &["10.244.1.4"])).unwrap();
    assert_eq!(moved.addresses, [bytes("10.244.1.4")]);
    b.netns.ip("addr add 10.244.1.4/32 dev eth0");
    assert!(a.netns.ping("10.244.1.4"));
    assert!(!a.netns.ping("10.244.1.3"));
    fast_path.stop(Signal::SIGTERM);
}

fn wrong_requests() {
    let fast_path = FastPath::start();
    fast_path.attach(request("cvt-a", &["10.244.1.2"])).unwrap();
    fast_path.replace(tables(1, &[])).unwrap();
    let good = || request("cvt-b", &["10.244.1.3"]);
    for (wrong, reason) in [
        (api::AttachPortRequest { name: "a/b".into(), ..good() }, "a/b"),
        (api::AttachPortRequest { name: "sixteen-bytes-xx".into(), ..good() }, "sixteen-bytes-xx"),
        (api::AttachPortRequest { name: "cvtup0".into(), ..good() }, "port cvtup0"),
        (api::AttachPortRequest { mac: vec![1; 6], ..good() }, "port cvt-b: mac"),
        (api::AttachPortRequest { mtu: 100, ..good() }, "port cvt-b: mtu 100"),
        (api::AttachPortRequest { mtu: 70_000, ..good() }, "70000"),
        (request("cvt-b", &["10.244.1.2"]), "port cvt-b: address 10.244.1.2: is already port cvt-a's"),
        (request("cvt-b", &["10.244.1.1"]), "10.244.1.1"),
        (request("cvt-b", &["127.0.0.1"]), "address 127.0.0.1"),
    ] {
        let status = fast_path.attach(wrong).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(reason), "{reason}: {status}");
    }
    assert_eq!(fast_path.detach("cvtup0").unwrap_err().code(), Code::InvalidArgument);

    let mut wrong = tables(2, &[]);
    wrong.services[0].vip = vec![1; 5];
    let status = fast_path.replace(wrong).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("service default/web: vip of 5 bytes"), "{status}");
    let mut wrong = tables(2, &[]);
    wrong.node.as_mut().unwrap().underlay_mtu = 9000;
    let status = fast_path.replace(wrong).unwrap_err();
    assert!(status.message().contains("local node node-a: underlay_mtu 9000"), "{status}");

    let names: Vec<_> = fast_path.ports().into_iter().map(|port| port.name).collect();
    assert_eq!(names, ["cvt-a", "cvtup0"]);
    let links = fast_path.netns.ip("-o link");
    assert!(links.contains("cvt-a") && !links.contains("cvt-b"), "{links}");
    fast_path.stop(Signal::SIGTERM);
}

fn older_tables() {
    let mut fast_path = FastPath::start();
    fast_path.replace(tables(7, &[])).unwrap();
    let status = fast_path.replace(tables(6, &[])).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("revision 6"), "{status}");
    fast_path.replace(tables(7, &[])).unwrap();
    let info = fast_path.info();
    assert_eq!((info.revision, info.synced), (7, true));
    fast_path.stop(Signal::SIGTERM);
}

fn publish_time() {
    let fast_path = FastPath::start();
    let mut best = u64::MAX;
    for revision in 1..=10 {
        let answer = fast_path.replace(tables(revision, &["10.244.1.3"])).unwrap();
        assert_eq!((answer.revision, answer.services, answer.backends), (revision, 1, 1));
        best = best.min(answer.publish_microseconds);
    }
    assert!(best < 20_000, "{best} microseconds at best");
    fast_path.stop(Signal::SIGTERM);
}

fn next_hop() {
    let fast_path = FastPath::start();
    let far = Netns::new("far");
    fast_path.netns.ip(&format!("link set cvtup0 netns {}", far.name()));
    far.ip("link set cvtup0 up");
    far.ip("addr add 192.168.7.2/24 dev cvtup0");
    let mut tables = tables(1, &[]);
    tables.remotes.push(api::RemoteNode {
        name: "node-b".into(),
        vtep: bytes("192.168.7.2"),
        vtep_mac: vec![2, 0, 0, 0, 0xff, 3],
        pod_cidrs: vec![prefix("10.244.2.0/24")],
        ..api::RemoteNode::default()
    });
    fast_path.replace(tables).unwrap();
    // The kernel learns our address from the question, and answers.
    within(5, "the far node has been asked", || far.ip("neigh").contains("02:00:00:00:aa:01").then_some(()));
    assert!(far.ping("192.168.7.1"), "the tunnel endpoint answers");
    fast_path.stop(Signal::SIGTERM);
    assert!(!far.ip("-o link").contains("cvtup0"), "the uplink goes from wherever it is");
}

/// Tables with the node that [`far_node`] makes.
pub(crate) fn tables_with_remote(backends: &[&str]) -> api::Tables {
    let mut tables = tables(1, backends);
    tables.remotes.push(api::RemoteNode {
        name: "node-b".into(),
        vtep: bytes("192.168.7.2"),
        vtep_mac: vec![2, 0, 0, 0, 0xff, 3],
        pod_cidrs: vec![prefix("10.244.2.0/24"), prefix("fd00:10:244:2::/64")],
        ..api::RemoteNode::default()
    });
    tables
}

/// A node at the other end of a tap uplink.
pub(crate) fn far_node(fast_path: &FastPath) -> Netns {
    let far = Netns::new("far");
    fast_path.netns.ip(&format!("link set cvtup0 netns {}", far.name()));
    be_a_node(&far);
    far
}

/// Makes a namespace that has the other end of the uplink, as cvtup0, a node: a VXLAN device of the kernel's, with pod
/// 10.244.2.2 on it.
pub(crate) fn be_a_node(far: &Netns) {
    far.ip("link set cvtup0 up");
    far.ip("addr add 192.168.7.2/24 dev cvtup0");
    far.ip("link add vx type vxlan id 4096 local 192.168.7.2 remote 192.168.7.1 dstport 4789 nolearning");
    far.ip("link set vx address 02:00:00:00:ff:03 mtu 1450 up");
    let ours = "02:00:00:00:ff:02";
    for (gateway, pods, pod) in [
        (GATEWAYS[0], "10.244.1.0/24", "10.244.2.2/24"),
        (GATEWAYS[1], "fd00:10:244:1::/64", "fd00:10:244:2::2/64"),
    ] {
        far.ip(&format!("addr add {pod} dev vx{}", if pod.contains(':') { " nodad" } else { "" }));
        far.ip(&format!("route add {gateway} dev vx"));
        far.ip(&format!("route add {pods} via {gateway} dev vx onlink"));
        far.ip(&format!("neigh add {gateway} lladdr {ours} dev vx nud permanent"));
    }
}

/// The far node is the kernel: a VXLAN device with static entries, and its one pod an address on it.
fn remote_node() {
    let mut fast_path = FastPath::start();
    let far = far_node(&fast_path);
    let before = fast_path.info().mbufs_free;
    let _pods = meet(&fast_path, far);
    assert!(fast_path.detach("cvt-a").unwrap());
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}

/// Attaches a pod as cvt-a, and lets it and the pod of the far node find each other, over both IP versions, and over the service.
/// They are there until what is returned is dropped.
pub(crate) fn meet(fast_path: &FastPath, far: Netns) -> (Pod, Pod) {
    fast_path.replace(tables_with_remote(&["10.244.2.2"])).unwrap();
    let pod = Pod::attach(fast_path, "cvt-a", 2);
    let there = Pod { netns: far, ipv4: "10.244.2.2".into(), ipv6: "fd00:10:244:2::2".into() };
    within(5, "the next hop is resolved", || pod.netns.ping(&there.ipv4).then_some(()));
    assert!(pod.netns.ping(&there.ipv6) && there.netns.ping(&pod.ipv4) && there.netns.ping(&pod.ipv6));
    through_the_service(&pod, &there);
    (pod, there)
}

/// On a machine with two CPUs one worker shares the control thread's.
fn two_workers() {
    let mut fast_path = FastPath::start_with("workers: [0, 1]");
    let before = fast_path.info().mbufs_free;
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    let workers: Vec<_> = fast_path.ports().iter().map(|port| port.worker).collect();
    assert_eq!(workers, [0, 1, 0], "cvt-a, cvt-b, cvtup0, which both poll");
    assert!(a.netns.ping(&b.ipv4) && b.netns.ping(&a.ipv6));
    through_the_service(&a, &b);
    assert!(fast_path.counters().workers.iter().all(|worker| worker.packets > 0));
    assert!(fast_path.detach("cvt-a").unwrap() && fast_path.detach("cvt-b").unwrap());
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}

/// Many flows come in at the uplink and from a pod: both workers see some of each, and no packet is lost.
fn shared_taps() {
    const FLOWS: usize = 32;
    let mut fast_path = FastPath::start_with("workers: [0, 1]\npodQueues: perWorker");
    let before = fast_path.info().mbufs_free;
    let far = far_node(&fast_path);
    fast_path.replace(tables_with_remote(&[])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    within(5, "the next hop is resolved", || a.netns.ping("10.244.2.2").then_some(()));
    for (from, what) in [(&far, "the uplink"), (&b.netns, "the pod's port")] {
        let received = a.netns.within(|| UdpSocket::bind(("10.244.1.2", 5000))).unwrap();
        received.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let packets = || fast_path.counters().workers.iter().map(|worker| worker.packets).collect::<Vec<_>>();
        let start = packets();
        from.within(|| {
            for _ in 0..FLOWS {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(b"packet", ("10.244.1.2", 5000)).unwrap();
            }
        });
        for n in 0..FLOWS {
            received.recv(&mut [0; 16]).unwrap_or_else(|error| panic!("{what}: packet {n}: {error}"));
        }
        within(5, &format!("both workers have received from {what}"), || {
            packets().iter().zip(&start).all(|(now, then)| *now >= then + 4).then_some(())
        });
    }
    fast_path.replace(api::Tables { revision: 2, ..tables_with_remote(&["10.244.1.3"]) }).unwrap();
    through_the_service(&a, &b);
    assert!(fast_path.detach("cvt-a").unwrap() && fast_path.detach("cvt-b").unwrap());
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}

fn vhost_net() {
    let mut fast_path = FastPath::start_with("podPorts: vhostNet");
    let before = fast_path.info().mbufs_free;
    fast_path.replace(tables_with_remote(&["10.244.1.3"])).unwrap();
    let far = far_node(&fast_path);
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    within(20, "the other pod answers", || a.netns.ping(&b.ipv4).then_some(()));
    assert!(b.netns.ping(&a.ipv6));
    through_the_service(&a, &b);
    let there = Pod { netns: far, ipv4: "10.244.2.2".into(), ipv6: "fd00:10:244:2::2".into() };
    within(20, "the next hop is resolved", || a.netns.ping(&there.ipv4).then_some(()));
    fast_path.replace(api::Tables { revision: 2, ..tables_with_remote(&["10.244.2.2"]) }).unwrap();
    through_the_service(&a, &there);
    assert_eq!(fast_path.waking("cvt-a"), api::Waking::Interrupt);
    fast_path.sleeps();
    assert!(fast_path.detach("cvt-a").unwrap() && fast_path.detach("cvt-b").unwrap());
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}

/// A worker without packets is woken up by the next one.
fn idle() {
    let mut fast_path = FastPath::start();
    let (before, then) = (fast_path.cpu_seconds(), fast_path.counters());
    std::thread::sleep(Duration::from_secs(2));
    let (used, now) = (fast_path.cpu_seconds() - before, fast_path.counters());
    assert!(used < 0.1, "{used} s of CPU in 2 s");
    assert_eq!(now.instance, fast_path.info().instance);
    let seconds = (now.cycles - then.cycles) as f64 / now.cycles_per_second as f64;
    assert!((1.8..60.0).contains(&seconds), "{seconds} s by the time stamp counter");
    let busy =
        (now.workers[0].busy_cycles - then.workers[0].busy_cycles) as f64 / now.cycles_per_second as f64;
    assert!(busy < 1.0, "busy for {busy} s in 2 s");
    let [then, now] = [then, now].map(|counters| counters.workers[0].scheduling.unwrap());
    assert!(now.sleeps >= then.sleeps + 5, "it looks after its flows ten times a second: {then:?} {now:?}");
    assert!(now.ran_nanoseconds - then.ran_nanoseconds < 100_000_000, "{then:?} {now:?}");
    fast_path.stop(Signal::SIGTERM);
}
