//! How virtual functions come back from pods that did odd things, or that ended in odd ways; and how long they take to get
//! there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, Stop, note, wait_for};
use crate::net::{Netns, Process, run};
use crate::topology::sriov::{Pf, SriovNode};

pub(super) const CASES: &[Case] = &[
    Case { name: "what_a_pod_made_of_its_vf_does_not_come_home_with_it", place: Guest, run: meddling },
    Case {
        name: "a_vf_comes_back_without_del_and_a_late_del_takes_it_from_nobody",
        place: Guest,
        run: late_del,
    },
    Case { name: "a_del_brings_a_vf_back_although_its_record_was_lost", place: Guest, run: lost_record },
    Case { name: "orphans_are_listed_with_their_reasons_and_released", place: Guest, run: orphans },
    Case { name: "an_add_takes_little_more_time_than_the_kernel", place: Guest, run: time_of_add },
];

const POOL: &str = "culvert.io/solo";

/// What an ADD may take of its own: 30 ms, and forty times that where the machine is emulated, the programs are not
/// optimised and other work has the CPUs, too.
const ADD: Duration = Duration::from_millis(30 * 40);

/// A node whose pool has one VF, so that it is clear which one a pod gets.
fn solo(context: &Context) -> Outcome<SriovNode> {
    let policy = |[pf, _]: &[Pf; 2]| {
        let pool = "pools: [{ name: solo, vfs: 0-0 }]";
        format!(
            "nic: {{ pfs: [{{ pf: {}, vfs: 1, mac: {{ base: 02:00:00:00:01:00 }}, {pool} }}] }}\n",
            pf.pci
        )
    };
    let node = SriovNode::start(context, policy)?;
    node.agent.says(&["nic", "apply"])?;
    node.wait_for_resource(POOL, |r| r.allocatable() == 1)?;
    Ok(node)
}

