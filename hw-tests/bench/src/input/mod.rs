//! What is sent through the engine.

pub(crate) mod capture;
pub(crate) mod checksum;
pub(crate) mod frame;
mod rss;

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;

use self::capture::CaptureError;
use self::frame::{End, Flags, PORTS, REMOTE_POD, REMOTE_PORT, Transport, VIP, VIP_PORT, client};
use crate::work::Work;

/// A file has at least so many packets, however few flows they are of.
const LEAST: u32 = 1024;

/// Most pods, each of which takes a DPDK port: of the 32 of a process some are needed otherwise.
pub(crate) const MAX_PODS: usize = 28;

/// Flows to one port of the other side; further ones go to the next.
const CLIENTS: u32 = MAX_PODS as u32 * PORTS;

/// What one receive queue is fed with, over and over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Who sends it.
    pub(crate) from: From,
    /// Whole frames, in order.
    pub(crate) frames: Vec<Vec<u8>>,
}

/// Who sends frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The pod with this address.
    Pod(Ipv4Addr),
    /// Remote nodes.
    Underlay,
}

/// The input of one measurement.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// What each receive queue is fed with.
    pub(crate) lanes: Vec<Lane>,
    /// Addresses of all pods that take part.
    pub(crate) pods: Vec<Ipv4Addr>,
    /// Number of different flows.
    pub(crate) flows: usize,
    /// Ports of the service that they go to.
    pub(crate) services: u16,
}

/// Why a capture cannot be the input of a work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// The file.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// There is nothing in it.
    #[error("no IPv4 packet with ports in it")]
    Empty,
    /// It has the packets of too many pods.
    #[error("{0} pods: at most {MAX_PODS}, since each needs a DPDK port")]
    Pods(usize),
    /// A worker would have nothing to do.
    #[error(
        "{packets} packets cannot be spread over {workers} workers: some would get none; measure more flows"
    )]
    TooFew {
        /// How many packets there are.
        packets: usize,
        /// How many workers there are to be.
        workers: usize,
    },
}

impl Input {
    /// The packets of `flows` flows as they are described in docs/performance.md, for `workers` workers.
    pub(crate) fn generate(
        work: Work,
        transport: Transport,
        flows: u32,
        workers: usize,
    ) -> Result<Self, InputError> {
        // As few pods as can be, but one for each worker.
        let ports = flows.min(CLIENTS).div_ceil(workers as u32).min(PORTS);
        let frames = (0..LEAST.div_ceil(flows).max(1)).flat_map(|_| shuffled(flows));
        let frames = frames.map(|n| make(work, transport, n, ports)).collect();
        Self { services: services(flows), ..Self::of(work, frames, flows as usize, workers) }.checked(workers)
    }

    /// The packets of a capture, as they are.
    pub(crate) fn replay(work: Work, path: &Path, workers: usize) -> Result<Self, InputError> {
        let mut frames = capture::read(path)?;
        frames.retain(|frame| ends(work, frame).is_some());
        let flows: HashSet<_> = frames.iter().filter_map(|frame| ends(work, frame)).collect();
        let input = Self::of(work, frames, flows.len(), workers);
        match input.pods.len() {
            0 => Err(InputError::Empty),
            1..=MAX_PODS => input.checked(workers),
            pods => Err(InputError::Pods(pods)),
        }
    }

    fn checked(self, workers: usize) -> Result<Self, InputError> {
        let lanes = self.lanes.iter().filter(|lane| !lane.frames.is_empty()).count();
        match self.frames().count() {
            packets if lanes < workers => Err(InputError::TooFew { packets, workers }),
            _ => Ok(self),
        }
    }

