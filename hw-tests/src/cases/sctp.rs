//! A Service over SCTP, with usrsctp, the SCTP of FreeBSD in a program, on both sides. The kernel of a test machine need not
//! have any.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use culvert_api::fastpath::Protocol;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop, wait_for};
use crate::net::Process;
use crate::topology::{Addresses, Family, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "an_sctp_association_through_a_service_is_opened_used_and_closed", place: Netns, run: echo },
    Case { name: "an_sctp_service_without_endpoints_refuses_at_once", place: Netns, run: refuses },
];

/// Where Debian's package libusrsctp-examples has its programs.
const PROGRAMS: &str = "/usr/lib/usrsctp";

/// Port of the Service, and the one that usrsctp's echo server listens on.
const PORTS: (u16, u16) = (36_412, 7);

/// Long enough for an INIT that is sent again since the server was not there yet.
const PATIENCE: Duration = Duration::from_secs(30);

const ADDRESS: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 96, 0, 12), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x12) };

fn echo(context: &Context) -> Outcome {
    let net = start(context)?;
    // One endpoint here, one behind the kernel's VXLAN.
    for name in ["pod-a", "pod-c"] {
        let mut server = net.pod(name).netns().command(format!("{PROGRAMS}/echo_server"));
        let _server = Process::spawn(&format!("echo-{name}"), &mut server, context.dir())?;
        program(&net, &[name])?;
        for family in Family::BOTH {
            let to = SocketAddr::new(ADDRESS.get(family), PORTS.0);
            let client = talk(context, &net, to, name)?;
            wait_for(&format!("{name} echoes through {to}"), PATIENCE, || {
                let said = client.log();
                let whole = ["SCTP_COMM_UP", "first words", "last words", "SCTP_SHUTDOWN_COMP"];
                Ok(whole.iter().all(|part| said.contains(part)).then_some(()))
            })?;
        }
    }
    Ok(())
}

fn refuses(context: &Context) -> Outcome {
    let net = start(context)?;
    program(&net, &[])?;
    for family in Family::BOTH {
        let to = SocketAddr::new(ADDRESS.get(family), PORTS.0);
        let client = talk(context, &net, to, "nobody")?;
        // Said after an ABORT only: an INIT that nobody answers times out, after a minute.
        wait_for(&format!("{to} refuses"), PATIENCE, || {
            Ok(client.log().contains("usrsctp_connect: Connection refused").then_some(()))
        })?;
    }
    let answered = net.node.control()?.counters()?.answered;
    ensure!(answered.iter().any(|kind| kind.name == "sctp-abort" && kind.value >= 2), "{answered:?}");
    Ok(())
}

fn start(context: &Context) -> Outcome<Topology> {
    if !Path::new(PROGRAMS).is_dir() {
        return Err(Stop::Skip(format!(
            "{PROGRAMS} is not there: the package libusrsctp-examples is missing"
        )));
    }
    Topology::start(context)
}

/// A client that opens an association, says two things, waits a little for each to come back, and closes it.
fn talk(context: &Context, net: &Topology, to: SocketAddr, server: &str) -> Outcome<Process> {
    let script = format!(
        "(echo first words; sleep 0.3; echo last words; sleep 0.3) \
             | timeout 30 stdbuf -oL {PROGRAMS}/client {} {}",
        to.ip(),
        to.port()
    );
    let log = format!("sctp-{}-to-{server}", if to.is_ipv4() { "v4" } else { "v6" });
    Process::spawn(&log, net.pod("client").netns().command("sh").args(["-c", &script]), context.dir())
}

/// Programs the Service with these endpoints, and waits until it is in force.
fn program(net: &Topology, endpoints: &[&str]) -> Outcome {
    let (port, target) = PORTS;
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: sig, namespace: default }}
spec:
  clusterIP: {v4}
  clusterIPs: [{v4}, \"{v6}\"]
  ports: [{{ name: s1, port: {port}, protocol: SCTP, targetPort: {target} }}]
",
        v4 = ADDRESS.v4,
        v6 = ADDRESS.v6
    );
    for (family, kind) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        let endpoint = |name: &&str| {
            let address = net.pod(name).addresses.get(family);
            format!("{{ addresses: [\"{address}\"], conditions: {{ ready: true }} }}")
        };
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        text += &format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: sig-{name}
  namespace: default
  labels: {{ kubernetes.io/service-name: sig }}
addressType: {kind}
ports: [{{ name: s1, port: {target}, protocol: SCTP }}]
endpoints: [{}]
",
            endpoints.join(", "),
            name = kind.to_ascii_lowercase(),
        );
    }
    net.node.manifests.write("sig.yaml", &text)?;
    wait_for("the SCTP Service is in force", Duration::from_secs(5), || {
        let services = net.node.control()?.services()?;
        let ready = services.iter().filter(|service| {
            service.protocol() == Protocol::Sctp && service.backends.len() == endpoints.len()
        });
        Ok((ready.count() == 2).then_some(()))
    })
}
