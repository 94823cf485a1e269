//! ICMP errors about what goes through a Service: the kernel is the client, the router of the far node, and the endpoint.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop, wait_for};
use crate::net::{self, Netns as Namespace, Ping, run};
use crate::topology::manifest::Service;
use crate::topology::{CLUSTER_IP, Family, GATEWAY, POD_PORT, Topology};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_small_link_behind_a_service_is_told_to_the_client_with_its_mtu",
        place: Netns,
        run: path_mtu,
    },
    Case {
        name: "a_udp_port_that_an_endpoint_does_not_serve_is_refused_to_the_client",
        place: Netns,
        run: refused,
    },
    Case {
        name: "traceroute_through_a_service_shows_its_routers_and_no_endpoint",
        place: Netns,
        run: traced,
    },
    Case { name: "a_ping_through_a_service_is_told_where_its_hops_ended", place: Netns, run: pinged },
];

/// The link behind the far router.
const SMALL_MTU: usize = 1300;

/// A port that nobody listens on.
const CLOSED: u16 = 9;

/// Long enough for the kernels' limits of how many errors they send.
const PATIENCE: Duration = Duration::from_secs(15);

fn path_mtu(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    serve(&net, &["pod-c"], POD_PORT)?;
    let far = net.pod("pod-c").addresses;
    for address in far.both() {
        // Locked: not to be learned by the far kernel itself.
        let length = if address.is_ipv4() { 32 } else { 128 };
        net.far.netns().ip(&format!("route replace {address}/{length} dev pod-c mtu lock {SMALL_MTU}"))?;
    }
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        let unknown = known_mtu(client, to.ip())?;
        ensure!(unknown.is_none(), "{to}: an MTU of {unknown:?} before anything was sent");
        // The first one is too long and lost; then the client sends fragments.
        wait_for(&format!("1400 bytes over UDP pass to {to}"), PATIENCE, || {
            Ok(net::udp::name(client, to, 1400).ok().filter(|name| name == "pod-c"))
        })?;
        expect_mtu(client, to.ip())?;

        client.ip(if to.is_ipv4() { "-4 route flush cache" } else { "-6 route flush cache" })?;
        let forgotten = known_mtu(client, to.ip())?;
        ensure!(forgotten.is_none(), "{to}: still {forgotten:?}");
        upload(client, to, 300_000, "pod-c")?;
        expect_mtu(client, to.ip())?;
    }
    let translated = net.node.control()?.counters()?.icmp_errors_translated;
    ensure!(translated >= 4, "{translated} errors were translated");
    Ok(())
}

/// The MTU of the path that the kernel of a pod has learned.
fn known_mtu(client: &Namespace, to: IpAddr) -> Outcome<Option<usize>> {
    let route = run(client.command("ip").args(["route", "get", &to.to_string()]))?.success()?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    Ok(words.next().and_then(|mtu| mtu.parse().ok()))
}

fn expect_mtu(client: &Namespace, to: IpAddr) -> Outcome {
    let known = known_mtu(client, to)?;
    ensure!(known == Some(SMALL_MTU), "{to}: the client knows {known:?}");
    Ok(())
}

/// Sends a long request over TCP and expects the server's name.
fn upload(client: &Namespace, to: SocketAddr, len: usize, name: &str) -> Outcome {
    let ask = || -> Outcome<String> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.0\r\nPadding: {}\r\n\r\n", "x".repeat(len))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = client.run(ask)?.map_err(|stop| stop.while_doing(&format!("upload to {to}")))?;
    ensure!(answer.ends_with(&format!("\r\n\r\n{name}\n")), "{to}: {answer:?}");
    Ok(())
}

fn refused(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    // Behind the tunnel, here, and the client itself.
    for name in ["pod-c", "pod-a", "client"] {
        serve(&net, &[name], CLOSED)?;
        for family in Family::BOTH {
            let to = Topology::web_address(family);
            let what = format!("{name} refuses a datagram to {to}");
            wait_for(&what, PATIENCE, || net.pod("client").netns().run(|| is_refused(to))?)?;
        }
    }
    Ok(())
}

/// Whether a datagram gets "connection refused", which the kernel says only if the error is about this very socket's packet.
fn is_refused(to: SocketAddr) -> Outcome<Option<()>> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.connect(to)?;
    socket.send(b"question")?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        other => Err(Stop::fail(format!("{to}: {other:?}"))),
    }
}

fn traced(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    serve(&net, &["pod-c"], CLOSED)?;
    for family in Family::BOTH {
        let vip = CLUSTER_IP.get(family).to_string();
        let hops = [GATEWAY.get(family).to_string(), far_router(family).to_owned(), vip.clone()];
        let arguments = ["-n", "-U", "-p", "80", "-q", "1", "-N", "1", "-w", "2", "-m", "5", &vip];
        wait_for(&format!("traceroute to {vip} goes by {hops:?}"), PATIENCE, || {
            let done = run(net.pod("client").netns().command("traceroute").args(arguments))?.success()?;
            let seen: Vec<_> =
                done.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
            // A star stands for an error that the kernel did not send since it had sent others.
            let same = seen.iter().zip(&hops).all(|(seen, hop)| seen == hop || *seen == "*");
            ensure!(same && seen.len() <= 5, "{vip}: {seen:?} instead of {hops:?}");
            Ok((seen == hops).then_some(()))
        })?;
    }
    Ok(())
}

fn pinged(context: &Context) -> Outcome {
    let net = Topology::start_with(context, Family::V4, ", flows: { servicePing: endpoint }")?;
    serve(&net, &["pod-c"], POD_PORT)?;
    let client = net.pod("client").netns();
    for (family, says) in [(Family::V4, "Time to live exceeded"), (Family::V6, "Hop limit")] {
        let vip = CLUSTER_IP.get(family);
        Ping::to(vip).answered(client)?;
        let gateway = GATEWAY.get(family).to_string();
        // Whose error it is ping tells by what is quoted.
        for (hops, router) in [(1, gateway.as_str()), (2, far_router(family))] {
            wait_for(&format!("hop {hops} to {vip} is {router}"), PATIENCE, || {
                let text = Ping::to(vip).hops(hops).unanswered(client)?.text;
                Ok((text.contains(router) && text.contains(says)).then_some(()))
            })?;
        }
        Ping::to(vip).hops(3).answered(client)?;
    }
    Ok(())
}

/// Where the far router is known to be.
const fn far_router(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.2.1",
        Family::V6 => "fd00:244:2::1",
    }
}

/// Puts these pods' port `target` behind the Service, and waits until that is in force.
pub(super) fn serve(net: &Topology, backends: &[&str], target: u16) -> Outcome {
    net.node.manifests.service(&Service { target, ..net.web(backends) })?;
    let addresses: Vec<IpAddr> = backends.iter().flat_map(|name| net.pod(name).addresses.both()).collect();
    wait_for("the Service is as it was written", Duration::from_secs(5), || {
        let services = net.node.control()?.services()?;
        let holds = services.iter().filter(|service| service.port != 0).all(|service| {
            let backends = service.backends.iter();
            service.backends.len() * 2 == addresses.len()
                && backends.clone().all(|backend| backend.port == u32::from(target))
                && backends.clone().all(|backend| addresses.contains(&address(&backend.address)))
        });
        Ok(holds.then_some(()))
    })
}

fn address(octets: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(octets).unwrap_or_default().into(),
    }
}
