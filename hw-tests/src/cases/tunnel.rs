//! Tunnels over IPv6, and tenants. The other end is the kernel's VXLAN device.

use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{self, Ping};
use crate::topology::cni::Cni;
use crate::topology::manifest::Service;
use crate::topology::{Addresses, CLUSTER_IP, Family, POD_PORT, Pod, Topology, pod_address};

pub(super) const CASES: &[Case] = &[
    Case { name: "pods_reach_each_other_across_the_kernels_vxlan_over_ipv6", place: Netns, run: over_ipv6 },
    Case {
        name: "a_service_is_served_across_the_kernels_vxlan_over_ipv6",
        place: Netns,
        run: service_over_ipv6,
    },
    Case {
        name: "a_packet_too_big_is_answered_with_the_mtu_of_an_ipv6_underlay",
        place: Netns,
        run: too_big,
    },
    Case { name: "tenants_with_the_same_addresses_never_see_each_other", place: Netns, run: tenants },
];

fn over_ipv6(context: &Context) -> Outcome {
    let net = Topology::start_over(context, Family::V6)?;
    for (from, to) in [("pod-a", "pod-b"), ("pod-a", "pod-c"), ("pod-d", "pod-b")] {
        for address in net.pod(to).addresses.both() {
            let from = net.pod(from).netns();
            // Linux drops what comes over IPv6 without a UDP checksum, or with a wrong one.
            Ping::to(address).unfragmented(net.far.mtu()).answered(from)?;
            net::http::download(from, (address, POD_PORT).into(), 1 << 20)?;
        }
    }
    Ok(())
}

fn service_over_ipv6(context: &Context) -> Outcome {
    let net = Topology::start_over(context, Family::V6)?;
    for family in Family::BOTH {
        for _ in 0..20 {
            net::http::name(net.pod("client").netns(), Topology::web_address(family))?;
        }
    }
    Ok(())
}

fn too_big(context: &Context) -> Outcome {
    let net = Topology::start_over(context, Family::V6)?;
    net.pod("pod-a").netns().ip("link set eth0 mtu 1500")?;
    for (family, says) in [(Family::V4, "mtu = 1430"), (Family::V6, "mtu=1430")] {
        let ping = Ping::to(net.pod("pod-c").addresses.get(family)).unfragmented(1431);
        let pong = ping.unanswered(net.pod("pod-a").netns())?;
        ensure!(pong.text.contains(says), "{}", pong.text);
    }
    Ok(())
}

/// A namespace and the VNI of its tenant.
const TENANTS: [(&str, u32); 2] = [("red", 5001), ("blue", 5002)];

/// Every tenant has a pod here and one on the far node, all with the same two addresses, and a Service at the same virtual
/// address over both.
fn tenants(context: &Context) -> Outcome {
    let overlay = ", tenants: [{ name: red, vni: 5001, namespaces: [red] }, \
                   { name: blue, vni: 5002, namespaces: [blue] }]";
    let net = Topology::configured(context, Family::V4, overlay)?;
    let (here, there) = (pod_address(1, 0), pod_address(2, 0));
    let mut pods = Vec::new();
    for (tenant, vni) in TENANTS {
        let near = Pod::unattached(context, &format!("{tenant}-near"))?;
        let mut call = Cni::overlay(&net.node, &near).in_namespace(tenant);
        call.args += &format!(";IP={},{}", here.v4, here.v6);
        let got = Addresses::of_result(&call.add()?)?;
        ensure!(got == here, "{tenant}: {got:?}");
        let far = Pod::unattached(context, &format!("{tenant}-far"))?;
        net.far.add_tenant(far.netns(), vni, there)?;
        net.node.manifests.service(&Service {
            namespace: tenant.to_owned(),
            name: "web".to_owned(),
            cluster_ip: CLUSTER_IP,
            backends: vec![(far.name.clone(), there)],
            target: POD_PORT,
            balancing: None,
            affinity: 0,
        })?;
        near.wait_until_serving()?;
        far.wait_until_serving()?;
        pods.push((tenant, near, far));
    }
    for (tenant, near, far) in &pods {
        for family in Family::BOTH {
            for (from, to, wanted) in [(near, there.get(family), far), (far, here.get(family), near)] {
                Ping::to(to).answered(from.netns())?;
                let name = net::http::name(from.netns(), (to, POD_PORT).into())?;
                ensure!(name == wanted.name, "{tenant}: {to} is {name}");
            }
            served_by(near, family, &far.name)?;
        }
    }
    // The cluster's own pods have neither.
    let own = Pod::local(context, &net.node, "own")?;
    for family in Family::BOTH {
        Ping::to(there.get(family)).unanswered(own.netns())?;
        let answer = net::http::name(own.netns(), Topology::web_address(family));
        ensure!(answer.is_err(), "a tenant's Service answers the cluster's own pod: {answer:?}");
    }
    Ok(())
}

/// Waits until the Service answers a pod, and asks who it is.
fn served_by(pod: &Pod, family: Family, wanted: &str) -> Outcome {
    let to = Topology::web_address(family);
    let answered = || Ok(net::http::name(pod.netns(), to).ok());
    let name = wait_for("the Service answers", Duration::from_secs(5), answered)?;
    ensure!(name == wanted, "{to} is {name} instead of {wanted}");
    Ok(())
}
