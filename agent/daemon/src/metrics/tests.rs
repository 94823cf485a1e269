use culvert_api::fastpath::{Backend, NamedCounter, Port, PortCounters, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

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
        counters: Some(PortCounters { rx_packets: 7, ..PortCounters::default() }),
        ..Port::default()
    };
    Snapshot {
        subsystems: vec![Subsystem { name: "fastpath".into(), state: state.into(), detail: "why".into() }],
        info: Some(Info { mbufs_total: 16, mbufs_free: 15, ..Info::default() }),
        counters: Some(Counters {
            drops: vec![NamedCounter { name: "ipv4-checksum".into(), value: 3 }],
            ports: vec![port],
            ..Counters::default()
        }),
        services: vec![ServiceStatus { service: Some(service), packets: 9, ..ServiceStatus::default() }],
    }
}

/// One request to a server of its own; returns status line and body.
async fn get(path: &str, state: &'static str) -> (String, String) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let gather: Gather = Arc::new(move || Box::pin(async move { snapshot(state) }));
    let metrics = Metrics::default();
    metrics.programmed(Duration::from_millis(3));
    let server = tokio::spawn(serve(listener, metrics, gather, stop.clone()));
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

#[tokio::test]
async fn every_counter_of_the_snapshot_is_in_the_metrics() {
    let (status, body) = get("/metrics", "ok").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "culvert_drops_total{reason=\"ipv4-checksum\"} 3",
        "culvert_port_rx_packets_total{port=\"cv1\",owner=\"default/\\\"odd\\\"\"} 7",
        "culvert_fastpath_mbufs_free 15",
        "culvert_fastpath_up 1",
        "culvert_service_packets_total{namespace=\"default\",service=\"web\",vip=\"10.96.0.10\",port=\"80\",protocol=\"TCP\"} 9",
        "culvert_service_backends{namespace=\"default\",service=\"web\",vip=\"10.96.0.10\",port=\"80\",protocol=\"TCP\"} 4",
        "culvert_programming_seconds_count 1",
        "culvert_subsystem_state{name=\"fastpath\",state=\"ok\"} 1",
        "# EOF",
    ] {
        assert!(body.contains(line), "{line} is not in:\n{body}");
    }
}

#[tokio::test]
async fn ready_only_when_every_part_is_well_while_health_is_being_alive() {
    assert_eq!(get("/readyz", "ok").await.0, "HTTP/1.1 200 OK");
    let (status, body) = get("/readyz", "degraded").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.contains("fastpath: degraded why"), "{body}");
    assert_eq!(get("/healthz", "degraded").await.0, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("metrics {address}: ")), "{error}");
}
