//! What the fast path tells about itself.

use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_dpdk::{Notice, tsc};

use super::FastPath;
use crate::balance::Moment;
use crate::explain::{Present, QuestionError};
use crate::port::{Device, Entry};
use crate::shortcut::{SLOTS, Shortcut};
use crate::table::{PortKind, Service, Sharing, octets, overhead};
use crate::worker::Team;

impl FastPath {
    /// Who answers, and how far it has been programmed.
    pub fn info(&self) -> proto::Info {
        let tables = self.tables.current();
        let flows = self.counters.flows();
        let pool = self.ports.backend().pool();
        proto::Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            workers: self.workers.len() as u32,
            revision: tables.revision(),
            synced: tables.synced(),
            uptime_seconds: self.started.elapsed().as_secs(),
            mbufs_total: pool.size().into(),
            mbufs_free: pool.available().into(),
            flows: flows.created.saturating_sub(flows.expired),
            flow_capacity: self.flows.capacity(),
            flow_policy: tables.local().map(|local| (&local.flows).into()),
            restart: Some(self.restart()),
            underlay_mtu: tables.local().map_or(0, |local| local.underlay_mtu.into()),
            pod_mtu: tables.local().map_or(0, |local| {
                let over = local.underlay.iter().map(|own| overhead(own.net.addr())).min().unwrap_or(0);
                local.underlay_mtu.saturating_sub(over).into()
            }),
            path_mtus: self.path_mtus.iter().map(|(vtep, mtu)| self.show_path(vtep, mtu)).collect(),
            short_cut: Some((&self.shortcut).into()),
        }
    }

    fn show_path(&self, vtep: IpAddr, mtu: u16) -> proto::PathMtu {
        let node = self.tables.current().remotes().find(|remote| remote.vtep == vtep);
        proto::PathMtu {
            node: node.map_or_else(String::new, |remote| remote.name.clone()),
            vtep: octets(vtep),
            mtu: mtu.into(),
            pod_mtu: mtu.saturating_sub(overhead(vtep)).into(),
        }
    }

    /// The port of a name.
    pub fn port(&self, name: &str) -> Option<proto::Port> {
        self.ports.get(name).map(|entry| self.show(entry))
    }

    /// All ports, by name.
    pub fn list_ports(&self) -> Vec<proto::Port> {
        self.ports.iter().map(|entry| self.show(entry)).collect()
    }

    fn show(&self, entry: &Entry<Device>) -> proto::Port {
        let port = &entry.port;
        let waking = match entry.device.notice() {
            Notice::Readable => proto::Waking::Kernel,
            Notice::Interrupt => proto::Waking::Interrupt,
            Notice::Never => proto::Waking::Never,
        };
        let counts = self.counters.port(entry.index);
        let finished = self.counters.finished(entry.index);
        let segmentation = entry.device.segmentation().map(|segmentation| proto::Segmentation {
            device_offloads: segmentation.asked.names().map(str::to_owned).collect(),
            reason: segmentation.reason.clone(),
        });
        let kind = match port.kind {
            PortKind::Uplink => proto::PortKind::Uplink,
            PortKind::Pod => proto::PortKind::Pod,
            PortKind::Host => proto::PortKind::Host,
        };
        let device = match port.socket.as_ref().map(|socket| socket.sharing) {
            None => proto::PortDevice::Unspecified,
            Some(Sharing::Memif) => proto::PortDevice::Memif,
            Some(Sharing::VhostUser) => proto::PortDevice::VhostUser,
        };
        let path = port.socket.as_ref().map(|socket| socket.path.to_string_lossy().into_owned());
        proto::Port {
            device: device.into(),
            socket: path.unwrap_or_default(),
            name: port.name.clone(),
            number: entry.index.0.into(),
            kind: kind.into(),
            addresses: port.addresses().map(octets).collect(),
            mac: port.mac.0.to_vec(),
            mtu: port.mtu.into(),
            tenant: port.tenant.get(),
            owner: port.owner.clone(),
            worker: entry.worker as u32,
            counters: Some(proto::PortCounters {
                rx_packets: counts.rx_packets,
                rx_bytes: counts.rx_bytes,
                tx_packets: counts.tx_packets,
                tx_bytes: counts.tx_bytes,
                rx_dropped: counts.rx_dropped,
                tx_dropped: counts.tx_dropped,
                rx_deferred: counts.rx_deferred,
                tx_device_offloaded: finished.by_device,
                tx_software_offloaded: finished.by_us,
                tx_offload_refused: finished.refused,
            }),
            drops: named(self.counters.port_drops(entry.index)),
            waking: waking.into(),
            segmentation,
            short_cut: self.shortcut.is_joined(entry.index, entry.port.kind),
        }
    }

    /// Counts what devices had no room for. They know it themselves, and are asked only when somebody wants to know.
    pub fn count_losses(&mut self) {
        for (port, device) in self.ports.devices() {
            self.counters.lost(port, device.lost());
        }
    }

    /// All services, with what was counted for each.
    pub fn list_services(&self) -> Vec<proto::ServiceStatus> {
        let status = |service: &Service| {
            let counts = self.counters.service(service.slot());
            proto::ServiceStatus {
                service: Some(service.into()),
                packets: counts.packets,
                bytes: counts.bytes,
                new_flows: counts.new_flows,
                rejected: counts.rejected,
                backend_flows: service.backends().iter().map(|b| self.flows.loads.of(b.id)).collect(),
            }
        };
        self.tables.current().services().map(status).collect()
    }

    /// Tracked flows, both directions of each, `limit` at most.
    pub fn list_flows(&self, limit: usize) -> proto::ListFlowsResponse {
        self.flows.list(self.tables.current(), self.clock.tick(), limit)
    }

    /// What would become of a packet, and why.
    ///
    /// # Errors
    /// When the question makes no sense.
    pub fn explain(&self, question: &proto::ExplainRequest) -> Result<proto::Explanation, QuestionError> {
        let view = self.tables.current();
        let (tick, moment) = (self.clock.tick(), Moment::after(self.clock.elapsed()));
        Present { view, flows: &self.flows, tick, moment }.explain(question)
    }

    /// All counters.
    pub fn list_counters(&self) -> proto::Counters {
        let mut scheduling = self.ports.backend().team().into_iter().flat_map(Team::scheduling);
        let worker = |(number, &lcore): (usize, &u32)| {
            let counts = self.counters.worker(number);
            proto::WorkerCounters {
                worker: number as u32,
                lcore,
                polls: counts.polls,
                empty_polls: counts.empty_polls,
                packets: counts.packets,
                busy_cycles: counts.busy_cycles,
                total_cycles: counts.total_cycles,
                scheduling: scheduling.next().flatten().map(Into::into),
            }
        };
        let (flows, errors) = (self.counters.flows(), self.counters.errors());
        let shortcut = self.counters.shortcut();
        proto::Counters {
            drops: named(self.counters.drops()),
            answered: named(self.counters.answered()),
            workers: self.workers.iter().enumerate().map(worker).collect(),
            ports: self.list_ports(),
            flows_created: flows.created,
            flows_expired: flows.expired,
            affinity_forgotten: flows.forgotten,
            icmp_errors_translated: errors.translated,
            icmp_errors_limited: errors.limited,
            stateless_packets: flows.stateless,
            cycles: tsc::now(),
            cycles_per_second: self.clock.hz(),
            instance: self.instance.clone(),
            short_cut_packets: shortcut.packets,
            short_cut_bytes: shortcut.bytes,
        }
    }
}

