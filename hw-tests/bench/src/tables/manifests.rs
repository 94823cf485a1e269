//! The same tables as Kubernetes objects, in files as `kubectl get -o yaml` writes them, or nearly.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use culvert_api::fastpath as proto;
use culvert_engine::table::PortIndex;

use super::objects::{self, Size};
use crate::input::frame;

/// Services of a file.
const SERVICES: usize = 100;

/// A folder of them.
#[derive(Debug)]
pub(super) struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// Writes them all, the watched Service without the endpoint behind `without`.
    pub(super) fn write(folder: &Path, size: Size, without: PortIndex) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let tables = objects::tables(size, 0, without);
        let [address] = [frame::LOCAL_VTEP].map(|vtep| vtep.octets().to_vec());
        let mut nodes = node(objects::NODE, &address, frame::GATEWAY);
        for remote in &tables.remotes {
            nodes += &node(&remote.name, &remote.vtep, ip(&remote.pod_cidrs[0].address));
        }
        fs::write(folder.join("nodes.yaml"), nodes)?;
        for (n, services) in tables.services[1..].chunks(SERVICES).enumerate() {
            let text: String = services.iter().map(service).collect();
            fs::write(folder.join(format!("services-{n}.yaml")), text)?;
        }
        let manifests = Self { folder: folder.to_owned() };
        manifests.watched(without)?.put()?;
        Ok(manifests)
    }

    /// The file of the watched Service, not yet in its place.
    pub(super) fn watched(&self, without: PortIndex) -> io::Result<Replacement> {
        // Not a name that is read.
        let new = self.folder.join("watched.yaml.new");
        fs::write(&new, service(&objects::watched(without)))?;
        Ok(Replacement { new, file: self.folder.join("watched.yaml") })
    }
}

/// A file that is to take the place of another.
#[derive(Debug)]
pub(super) struct Replacement {
    new: PathBuf,
    file: PathBuf,
}

impl Replacement {
    /// Puts it there.
    pub(super) fn put(self) -> io::Result<()> {
        fs::rename(self.new, self.file)
    }
}

fn ip(octets: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(octets).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
}

/// A node whose pods' range of 256 addresses holds `pod`.
fn node(name: &str, address: &[u8], pod: Ipv4Addr) -> String {
    let [a, b, c, _] = pod.octets();
    format!(
        "---
apiVersion: v1
kind: Node
metadata:
  name: {name}
spec:
  podCIDR: {a}.{b}.{c}.0/24
  podCIDRs:
  - {a}.{b}.{c}.0/24
status:
  addresses:
  - address: {}
    type: InternalIP
",
        ip(address)
    )
}

/// A Service and its EndpointSlice.
fn service(service: &proto::Service) -> String {
    let proto::Service { namespace, name, port_name, port, .. } = service;
    let (vip, protocol) =
        (ip(&service.vip), service.protocol().as_str_name().trim_start_matches("PROTOCOL_"));
    let target = service.backends.first().map_or(*port, |backend| backend.port);
    let mut text = format!(
        "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  clusterIP: {vip}
  clusterIPs:
  - {vip}
  ports:
  - name: {port_name}
    port: {port}
    protocol: {protocol}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  labels:
    kubernetes.io/service-name: {name}
  name: {name}-1
  namespace: {namespace}
addressType: IPv4
ports:
- name: {port_name}
  port: {target}
  protocol: {protocol}
endpoints:
"
    );
    for backend in &service.backends {
        let address = ip(&backend.address);
        let [_, a, b, _] = address.octets();
        let _ = write!(
            text,
            "- addresses:
  - {address}
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: node-{}
",
            u32::from(a & 0x7f) << 8 | u32::from(b)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let size = Size { services: 300, endpoints: 2_500, nodes: 10 };
        Manifests::write(folder.path(), size, objects::CLIENT).unwrap();
        let files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
        let count =
            |line: &str| text.lines().filter(|other| other.trim().trim_start_matches("- ") == line).count();
        assert_eq!(
            ["Node", "Service", "EndpointSlice"].map(|kind| count(&format!("kind: {kind}"))),
            [11, 300, 300]
        );
        // The watched Service has ten of its own, and takes the place of one with others.
        let endpoints = count("addresses:") - 11;
        assert!((2_500..=2_510).contains(&endpoints), "{endpoints}");
        assert_eq!((count("protocol: UDP"), count("protocol: TCP")), (2, 598));
    }
}
