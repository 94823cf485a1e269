//! Machines that the node cannot be without: the API server, and servers of what it has mounted.

mod resolve;
mod tcp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::root::{FileError, HostRoot, names, read};
use resolve::resolve;

/// Where it is written who the API server is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// Its address: `10.0.0.1:6443`, `[fd00::1]:6443`, or a name and a port.
    pub host: Option<String>,
    /// A kubeconfig that names it; absent: kubelet's own, `/etc/kubernetes/kubelet.conf`.
    pub kubeconfig: Option<PathBuf>,
}

/// A machine that the node needs, or an address of the node's own that it talks to one from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What it is: `the way to the API server 10.0.0.1:6443`.
    pub what: String,
    /// Where it is.
    pub address: IpAddr,
    /// Whether the address is the node's own.
    pub own: bool,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs(Vec<Need>);

/// As much of a kubeconfig as is needed.
#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    server: String,
}

const KUBELET_CONF: &str = "etc/kubernetes/kubelet.conf";
const HTTPS: u16 = 443;

impl Needs {
    /// Looks into the machine's files and the program's environment (KUBERNETES_SERVICE_HOST and _PORT, which every pod
    /// has). A name that has to be resolved first may take a second.
    ///
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn find(root: &HostRoot, api_server: &ApiServer) -> Result<Self, FileError> {
        let environment = |name: &str| std::env::var(name).ok();
        Self::find_in(root, api_server, environment)
    }

    fn find_in(
        root: &HostRoot,
        api_server: &ApiServer,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, FileError> {
        let mut needs = Self::default();
        let mut hosts: Vec<String> = api_server.host.iter().cloned().collect();
        let kubeconfig = api_server.kubeconfig.as_deref().unwrap_or(KUBELET_CONF.as_ref());
        // A path in the configuration is the machine's, too.
        let kubeconfig = root.path(kubeconfig.strip_prefix("/").unwrap_or(kubeconfig));
        hosts.extend(read(&kubeconfig)?.iter().flat_map(|text| servers(text)));
        if let Some(host) = environment("KUBERNETES_SERVICE_HOST") {
            let port = environment("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| HTTPS.to_string());
            hosts.push(if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            });
        }
        let mut servers: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for host in hosts {
            servers.extend(resolve(&host).into_iter().map(|address| (address, host.clone())));
        }
        for (address, host) in &servers {
            needs.add(format!("the way to the API server {host}"), address.ip());
        }
        for local in tcp::local_addresses(root, &servers)? {
            let what = format!("the node's connection to the API server from {local}");
            needs.0.push(Need { what, address: local, own: true });
        }
        needs.add_mounts(&read(&root.path("proc/mounts"))?.unwrap_or_default());
        needs.add_block_devices(root)?;
        Ok(needs)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Need> {
        self.0.iter()
    }

    fn add(&mut self, what: String, address: IpAddr) {
        if !address.is_loopback() && !self.0.iter().any(|need| need.address == address) {
            self.0.push(Need { what, address, own: false });
        }
    }

    /// NFS tells its server's address in an option: `addr=10.0.0.9`.
    fn add_mounts(&mut self, mounts: &str) {
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, place, "nfs" | "nfs4", options, ..] = fields[..] else { continue };
            let address = options.split(',').find_map(|option| option.strip_prefix("addr=")?.parse().ok());
            if let Some(address) = address {
                self.add(format!("the way to the NFS server {address} of {place}"), address);
            }
        }
    }

    /// iSCSI connections, and NVMe over TCP or RDMA: `traddr=10.0.0.9,trsvcid=4420`.
    fn add_block_devices(&mut self, root: &HostRoot) -> Result<(), FileError> {
        let iscsi = root.path("sys/class/iscsi_connection");
        for name in names(&iscsi)? {
            let folder = iscsi.join(&name);
            for file in ["address", "persistent_address"] {
                if let Some(address) = read(&folder.join(file))?.and_then(|text| text.parse().ok()) {
                    self.add(format!("the way to the iSCSI target {address}"), address);
                }
            }
        }
        let nvme = root.path("sys/class/nvme");
        for name in names(&nvme)? {
            let Some(text) = read(&nvme.join(&name).join("address"))? else { continue };
            let address = text.split(',').find_map(|field| field.strip_prefix("traddr=")?.parse().ok());
            if let Some(address) = address {
                self.add(format!("the way to the NVMe server {address} of {name}"), address);
            }
        }
        Ok(())
    }
}

