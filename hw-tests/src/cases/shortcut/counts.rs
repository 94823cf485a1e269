//! What is known of connections that go by the short cut.

use std::time::{Duration, Instant};

use super::talk::packets;
use super::{PATIENCE, Talk, start, through_the_service};
use crate::ensure;
use crate::frame::{Context, Outcome, Stop, wait_for};
use crate::topology::{CLUSTER_IP, SERVICE_PORT, Topology};

/// Much longer than it takes until the fast path knows what went by.
const WHILE: Duration = Duration::from_secs(5);

pub(super) fn flow(context: &Context) -> Outcome {
    let net = start(context)?;
    let talk = through_the_service(&net, "pod-c")?;
    let client = net.pod("client").netns();
    let port = talk.client.local_addr()?.port();
    let by_the_fast_path = || {
        let packets = packets(client, "eth0")?.ok_or_else(|| Stop::fail("the pod has no eth0"))?;
        Ok::<_, Stop>(packets.sent + packets.received)
    };
    // Acknowledgements that were under way when the slots were given.
    std::thread::sleep(Duration::from_millis(500));
    let (before, begin) = (by_the_fast_path()?, Instant::now());
    while begin.elapsed() < WHILE {
        talk.exchange(1000)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let others = by_the_fast_path()? - before;
    ensure!(others < 10, "{others} packets of the pod went by the fast path");
    let (state, idle) = flow_from(&net, port)?;
    ensure!(
        state == "established" && idle <= 2,
        "a connection that is used is {state} and was last used {idle} s ago"
    );
    drop(talk);
    wait_for("the flow is in time-wait", PATIENCE, || {
        Ok((flow_from(&net, port)?.0 == "time-wait").then_some(()))
    })
}

/// State and idle seconds of the connection that came from a client's port to the Service.
fn flow_from(net: &Topology, port: u16) -> Outcome<(String, u64)> {
    let flows = net.node.control()?.flows()?;
    let found = flows.iter().find(|flow| {
        !flow.reply
            && flow.source_port == u32::from(port)
            && flow.destination == CLUSTER_IP.v4.octets()
            && flow.destination_port == u32::from(SERVICE_PORT)
    });
    let flow = found.ok_or_else(|| Stop::fail(format!("no flow from port {port}: {flows:?}")))?;
    Ok((flow.state.clone(), flow.idle_seconds))
}

/// Sent each way.
const BYTES: usize = 20 << 20;

/// Bytes of the client's port and of the Service.
#[derive(Debug, Clone, Copy)]
struct Counted {
    received: u64,
    sent: u64,
    service: u64,
}

pub(super) fn counted(context: &Context) -> Outcome {
    let net = start(context)?;
    for server in ["pod-c", "pod-b"] {
        let talk: Talk = through_the_service(&net, server)?;
        let client = net.pod("client").netns();
        let before = bytes(&net)?;
        talk.exchange_by_the_short_cut(BYTES, &[client])?;
        let after = || -> Outcome<Counted> {
            let now = bytes(&net)?;
            Ok(Counted {
                received: now.received - before.received,
                sent: now.sent - before.sent,
                service: now.service - before.service,
            })
        };
        let least = BYTES as u64;
        let all = wait_for("what was sent is counted", PATIENCE, || {
            let now = after()?;
            let all = now.received >= least && now.sent >= least && now.service >= 2 * least;
            Ok(all.then_some(now))
        })
        .map_err(|stop| stop.while_doing(&format!("{server}: {:?}", after())))?;
        // No byte twice: headers of packets of the wire, and acknowledgements, are a tenth at the most.
        std::thread::sleep(Duration::from_millis(500));
        let most = least + least / 10;
        let now = after()?;
        ensure!(
            now.received <= most && now.sent <= most && now.service <= 2 * most,
            "{server}: {least} bytes were sent each way, and {all:?}, then {now:?} counted"
        );
    }
    Ok(())
}

fn bytes(net: &Topology) -> Outcome<Counted> {
    let control = net.node.control()?;
    let port = control.ports()?.into_iter().find(|port| port.owner == "default/client");
    let port = port.and_then(|port| port.counters).ok_or_else(|| Stop::fail("the client has no port"))?;
    let services = control.service_statuses()?;
    let of_web = services.iter().filter(|status| {
        let tcp = i32::from(culvert_api::fastpath::Protocol::Tcp);
        status.service.as_ref().is_some_and(|s| s.vip == CLUSTER_IP.v4.octets() && s.protocol == tcp)
    });
    Ok(Counted {
        received: port.rx_bytes,
        sent: port.tx_bytes,
        service: of_web.map(|status| status.bytes).sum(),
    })
}
