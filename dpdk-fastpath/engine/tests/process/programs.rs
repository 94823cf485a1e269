//! Ports for programs with DPDK in pods; such a program is DPDK's testpmd, which answers pings.

use std::process::{Child, Stdio};

use culvert_api::fastpath as api;
use nix::sys::signal::{Signal, kill};

use crate::fastpath::FastPath;
use crate::netns::Netns;
use crate::pods::{Pod, request, tables};
use crate::restart::wait_for_restart;
use crate::{Case, within};

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![
        root("a_program_in_a_pod_is_reached_by_memif_and_again_after_either_has_been_started_again", || {
            let vdev =
                |socket: &str| format!("net_memif0,role=client,id=0,socket={socket},socket-abstract=no");
            reached("", api::PortDevice::Memif, vdev);
        }),
        root("two_workers_send_to_a_program_that_has_one_queue", || {
            let vdev =
                |socket: &str| format!("net_memif0,role=client,id=0,socket={socket},socket-abstract=no");
            reached("workers: [0, 1]", api::PortDevice::Memif, vdev);
        }),
        root(
            "a_program_in_a_pod_is_reached_by_vhost_user_and_again_after_either_has_been_started_again",
            || {
                let vdev = |socket: &str| format!("net_virtio_user0,path={socket},server=1,queues=1");
                reached("", api::PortDevice::VhostUser, vdev);
            },
        ),
        root("a_port_without_a_folder_for_its_socket_is_refused_by_name", refusals),
    ]
}

/// testpmd in a namespace of its own, as a pod is.
struct Program {
    child: Child,
    _netns: Netns,
}

impl Program {
    fn start(vdev: &str) -> Self {
        let netns = Netns::new("program");
        let mut command = netns.command("timeout");
        command.args(["120", "dpdk-testpmd", "--lcores=0@0,1@0", "--no-huge", "-m", "64", "--no-pci"]);
        command.args(["--no-telemetry", &format!("--file-prefix={}", netns.name()), "--vdev", vdev, "--"]);
        command.args(["--forward-mode=icmpecho", "--auto-start"]);
        // It ends when its standard input does.
        let command = command.args(["--total-num-mbufs=2048"]).stdin(Stdio::piped());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, _netns: netns }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        within(10, "testpmd ends", || self.child.try_wait().unwrap());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reached(more: &str, device: api::PortDevice, vdev: impl Fn(&str) -> String) {
    let mut fast_path = FastPath::start_with(more);
    let before = fast_path.info().mbufs_free;
    fast_path.replace(tables(1, &[])).unwrap();
    let socket = fast_path.directory().join("cvt-b.sock").to_str().unwrap().to_owned();
    let shared = api::AttachPortRequest {
        device: device.into(),
        socket: socket.clone(),
        ..request("cvt-b", &["10.244.1.3"])
    };
    let port = fast_path.attach(shared.clone()).unwrap();
    assert_eq!((port.device(), &port.socket), (device, &socket));
    assert_eq!(fast_path.attach(shared.clone()).unwrap().mac, port.mac, "attached again");
    assert!(!fast_path.netns.ip("-o link").contains("cvt-b"), "it is no interface");
    let (a, c) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-c", 4));
    for round in 0..2 {
        let program = Program::start(&vdev(&socket));
        within(30, "the program answers", || a.netns.ping("10.244.1.3").then_some(()));
        assert!(c.netns.ping("10.244.1.3"), "another pod, round {round}");
        program.end();
        assert!(!a.netns.ping("10.244.1.3"), "nobody is there");
    }
    let mut program = Program::start(&vdev(&socket));
    within(30, "the program answers", || a.netns.ping("10.244.1.3").then_some(()));
    let [keeper, forwarder] = fast_path.processes()[..] else { panic!("two processes") };
    for (restarts, process, signal) in [(1, forwarder, Signal::SIGKILL), (2, keeper, Signal::SIGHUP)] {
        kill(process, signal).unwrap();
        let kept = wait_for_restart(&mut fast_path, restarts).restart.unwrap().ports_kept;
        assert_eq!(kept, 3, "ports after {signal}");
        if device == api::PortDevice::Memif {
            // DPDK's driver connects once.
            program.end();
            program = Program::start(&vdev(&socket));
        }
        within(30, "the program answers over the next forwarder", || {
            a.netns.ping("10.244.1.3").then_some(())
        });
    }
    match device {
        api::PortDevice::VhostUser => {
            assert_eq!(fast_path.waking("cvt-b"), api::Waking::Interrupt);
            fast_path.sleeps();
            let soon = a.netns.share_of_pings_within(50, "10.244.1.3");
            assert!(
                soon > 0.8,
                "interrupts are lost: only {soon} of the answers came before the worker looked"
            );
        }
        _ => assert_eq!(fast_path.waking("cvt-b"), api::Waking::Never),
    }
    program.end();
    assert!(fast_path.detach("cvt-b").unwrap());
    assert!(fast_path.detach("cvt-a").unwrap() && fast_path.detach("cvt-c").unwrap());
    fast_path.wait_for_buffers(before);
    fast_path.stop(Signal::SIGTERM);
}

fn refusals() {
    let fast_path = FastPath::start();
    let request = api::AttachPortRequest {
        device: api::PortDevice::Memif.into(),
        socket: "/nowhere/cvt-b.sock".into(),
        ..request("cvt-b", &["10.244.1.3"])
    };
    let refused = fast_path.attach(request).unwrap_err();
    let expected = "port cvt-b: cannot be started: socket /nowhere/cvt-b.sock: its folder does not exist";
    assert!(refused.message().starts_with(expected), "{refused}");
    assert_eq!(fast_path.ports().len(), 1);
    fast_path.stop(Signal::SIGTERM);
}
