//! Virtual functions, from the policy to the pod and back.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, Stop, wait_for};
use crate::net::{Ping, program};
use crate::topology::sriov::{Pf, SriovNode, reaches, two_tenants};

pub(super) const CASES: &[Case] = &[
    Case { name: "nic_list_shows_both_pfs", place: Guest, run: list },
    Case { name: "a_plan_names_each_step_and_apply_makes_it_true", place: Guest, run: plan_and_apply },
    Case { name: "vfs_have_the_macs_and_vlans_of_the_policy", place: Guest, run: identity },
    Case { name: "kubelet_sees_the_pools_again_after_its_restart", place: Guest, run: kubelet_restart },
    Case { name: "a_container_gets_its_vf_in_the_environment", place: Guest, run: environment },
    Case { name: "pods_in_one_vlan_reach_each_other_and_no_other_vlan", place: Guest, run: vlans },
    Case { name: "del_gives_the_vf_back_as_it_was", place: Guest, run: del },
    Case { name: "del_works_after_the_agent_was_killed", place: Guest, run: del_after_kill },
    Case { name: "vfs_that_disappear_turn_unhealthy_until_they_are_back", place: Guest, run: disappears },
    Case { name: "a_pf_with_a_vf_in_use_is_not_carved_anew", place: Guest, run: in_use },
    Case { name: "an_apply_that_is_killed_leaves_nothing_half_done", place: Guest, run: killed },
    Case { name: "a_changed_policy_is_loaded_without_a_restart", place: Guest, run: reload },
    Case { name: "a_vf_for_vfio_is_bound_and_offered_with_its_group", place: Guest, run: vfio },
    Case { name: "a_pf_that_is_not_there_is_named_and_the_others_are_carved", place: Guest, run: unknown_pf },
];

fn list(context: &Context) -> Outcome {
    let node = SriovNode::start(context, |_| String::new())?;
    let list: Value = serde_json::from_str(&node.agent.says(&["nic", "list", "-o", "json"])?)?;
    for Pf { pci, interface } in &node.pfs {
        let pfs = list.as_array().into_iter().flatten();
        let pf = pfs.clone().find(|pf| pf["pci"] == pci.as_str());
        let pf = pf.ok_or_else(|| Stop::fail(format!("{pci} is not in {list}")))?;
        ensure!(
            pf["interface"] == interface.as_str() && pf["totalVfs"] == 7 && pf["driver"] == "igb",
            "{pf}"
        );
        ensure!(pf["id"] == "8086:10c9", "{pf}");
    }
    Ok(())
}

fn plan_and_apply(context: &Context) -> Outcome {
    let node = SriovNode::start(context, |[pf, _]| two_tenants(pf))?;
    let plan = node.agent.culvert(&["nic", "plan"])?;
    ensure!(plan.status.code() == Some(2), "{}: {}{}", plan.status, plan.stdout, plan.stderr);
    for step in ["sriov_numvfs", "02:00:00:00:01:03", "vlan 100", "vlan 200"] {
        ensure!(plan.stdout.contains(step), "{step:?} is not in the plan:\n{}", plan.stdout);
    }
    ensure!(node.pfs[0].vfs() == 0, "the plan made VFs");
    node.agent.says(&["nic", "apply"])?;
    ensure!(node.pfs[0].vfs() == 4 && node.pfs[1].vfs() == 0, "apply did not make 4 VFs of NIC 0");
    node.nothing_to_do()
}

fn identity(context: &Context) -> Outcome {
    let mut node = SriovNode::with_two_tenants(context)?;
    for _ in 0..2 {
        for (index, vf) in node.pfs[0].kernel_view()?.iter().enumerate() {
            let text = vf.to_string();
            ensure!(text.contains(&format!("02:00:00:00:01:0{index}")), "vf {index}: {text}");
            let vlan = if index < 2 { "\"vlan\":100" } else { "\"vlan\":200" };
            ensure!(text.contains(vlan), "vf {index}: {text}");
        }
        // Carved anew, they are the same.
        let policy = two_tenants(&node.pfs[0]);
        node.agent.stop()?;
        fs::write(node.pfs[0].sysfs().join("sriov_numvfs"), "0")?;
        node.change_policy(&policy)?;
        node.agent.says(&["nic", "apply"])?;
    }
    node.nothing_to_do()
}

fn kubelet_restart(context: &Context) -> Outcome {
    let mut node = SriovNode::with_two_tenants(context)?;
    node.restart_kubelet()?;
    for resource in ["culvert.io/tenant-a", "culvert.io/tenant-b"] {
        node.wait_for_resource(resource, |r| r.allocatable() == 2 && r.registrations == 2)?;
    }
    Ok(())
}

