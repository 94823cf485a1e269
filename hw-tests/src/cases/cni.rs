//! culvert-cni, called well and badly.

use std::time::Duration;

use serde_json::json;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop, wait_for};
use crate::net::Ping;
use crate::topology::cni::Cni;
use crate::topology::{Addresses, Pod, Topology, pod_address};

pub(super) const CASES: &[Case] = &[
    Case { name: "add_tells_the_runtime_what_the_pod_has", place: Netns, run: result },
    Case { name: "add_twice_gives_the_same_and_del_twice_succeeds", place: Netns, run: twice },
    Case { name: "check_notices_what_somebody_changed", place: Netns, run: check },
    Case { name: "status_and_version_say_what_there_is", place: Netns, run: status },
    Case { name: "a_bad_call_is_refused_by_name_and_changes_nothing", place: Netns, run: bad_calls },
    Case { name: "a_taken_address_is_refused_and_a_free_one_is_found", place: Netns, run: addresses },
];

fn result(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let pod = Pod::unattached(context, "late")?;
    let wanted = pod_address(1, 99);
    net.node.manifests.pod_to_come("late", wanted)?;
    wait_for("the agent knows the pod", Duration::from_secs(10), || {
        Ok(net.node.agent.log().contains("late.yaml").then_some(()))
    })?;
    let result = Cni::overlay(&net.node, &pod).add()?;
    let text = result.to_string();
    ensure!(result["cniVersion"] == "1.1.0", "{text}");
    for address in [format!("{}/32", wanted.v4), format!("{}/128", wanted.v6)] {
        ensure!(text.contains(&address), "{address} is not in {text}");
    }
    let link = pod.netns().sh("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu")?;
    let (mac, mtu) = link.trim().split_once('\n').ok_or_else(|| Stop::fail(link.clone()))?;
    ensure!(text.contains(mac), "MAC {mac} of eth0 is not in {text}");
    ensure!(mtu == "1450", "the MTU of eth0 is {mtu}");
    Ping::to(net.pod("pod-c").addresses.v6).answered(pod.netns())
}

fn twice(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let cni = Cni::overlay(&net.node, net.pod("pod-b"));
    let ports = net.node.control()?.ports()?.len();
    let (first, second) = (cni.add(), cni.add());
    match (first, second) {
        // The specification leaves it open: a second ADD may give the first one's result, or be refused.
        (Ok(first), Ok(second)) => ensure!(first == second, "{first}\n{second}"),
        (Err(_), Err(_)) => {}
        mixed => return Err(Stop::fail(format!("{mixed:?}"))),
    }
    ensure!(net.node.control()?.ports()?.len() == ports, "ADD made another port");
    cni.del()?;
    cni.del()?;
    ensure!(net.node.control()?.ports()?.len() == ports - 1, "DEL left the port");
    let left = net.pod("pod-b").netns().sh("ls /sys/class/net")?;
    ensure!(left.trim() == "lo", "DEL left {left}");
    cni.add()?;
    Ping::to(net.pod("pod-b").addresses.v4).answered(net.pod("pod-a").netns())
}

fn check(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let pod = net.pod("pod-a");
    let mut cni = Cni::overlay(&net.node, pod);
    // A runtime hands CHECK what ADD gave.
    cni.config["prevResult"] = cni.add()?;
    cni.succeed("CHECK")?;
    pod.netns().ip(&format!("addr del {}/32 dev eth0", pod.addresses.v4))?;
    let message = cni.refused("CHECK")?;
    ensure!(message.contains(&pod.addresses.v4.to_string()), "the address is not named: {message}");
    Ok(())
}

fn status(context: &Context) -> Outcome {
    let mut net = Topology::start(context)?;
    let cni = Cni::overlay(&net.node, net.pod("pod-a"));
    cni.succeed("STATUS")?;
    net.node.agent.kill()?;
    let message = cni.refused("STATUS")?;
    ensure!(message.contains("agent.sock"), "the socket is not named: {message}");
    let versions = cni.succeed("VERSION")?;
    ensure!(versions["supportedVersions"].to_string().contains("1.1.0"), "{versions}");
    Ok(())
}

fn bad_calls(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let pod = Pod::unattached(context, "late")?;
    let ports = net.node.control()?.ports()?.len();
    let good = Cni::overlay(&net.node, &pod);
    let bad: [(&str, Cni); 6] = [
        ("/run/netns/no-such", Cni { netns: "/run/netns/no-such".into(), ..good.clone() }),
        ("CNI_NETNS", Cni { netns: "".into(), ..good.clone() }),
        ("CNI_CONTAINERID", Cni { container_id: String::new(), ..good.clone() }),
        ("CNI_IFNAME", Cni { ifname: "no/such".into(), ..good.clone() }),
        (
            "9.9.9",
            Cni {
                config: json!({ "cniVersion": "9.9.9", "name": "culvert", "type": "culvert-cni",
            "socket": net.node.agent.socket() }),
                ..good.clone()
            },
        ),
        (
            "0000:ff:00.0",
            Cni {
                config: Cni::new(
                    &pod,
                    json!({ "socket": net.node.agent.socket(),
            "deviceID": "0000:ff:00.0" }),
                )
                .config,
                ..good.clone()
            },
        ),
    ];
    for (names, cni) in bad {
        let message = cni.refused("ADD")?;
        ensure!(message.contains(names), "{names} is not named: {message}");
        ensure!(pod.netns().sh("ls /sys/class/net")?.trim() == "lo", "{names}: something is in the pod");
    }
    ensure!(net.node.control()?.ports()?.len() == ports, "a port was left behind");
    good.add()?;
    Ping::to(net.pod("pod-c").addresses.v4).answered(pod.netns())
}

fn addresses(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let pod = Pod::unattached(context, "late")?;
    let cni = Cni::overlay(&net.node, &pod);
    let taken = net.pod("pod-a").addresses;
    let wish = Cni { args: format!("{};IP={},{}", cni.args, taken.v4, taken.v6), ..cni.clone() };
    let message = wish.refused("ADD")?;
    ensure!(message.contains(&taken.v4.to_string()), "the address is not named: {message}");
    let given = Addresses::of_result(&cni.add()?)?;
    ensure!(given.v4.octets()[..3] == [10, 244, 1] && given.v4 != taken.v4, "given: {given:?}");
    ensure!(given.v6.segments()[..3] == [0xfd00, 0x244, 1] && given.v6 != taken.v6, "given: {given:?}");
    Ping::to(net.pod("pod-c").addresses.v4).answered(pod.netns())
}
