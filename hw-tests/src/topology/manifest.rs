//! The folder of Kubernetes YAML, with objects as `kubectl get -o yaml` prints them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Addresses, FAR_VTEP, Family, POD_PORT, Pod, SERVICE_PORT, VTEP};
use crate::frame::Outcome;

/// The folder.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
}

/// A Service with a TCP and a UDP port, and the slices of its endpoints.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its virtual addresses.
    pub cluster_ip: Addresses,
    /// Names and addresses of its endpoints.
    pub backends: Vec<(String, Addresses)>,
    /// The port that they serve.
    pub target: u16,
    /// Who gets new flows, if it says so.
    pub balancing: Option<&'static str>,
    /// For how long clients keep their endpoint, in seconds; 0: not at all.
    pub affinity: u32,
}

impl Manifests {
    /// Makes the folder inside `dir`.
    pub fn create(dir: &Path) -> Outcome<Self> {
        let dir = dir.join("manifests");
        fs::create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// The folder's path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file at once, so that nobody reads half of it.
    pub fn write(&self, name: &str, text: &str) -> Outcome {
        let hidden = self.dir.join(format!(".{name}.new"));
        fs::write(&hidden, text)?;
        Ok(fs::rename(hidden, self.dir.join(name))?)
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> Outcome {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Writes both Nodes, whose tunnels go over `underlay`.
    pub fn nodes(&self, underlay: Family) -> Outcome {
        self.write("node-a.yaml", &node("node-a", VTEP, underlay, 1))?;
        self.write("node-b.yaml", &node("node-b", FAR_VTEP, underlay, 2))
    }

    /// Writes a Pod that runs on `node`.
    pub fn pod(&self, pod: &Pod, node: &str) -> Outcome {
        self.write(&format!("{}.yaml", pod.name), &pod_yaml(&pod.name, pod.addresses, node))
    }

    /// Writes a Pod that has no address yet, but must get certain ones.
    pub fn pod_to_come(&self, name: &str, addresses: Addresses) -> Outcome {
        let text = format!(
            "apiVersion: v1
kind: Pod
metadata:
  annotations:
    culvert.io/addresses: \"{},{}\"
  name: {name}
  namespace: default
spec:
  containers:
  - image: registry.invalid/web:1
    name: web
  nodeName: node-a
status:
  phase: Pending
",
            addresses.v4, addresses.v6
        );
        self.write(&format!("{name}.yaml"), &text)
    }

    /// Writes a Service and the slices of its endpoints.
    pub fn service(&self, service: &Service) -> Outcome {
        let Service { namespace, name, .. } = service;
        self.endpoints(service)?;
        self.write(&format!("{namespace}-{name}.yaml"), &service_yaml(service))
    }

    /// Writes the slices of a Service's endpoints alone.
    pub fn endpoints(&self, service: &Service) -> Outcome {
        let Service { namespace, name, .. } = service;
        self.write(&format!("{namespace}-{name}-slices.yaml"), &slices(service))
    }
}

fn node(name: &str, addresses: Addresses, underlay: Family, number: u8) -> String {
    let Addresses { v4, v6 } = addresses;
    // Without the annotation a node is reached over IPv4 if it can be.
    let vtep = match underlay {
        Family::V4 => String::new(),
        Family::V6 => format!("\n    culvert.io/vtep-address: \"{v6}\""),
    };
    format!(
        "apiVersion: v1
kind: Node
metadata:
  annotations:
    node.alpha.kubernetes.io/ttl: \"0\"{vtep}
  creationTimestamp: \"2026-11-02T09:00:00Z\"
  labels:
    kubernetes.io/hostname: {name}
    kubernetes.io/os: linux
  name: {name}
  resourceVersion: \"1201\"
  uid: 5f0f9a4e-3a55-4f4b-8d5b-00000000000{number}
spec:
  podCIDR: 10.244.{number}.0/24
  podCIDRs:
  - 10.244.{number}.0/24
  - fd00:244:{number}::/64
status:
  addresses:
  - address: {v4}
    type: InternalIP
  - address: {v6}
    type: InternalIP
  - address: {name}
    type: Hostname
  capacity:
    cpu: \"2\"
  nodeInfo:
    operatingSystem: linux
"
    )
}

fn pod_yaml(name: &str, addresses: Addresses, node: &str) -> String {
    let Addresses { v4, v6 } = addresses;
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: \"2026-11-02T09:10:00Z\"
  labels:
    app: web
  name: {name}
  namespace: default
  resourceVersion: \"1302\"
spec:
  containers:
  - image: registry.invalid/web:1
    name: web
    ports:
    - containerPort: {POD_PORT}
      protocol: TCP
  nodeName: {node}
  restartPolicy: Always
status:
  conditions:
  - lastProbeTime: null
    status: \"True\"
    type: Ready
  phase: Running
  podIP: {v4}
  podIPs:
  - ip: {v4}
  - ip: {v6}
"
    )
}

fn service_yaml(service: &Service) -> String {
    let Service { namespace, name, cluster_ip: Addresses { v4, v6 }, balancing, affinity, target, .. } =
        service;
    let annotations = match balancing {
        Some(balancing) => format!("  annotations:\n    culvert.io/balancing: {balancing}\n"),
        None => String::new(),
    };
    let affinity = match affinity {
        0 => "sessionAffinity: None".to_owned(),
        seconds => format!(
            "sessionAffinity: ClientIP\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: {seconds}"
        ),
    };
    format!(
        "apiVersion: v1
kind: Service
metadata:
{annotations}  creationTimestamp: \"2026-11-02T09:20:00Z\"
  name: {name}
  namespace: {namespace}
  resourceVersion: \"1403\"
spec:
  clusterIP: {v4}
  clusterIPs:
  - {v4}
  - {v6}
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  - IPv6
  ipFamilyPolicy: RequireDualStack
  ports:
  - name: http
    port: {SERVICE_PORT}
    protocol: TCP
    targetPort: {target}
  - name: ask
    port: {SERVICE_PORT}
    protocol: UDP
    targetPort: {target}
  selector:
    app: web
  {affinity}
  type: ClusterIP
status:
  loadBalancer: {{}}
"
    )
}

/// One slice for each family, in a list as kubectl prints several objects.
fn slices(service: &Service) -> String {
    let Service { namespace, name: service, backends, target, .. } = service;
    let mut text = "apiVersion: v1\nkind: List\nmetadata:\n  resourceVersion: \"\"\nitems:\n".to_owned();
    for (family, kind) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        text += &format!(
            "- addressType: {kind}
  apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata:
    labels:
      endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
      kubernetes.io/service-name: {service}
    name: {service}-{}
    namespace: {namespace}
  ports:
  - name: http
    port: {target}
    protocol: TCP
  - name: ask
    port: {target}
    protocol: UDP
  endpoints:{}
",
            kind.to_ascii_lowercase(),
            if backends.is_empty() { " []" } else { "" }
        );
        for (name, addresses) in backends {
            text += &format!(
                "  - addresses:
    - {}
    conditions:
      ready: true
      serving: true
      terminating: false
    targetRef:
      kind: Pod
      name: {name}
      namespace: {namespace}
",
                addresses.get(family)
            );
        }
    }
    // A list of endpoints follows its key, the end of the text its last item.
    text.trim_end().to_owned() + "\n"
}
