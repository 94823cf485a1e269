use culvert_api::fastpath::{
    Backend, NamedCounter, Port, PortCounters, Scheduling, Service, ShortCut, WorkerCounters,
};
use culvert_device_plugin::PoolStatus;
use culvert_host::netlink::VfCounters;
use std::collections::BTreeSet;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::health::{self, Health};
use crate::nic::{PfTally, VfTally};
use crate::testing::bare_machine;

fn snapshot(state: &str) -> Snapshot {
    let service = Service {
        namespace: "default".into(),
        name: "web".into(),
        protocol: 1,
        vip: vec![10, 96, 0, 10],
        port: 80,
        backends: vec![Backend::default(); 4],
        ..Service::default()
    };
    let port = Port {
        name: "cv1".into(),
        owner: "default/\"odd\"".into(),
        counters: Some(PortCounters {
            rx_packets: 7,
            rx_deferred: 5,
            tx_offload_refused: 4,
            ..PortCounters::default()
        }),
        drops: vec![NamedCounter { name: "vlan-tag".into(), value: 2 }],
        ..Port::default()
    };
    let scheduling = Scheduling {
        sleeps: 4,
        preemptions: 6,
        ran_nanoseconds: 2_500_000_000,
        waited_nanoseconds: 250_000_000,
    };
    let worker = WorkerCounters {
        busy_cycles: 3_000_000_000,
        scheduling: Some(scheduling),
        ..WorkerCounters::default()
    };
    let drops = vec![NamedCounter { name: "undecided".into(), value: 5 }];
    let short_cut = ShortCut { pods: 2, slots: 6, slot_capacity: 8, drops, ..ShortCut::default() };
    Snapshot {
        subsystems: vec![Subsystem { name: "fastpath".into(), state: state.into(), detail: "why".into() }],
        info: Some(Info { mbufs_total: 16, mbufs_free: 15, short_cut: Some(short_cut), ..Info::default() }),
        counters: Some(Counters {
            drops: vec![NamedCounter { name: "ipv4-checksum".into(), value: 3 }],
            ports: vec![port],
            workers: vec![worker, WorkerCounters { worker: 1, ..WorkerCounters::default() }],
            cycles_per_second: 2_000_000_000,
            short_cut_packets: 11,
            short_cut_bytes: 1100,
            ..Counters::default()
        }),
        services: vec![ServiceStatus { service: Some(service), packets: 9, ..ServiceStatus::default() }],
        ..Snapshot::default()
    }
}

