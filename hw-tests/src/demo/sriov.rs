//! SR-IOV in the guest.

use super::Show;
use crate::ensure;
use crate::frame::{Context, Outcome, Stop};
use crate::guest::{Guest, LIMIT};
use crate::net::Ping;
use crate::topology::sriov::{SriovNode, VfPod, reaches, two_tenants};

/// Boots the guest and shows what is shown in it.
pub(super) fn show_in_guest(show: &mut Show) -> Outcome {
    show.heading("SR-IOV: booting a guest with two emulated Intel 82576 NICs, which takes some ten seconds");
    let program = std::env::current_exe()?.display().to_string();
    let command = [&program, "demo", "--inside", "sriov"].map(str::to_owned);
    let status = Guest::prepare()?.run(&command, LIMIT, |line| show.relay(line))?;
    ensure!(matches!(status, 0 | 1), "the guest's part ended with {status}");
    Ok(())
}

/// The guest's part.
pub(super) fn show(show: &mut Show) -> Outcome {
    let context = Context::new()?;
    let shown = steps(show, &context);
    shown.map_err(|stop| Stop::fail(format!("{}\n{}", stop.text(), context.logs())))
}

fn steps(show: &mut Show, context: &Context) -> Outcome {
    show.heading(
        "The policy: 4 VFs with fixed MACs, two in VLAN 100 for tenant-a, two in VLAN 200 for tenant-b",
    );
    let node = SriovNode::start(context, |[pf, _]| two_tenants(pf))?;
    two_tenants(&node.pfs[0]).lines().for_each(|line| show.say(line));

    show.heading("Plan and apply");
    show.check("culvert nic plan shows the steps and changes nothing", |show| plan(show, &node));
    show.check("culvert nic apply carves 4 VFs with their MACs and VLANs", |show| apply(show, &node));
    show.check("a second plan is empty", |show| second_plan(show, &node));

    show.heading("Kubelet");
    show.check("the device plugin registers both pools with kubelet", |_| registered(&node));

    show.heading("Pods");
    show.say("each: kubelet allocates a device, then culvert-cni ADD moves it into the pod");
    let a = pod(show, &node, "pod-a", "tenant-a", "192.168.50.1/24")?;
    let b = pod(show, &node, "pod-b", "tenant-a", "192.168.50.2/24")?;
    let c = pod(show, &node, "pod-c", "tenant-b", "192.168.50.3/24")?;
    show.check("two pods in VLAN 100 reach each other", |show| same_vlan(show, &a, &b));
    show.check("a pod in VLAN 200 is not reached from VLAN 100", |show| other_vlan(show, &a, &c));
    list(show, &node)?;

    show.heading("The pods go");
    show.check("DEL brings the VFs back as they were", |show| delete(show, &node, [a, b, c]));
    list(show, &node)
}

fn plan(show: &Show, node: &SriovNode) -> Outcome<String> {
    let plan = node.agent.culvert(&["nic", "plan"])?;
    prints(show, "nic plan", &plan.stdout);
    ensure!(plan.status.code() == Some(2), "{}{}", plan.stdout, plan.stderr);
    ensure!(node.pfs[0].vfs() == 0, "there are VFs although nothing was applied");
    Ok(String::new())
}

fn apply(show: &Show, node: &SriovNode) -> Outcome<String> {
    prints(show, "nic apply", &node.agent.says(&["nic", "apply"])?);
    let vfs = node.pfs[0].kernel_view()?;
    ensure!(vfs.len() == 4, "the kernel has {} VFs", vfs.len());
    for (index, vf) in vfs.iter().enumerate() {
        let (text, vlan) = (vf.to_string(), if index < 2 { 100 } else { 200 });
        let right =
            text.contains(&format!("02:00:00:00:01:0{index}")) && text.contains(&format!("\"vlan\":{vlan}"));
        ensure!(right, "vf {index} is {text}");
    }
    Ok("02:00:00:00:01:00 to :03, as the kernel shows them".to_owned())
}

fn second_plan(show: &Show, node: &SriovNode) -> Outcome<String> {
    prints(show, "nic plan", &node.agent.culvert(&["nic", "plan"])?.stdout);
    node.nothing_to_do()?;
    Ok(String::new())
}

fn registered(node: &SriovNode) -> Outcome<String> {
    let mut seen = Vec::new();
    for resource in ["culvert.io/tenant-a", "culvert.io/tenant-b"] {
        let known = node.wait_for_resource(resource, |known| known.allocatable() == 2)?;
        seen.push(format!("{resource} {}", known.allocatable()));
    }
    Ok(seen.join(", "))
}

fn pod(show: &Show, node: &SriovNode, name: &str, pool: &str, address: &str) -> Outcome<VfPod> {
    let pod = node.pod(name, &format!("culvert.io/{pool}"), address)?;
    show.say(&format!("{name}: VF {} of {pool}, address {address}", pod.vf()));
    Ok(pod)
}

fn same_vlan(show: &Show, a: &VfPod, b: &VfPod) -> Outcome<String> {
    show.say("$ ping 192.168.50.2     # from pod-a");
    reaches(a, "192.168.50.2".parse()?)?;
    show.say("$ ping 192.168.50.1     # from pod-b");
    reaches(b, "192.168.50.1".parse()?)?;
    Ok("both ways".to_owned())
}

fn other_vlan(show: &Show, a: &VfPod, c: &VfPod) -> Outcome<String> {
    show.say("$ ping 192.168.50.3     # from pod-a");
    let pong = Ping::to("192.168.50.3".parse::<std::net::Ipv4Addr>()?).unanswered(a.netns())?;
    // Its link must be up, or this would show nothing.
    let state = c.netns().sh("cat /sys/class/net/eth0/operstate")?;
    ensure!(state.trim() == "up", "pod-c's link is {state}");
    Ok(format!("{} of {} replies", pong.received, pong.sent))
}

fn delete(show: &Show, node: &SriovNode, pods: [VfPod; 3]) -> Outcome<String> {
    for pod in pods {
        pod.cni.del()?;
        show.say(&format!("DEL of the pod with VF {}", pod.vf()));
    }
    let vfs = node.listed_vfs()?;
    let clean = vfs.len() == 4 && vfs.iter().all(|vf| vf["owner"] == "" && vf["interface"] != "");
    ensure!(clean, "{vfs:?}");
    node.nothing_to_do()?;
    Ok("no owner, interface in the host, nothing to plan".to_owned())
}

fn list(show: &Show, node: &SriovNode) -> Outcome {
    prints(show, "nic list", &node.agent.says(&["nic", "list"])?);
    Ok(())
}

fn prints(show: &Show, command: &str, text: &str) {
    show.say(&format!("$ culvert {command}"));
    text.lines().for_each(|line| show.say(line));
}
