//! A node with SR-IOV NICs: culvert-agent, a kubelet stand-in, and pods that get virtual functions.
//!
//! It uses the PFs of the machine it runs on, so it belongs into the guest. Both PFs hang on one wire.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::agent::Agent;
use super::cni::Cni;
use crate::ensure;
use crate::frame::{Context, Outcome, Stop, wait_for};
use crate::guest::pf_mac;
use crate::kubelet::{Given, KubeletStandIn, PodResources, Resource};
use crate::net::{Netns, Ping, run};

/// A physical function.
#[derive(Debug, Clone)]
pub struct Pf {
    /// Its PCI address.
    pub pci: String,
    /// Its interface; the name differs from boot to boot.
    pub interface: String,
}

impl Pf {
    /// That of NIC `number` of the guest.
    pub fn find(number: u8) -> Outcome<Self> {
        for entry in fs::read_dir("/sys/class/net")?.flatten() {
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if address.trim() == pf_mac(number) && entry.path().join("device/sriov_totalvfs").exists() {
                let pci = fs::canonicalize(entry.path().join("device"))?;
                let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Ok(Self { pci: name(&pci), interface: name(&entry.path()) });
            }
        }
        Err(Stop::Skip(format!("there is no PF with MAC address {}", pf_mac(number))))
    }

    /// Its folder in sysfs.
    pub fn sysfs(&self) -> PathBuf {
        Path::new("/sys/bus/pci/devices").join(&self.pci)
    }

    /// VFs that it has now.
    pub fn vfs(&self) -> usize {
        (0..).take_while(|vf| self.sysfs().join(format!("virtfn{vf}")).exists()).count()
    }

    /// PCI address of a VF.
    pub fn vf_pci(&self, vf: usize) -> Outcome<String> {
        let link = fs::read_link(self.sysfs().join(format!("virtfn{vf}")))?;
        Ok(link.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// What the kernel says of its VFs, from `ip -json link`.
    pub fn kernel_view(&self) -> Outcome<Vec<Value>> {
        let mut command = std::process::Command::new("ip");
        let text = run(command.args(["-json", "-details", "link", "show", &self.interface]))?.success()?;
        let mut links: Vec<Value> = serde_json::from_str(&text)?;
        let vfs = links.first_mut().map(|link| link["vfinfo_list"].take());
        Ok(vfs.and_then(|vfs| vfs.as_array().cloned()).unwrap_or_default())
    }

    /// Takes all VFs away, as nobody may have left any.
    fn reset(&self) -> Outcome {
        fs::write(self.sysfs().join("sriov_numvfs"), "0")?;
        run(std::process::Command::new("ip").args(["link", "set", &self.interface, "up"]))?.success()?;
        Ok(())
    }
}

/// The node.
#[derive(Debug)]
pub struct SriovNode {
    /// The agent.
    pub agent: Agent,
    /// The PFs, by number of the NIC.
    pub pfs: [Pf; 2],
    kubelet: KubeletStandIn,
    /// Who has which device: without it, every VF might be a pod's.
    _pod_resources: PodResources,
    runtime: Runtime,
    root: PathBuf,
}

/// A pod with a VF.
#[derive(Debug)]
pub struct VfPod {
    /// The calls that attach and detach it.
    pub cni: Cni,
    /// What kubelet was given for it.
    pub given: Given,
    /// What ADD said.
    pub result: Value,
    name: String,
    netns: Netns,
}

impl VfPod {
    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// PCI address of its VF.
    pub fn vf(&self) -> &str {
        self.given.ids.first().map_or("", String::as_str)
    }
}

/// Four VFs on NIC 0: two in VLAN 100 for tenant-a, two in VLAN 200 for tenant-b.
pub fn two_tenants(pf: &Pf) -> String {
    format!(
        "nic:
  pfs:
  - pf: {}
    vfs: 4
    mac: {{ base: 02:00:00:00:01:00 }}
    overrides:
    - {{ vfs: 0-1, vlan: 100 }}
    - {{ vfs: 2-3, vlan: 200, qos: 3 }}
    pools:
    - {{ name: tenant-a, vfs: 0-1 }}
    - {{ name: tenant-b, vfs: 2-3 }}
",
        pf.pci
    )
}

impl SriovNode {
    /// Starts kubelet's stand-in, and the agent with the `nic` section that `policy` makes. No PF has a VF then.
    pub fn start(context: &Context, policy: impl Fn(&[Pf; 2]) -> String) -> Outcome<Self> {
        let pfs = [Pf::find(0)?, Pf::find(1)?];
        pfs.iter().try_for_each(Pf::reset)?;
        let root = context.dir().join("kubelet");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let kubelet = runtime.block_on(KubeletStandIn::start(&root))?;
        let pod_resources = runtime.block_on(kubelet.pod_resources())?;
        let agent = Agent::configure(context, None, &Self::config(&root, &policy(&pfs)))?;
        let mut node = Self { agent, pfs, kubelet, _pod_resources: pod_resources, runtime, root };
        node.agent.start(|| Ok(true))?;
        Ok(node)
    }

    /// Starts it, and has the policy of [`two_tenants`] applied.
    pub fn with_two_tenants(context: &Context) -> Outcome<Self> {
        let node = Self::start(context, |[pf, _]| two_tenants(pf))?;
        node.agent.says(&["nic", "apply"])?;
        for resource in ["culvert.io/tenant-a", "culvert.io/tenant-b"] {
            node.wait_for_resource(resource, |r| r.allocatable() == 2)?;
        }
        Ok(node)
    }

    /// Restarts the agent with another policy.
    pub fn change_policy(&mut self, policy: &str) -> Outcome {
        self.agent.stop()?;
        self.agent.reconfigure(&Self::config(&self.root, policy))?;
        self.agent.start(|| Ok(true))
    }

    fn config(root: &Path, policy: &str) -> String {
        format!("node: guest\ndevicePlugin: {{ kubeletDir: {}/device-plugins }}\n{policy}", root.display())
    }

    /// Waits until kubelet sees a resource as `wanted`.
    pub fn wait_for_resource(&self, resource: &str, wanted: impl Fn(&Resource) -> bool) -> Outcome<Resource> {
        Ok(self.runtime.block_on(self.kubelet.wait(resource, Duration::from_secs(20), wanted))?)
    }

    /// Restarts kubelet's stand-in.
    pub fn restart_kubelet(&mut self) -> Outcome {
        Ok(self.runtime.block_on(self.kubelet.restart())?)
    }

    /// Starts a pod as kubelet and a runtime do: a device is allocated, and culvert-cni called for it.
    pub fn pod(&self, name: &str, resource: &str, address: &str) -> Outcome<VfPod> {
        let config = json!({ "runtimeConfig": { "ips": [address] } });
        let mut pod = self.unattached(name, resource, config)?;
        pod.result = pod.cni.add()?;
        Ok(pod)
    }

    /// A pod that was given a device, and for which ADD is still to be called; `more` goes into its network configuration.
    pub fn unattached(&self, name: &str, resource: &str, more: Value) -> Outcome<VfPod> {
        let given = self.allocate(name, resource)?;
        let netns = Netns::create(name)?;
        let mut cni = Cni::for_container(name, netns.name(), netns.path(), more);
        cni.config["socket"] = json!(self.agent.socket());
        cni.config["deviceID"] = json!(given.ids.first());
        Ok(VfPod { cni, given, result: Value::Null, name: name.to_owned(), netns })
    }

    /// Ends a pod as kubelet does: after DEL its devices are free.
    pub fn end(&self, pod: &VfPod) -> Outcome {
        pod.cni.del()?;
        self.kubelet.release(&format!("default/{}", pod.name));
        Ok(())
    }

    /// Has a pod's namespace end without a DEL, and its devices be free; what would have been its DEL is returned.
    pub fn lose(&self, pod: VfPod) -> Cni {
        self.kubelet.release(&format!("default/{}", pod.name));
        pod.cni
    }

    /// Writes another policy for the agent to load while it runs.
    pub fn load_policy(&self, policy: &str) -> Outcome {
        self.agent.reconfigure(&Self::config(&self.root, policy))
    }

    /// Has kubelet allocate a device.
    pub fn allocate(&self, pod: &str, resource: &str) -> Outcome<Given> {
        Ok(self.runtime.block_on(self.kubelet.allocate(&format!("default/{pod}"), resource, 1))?)
    }

    /// The VFs of PF 0 as `culvert nic list -o json` has them.
    pub fn listed_vfs(&self) -> Outcome<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.agent.says(&["nic", "list", "-o", "json"])?)?;
        let pfs = list.as_array().cloned().unwrap_or_default();
        let pf = pfs.iter().find(|pf| pf["pci"] == self.pfs[0].pci.as_str());
        let pf = pf.ok_or_else(|| Stop::fail(format!("{} is not listed: {list}", self.pfs[0].pci)))?;
        Ok(pf["vfs"].as_array().cloned().unwrap_or_default())
    }

