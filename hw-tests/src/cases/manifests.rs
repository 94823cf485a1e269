//! Kubernetes YAML that is wrong, and what goes on all the same.

use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{self, Load};
use crate::topology::{BACKENDS, Family, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_bad_file_is_named_and_the_rest_keeps_working", place: Netns, run: bad_files },
    Case { name: "a_file_that_turns_bad_leaves_its_objects_in_force", place: Netns, run: turns_bad },
    Case { name: "a_service_that_is_deleted_is_forgotten", place: Netns, run: deleted },
];

/// Name of the file, what it holds, and what the log must name.
const BAD: [(&str, &str, &str); 4] = [
    ("broken.yaml", "apiVersion: v1\nkind: [Service\nmetadata", "broken.yaml"),
    ("no-kind.yaml", "just: text\n", "no-kind.yaml"),
    (
        "no-ports.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: portless, namespace: default }\n\
         spec: { clusterIP: 10.96.0.99, clusterIPs: [10.96.0.99] }\n",
        "default/portless",
    ),
    (
        "bad-address.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: odd, namespace: default }\n\
         spec: { clusterIP: 10.96.0.999, clusterIPs: [10.96.0.999], ports: [{ port: 80 }] }\n",
        "10.96.0.999",
    ),
];

fn bad_files(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    net.node.manifests.endpoints(&net.web(&BACKENDS[..2]))?;
    net.wait_for_backends(2)?;
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    for (name, text, named) in BAD {
        net.node.manifests.write(name, text)?;
        wait_for(&format!("the log names {named}"), Duration::from_secs(10), || {
            Ok(net.node.agent.log().contains(named).then_some(()))
        })?;
    }
    // What is right is still taken in while what is wrong lies beside it. One that goes would reset whom it answers.
    net.node.manifests.endpoints(&net.web(&BACKENDS))?;
    net.wait_for_backends(BACKENDS.len())?;
    load.finish()?.nothing_lost(10)
}

fn turns_bad(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    net.node.manifests.write("default-web-slices.yaml", "apiVersion: v1\nkind: List\nitems:\n- half")?;
    wait_for("the log names the file", Duration::from_secs(10), || {
        Ok(net.node.agent.log().contains("default-web-slices.yaml").then_some(()))
    })?;
    net.wait_for_backends(BACKENDS.len())?;
    net::http::name(net.pod("client").netns(), Topology::web_address(Family::V6))?;
    net.node.manifests.endpoints(&net.web(&BACKENDS[1..]))?;
    net.wait_for_backends(BACKENDS.len() - 1)
}

fn deleted(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    net.node.manifests.remove("default-web.yaml")?;
    wait_for("the fast path has no Service", Duration::from_secs(10), || {
        Ok(net.node.control()?.services()?.is_empty().then_some(()))
    })?;
    // The slices that are left belong to no Service: no error, and no Service.
    let web = net.web(&BACKENDS);
    net.node.manifests.endpoints(&web)?;
    net.node.manifests.service(&web)?;
    net.wait_for_backends(BACKENDS.len())?;
    let answer = net::http::name(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    ensure!(BACKENDS.contains(&answer.as_str()), "{answer:?} answered");
    Ok(())
}
