//! Pods: namespaces with a server inside.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::cni::Cni;
use super::{Addresses, Far, Node, POD_PORT};
use crate::frame::{Context, Outcome, wait_for};
use crate::net::{Netns, Process, program};

/// A pod.
#[derive(Debug)]
pub struct Pod {
    server: Process,
    netns: Netns,
    /// Its name; its namespace is "default".
    pub name: String,
    /// Its addresses.
    pub addresses: Addresses,
}

impl Pod {
    /// A pod of this node: culvert-cni attaches it and chooses its addresses, then its Pod object tells them.
    pub fn local(context: &Context, node: &Node, name: &str) -> Outcome<Self> {
        let mut pod = Self::unattached(context, name)?;
        pod.addresses = Addresses::of_result(&Cni::overlay(node, &pod).add()?)?;
        node.manifests.pod(&pod, "node-a")?;
        Ok(pod)
    }

    /// A pod of the far node, attached by veth.
    pub fn far(context: &Context, far: &Far, name: &str, addresses: Addresses) -> Outcome<Self> {
        let pod = Self { addresses, ..Self::unattached(context, name)? };
        far.add_pod(name, &pod.netns, addresses)?;
        Ok(pod)
    }

    /// A namespace with a server, no addresses, and no way out.
    pub fn unattached(context: &Context, name: &str) -> Outcome<Self> {
        let netns = Netns::create(name)?;
        let mut command = netns.command(program("culvert-hw-tests")?);
        command.args(["serve", "--name", name, "--port", &POD_PORT.to_string()]);
        let server = Process::spawn(name, &mut command, context.dir())?;
        let addresses = Addresses { v4: Ipv4Addr::UNSPECIFIED, v6: Ipv6Addr::UNSPECIFIED };
        Ok(Self { server, netns, name: name.to_owned(), addresses })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its container id, as a runtime would choose one.
    pub fn container_id(&self) -> String {
        self.netns.name().to_owned()
    }

    /// Waits until its server listens.
    pub fn wait_until_serving(&self) -> Outcome {
        wait_for(&format!("{} serves", self.name), Duration::from_secs(5), || {
            Ok(self.server.log().contains("serving").then_some(()))
        })
    }
}
