//! The CNI of virtual functions: addresses of another plugin, identities that pods choose, garbage.

use serde_json::{Value, json};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest};
use crate::topology::sriov::{SriovNode, reaches, two_tenants};

pub(super) const CASES: &[Case] = &[
    Case { name: "an_ipam_plugin_gives_addresses_and_its_refusal_undoes_the_rest", place: Guest, run: ipam },
    Case {
        name: "a_pod_chooses_mac_and_vlan_where_it_may_and_gc_takes_them_back",
        place: Guest,
        run: identity,
    },
];

/// The configuration of sriov-cni with the CNI project's host-local, which has two addresses to give.
fn ipam(context: &Context) -> Outcome {
    let node = SriovNode::with_two_tenants(context)?;
    let before = node.listed_vfs()?;
    let config = json!({
        "cniVersion": "0.4.0", "name": "sriov-net", "type": "sriov", "vlan": 100, "trust": "on",
        "ipam": {
            "type": "host-local", "dataDir": context.dir().join("leases"),
            "ranges": [[{ "subnet": "192.168.60.0/24", "rangeStart": "192.168.60.8", "rangeEnd": "192.168.60.9" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    let mut a = node.unattached("pod-a", "culvert.io/tenant-a", config.clone())?;
    let b = node.unattached("pod-b", "culvert.io/tenant-a", config.clone())?;
    let late = node.unattached("pod-c", "culvert.io/tenant-b", config)?;
    a.result = a.cni.add()?;
    ensure!(a.result["ips"][0]["address"] == "192.168.60.8/24", "{}", a.result);
    ensure!(a.result["ips"][0]["version"] == "4" && a.result["cniVersion"] == "0.4.0", "{}", a.result);
    let inside = a.netns().sh("ip -o -4 address show dev eth0; ip route")?;
    ensure!(inside.contains("192.168.60.8/24") && inside.contains("default via 192.168.60.1"), "{inside}");
    b.cni.add()?;
    reaches(&b, "192.168.60.8".parse()?)?;

    let message = late.cni.refused("ADD")?;
    ensure!(message.contains("no IP addresses available"), "the plugin's words are lost: {message}");
    let vf = node.listed_vfs()?.into_iter().find(|vf| vf["pci"] == late.vf());
    let own = before.iter().find(|vf| vf["pci"] == late.vf());
    ensure!(vf.as_ref() == own, "{vf:?}\nis not as before:\n{own:?}");
    // A runtime sends it after a failure, too.
    late.cni.del()?;

    a.cni.config["prevResult"] = a.result.clone();
    a.cni.succeed("CHECK")?;
    a.cni.del()?;
    a.cni.del()?;
    ensure!(late.cni.add()?["ips"][0]["address"] == "192.168.60.8/24", "DEL did not give the address back");
    Ok(())
}

fn identity(context: &Context) -> Outcome {
    let node = SriovNode::start(context, |[pf, _]| {
        format!("{}cni: {{ podMayChoose: {{ vlans: 150-159 }} }}\n", two_tenants(pf))
    })?;
    node.agent.says(&["nic", "apply"])?;
    node.wait_for_resource("culvert.io/tenant-b", |r| r.allocatable() == 2)?;
    let before = node.listed_vfs()?;
    let annotated = |annotations: Value| json!({ "name": "tenants", "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations } });
    let chosen = |mac: &str, vlan: u16, address: &str| {
        annotated(json!({ "culvert.io/networks":
            json!({ "eth0": { "mac": mac, "vlan": vlan, "addresses": [address] } }).to_string() }))
    };
    let mac = "02:00:00:00:77:01";
    let a = node.unattached("pod-a", "culvert.io/tenant-b", chosen(mac, 150, "192.168.70.1/24"))?;
    let result = a.cni.add()?;
    ensure!(result["interfaces"][0]["mac"] == mac, "{result}");
    let vfs = Value::from(node.pfs[0].kernel_view()?).to_string();
    ensure!(vfs.contains(mac) && vfs.contains("\"vlan\":150"), "the kernel has {vfs}");

    let mut b = node.unattached("pod-b", "culvert.io/tenant-b", chosen(mac, 150, "192.168.70.2/24"))?;
    let message = b.cni.refused("ADD")?;
    ensure!(message.contains(mac) && message.contains("default/pod-a"), "whose MAC it is: {message}");
    let retry = |b: &mut crate::topology::sriov::VfPod, vlan| {
        let other = chosen("02:00:00:00:77:02", vlan, "192.168.70.2/24");
        b.cni.config["runtimeConfig"] = other["runtimeConfig"].clone();
    };
    retry(&mut b, 100);
    let message = b.cni.refused("ADD")?;
    ensure!(message.contains("VLANs 150-159"), "what it may choose: {message}");
    retry(&mut b, 150);
    b.cni.add()?;
    reaches(&b, "192.168.70.1".parse()?)?;

    // The runtime knows of pod-b alone: what pod-a had is garbage, and only in this network.
    let mut runtime = b.cni.clone();
    let valid = json!([{ "containerID": b.cni.container_id, "ifname": "eth0" }]);
    runtime.config["cni.dev/valid-attachments"] = valid;
    runtime.config["name"] = "another".into();
    runtime.succeed("GC")?;
    a.cni.succeed("CHECK")?;
    runtime.config["name"] = b.cni.config["name"].clone();
    runtime.succeed("GC")?;
    b.cni.succeed("CHECK")?;
    a.cni.refused("CHECK")?;
    b.cni.del()?;
    let after = node.listed_vfs()?;
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    Ok(())
}
