//! Pods that join and leave.

use std::os::fd::AsFd as _;
use std::process::Command;

use culvert_shortcut::layout::{CULVERT0, DOORS};
use culvert_shortcut::{Joined, Kernel};

use crate::Case;
use crate::netns::Netns;
use crate::node::{MTU, Node, Pod};
use crate::tap::Tap;

/// Set, this program only loads the short cut, and tells why it could not.
pub(crate) const LOAD: &str = "CULVERT_SHORTCUT_LOAD";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("without_capabilities_nothing_is_loaded_and_the_error_says_which", without_capabilities),
        ("a_tap_that_is_in_no_pod_yet_is_not_joined", not_yet),
        ("a_pod_that_has_joined_has_a_pair_that_does_nothing_of_its_own_accord", settings),
        ("a_pod_that_is_left_is_as_it_was", leave),
        ("joining_twice_changes_nothing", twice),
        ("a_pod_with_two_ports_has_two_pairs", two_ports),
        ("a_pair_that_somebody_deleted_is_made_anew", deleted),
        ("a_tap_that_has_changed_is_joined_anew", changed),
        ("the_pair_of_an_earlier_process_is_replaced", replaced),
        ("a_process_that_ends_leaves_the_pair_that_the_next_has_made", succeeded),
        ("a_pod_that_is_gone_is_left_and_its_port_joined_again", gone),
        ("what_cannot_be_joined_is_refused_by_port_and_reason_and_leaves_nothing", refusals),
        ("at_the_end_all_pods_are_left", dropped),
    ]
}

/// What this program does with [`LOAD`].
pub(crate) fn load_and_tell() {
    match Kernel::load(1) {
        Ok(_) => println!("loaded"),
        Err(error) => println!("{error}"),
    }
}

fn without_capabilities() {
    let myself = std::env::current_exe().unwrap();
    let run =
        |command: &mut Command| String::from_utf8(command.env(LOAD, "1").output().unwrap().stdout).unwrap();
    assert_eq!(run(&mut Command::new(&myself)), "loaded\n");
    let refusal = run(Command::new("setpriv").args(["--bounding-set=-all", "--inh-caps=-all"]).arg(&myself));
    let expected = "short cut: no permission to make the maps: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN\n";
    assert_eq!(refusal, expected);
}

fn not_yet() {
    let mut node = Node::new(1);
    let tap = node.netns.within(|| Tap::new("tap0"));
    assert_eq!(node.kernel.join_pod(7, tap.as_fd()).unwrap(), Joined::NotYet);
    assert!(!node.kernel.is_joined(7) && !node.netns.has("culvert"));
    // It comes back from a pod.
    let pod = Netns::new("p7");
    node.netns.ip(&format!("link set tap0 netns {}", pod.name()));
    assert_eq!(node.kernel.join_pod(7, tap.as_fd()).unwrap(), Joined::Joined);
    pod.run(&format!("ip link set tap0 netns {}", node.netns.name()));
    assert_eq!(node.kernel.join_pod(7, tap.as_fd()).unwrap(), Joined::NotYet);
    assert!(!node.kernel.is_joined(7) && !node.netns.has("culvert") && !pod.has("culvert"));
}

fn settings() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    assert!(node.kernel.is_joined(7) && !node.kernel.is_joined(8));
    let cpus = std::thread::available_parallelism().unwrap().get().min(16);
    for (netns, name) in [(&node.netns, "culvert-p7"), (&pod.netns, "culvert0")] {
        let link = netns.ip(&format!("-d link show {name}"));
        for setting in [
            "NOARP",
            ",UP,LOWER_UP",
            &format!("mtu {MTU} "),
            "addrgenmode none",
            &format!("numtxqueues {cpus} numrxqueues {cpus} "),
        ] {
            assert!(link.contains(setting), "{setting}: {link}");
        }
        assert_eq!(netns.ip(&format!("addr show {name}")).matches("inet").count(), 0);
    }
    let index = pod.netns.ip("-o link show culvert0");
    assert!(index.starts_with(&format!("{}:", CULVERT0 + 7)), "{index}");
    assert!(pod.netns.run("ethtool -k culvert0").contains("generic-receive-offload: on"));
    let features = node.netns.run("ethtool -k culvert-p7");
    assert!(features.contains("tx-tcp-segmentation: off") && features.contains("tx-tcp6-segmentation: off"));
}

