//! Tables change under connections that go by the short cut.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::pods::restart;
use super::{PATIENCE, PORT, Talk, serve, start, through_the_service, wait_until_carried};
use crate::ensure;
use crate::frame::{Context, Outcome, wait_for};
use crate::topology::manifest::Service;
use crate::topology::{Addresses, Topology};

pub(super) fn removed(context: &Context) -> Outcome {
    let net = start(context)?;
    for (server, other) in [("pod-c", "pod-b"), ("pod-b", "pod-c")] {
        let talk = through_the_service(&net, server)?;
        take_away(&net, &talk, server, other)?;
    }
    Ok(())
}

pub(super) fn removed_after_kill(context: &Context) -> Outcome {
    let net = start(context)?;
    for (server, other) in [("pod-c", "pod-b"), ("pod-b", "pod-c")] {
        let talk = through_the_service(&net, server)?;
        restart(&net)?;
        wait_for("the fast path answers again", PATIENCE, || {
            Ok(net.node.control().and_then(|fast_path| fast_path.services()).ok().map(drop))
        })?;
        take_away(&net, &talk, server, other)?;
    }
    Ok(())
}

/// Has the Service served by another pod, and sees the end of a connection to this one.
fn take_away(net: &Topology, talk: &Talk, server: &str, other: &str) -> Outcome {
    serve(net, &[other], PORT)?;
    // What the case read of the tables is what the fast path has; its workers have it a moment later.
    std::thread::sleep(Duration::from_millis(100));
    // The first error is not lost, whether it comes with the packet or after it.
    let ended = (&talk.client).write_all(b"next").and_then(|()| (&talk.client).read(&mut [0; 1]));
    ensure!(
        ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "{server}: the client is told {ended:?}"
    );
    talk.server.set_read_timeout(Some(Duration::from_millis(300)))?;
    let got = (&talk.server).read(&mut [0; 8]);
    ensure!(!matches!(got, Ok(1..)), "{server} has got what was sent after it was removed");
    Ok(())
}

pub(super) fn added(context: &Context) -> Outcome {
    let net = start(context)?;
    let talk = through_the_service(&net, "pod-c")?;
    let client = net.pod("client").netns();
    talk.meanwhile(|| {
        serve(&net, &["pod-c", "pod-d"], PORT)?;
        wait_until_carried(client)?;
        let cluster_ip = Addresses {
            v4: Ipv4Addr::new(10, 96, 0, 77),
            v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x77),
        };
        net.node.manifests.service(&Service {
            name: "other".to_owned(),
            cluster_ip,
            ..net.web(&["pod-d"])
        })?;
        wait_for("another Service is there", PATIENCE, || {
            let services = net.node.control()?.services()?;
            Ok(services.iter().any(|service| service.vip == cluster_ip.v4.octets()).then_some(()))
        })?;
        wait_until_carried(client)
    })
}