fn environment(context: &Context) -> Outcome {
    let node = SriovNode::with_two_tenants(context)?;
    let given = node.allocate("web", "culvert.io/tenant-b")?;
    let vf = given.ids.first().cloned().unwrap_or_default();
    ensure!(vf == node.pfs[0].vf_pci(2)? || vf == node.pfs[0].vf_pci(3)?, "{vf} is not of the pool");
    let variable = given.response.envs.get("PCIDEVICE_CULVERT_IO_TENANT-B");
    ensure!(variable == Some(&vf), "the environment is {:?}", given.response.envs);
    Ok(())
}

fn vlans(context: &Context) -> Outcome {
    let node = SriovNode::with_two_tenants(context)?;
    let a = node.pod("pod-a", "culvert.io/tenant-a", "192.168.50.1/24")?;
    let b = node.pod("pod-b", "culvert.io/tenant-a", "192.168.50.2/24")?;
    let other = node.pod("pod-c", "culvert.io/tenant-b", "192.168.50.3/24")?;
    reaches(&a, "192.168.50.2".parse()?)?;
    reaches(&b, "192.168.50.1".parse()?)?;
    for to in ["192.168.50.1", "192.168.50.2"] {
        Ping::to(to.parse::<std::net::Ipv4Addr>()?).unanswered(other.netns())?;
    }
    for pod in [&a, &b, &other] {
        let mac = pod.netns().sh("cat /sys/class/net/eth0/address")?;
        ensure!(mac.starts_with("02:00:00:00:01:0"), "{} has MAC {mac}", pod.vf());
        ensure!(pod.result.to_string().contains(mac.trim()), "{} is not in {}", mac.trim(), pod.result);
    }
    Ok(())
}

fn del(context: &Context) -> Outcome {
    let node = SriovNode::with_two_tenants(context)?;
    let before = node.listed_vfs()?;
    let pod = node.pod("pod-a", "culvert.io/tenant-a", "192.168.50.1/24")?;
    let owners: Vec<Value> = node.listed_vfs()?.iter().map(|vf| vf["owner"].clone()).collect();
    ensure!(owners.iter().any(|owner| owner == "default/pod-a"), "owners are {owners:?}");
    pod.cni.del()?;
    pod.cni.del()?;
    let after = node.listed_vfs()?;
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    node.nothing_to_do()
}

fn del_after_kill(context: &Context) -> Outcome {
    let mut node = SriovNode::with_two_tenants(context)?;
    let before = node.listed_vfs()?;
    let pod = node.pod("pod-a", "culvert.io/tenant-a", "192.168.50.1/24")?;
    node.agent.kill()?;
    node.agent.start(|| Ok(true))?;
    pod.cni.succeed("CHECK")?;
    pod.cni.del()?;
    let after = node.listed_vfs()?;
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    Ok(())
}

fn disappears(context: &Context) -> Outcome {
    let node = SriovNode::with_two_tenants(context)?;
    // Behind the agent's back; a VF cannot be unplugged alone.
    fs::write(node.pfs[0].sysfs().join("sriov_numvfs"), "0")?;
    for resource in ["culvert.io/tenant-a", "culvert.io/tenant-b"] {
        node.wait_for_resource(resource, |r| r.allocatable() == 0)?;
    }
    node.agent.says(&["nic", "apply"])?;
    for resource in ["culvert.io/tenant-a", "culvert.io/tenant-b"] {
        node.wait_for_resource(resource, |r| r.allocatable() == 2)?;
    }
    Ok(())
}

fn in_use(context: &Context) -> Outcome {
    let mut node = SriovNode::with_two_tenants(context)?;
    let pod = node.pod("pod-a", "culvert.io/tenant-a", "192.168.50.1/24")?;
    let fewer = format!("nic: {{ pfs: [{{ pf: {}, vfs: 2 }}] }}\n", node.pfs[0].pci);
    node.change_policy(&fewer)?;
    let plan = node.agent.culvert(&["nic", "plan"])?.stdout;
    ensure!(plan.contains("default/pod-a"), "the plan does not say who is in the way:\n{plan}");
    node.agent.culvert(&["nic", "apply"])?;
    ensure!(node.pfs[0].vfs() == 4, "the PF was carved anew under a pod");
    pod.netns().sh("cat /sys/class/net/eth0/address")?;
    node.end(&pod)?;
    node.agent.says(&["nic", "apply"])?;
    ensure!(node.pfs[0].vfs() == 2, "the PF was not carved although the pod is gone");
    Ok(())
}