    /// Fails unless `culvert nic plan` has nothing to do.
    pub fn nothing_to_do(&self) -> Outcome {
        let plan = self.agent.culvert(&["nic", "plan"])?;
        ensure!(plan.status.code() == Some(0), "there is something to do:\n{}{}", plan.stdout, plan.stderr);
        Ok(())
    }
}

/// Waits until `to` answers a ping from `pod`: a VF's link needs a second or two to come up.
pub fn reaches(pod: &VfPod, to: std::net::IpAddr) -> Outcome {
    wait_for(&format!("{to} answers {}", pod.netns().name()), Duration::from_secs(20), || {
        let pong = Ping::to(to).from(pod.netns())?;
        Ok((pong.received == pong.sent).then_some(()))
    })
}

/// A PF whose driver is vfio-pci until this is dropped.
#[derive(Debug)]
pub struct GivenAway(Pf);

impl GivenAway {
    /// Takes it from the kernel.
    pub fn new(pf: &Pf) -> Outcome<Self> {
        let given_away = Self(pf.clone());
        given_away.bind("vfio-pci")?;
        Ok(given_away)
    }

    fn bind(&self, driver: &str) -> Outcome {
        let device = self.0.sysfs();
        fs::write(device.join("driver/unbind"), &self.0.pci)?;
        fs::write(device.join("driver_override"), format!("{driver}\n"))?;
        fs::write(Path::new("/sys/bus/pci/drivers_probe"), &self.0.pci)?;
        let link = fs::read_link(device.join("driver"))?;
        ensure!(link.ends_with(driver), "{}: driver {} instead of {driver}", self.0.pci, link.display());
        Ok(())
    }
}

impl Drop for GivenAway {
    fn drop(&mut self) {
        // For the cases that come after this one, which say so if it is not there.
        let _ = self.bind("igb");
        let _ = fs::write(self.0.sysfs().join("driver_override"), "\n");
    }
}