/// The VF's interface in the host's namespace.
fn interface(vf: &str) -> Outcome<Option<String>> {
    let folder = Path::new("/sys/bus/pci/devices").join(vf).join("net");
    let Ok(mut entries) = fs::read_dir(folder) else { return Ok(None) };
    Ok(entries.next().transpose()?.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

/// What the kernel says of an interface of the host, as far as a pod can change it.
fn traits(vf: &str) -> Outcome<Value> {
    let name = interface(vf)?.ok_or_else(|| Stop::fail(format!("{vf} has no interface at home")))?;
    let shown = run(Command::new("ip").args(["-json", "-details", "link", "show", &name]))?.success()?;
    let shown: Value = serde_json::from_str(&shown)?;
    let of = |key: &str| shown[0][key].clone();
    let up = of("flags").as_array().is_some_and(|flags| flags.contains(&json!("UP")));
    let keys = ["ifname", "mtu", "address", "promiscuity", "allmulti", "altnames"];
    Ok(json!([keys.map(of), up]))
}

/// The VFs as `culvert nic list` has them, without the names of interfaces: with the record of a VF its name is lost.
fn nameless(node: &SriovNode) -> Outcome<Vec<Value>> {
    let mut vfs = node.listed_vfs()?;
    for vf in vfs.iter_mut().filter_map(Value::as_object_mut) {
        vf.remove("interface");
    }
    Ok(vfs)
}

/// Has the agent forget what it attached.
fn lose_records(context: &Context, node: &mut SriovNode) -> Outcome {
    node.agent.kill()?;
    fs::remove_file(context.dir().join("state/nic.journal"))?;
    node.agent.start(|| Ok(true))
}

fn meddling(context: &Context) -> Outcome {
    let node = solo(context)?;
    let vf = node.pfs[0].vf_pci(0)?;
    let name = interface(&vf)?.unwrap_or_default();
    let own = ["link", "property", "add", "dev", &name, "altname", "vfofthehost"];
    run(Command::new("ip").args(own))?.success()?;
    let before = (traits(&vf)?, node.listed_vfs()?);
    let mac = "02:00:00:00:88:01";
    let config = json!({ "mac": mac, "vlan": 300, "trust": "on", "spoofchk": "off", "mtu": 1400 });
    let pod = node.unattached("pod-a", POOL, config)?;
    let result = pod.cni.add()?;
    ensure!(result["interfaces"][0]["mac"] == mac, "{result}");
    let kernel = Value::from(node.pfs[0].kernel_view()?).to_string();
    ensure!(kernel.contains(mac) && kernel.contains("\"vlan\":300"), "{kernel}");
    pod.netns().ip("link set eth0 mtu 1280
        link set eth0 promisc on
        link set eth0 allmulticast on
        link property add dev eth0 altname podsown
        address add 192.168.80.1/24 dev eth0")?;
    pod.cni.del()?;
    let after = (traits(&vf)?, node.listed_vfs()?);
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    node.nothing_to_do()
}

fn late_del(context: &Context) -> Outcome {
    let node = solo(context)?;
    let vf = node.pfs[0].vf_pci(0)?;
    let before = (traits(&vf)?, node.listed_vfs()?);
    let former = node.pod("pod-a", POOL, "192.168.80.1/24")?;
    ensure!(interface(&vf)?.is_none(), "the VF is not in the pod");
    let former = node.lose(former);
    wait_for("the VF is back", Duration::from_secs(20), || {
        Ok((interface(&vf)?.is_some() && node.listed_vfs()? == before.1).then_some(()))
    })?;
    ensure!(traits(&vf)? == before.0, "before: {}\nafter: {}", before.0, traits(&vf)?);
    let next = node.pod("pod-b", POOL, "192.168.80.2/24")?;
    ensure!(next.vf() == vf, "{} was given", next.vf());
    former.del()?;
    next.cni.succeed("CHECK")?;
    let inside = next.netns().sh("ip -o -4 address show dev eth0")?;
    ensure!(inside.contains("192.168.80.2/24"), "{inside}");
    next.cni.del()
}

fn lost_record(context: &Context) -> Outcome {
    let mut node = solo(context)?;
    let before = nameless(&node)?;
    let config = json!({ "mac": "02:00:00:00:88:01", "vlan": 300 });
    let pod = node.unattached("pod-a", POOL, config)?;
    pod.cni.add()?;
    lose_records(context, &mut node)?;
    pod.cni.del()?;
    let after = nameless(&node)?;
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    ensure!(interface(pod.vf())?.is_some(), "the interface is not at home");
    node.nothing_to_do()?;
    pod.cni.del()
}

fn orphans(context: &Context) -> Outcome {
    let mut node = solo(context)?;
    let before = nameless(&node)?;
    let listed = |node: &SriovNode, status: i32, part: &str| {
        let list = node.agent.culvert(&["nic", "orphans"])?;
        ensure!(list.status.code() == Some(status), "{}: {}{}", list.status, list.stdout, list.stderr);
        ensure!(list.stdout.contains(part), "{part:?} is not in:\n{}", list.stdout);
        Ok(())
    };
    listed(&node, 0, "no orphans")?;
    let pod = node.pod("pod-a", POOL, "192.168.80.1/24")?;
    listed(&node, 0, "no orphans")?;
    lose_records(context, &mut node)?;
    listed(&node, 2, pod.netns().name())?;
    node.agent.says(&["nic", "release", pod.vf()])?;
    listed(&node, 0, "no orphans")?;
    ensure!(nameless(&node)? == before, "before: {before:?}\nafter: {:?}", nameless(&node)?);

    // Somebody took it by hand, and is at it.
    let foreign = Netns::create("foreign")?;
    let name = interface(pod.vf())?.unwrap_or_default();
    run(Command::new("ip").args(["link", "set", &name, "netns", foreign.name()]))?.success()?;
    let user = Process::spawn("user", foreign.command("sleep").arg("60"), context.dir())?;
    listed(&node, 2, "process sleep")?;
    let refused = node.agent.culvert(&["nic", "release", "--all"])?;
    ensure!(refused.status.code() == Some(1) && refused.stdout.contains("--force"), "{}", refused.stdout);
    ensure!(interface(pod.vf())?.is_none(), "it was taken from a process");
    node.agent.says(&["nic", "release", pod.vf(), "--force"])?;
    user.kill()?;
    listed(&node, 0, "no orphans")?;
    ensure!(nameless(&node)? == before, "before: {before:?}\nafter: {:?}", nameless(&node)?);
    node.nothing_to_do()
}

fn time_of_add(context: &Context) -> Outcome {
    let node = solo(context)?;
    let config = json!({ "mac": "02:00:00:00:88:01", "vlan": 300,
        "runtimeConfig": { "ips": ["192.168.80.1/24"] } });
    let pod = node.unattached("pod-a", POOL, config)?;
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        pod.cni.add()?;
        let whole = started.elapsed();
        let log = node.agent.log();
        let laps = log.lines().rev().find_map(|line| Some(&line[line.find("look ")?..]));
        let laps = laps.ok_or_else(|| Stop::fail("the agent does not say what the time went into"))?;
        let own = own_time(laps).ok_or_else(|| Stop::fail(format!("{laps:?} makes no sense")))?;
        note(&format!("ADD of a VF: {whole:.1?}, the agent's own {own:.1?}: {laps}"));
        least = least.min(own);
        pod.cni.del()?;
    }
    ensure!(least < ADD, "ADD takes {least:?} of its own");
    Ok(())
}

/// The sum of an attachment's laps (`look 1.2 ms, record 0.4 ms, move 5.1 ms`) apart from those of the kernel and of the
/// drivers: what the PF takes to set up the VF, the VF to take its MAC over, and both to move to the pod.
fn own_time(laps: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for lap in laps.split(", ") {
        let mut words = lap.split(' ');
        let (work, time) = (words.next()?, words.next()?.parse::<f64>().ok()?);
        if !["pf", "mac", "move"].contains(&work) {
            sum += Duration::from_secs_f64(time / 1e3);
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adds_own_time_is_without_that_of_the_kernel() {
        let laps =
            "look 1.5 ms, record 0.5 ms, pf 100.0 ms, mac 30.0 ms, move 7.0 ms, pod 2.0 ms, record 1.0 ms";
        assert_eq!(own_time(laps), Some(Duration::from_millis(5)));
        assert_eq!(own_time("look up"), None);
    }
}