    /// Frames by who sends them, and those from the underlay also by the queue that a NIC would receive them in.
    pub(crate) fn of(work: Work, frames: Vec<Vec<u8>>, flows: usize, workers: usize) -> Self {
        if work.is_from_pod() {
            let mut by_pod: BTreeMap<Ipv4Addr, Vec<Vec<u8>>> = BTreeMap::new();
            for frame in frames {
                if let Some((_, (pod, _), _)) = ends(work, &frame) {
                    by_pod.entry(pod).or_default().push(frame);
                }
            }
            let pods = by_pod.keys().copied().collect();
            let lane = |(pod, frames)| Lane { from: From::Pod(pod), frames };
            return Self { lanes: by_pod.into_iter().map(lane).collect(), pods, flows, services: 1 };
        }
        let pods: HashSet<_> = frames.iter().filter_map(|frame| Some(ends(work, frame)?.2.0)).collect();
        let mut pods: Vec<_> = pods.into_iter().collect();
        pods.sort_unstable();
        let mut lanes: Vec<_> =
            (0..workers).map(|_| Lane { from: From::Underlay, frames: Vec::new() }).collect();
        for frame in frames {
            lanes[rss::queue(&frame, workers).unwrap_or(0)].frames.push(frame);
        }
        Self { lanes, pods, flows, services: 1 }
    }

    /// Packets at the start of each lane among which no flow comes twice.
    pub(crate) fn pass(&self) -> usize {
        let rounds = self.frames().count() / self.flows.max(1);
        self.lanes.iter().map(|lane| lane.frames.len() / rounds.max(1)).min().unwrap_or(0)
    }

    /// All frames.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (From, &[u8])> {
        self.lanes.iter().flat_map(|lane| lane.frames.iter().map(|frame| (lane.from, &frame[..])))
    }

    /// Length of the longest frame.
    pub(crate) fn longest(&self) -> usize {
        self.frames().map(|(_, frame)| frame.len()).max().unwrap_or(0)
    }
}

/// Ports of the service that so many flows go to.
fn services(flows: u32) -> u16 {
    flows.div_ceil(CLIENTS).max(1) as u16
}

fn make(work: Work, transport: Transport, n: u32, ports: u32) -> Vec<u8> {
    let (client, other) = (client(n % CLIENTS, ports), (n / CLIENTS) as u16);
    let (pod, service) = ((REMOTE_POD, REMOTE_PORT + other), (VIP, VIP_PORT + other));
    match work {
        Work::W0 | Work::W1 => frame::from_pod(transport, client, pod, Flags::Ack),
        Work::W3 => frame::from_pod(transport, client, service, Flags::Ack),
        Work::W4 => frame::from_pod(transport, client, service, Flags::Syn),
        // W5's own come from what the engine made of W3's: see `scene`.
        Work::W2 | Work::W5 => frame::from_tunnel(transport, pod, client, Flags::Ack, n),
    }
}

/// The transport protocol and the ends of the flow that a work sees in a frame: behind the outer headers if it comes
/// through the tunnel. `None` if there is no such thing.
pub(crate) fn ends(work: Work, frame: &[u8]) -> Option<(u8, End, End)> {
    let inner = if work.is_from_pod() { frame } else { frame.get(frame::OUTER..)? };
    let ip = inner.get(14..)?;
    let is_ipv4 = inner[12..14] == [8, 0] && ip.first()? == &0x45;
    let protocol = *ip.get(9).filter(|protocol| is_ipv4 && [6, 17].contains(*protocol))?;
    let address = |at: usize| Some(Ipv4Addr::from(*ip.get(at..)?.first_chunk::<4>()?));
    let port = |at: usize| Some(u16::from_be_bytes(*ip.get(at..)?.first_chunk()?));
    Some((protocol, (address(12)?, port(20)?), (address(16)?, port(22)?)))
}