fn leave() {
    let mut node = Node::new(1);
    let pod = Pod::new(&node, 7);
    let before = pod.netns.ip("link show");
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
    assert_ne!(pod.netns.ip("link show"), before);
    node.kernel.leave_pod(7).unwrap();
    assert_eq!(pod.netns.ip("link show"), before);
    assert!(!node.netns.has("culvert") && !node.kernel.is_joined(7));
    // One that is not joined, and one that cannot be.
    node.kernel.leave_pod(7).unwrap();
    node.kernel.leave_pod(u16::MAX).unwrap();
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
}

fn twice() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    let before = node.netns.ip("link show");
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
    assert_eq!(node.netns.ip("link show"), before);
}

fn two_ports() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    let tap = node.netns.within(|| Tap::new("tap1"));
    node.netns.ip(&format!("link set tap1 netns {}", pod.netns.name()));
    assert_eq!(node.kernel.join_pod(9, tap.as_fd()).unwrap(), Joined::Joined);
    assert!(pod.netns.has("culvert0@") && pod.netns.has("culvert1@"));
    node.kernel.leave_pod(7).unwrap();
    assert!(!pod.netns.has("culvert0@") && node.kernel.is_joined(9));
}

fn deleted() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    pod.netns.ip("link del culvert0");
    assert!(!node.kernel.is_joined(7));
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
    assert!(node.kernel.is_joined(7) && pod.netns.has("culvert0"));
}

fn changed() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    pod.netns.ip("link set tap0 mtu 1300");
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
    assert!(pod.netns.ip("link show culvert0").contains("mtu 1300 "));
}

fn replaced() {
    let mut node = Node::new(1);
    let pod = Pod::new(&node, 7);
    let other = Netns::new("other");
    let (mine, others) = (pod.netns.name(), other.name());
    node.netns.ip(&format!("link add culvert-p7 type veth peer name culvert0 netns {others}"));
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
    assert!(pod.netns.has("culvert0") && !other.has("culvert0"), "{mine} {others}");
}

fn succeeded() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    let mut next = node.netns.within(|| Kernel::load(1).unwrap());
    let joined = node.netns.within(|| next.join_pod(7, pod.tap.as_fd()));
    assert_eq!(joined.unwrap(), Joined::Joined);
    let Node { netns, kernel, .. } = node;
    assert!(!kernel.is_joined(7), "its pair was replaced");
    drop(kernel);
    assert!(next.is_joined(7) && netns.has("culvert-p7@") && pod.netns.has("culvert0@"));
}

fn gone() {
    let mut node = Node::new(1);
    let pod = node.pod(7);
    // The tap lives in no other namespace: it goes with the pod, although its descriptor stays.
    let Pod { netns, tap, .. } = pod;
    drop(netns);
    crate::within("the pod's namespace is gone", || (!node.kernel.is_joined(7)).then_some(()));
    assert_eq!(node.kernel.join_pod(7, tap.as_fd()).unwrap(), Joined::NotYet);
    node.kernel.leave_pod(7).unwrap();
    let _pod = node.pod(7);
    assert!(node.kernel.is_joined(7));
}

fn refusals() {
    let mut node = Node::new(1);
    let pod = Pod::new(&node, 7);
    let mut refusal = |port, tap: &dyn std::os::fd::AsFd| {
        let error = node.kernel.join_pod(port, tap.as_fd()).unwrap_err();
        std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    };
    let last = DOORS - 1;
    assert_eq!(refusal(DOORS as u16, &pod.tap), format!("short cut: port {DOORS}: must be 0-{last}"));
    let no_tap = std::fs::File::open("/dev/null").unwrap();
    let error = refusal(7, &no_tap);
    assert!(
        error.starts_with("short cut: port 7: cannot find the network namespace of the tap: "),
        "{error}"
    );
    // Somebody else's interface has the index.
    pod.netns.ip(&format!("link add other index {} type veth peer name another", CULVERT0 + 7));
    let error = refusal(7, &pod.tap);
    let expected = "short cut: port 7: cannot make the interfaces culvert-p7 and culvert0: ";
    assert!(error.starts_with(expected), "{error}");
    assert!(!node.netns.has("culvert") && !pod.netns.has("culvert"));
    pod.netns.ip("link del other");
    assert_eq!(node.kernel.join_pod(7, pod.tap.as_fd()).unwrap(), Joined::Joined);
}

fn dropped() {
    let mut node = Node::new(1);
    let (one, two) = (node.pod(1), node.pod(2));
    let Node { netns, slots, kernel, .. } = node;
    assert!(netns.has("culvert-p1@") && netns.has("culvert-p2@"));
    drop(kernel);
    assert!(!netns.has("culvert") && !one.netns.has("culvert") && !two.netns.has("culvert"));
    assert_eq!(slots.memory().epoch(), 0);
}