/// Hosts and ports of all clusters of a kubeconfig; none if it is damaged, as that is kubelet's trouble.
fn servers(kubeconfig: &str) -> Vec<String> {
    let Ok(parsed) = serde_saphyr::from_str::<Kubeconfig>(kubeconfig) else { return Vec::new() };
    let of_url = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { host.to_owned() } else { format!("{host}:{HTTPS}") }
    };
    parsed.clusters.iter().map(|c| of_url(&c.cluster.server)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    fn found(host: &FakeHost, api_server: &ApiServer, environment: &[(&str, &str)]) -> Vec<String> {
        let environment =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let needs = Needs::find_in(&host.root(), api_server, environment).unwrap();
        needs.iter().map(|need| format!("{} at {}", need.what, need.address)).collect()
    }

    const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
clusters:
  - name: a
    cluster: { server: 'https://[fd00::1]:6443/path', certificate-authority-data: eA== }
  - { name: b, cluster: { server: https://10.0.0.1 } }
users: [ { name: node } ]
";

    #[test]
    fn the_api_server_is_found_in_kubelets_configuration_the_environment_and_ours() {
        let host = FakeHost::new();
        assert!(found(&host, &ApiServer::default(), &[]).is_empty());
        host.file("etc/kubernetes/kubelet.conf", KUBECONFIG);
        let api_server = ApiServer { host: Some("10.0.0.3:6443".into()), kubeconfig: None };
        let environment = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "8443")];
        assert_eq!(
            found(&host, &api_server, &environment),
            [
                "the way to the API server 10.0.0.1:443 at 10.0.0.1",
                "the way to the API server 10.0.0.3:6443 at 10.0.0.3",
                "the way to the API server 10.96.0.1:8443 at 10.96.0.1",
                "the way to the API server [fd00::1]:6443 at fd00::1",
            ]
        );
        host.file("srv/other.conf", "clusters: [ { cluster: { server: https://10.9.9.9:6443 } } ]");
        let other = ApiServer { host: None, kubeconfig: Some("/srv/other.conf".into()) };
        assert_eq!(found(&host, &other, &[]), ["the way to the API server 10.9.9.9:6443 at 10.9.9.9"]);
        host.file("srv/other.conf", "clusters: {{{");
        assert!(found(&host, &other, &[]).is_empty());
    }

    #[test]
    fn the_address_that_the_api_server_is_talked_to_from_is_needed() {
        let host = FakeHost::new();
        host.file("proc/net/tcp", "heading\n   0: 0500000A:A2C4 0100000A:192B 01 00000000:00000000\n");
        let api_server = ApiServer { host: Some("10.0.0.1:6443".into()), kubeconfig: None };
        let expected = "the node's connection to the API server from 10.0.0.5 at 10.0.0.5";
        assert_eq!(found(&host, &api_server, &[])[1], expected);
    }

    #[test]
    fn servers_of_network_storage_are_needed() {
        let host = FakeHost::new();
        host.file(
            "proc/mounts",
            "proc /proc proc rw 0 0\n\
             10.0.0.9:/root / nfs4 rw,vers=4.2,proto=tcp,clientaddr=10.0.0.5,local_lock=none,addr=10.0.0.9 0 0\n\
             files:/home /home nfs rw,addr=fd00::9,mountaddr=fd00::8 0 0\n\
             tmpfs /run tmpfs addr=10.0.0.77 0 0\n",
        );
        host.file("sys/class/iscsi_connection/connection1:0/address", "10.0.1.1\n");
        host.file("sys/class/nvme/nvme0/address", "0000:01:00.0\n");
        host.file("sys/class/nvme/nvme1/address", "traddr=10.0.2.1,trsvcid=4420,src_addr=10.0.2.9\n");
        assert_eq!(
            found(&host, &ApiServer::default(), &[]),
            [
                "the way to the NFS server 10.0.0.9 of / at 10.0.0.9",
                "the way to the NFS server fd00::9 of /home at fd00::9",
                "the way to the iSCSI target 10.0.1.1 at 10.0.1.1",
                "the way to the NVMe server 10.0.2.1 of nvme1 at 10.0.2.1",
            ]
        );
    }
}
