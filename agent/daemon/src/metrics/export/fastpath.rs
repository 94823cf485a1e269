//! The fast path's counters.

use std::fmt;
use std::net::IpAddr;

use culvert_api::fastpath::{
    Counters, Info, NamedCounter, Port, PortCounters, Protocol, Restart, Scheduling, ServiceStatus, ShortCut,
    WorkerCounters,
};

use super::super::Snapshot;
use super::{Labels, Sink, one};

impl Sink<'_> {
    /// All that the fast path tells.
    pub(super) fn fastpath(&mut self, snapshot: &Snapshot) -> fmt::Result {
        self.gauge("fastpath_up", "Whether the fast path answers", one(u64::from(snapshot.info.is_some())))?;
        if let Some(info) = &snapshot.info {
            self.info(info)?;
        }
        if let Some(counters) = &snapshot.counters {
            self.counters(counters)?;
        }
        self.services(&snapshot.services)
    }

    fn info(&mut self, info: &Info) -> fmt::Result {
        self.gauge("fastpath_synced", "Whether complete tables are in force", one(u64::from(info.synced)))?;
        self.gauge("fastpath_tables_revision", "Revision of the tables in force", one(info.revision))?;
        self.gauge("fastpath_mbufs", "Packet buffers in the pool", one(info.mbufs_total))?;
        self.gauge("fastpath_mbufs_free", "Packet buffers free at this moment", one(info.mbufs_free))?;
        self.gauge("fastpath_flows", "Entries of the flow table in use, one per direction", one(info.flows))?;
        self.gauge("fastpath_flow_capacity", "Entries that the flow table holds", one(info.flow_capacity))?;
        if let Some(short_cut) = &info.short_cut {
            self.short_cut(short_cut)?;
        }
        if let Some(restart) = &info.restart {
            self.restart(restart)?;
        }
        Ok(())
    }

    fn short_cut(&mut self, short_cut: &ShortCut) -> fmt::Result {
        let there = u64::from(short_cut.why_not.is_empty());
        let drops: Vec<_> =
            short_cut.drops.iter().map(|drop| (vec![("reason", drop.name.clone())], drop.value)).collect();
        let text = "Packets that programs of the short cut dropped, by reason";
        self.counter("short_cut_drops", text, drops)?;
        let text = "Whether decided connections may be forwarded by programs in the kernel";
        self.gauge("short_cut_up", text, one(there))?;
        let text = "Pods whose connections may go by the short cut";
        self.gauge("short_cut_pods", text, one(u64::from(short_cut.pods)))?;
        let text = "Slots of the short cut in use, one per direction of a connection";
        self.gauge("short_cut_slots", text, one(u64::from(short_cut.slots)))?;
        let text = "Slots that the short cut has";
        self.gauge("short_cut_slot_capacity", text, one(u64::from(short_cut.slot_capacity)))
    }

    fn restart(&mut self, restart: &Restart) -> fmt::Result {
        let restarts = u64::from(restart.restarts);
        self.counter("fastpath_restarts", "Restarts of the fast path by its keeper", one(restarts))?;
        let text = "From the end of the process before until packets were forwarded again, in microseconds";
        self.gauge("fastpath_restart_gap_microseconds", text, one(restart.gap_microseconds))?;
        let flows = [
            ("kept", restart.flows_kept),
            ("over", restart.flows_over),
            ("no-room", restart.flows_without_room),
            ("damaged", restart.flows_damaged),
        ];
        let flows = flows.map(|(what, flows)| (vec![("what", what.to_owned())], flows));
        let text = "What became of the connections of the process before";
        self.gauge("fastpath_restart_flows", text, flows)?;
        let refused = u64::from(!restart.refused.is_empty());
        let text = "Whether what the process before left could not be used";
        self.gauge("fastpath_restart_refused", text, one(refused))
    }

    fn counters(&mut self, c: &Counters) -> fmt::Result {
        let named = |label: &'static str, list: &[NamedCounter]| -> Vec<(Labels, u64)> {
            list.iter().map(|n| (vec![(label, n.name.clone())], n.value)).collect()
        };
        self.counter("drops", "Packets dropped, by reason", named("reason", &c.drops))?;
        self.counter("answered", "Packets that the fast path answered itself", named("kind", &c.answered))?;
        self.counter("flows_created", "Flow entries made", one(c.flows_created))?;
        self.counter("flows_expired", "Flow entries that aged out", one(c.flows_expired))?;
        let text = "Clients whose session affinity was forgotten before its time";
        self.counter("affinity_forgotten", text, one(c.affinity_forgotten))?;
        self.counter(
            "icmp_errors_translated",
            "ICMP errors about packets of tracked flows that were translated and passed on",
            one(c.icmp_errors_translated),
        )?;
        self.counter(
            "icmp_errors_limited",
            "ICMP errors of the fast path that were not sent, since too many were",
            one(c.icmp_errors_limited),
        )?;
        self.counter(
            "stateless_packets",
            "Packets translated without a flow entry, since the flow table was full",
            one(c.stateless_packets),
        )?;
        let text = "Packets that went by the short cut, past the workers";
        self.counter("short_cut_packets", text, one(c.short_cut_packets))?;
        let text = "Bytes of packets that went by the short cut, from the IP header on";
        self.counter("short_cut_bytes", text, one(c.short_cut_bytes))?;
        self.ports(&c.ports)?;
        self.workers(&c.workers)?;
        self.scheduling(&c.workers)?;
        // Without a clock there is no time.
        let busy = c.workers.iter().filter(|_| c.cycles_per_second > 0).map(|w| {
            (vec![("worker", w.worker.to_string())], w.busy_cycles as f64 / c.cycles_per_second as f64)
        });
        self.seconds("worker_busy_seconds", "Time that a worker spent on polls that found packets", busy)
    }

    fn ports(&mut self, ports: &[Port]) -> fmt::Result {
        let each = |value: fn(&PortCounters) -> u64| {
            ports.iter().map(move |p| {
                let labels = vec![("port", p.name.clone()), ("owner", p.owner.clone())];
                (labels, p.counters.as_ref().map_or(0, value))
            })
        };
        self.counter("port_rx_packets", "Packets received on a port", each(|c| c.rx_packets))?;
        self.counter("port_rx_bytes", "Bytes received on a port", each(|c| c.rx_bytes))?;
        self.counter("port_rx_dropped", "Packets received on a port and dropped", each(|c| c.rx_dropped))?;
        self.counter("port_tx_packets", "Packets sent on a port", each(|c| c.tx_packets))?;
        self.counter("port_tx_bytes", "Bytes sent on a port", each(|c| c.tx_bytes))?;
        self.counter("port_tx_dropped", "Packets that a port did not take", each(|c| c.tx_dropped))?;
        let text = "Turns of a port that ended while it may have had more";
        self.counter("port_rx_deferred", text, each(|c| c.rx_deferred))?;
        let text = "Super-packets, and packets without checksum, left to a port's device";
        self.counter("port_tx_device_offloaded", text, each(|c| c.tx_device_offloaded))?;
        let text = "Super-packets cut, and checksums made, by the fast path for a device of DPDK";
        self.counter("port_tx_software_offloaded", text, each(|c| c.tx_software_offloaded))?;
        let text = "Those of them that the device's driver refused";
        self.counter("port_tx_offload_refused", text, each(|c| c.tx_offload_refused))?;
        let drops = ports.iter().flat_map(|p| {
            p.drops.iter().map(|drop| {
                let port = [("port", p.name.clone()), ("owner", p.owner.clone())];
                (port.into_iter().chain([("reason", drop.name.clone())]).collect(), drop.value)
            })
        });
        self.counter("port_drops", "Packets received on a port and dropped, by reason", drops)
    }

    fn workers(&mut self, workers: &[WorkerCounters]) -> fmt::Result {
        let each = |value: fn(&WorkerCounters) -> u64| {
            workers.iter().map(move |w| (vec![("worker", w.worker.to_string())], value(w)))
        };
        self.counter("worker_packets", "Packets that a worker received", each(|w| w.packets))?;
        self.counter("worker_polls", "Polls of a worker", each(|w| w.polls))?;
        self.counter("worker_empty_polls", "Polls of a worker that found nothing", each(|w| w.empty_polls))?;
        self.counter(
            "worker_busy_cycles",
            "Cycles spent on polls that found packets",
            each(|w| w.busy_cycles),
        )?;
        self.counter("worker_cycles", "Cycles in all", each(|w| w.total_cycles))
    }

    /// What the kernel says of the workers' threads.
    fn scheduling(&mut self, workers: &[WorkerCounters]) -> fmt::Result {
        let known =
            || workers.iter().filter_map(|w| Some((vec![("worker", w.worker.to_string())], w.scheduling?)));
        let each = |value: fn(&Scheduling) -> u64| known().map(move |(labels, s)| (labels, value(&s)));
        let time = |value: fn(&Scheduling) -> u64| each(value).map(|(labels, ns)| (labels, ns as f64 / 1e9));
        self.counter("worker_sleeps", "How often a worker waited for packets", each(|s| s.sleeps))?;
        let text = "How often a worker had to leave its CPU to others";
        self.counter("worker_preemptions", text, each(|s| s.preemptions))?;
        self.seconds("worker_cpu_seconds", "Time of a worker on its CPU", time(|s| s.ran_nanoseconds))?;
        let text = "Time in which a worker was ready and others had its CPU";
        self.seconds("worker_cpu_wait_seconds", text, time(|s| s.waited_nanoseconds))
    }

    fn services(&mut self, services: &[ServiceStatus]) -> fmt::Result {
        let known = || services.iter().filter(|s| s.service.is_some());
        let each = |value: fn(&ServiceStatus) -> u64| known().map(move |s| (service_labels(s), value(s)));
        self.counter("service_packets", "Packets translated for a Service address", each(|s| s.packets))?;
        self.counter("service_bytes", "Bytes translated for a Service address", each(|s| s.bytes))?;
        self.counter("service_new_flows", "Flows opened through a Service address", each(|s| s.new_flows))?;
        self.counter("service_rejected", "Packets refused for want of an endpoint", each(|s| s.rejected))?;
        let backends = |s: &ServiceStatus| s.service.as_ref().map_or(0, |s| s.backends.len() as u64);
        self.gauge("service_backends", "Endpoints of a Service address", each(backends))
    }
}

fn service_labels(status: &ServiceStatus) -> Labels {
    let Some(service) = &status.service else { return Vec::new() };
    let protocol = match service.protocol() {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Icmp => "ICMP",
        Protocol::Unspecified => "",
    };
    let vip = <[u8; 4]>::try_from(service.vip.as_slice()).map(IpAddr::from);
    let vip = vip.or_else(|_| <[u8; 16]>::try_from(service.vip.as_slice()).map(IpAddr::from));
    vec![
        ("namespace", service.namespace.clone()),
        ("service", service.name.clone()),
        ("vip", vip.map(|ip| ip.to_string()).unwrap_or_default()),
        ("port", service.port.to_string()),
        ("protocol", protocol.to_owned()),
    ]
}