impl From<&Shortcut> for proto::ShortCut {
    fn from(shortcut: &Shortcut) -> Self {
        Self {
            why_not: shortcut.why_not().unwrap_or_default().to_owned(),
            pods: shortcut.pods() as u32,
            slots: shortcut.slots().map_or(0, |slots| slots.given() as u32),
            slot_capacity: shortcut.slots().map_or(0, |_| SLOTS),
            drops: named(shortcut.dropped().into_iter().flatten().map(|(why, count)| (why.name(), count))),
        }
    }
}

fn named(counters: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<proto::NamedCounter> {
    let named = |(name, value): (&str, u64)| proto::NamedCounter { name: name.to_owned(), value };
    counters.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use culvert_api::config::fastpath::ShortCut;

    use super::*;
    use crate::keep::Keep;
    use crate::shortcut::Remains;
    use crate::table::{PortIndex, PortKind};

    #[test]
    fn of_a_short_cut_that_is_not_there_the_reason_is_told_and_no_slots() {
        let off = Shortcut::load(ShortCut::Off).start(1_000_000_000, &Keep::nobody(), Remains::default());
        let told = proto::ShortCut { why_not: "switched off".to_owned(), ..proto::ShortCut::default() };
        assert_eq!(proto::ShortCut::from(&off), told);
        assert!(!off.is_joined(PortIndex(0), PortKind::Pod));
    }
}