fn killed(context: &Context) -> Outcome {
    let mut node = SriovNode::start(context, |[pf, _]| two_tenants(pf))?;
    let journal = context.dir().join("state/nic.journal");
    let begun = || fs::read_to_string(&journal).unwrap_or_default().matches("{\"begin\":").count();
    let mut half = 0;
    // Within the creation of the VFs, which takes long, and at a step of a VF.
    for steps in [3, 7] {
        node.agent.stop()?;
        fs::write(node.pfs[0].sysfs().join("sriov_numvfs"), "0")?;
        node.agent.start(|| Ok(true))?;
        let before = begun();
        let mut apply = Command::new(program("culvert")?);
        let mut apply = apply.arg("--socket").arg(node.agent.socket()).args(["nic", "apply"]).spawn()?;
        wait_for("the apply is under way", Duration::from_secs(30), || {
            Ok((begun() >= before + steps || apply.try_wait()?.is_some()).then_some(()))
        })?;
        node.agent.kill()?;
        apply.wait()?;
        node.agent.start(|| Ok(true))?;
        half += usize::from(node.agent.culvert(&["nic", "plan"])?.status.code() == Some(2));
        node.agent.says(&["nic", "apply"])?;
        node.nothing_to_do()?;
        for (index, vf) in node.pfs[0].kernel_view()?.iter().enumerate() {
            let (text, vlan) = (vf.to_string(), if index < 2 { 100 } else { 200 });
            ensure!(
                text.contains(&format!("02:00:00:00:01:0{index}")),
                "killed at step {steps}: vf {index}: {text}"
            );
            ensure!(text.contains(&format!("\"vlan\":{vlan}")), "killed at step {steps}: vf {index}: {text}");
            let driver = node.pfs[0].sysfs().join(format!("virtfn{index}/driver"));
            ensure!(driver.exists(), "killed at step {steps}: vf {index} has no driver");
        }
        let probe = fs::read_to_string(node.pfs[0].sysfs().join("sriov_drivers_autoprobe"))?;
        ensure!(probe.trim() == "1", "killed at step {steps}: new VFs would get no driver");
    }
    ensure!(half > 0, "the agent was never killed before it was done");
    Ok(())
}

fn reload(context: &Context) -> Outcome {
    let node = SriovNode::with_two_tenants(context)?;
    let pod = node.pod("pod-a", "culvert.io/tenant-a", "192.168.50.1/24")?;
    node.load_policy(&two_tenants(&node.pfs[0]).replace("vlan: 200", "vlan: 300"))?;
    let plan = wait_for("the new policy is in force", Duration::from_secs(20), || {
        let plan = node.agent.culvert(&["nic", "plan"])?.stdout;
        Ok(plan.contains("vlan 300").then_some(plan))
    })?;
    ensure!(!plan.contains("sriov_numvfs"), "a VLAN needs no new VFs:\n{plan}");
    node.agent.says(&["nic", "apply"])?;
    let view = node.pfs[0].kernel_view()?;
    let vlans: Vec<&Value> = view.iter().map(|vf| &vf["vlan_list"][0]["vlan"]).collect();
    ensure!(vlans == [100, 100, 300, 300], "{vlans:?}");
    node.agent.says(&["nic", "diff"])?;
    node.load_policy("nic: { pfs: [{ pf: 1, vfs: 5000000 }] }\n")?;
    wait_for("the bad policy is refused", Duration::from_secs(20), || {
        let status = node.agent.culvert(&["status"])?.stdout;
        Ok(status.contains("stays in force").then_some(()))
    })?;
    node.nothing_to_do()?;
    node.end(&pod)
}

fn vfio(context: &Context) -> Outcome {
    let node = SriovNode::start(context, |[pf, _]| {
        format!(
            "nic: {{ pfs: [{{ pf: {}, vfs: 2, driver: vfio-pci, pools: [{{ name: dpdk, vfs: 0-1 }}] }}] }}\n",
            pf.pci
        )
    })?;
    node.agent.says(&["nic", "apply"])?;
    node.wait_for_resource("culvert.io/dpdk", |r| r.allocatable() == 2)?;
    let given = node.allocate("dpdk", "culvert.io/dpdk")?;
    let vf = Path::new("/sys/bus/pci/devices").join(given.ids.first().cloned().unwrap_or_default());
    let link = |name: &str| -> Outcome<String> {
        Ok(fs::read_link(vf.join(name))?.file_name().unwrap_or_default().to_string_lossy().into_owned())
    };
    ensure!(link("driver")? == "vfio-pci", "{} is driven by {}", vf.display(), link("driver")?);
    let group = format!("/dev/vfio/{}", link("iommu_group")?);
    let nodes: Vec<&str> = given.response.devices.iter().map(|node| node.host_path.as_str()).collect();
    ensure!(nodes.contains(&group.as_str()) && nodes.contains(&"/dev/vfio/vfio"), "device nodes: {nodes:?}");
    Ok(())
}

fn unknown_pf(context: &Context) -> Outcome {
    let node = SriovNode::start(context, |[pf, _]| {
        format!("nic: {{ pfs: [{{ pf: 0000:ff:00.0, vfs: 2 }}, {{ pf: {}, vfs: 1 }}] }}\n", pf.pci)
    })?;
    let plan = node.agent.culvert(&["nic", "plan"])?.stdout;
    ensure!(plan.contains("0000:ff:00.0"), "the PF that is missing is not named:\n{plan}");
    node.agent.culvert(&["nic", "apply"])?;
    ensure!(node.pfs[0].vfs() == 1, "the PF that is there was not carved");
    Ok(())
}
