//! What would become of a pod's packet, and why. Nothing changes by asking.

use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::ip::Protocol;

use crate::balance::{Moment, Visit, least_loaded};
use crate::flow::{FlowTables, Hit, Key, Tick};
use crate::table::{Backend, Balancing, Problem, Service, ServiceKey, Snapshot, Target, octets};

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum QuestionError {
    #[error("{field} of {len} bytes: must be 4 or 16")]
    Address { field: &'static str, len: usize },
    #[error("{0} and {1}: must be of the same IP version")]
    Families(IpAddr, IpAddr),
    #[error("{field} port {value}: must be 0-65535")]
    Port { field: &'static str, value: u32 },
    #[error("protocol {0}: must be 1 (TCP), 2 (UDP) or 3 (SCTP)")]
    Protocol(i32),
    #[error(transparent)]
    Tenant(#[from] Problem),
}

/// What the fast path knows at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    /// The tables in force.
    pub view: &'a Snapshot,
    /// Flows, and what is remembered of them.
    pub flows: &'a FlowTables,
    /// The time, for flows.
    pub tick: Tick,
    /// The time, for affinity.
    pub moment: Moment,
}

impl Present<'_> {
    /// What would become of a packet.
    ///
    /// # Errors
    /// When the question makes no sense.
    pub fn explain(&self, question: &proto::ExplainRequest) -> Result<proto::Explanation, QuestionError> {
        let protocol = match question.protocol() {
            proto::Protocol::Tcp => Protocol::TCP,
            proto::Protocol::Udp => Protocol::UDP,
            proto::Protocol::Sctp => Protocol::SCTP,
            proto::Protocol::Icmp | proto::Protocol::Unspecified => {
                return Err(QuestionError::Protocol(question.protocol));
            }
        };
        let tenant = crate::table::tenant(question.tenant)?;
        let source = end("source", &question.source, question.source_port)?;
        let destination = end("destination", &question.destination, question.destination_port)?;
        let mut said = proto::Explanation::default();
        if let Some(key) = FlowKey4::between(tenant, protocol, source, destination) {
            self.packet(&key, &mut said);
        } else if let Some(key) = FlowKey6::between(tenant, protocol, source, destination) {
            self.packet(&key, &mut said);
        } else {
            return Err(QuestionError::Families(source.0, destination.0));
        }
        Ok(said)
    }

    fn packet<K: Key>(&self, key: &K, said: &mut proto::Explanation) {
        let ((source, _), (destination, port), tenant) = (key.source(), key.destination(), key.tenant());
        let Some(from) = self.view.pod(tenant, source).and_then(|port| self.view.port(port)) else {
            return said.add(format!("{source} is no pod's here: such a packet is dropped, spoofed-address"));
        };
        said.add(format!("it comes from {}, port {}", from.owner, from.name));
        if let Some(hit) = K::table(self.flows).lookup(key, key.hash64())
            && self.tracked(&hit, said)
        {
            return;
        }
        if !self.view.is_vip(tenant, destination) {
            self.no_service(tenant, destination, said);
            return self.alike(key, said);
        }
        let named = ServiceKey { tenant, vip: destination, protocol: key.protocol(), port };
        let Some(service) = self.view.service(&named) else {
            return said.add(format!(
                "{destination} is a Service's, but nothing is served at port {port}: it is refused, service-port"
            ));
        };
        said.service = service.full_name();
        self.choose(service, key, said);
    }

    /// Whether the flow that was found decides.
    fn tracked<K: Key>(&self, hit: &Hit<K>, said: &mut proto::Explanation) -> bool {
        let name = hit.state().name();
        let idle = self.tick.seconds_since(hit.seen());
        if hit.reply {
            let client = hit.record.original.source();
            said.add(format!("it is a reply of a tracked flow, {name}, and goes to {}", shown(client)));
            return true;
        }
        let endpoint = hit.record.translated.destination();
        let exists = self.view.has_backend(hit.record.backend);
        said.add(format!(
            "it belongs to a tracked flow, {name}, last seen {idle} s ago, to {}",
            shown(endpoint)
        ));
        if exists {
            said.service =
                self.view.service_in(hit.record.service).map(Service::full_name).unwrap_or_default();
            said.goes_to(endpoint);
            said.add("its endpoint is there, so it stays".to_owned());
        } else {
            said.add("its endpoint is gone: TCP is reset, and what opens a flow is decided anew".to_owned());
        }
        exists
    }

    /// Says what a connection to a pod itself has to do with one through a service whose answers look the same.
    fn alike<K: Key>(&self, key: &K, said: &mut proto::Explanation) {
        let answers = key.reversed();
        let hit = K::table(self.flows).lookup(&answers, answers.hash64()).filter(|hit| hit.reply);
        let Some(hit) = hit.filter(|_| matches!(key.protocol(), Protocol::TCP | Protocol::SCTP)) else {
            return;
        };
        let (name, service) = (hit.state().name(), shown(hit.record.original.destination()));
        let becomes = if hit.state().may_be_reopened() {
            "it is forgotten"
        } else {
            "this one gets another source port"
        };
        said.add(format!(
            "the client's connection to {service} has the same answers, and is {name}: if the packet opens one, {becomes}"
        ));
    }

    fn no_service(&self, tenant: Tenant, address: IpAddr, said: &mut proto::Explanation) {
        let local = self.view.local();
        if local.is_some_and(|local| local.is_own(tenant, address)) {
            return said.add(format!("{address} is the node's own: ping is answered, all else refused"));
        }
        let pod = self.view.pod(tenant, address).and_then(|port| self.view.port(port));
        let text = match (pod, self.view.route(tenant, address)) {
            (Some(port), _) => format!("{address} is pod {}, on port {}", port.owner, port.name),
            (None, Some(Target::Remote(slot))) => {
                let node = self.view.remote(slot).map_or("?", |remote| remote.name.as_str());
                format!("{address} is in the range of node {node}")
            }
            (None, Some(Target::Local)) => {
                format!("{address} is in this node's range, but no pod's: no-such-pod")
            }
            (None, None) => format!("{address} is neither a Service's nor in any node's range: no-route"),
        };
        said.add(text);
    }

    /// Says whom a new flow goes to.
    fn choose<K: Key>(&self, service: &Service, key: &K, said: &mut proto::Explanation) {
        let all = service.backends();
        let taking = all.iter().filter(|backend| backend.takes_new).count();
        let (balancing, name) = (service.balancing(), service.full_name());
        said.add(format!(
            "it opens a flow to {name}, of whose {} endpoints {taking} take new flows",
            all.len()
        ));
        if taking == 0 {
            return said.add("it is refused, service-no-endpoint".to_owned());
        }
        let visit = service.affinity().and_then(|affinity| Visit::new(affinity, key));
        if let Some(visit) = visit {
            let known = &self.flows.affinity;
            match (visit.held(known, service, self.moment), visit.seconds_left(known, self.moment)) {
                (Some(backend), left) => {
                    said.add(match left {
                        Some(left) => {
                            format!("the client has used {} and keeps it, {left} s more", name_of(backend))
                        }
                        None => format!("the client has used {} on another port", name_of(backend)),
                    });
                    return said.goes_to(backend.endpoint());
                }
                (None, _) => {
                    said.add("the client has no endpoint to keep, and will keep this one".to_owned());
                }
            }
        }
        let hash = visit.map_or_else(|| key.hash64(), |visit| visit.hash());
        let chosen = match balancing {
            Balancing::Maglev => {
                said.add("maglev: the hash decides, on every node alike".to_owned());
                service.pick(hash)
            }
            Balancing::RoundRobin => {
                said.add("round-robin: whose turn it is, its worker alone knows".to_owned());
                None
            }
            Balancing::LeastFlow => {
                said.add(
                    "least-flow: who has the fewest open flows for its weight, at this moment".to_owned(),
                );
                least_loaded(service, &self.flows.loads, hash)
            }
        };
        if let Some(backend) = chosen {
            let flows = self.flows.loads.of(backend.id);
            said.add(format!("{}, weight {}, open flows {flows}", name_of(backend), backend.weight));
            said.goes_to(backend.endpoint());
        }
    }
}

fn end(field: &'static str, address: &[u8], port: u32) -> Result<(IpAddr, u16), QuestionError> {
    let len = address.len();
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from));
    let address = address.map_err(|_| QuestionError::Address { field, len })?;
    let port = u16::try_from(port).map_err(|_| QuestionError::Port { field, value: port })?;
    Ok((address, port))
}

fn shown((address, port): (IpAddr, u16)) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn name_of(backend: &Backend) -> String {
    shown(backend.endpoint())
}

/// What is said, bit by bit.
trait Say {
    fn add(&mut self, step: String);
    fn goes_to(&mut self, endpoint: (IpAddr, u16));
}

impl Say for proto::Explanation {
    fn add(&mut self, step: String) {
        self.steps.push(step);
    }

    fn goes_to(&mut self, (address, port): (IpAddr, u16)) {
        (self.endpoint, self.endpoint_port) = (octets(address), port.into());
    }
}
