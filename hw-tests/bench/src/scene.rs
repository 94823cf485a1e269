//! The engine as it is measured: its tables, its pipeline, and the flows that are there before the clock starts.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::fastpath as proto;
use culvert_api::value::{Mtu, RangeError};
use culvert_engine::counter::{CounterSet, counters};
use culvert_engine::flow::{FlowMemoryError, FlowTables, Tick};
use culvert_engine::pipeline::{Pipeline, Verdict};
use culvert_engine::table::{Builder, Port, PortIndex, Snapshot, TableError};
use culvert_packet::PacketBuf;
use culvert_packet::buf::TestBuf;
use culvert_packet::eth::EthAddr;

use crate::input::frame::{self, Flags, Transport};
use crate::input::{From, Input, InputError, ends};
use crate::work::Work;

/// The port to the underlay; those of the pods follow.
pub(crate) const UPLINK: PortIndex = PortIndex(0);

const UNDERLAY_MTU: u16 = 1500;
const POD_MTU: u32 = UNDERLAY_MTU as u32 - frame::OUTER as u32;

/// Why there is no engine to measure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SceneError {
    #[error("tables")]
    Tables(#[from] TableError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("MTU")]
    Mtu(#[from] RangeError),
    #[error(transparent)]
    Flows(#[from] FlowMemoryError),
    #[error("flow {flow}: its {step} was not sent on: {verdict}")]
    NotForwarded { flow: usize, step: &'static str, verdict: String },
}

/// An engine with its flows.
pub(crate) struct Scene {
    pub(crate) snapshot: Snapshot,
    /// One for each worker.
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) counters: CounterSet,
    pub(crate) tables: Arc<FlowTables>,
    /// What it is fed with.
    pub(crate) input: Input,
    pods: Vec<Ipv4Addr>,
}

impl Scene {
    /// An engine of `workers` workers for a work on this input; that of W5 is W3's, whose replies are made here.
    pub(crate) fn new(
        work: Work,
        transport: Transport,
        input: Input,
        workers: usize,
    ) -> Result<Self, SceneError> {
        let snapshot = snapshot(&input.pods, input.services)?;
        // Twice as many as there are flows, so that a full table is not what is measured.
        let tables = FlowTables::new((input.flows as u32 * 2).max(1 << 16))?;
        let (counters, writers) = counters(workers);
        counters.reserve_services(2 * usize::from(input.services));
        let pipelines = writers.into_iter().map(|writer| Pipeline::new(tables.worker(), writer)).collect();
        let pods = input.pods.clone();
        let mut scene = Self { snapshot, pipelines, counters, tables, input, pods };
        match work {
            Work::W0 | Work::W1 | Work::W2 | Work::W4 => {}
            Work::W3 => {
                scene.establish(transport)?;
            }
            Work::W5 => {
                let replies = scene.establish(transport)?;
                let Input { flows, services, .. } = scene.input;
                scene.input = Input { services, ..Input::of(Work::W5, replies, flows, workers) };
            }
        }
        Ok(scene)
    }

    /// The engine's number of the port where these come from.
    pub(crate) fn port(&self, from: From) -> PortIndex {
        match from {
            From::Underlay => UPLINK,
            From::Pod(address) => {
                let place = self.pods.iter().position(|pod| *pod == address);
                PortIndex(place.map_or(u16::MAX, |place| place as u16 + 1))
            }
        }
    }

    /// Opens all flows of the input, each by the worker that its pod belongs to, answers included, and returns one packet
    /// of each one's server, for every packet of the input.
    fn establish(&mut self, transport: Transport) -> Result<Vec<Vec<u8>>, SceneError> {
        let input =
            std::mem::replace(&mut self.input, Input { lanes: vec![], pods: vec![], flows: 0, services: 0 });
        let mut replies = Vec::new();
        for (flow, (from, bytes)) in input.frames().enumerate() {
            let port = self.port(from);
            let not_forwarded = |step, verdict: Verdict| SceneError::NotForwarded {
                flow,
                step,
                verdict: format!("{verdict:?}"),
            };
            let Some((_, client, service)) = ends(Work::W3, bytes) else { continue };
            let syn = frame::from_pod(transport, client, service, Flags::Syn);
            let worker = usize::from(port.0.wrapping_sub(1)) % self.pipelines.len();
            let (verdict, request) = self.pass(worker, port, &syn);
            let server = ends(Work::W5, &request).filter(|_| verdict == Verdict::Send(UPLINK));
            let Some((_, _, server)) = server else { return Err(not_forwarded("first packet", verdict)) };
            let answer = frame::from_tunnel(transport, server, client, Flags::SynAck, flow as u32);
            match self.pass(worker, UPLINK, &answer) {
                (verdict, _) if verdict == Verdict::Send(port) => {}
                (verdict, _) => return Err(not_forwarded("answer", verdict)),
            }
            match self.pass(worker, port, bytes) {
                (Verdict::Send(UPLINK), _) => {}
                (verdict, _) => return Err(not_forwarded("second packet", verdict)),
            }
            replies.push(frame::from_tunnel(transport, server, client, Flags::Ack, flow as u32));
        }
        self.input = input;
        Ok(replies)
    }

    fn pass(&mut self, worker: usize, port: PortIndex, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut verdicts = Vec::with_capacity(1);
        let mut buf = [TestBuf::new(bytes)];
        let now = Tick::at(Duration::ZERO);
        self.pipelines[worker].process(&self.snapshot, now, port, &mut buf, &mut verdicts);
        (verdicts[0], buf[0].data().to_vec())
    }
}

fn snapshot(pods: &[Ipv4Addr], services: u16) -> Result<Snapshot, SceneError> {
    let mut builder = Builder::new();
    builder.attach(
        UPLINK,
        Port::uplink("uplink", EthAddr(frame::LOCAL_MAC), Mtu::try_from(u32::from(UNDERLAY_MTU))?),
    )?;
    for (n, pod) in (1..).zip(pods) {
        let request = proto::AttachPortRequest {
            name: format!("pod{n}"),
            addresses: vec![pod.octets().to_vec()],
            mac: frame::POD_MAC.to_vec(),
            mtu: POD_MTU,
            ..Default::default()
        };
        builder.attach(PortIndex(n), Port::try_from(&request)?)?;
    }
    builder.apply(&tables(services))?;
    builder.set_neighbours([(frame::REMOTE_VTEP.into(), EthAddr(frame::REMOTE_MAC))]);
    Ok(builder.snapshot())
}

fn tables(services: u16) -> proto::Tables {
    let octets = |address: Ipv4Addr| address.octets().to_vec();
    let range = |address: [u8; 4]| vec![proto::Prefix { address: address.to_vec(), prefix_len: 24 }];
    let first = u32::from(frame::REMOTE_POD);
    let backend = |nth: u16, n: u8| proto::Backend {
        address: octets(Ipv4Addr::from(first + u32::from(n))),
        port: (frame::REMOTE_PORT + nth).into(),
        ..Default::default()
    };
    let service = |protocol: proto::Protocol, name: &str, nth: u16| proto::Service {
        namespace: "bench".to_owned(),
        name: "service".to_owned(),
        port_name: format!("{name}{nth}"),
        protocol: protocol.into(),
        vip: octets(frame::VIP),
        port: (frame::VIP_PORT + nth).into(),
        backends: (0..frame::BACKENDS).map(|n| backend(nth, n)).collect(),
        ..Default::default()
    };
    let services = (0..services).flat_map(|nth| {
        [service(proto::Protocol::Udp, "udp", nth), service(proto::Protocol::Tcp, "tcp", nth)]
    });
    proto::Tables {
        revision: 1,
        synced: true,
        node: Some(proto::LocalNode {
            name: "node-a".to_owned(),
            gateways: vec![octets(frame::GATEWAY)],
            gateway_mac: frame::GATEWAY_MAC.to_vec(),
            underlay: vec![proto::UnderlayAddress {
                address: octets(frame::LOCAL_VTEP),
                prefix_len: 24,
                router: vec![],
            }],
            vtep_mac: frame::LOCAL_VTEP_MAC.to_vec(),
            vni: frame::VNI,
            pod_cidrs: range([10, 244, 1, 0]),
            ..Default::default()
        }),
        remotes: vec![proto::RemoteNode {
            name: "node-b".to_owned(),
            vtep: octets(frame::REMOTE_VTEP),
            vtep_mac: frame::REMOTE_VTEP_MAC.to_vec(),
            pod_cidrs: range([10, 244, 2, 0]),
            ..proto::RemoteNode::default()
        }],
        services: services.collect(),
    }
}