/// One request to a server of its own, whose agent has one part in this state; returns status line and body.
async fn get(path: &str, state: health::State) -> (String, String) {
    let dir = TempDir::new().unwrap();
    let health = Health::default();
    health.part("fastpath").set(state, "why");
    let nics = bare_machine(dir.path()).await;
    let pools = watch::channel(Statuses::new()).1;
    let sources = Sources { health, fastpath: None, nics, pod_resources: None, pools };
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Metrics::default(), sources, stop.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    stop.cancel();
    server.await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn vf(index: u32, owner: Option<&str>) -> VfTally {
    VfTally {
        pf: "0000:03:00.0".parse().unwrap(),
        pf_interface: "ens1f0".to_owned(),
        index: index.try_into().unwrap(),
        pci: format!("0000:03:02.{index}").parse().unwrap(),
        numa: Some(1),
        pool: Some("tenant-a".parse().unwrap()),
        healthy: Some(true),
        owner: owner.map(str::to_owned),
        counters: Some(VfCounters { rx_bytes: 1 << 40, tx_dropped: 7, ..VfCounters::default() }),
    }
}

fn given(pod: &str, container: &str) -> GivenDevice {
    let (id, resource) = (String::new(), "culvert.io/tenant-a".to_owned());
    GivenDevice { id, resource, pod: pod.to_owned(), container: container.to_owned() }
}

/// Four VFs: one of a pod by CNI and kubelet, one by kubelet alone, one whose pod kubelet does not know yet, a free one.
fn nics() -> NicSnapshot {
    let pf = PfTally {
        pci: "0000:03:00.0".parse().unwrap(),
        interface: "ens1f0".to_owned(),
        vfs: 4,
        total_vfs: 64,
        carrier: true,
    };
    let vfs = vec![vf(0, Some("prod/web")), vf(1, None), vf(2, Some("prod/new")), vf(3, None)];
    let tally = NicTally { vfs, pfs: vec![pf], attachments: 2, unfinished: 1, step_under_way: false };
    let holder = |index: u32, pod: &str| (vf(index, None).pci, given(pod, "main"));
    NicSnapshot {
        tally,
        holders: [holder(0, "prod/web"), holder(1, "prod/dpdk"), holder(2, "prod/old")].into(),
    }
}

fn exposition() -> String {
    let pool = PoolStatus { devices: 4, healthy: 3, ..PoolStatus::default() };
    let pools = [("culvert.io/tenant-a".parse().unwrap(), pool)].into();
    let metrics = Metrics::default().with_nic(Measurements::default());
    metrics.programmed(Duration::from_millis(3));
    export::text(&metrics, Snapshot { nic: Some(nics()), pools, ..snapshot("ok") }).unwrap()
}

#[test]
fn every_counter_of_the_snapshot_is_in_the_metrics() {
    let body = exposition();
    for line in [
        "culvert_drops_total{reason=\"ipv4-checksum\"} 3",
        "culvert_worker_busy_cycles_total{worker=\"0\"} 3000000000",
        "culvert_worker_busy_seconds_total{worker=\"0\"} 1.5",
        "culvert_worker_busy_seconds_total{worker=\"1\"} 0.0",
        "culvert_worker_sleeps_total{worker=\"0\"} 4",
        "culvert_worker_preemptions_total{worker=\"0\"} 6",
        "culvert_worker_cpu_seconds_total{worker=\"0\"} 2.5",
        "culvert_worker_cpu_wait_seconds_total{worker=\"0\"} 0.25",
        "culvert_port_rx_deferred_total{port=\"cv1\",owner=\"default/\\\"odd\\\"\"} 5",
        "culvert_port_tx_offload_refused_total{port=\"cv1\",owner=\"default/\\\"odd\\\"\"} 4",
        "culvert_port_drops_total{port=\"cv1\",owner=\"default/\\\"odd\\\"\",reason=\"vlan-tag\"} 2",
        "culvert_port_rx_packets_total{port=\"cv1\",owner=\"default/\\\"odd\\\"\"} 7",
        "culvert_fastpath_mbufs_free 15",
        "culvert_short_cut_up 1",
        "culvert_short_cut_pods 2",
        "culvert_short_cut_slots 6",
        "culvert_short_cut_slot_capacity 8",
        "culvert_short_cut_drops_total{reason=\"undecided\"} 5",
        "culvert_short_cut_packets_total 11",
        "culvert_short_cut_bytes_total 1100",
        "culvert_fastpath_up 1",
        "culvert_service_packets_total{namespace=\"default\",service=\"web\",vip=\"10.96.0.10\",port=\"80\",protocol=\"TCP\"} 9",
        "culvert_service_backends{namespace=\"default\",service=\"web\",vip=\"10.96.0.10\",port=\"80\",protocol=\"TCP\"} 4",
        "culvert_programming_seconds_count 1",
        "culvert_subsystem_state{name=\"fastpath\",state=\"ok\"} 1",
        "culvert_vf_rx_bytes_total{pf=\"0000:03:00.0\",pf_interface=\"ens1f0\",vf=\"0\",pci=\"0000:03:02.0\",pool=\"tenant-a\",namespace=\"prod\",pod=\"web\",container=\"main\"} 1099511627776",
        "pci=\"0000:03:02.1\",pool=\"tenant-a\",namespace=\"prod\",pod=\"dpdk\",container=\"main\"} 7",
        "pci=\"0000:03:02.2\",pool=\"tenant-a\",namespace=\"prod\",pod=\"new\",container=\"\"} 7",
        "pci=\"0000:03:02.3\",pool=\"tenant-a\",namespace=\"\",pod=\"\",container=\"\"} 7",
        "culvert_pool_devices{resource=\"culvert.io/tenant-a\"} 4",
        "culvert_pool_healthy{resource=\"culvert.io/tenant-a\"} 3",
        "culvert_pool_allocated{resource=\"culvert.io/tenant-a\"} 3",
        "culvert_pool_registered{resource=\"culvert.io/tenant-a\"} 1",
        "culvert_pf_total_vfs{pf=\"0000:03:00.0\",pf_interface=\"ens1f0\"} 64",
        "culvert_nic_attachments 2",
        "culvert_nic_attachments_unfinished 1",
    ] {
        assert!(body.lines().any(|l| l.ends_with(line)), "{line} is not in:\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
}

#[test]
fn names_that_users_of_the_metrics_exporter_know_are_served_too() {
    let body = export::sriov_text(nics()).unwrap();
    for line in [
        "sriov_vf_rx_bytes{pf=\"ens1f0\",vf=\"0\",pciAddr=\"0000:03:02.0\",numa_node=\"1\"} 1099511627776",
        "sriov_vf_tx_dropped{pf=\"ens1f0\",vf=\"3\",pciAddr=\"0000:03:02.3\",numa_node=\"1\"} 7",
        "sriov_kubepoddevice{pciAddr=\"0000:03:02.1\",dev_type=\"culvert.io/tenant-a\",pod=\"dpdk\",namespace=\"prod\",container=\"main\"} 1",
    ] {
        assert!(body.lines().any(|l| l == line), "{line} is not in:\n{body}");
    }
    check(&body);
}

#[test]
fn the_exposition_is_well_formed() {
    check(&exposition());
}

/// Holds a text against the rules of OpenMetrics 1.0.0 that a scraper would fail by: each family is described before its
/// samples, once, with a help text; counters end in "_total"; no series twice; values are numbers; "# EOF" ends it.
fn check(text: &str) {
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut helped, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut current = "";
    let body = text.strip_suffix("# EOF\n").expect("an end");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(helped.insert(name) && help.len() > 8, "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(families.insert(name, kind).is_none(), "twice: {line}");
            current = name;
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect(line);
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let (key, value) = line.rsplit_once(' ').expect(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(key), "twice: {line}");
            let name = key.split('{').next().unwrap();
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{line}"
            );
            let suffix = name.strip_prefix(current).unwrap_or_else(|| panic!("not of {current}: {line}"));
            let legal: &[&str] = match families[current] {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "gauge" | "unknown" => &[""],
                other => panic!("type {other}"),
            };
            assert!(legal.contains(&suffix), "{line}");
            assert!(key.len() == name.len() || key.ends_with("\"}"), "{line}");
        }
    }
    assert!(families.keys().all(|name| helped.contains(name)), "{families:?}");
}

#[tokio::test]
async fn ready_only_when_every_part_is_well_while_health_is_being_alive() {
    assert_eq!(get("/readyz", health::State::Ok).await.0, "HTTP/1.1 200 OK");
    let (status, body) = get("/readyz", health::State::Degraded).await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.contains("fastpath: degraded why"), "{body}");
    assert_eq!(get("/healthz", health::State::Degraded).await.0, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_node_without_nics_has_metrics_all_the_same() {
    for path in ["/metrics", "/metrics/sriov"] {
        let (status, body) = get(path, health::State::Ok).await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        check(&body);
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("metrics {address}: ")), "{error}");
}