/// The numbers below `n` in an order that looks random and is always the same (Fisher and Yates).
pub(crate) fn shuffled(n: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..n).collect();
    let mut state = 42_u64;
    for at in (1..numbers.len()).rev() {
        // Knuth's generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(at, (state >> 33) as usize % (at + 1));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_every_flow_as_often_as_any_other_and_at_least_1024_packets() {
        for flows in [1, 3, 1000, 1024, 2000] {
            let input = Input::generate(Work::W3, Transport::Udp, flows, 1).unwrap();
            let mut seen = std::collections::HashMap::new();
            for (_, frame) in input.frames() {
                *seen.entry(ends(Work::W3, frame).unwrap()).or_insert(0_u32) += 1;
            }
            assert_eq!(seen.len(), flows as usize);
            let each: HashSet<_> = seen.values().copied().collect();
            assert_eq!(each.len(), 1, "{flows}");
            assert!(seen.values().sum::<u32>() >= LEAST);
        }
    }

    #[test]
    fn flows_are_shuffled_the_same_way_each_time() {
        assert_eq!(shuffled(1000), shuffled(1000));
        let moved = shuffled(1000).iter().zip(0..).filter(|(a, b)| *a != b).count();
        assert!(moved > 900, "{moved}");
    }

    #[test]
    fn each_pod_has_a_lane_with_its_own_packets() {
        let input = Input::generate(Work::W1, Transport::Udp, 120_000, 1).unwrap();
        assert_eq!(input.pods, [2, 3, 4].map(|n| Ipv4Addr::new(10, 244, 1, n)));
        assert_eq!(
            input.lanes.iter().map(|lane| lane.frames.len()).collect::<Vec<_>>(),
            [50_000, 50_000, 20_000]
        );
        for lane in &input.lanes {
            let own = |frame: &Vec<u8>| From::Pod(ends(Work::W1, frame).unwrap().1.0) == lane.from;
            assert!(lane.frames.iter().all(own));
        }
    }

    #[test]
    fn a_capture_with_other_packets_in_it_is_replayed_without_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let input = Input::generate(Work::W2, Transport::Udp, 2000, 1).unwrap();
        let frames = &input.lanes[0].frames;
        let arp = [&[0xff; 12][..], &[8, 6], &[0; 46]].concat();
        capture::write(file.path(), frames.iter().map(|frame| &frame[..]).chain([&arp[..]])).unwrap();
        let replayed = Input::replay(Work::W2, file.path(), 1).unwrap();
        assert_eq!((&replayed.lanes[0].frames, replayed.flows), (frames, 2000));
        capture::write(file.path(), [&arp[..]].into_iter()).unwrap();
        assert!(matches!(Input::replay(Work::W2, file.path(), 1), Err(InputError::Empty)));
    }

    #[test]
    fn each_worker_has_flows_of_its_own() {
        for work in [Work::W1, Work::W2] {
            let input = Input::generate(work, Transport::Udp, 1000, 2).unwrap();
            assert_eq!(input.lanes.len(), 2, "{work:?}");
            let flows = input.lanes.iter().map(|lane| {
                lane.frames.iter().map(|frame| ends(work, frame).unwrap()).collect::<HashSet<_>>()
            });
            let flows: Vec<_> = flows.collect();
            assert!(flows[0].is_disjoint(&flows[1]), "{work:?}");
            assert_eq!(flows[0].len() + flows[1].len(), 1000, "{work:?}");
            // Two thirds at most with one of them.
            assert!(flows.iter().all(|flows| flows.len() > 333), "{work:?}: {}", flows[0].len());
        }
        let one = Input::generate(Work::W1, Transport::Udp, 1, 2);
        assert!(matches!(one, Err(InputError::TooFew { packets: 1024, workers: 2 })));
    }

    #[test]
    fn flows_beyond_the_pods_ports_go_to_further_ports() {
        let flow = |n| ends(Work::W3, &make(Work::W3, Transport::Udp, n, PORTS)).unwrap();
        assert_eq!(flow(CLIENTS), (17, flow(0).1, (VIP, VIP_PORT + 1)));
        assert_eq!((services(CLIENTS), services(10_000_000)), (1, 8));
    }

    #[test]
    fn no_flow_comes_twice_within_a_pass() {
        for (work, flows, workers) in [(Work::W4, 1000, 2), (Work::W2, 300, 2), (Work::W1, 120_000, 1)] {
            let input = Input::generate(work, Transport::Udp, flows, workers).unwrap();
            for lane in &input.lanes {
                let pass = lane.frames[..input.pass()].iter().map(|frame| ends(work, frame));
                assert_eq!(pass.collect::<HashSet<_>>().len(), input.pass(), "{work:?}");
            }
            assert!(input.pass() > 0);
        }
    }
}
