use super::*;

const UPLINK: &str = "uplink: { tap: { name: cvup0 } }\n";

fn error(text: &str) -> String {
    FastPathConfig::from_yaml(text).unwrap_err().to_string()
}

/// The error of a valid configuration with `line` added.
fn error_with(line: &str) -> String {
    error(&format!("{UPLINK}{line}\n"))
}

#[test]
fn only_the_uplink_has_no_default() {
    let config = FastPathConfig::from_yaml(UPLINK).unwrap();
    let expected = FastPathConfig {
        socket: "/run/culvert/fastpath.sock".into(),
        control_cpu: 0,
        workers: vec![1],
        idle_sleep: Duration::from_micros(50),
        busy_poll: Duration::from_micros(200),
        memory: Memory { hugepages: Hugepages::Preferred, megabytes: 256, mbufs: 16384 },
        flows: 65536,
        affinity_clients: 65536,
        uplink: Uplink::Tap { name: "cvup0".parse().unwrap(), mac: None },
        pod_ports: PodPorts::Tap,
        pod_queues: PodQueues::One,
        standby: false,
        hang: Duration::from_secs(5),
        pod_budget: 256 << 10,
        short_cut: ShortCut::Auto,
    };
    assert_eq!(config, expected);
    assert!(error("controlCpu: 0\n").contains("missing field `uplink`"));
    FastPathConfig::from_yaml("").unwrap_err();
}

#[test]
fn every_key_is_taken_over() {
    let config = FastPathConfig::from_yaml(
        "socket: /tmp/fp.sock
controlCpu: 2
workers: [2, 3]
idleSleepMicroseconds: 0
busyPollMicroseconds: 1000
memory: { hugepages: required, megabytes: 512, mbufs: 65536 }
flows: 1024
affinityClients: 4096
uplink:
  tap:
    name: up-1
    mac: 02:00:00:00:00:07
podPorts: netTap
podQueues: perWorker
standby: true
hangSeconds: 3600
podBudgetKilobytes: 65536
shortCut: off
",
    )
    .unwrap();
    let expected = FastPathConfig {
        socket: "/tmp/fp.sock".into(),
        control_cpu: 2,
        workers: vec![2, 3],
        idle_sleep: Duration::ZERO,
        busy_poll: Duration::from_micros(1000),
        memory: Memory { hugepages: Hugepages::Required, megabytes: 512, mbufs: 65536 },
        flows: 1024,
        affinity_clients: 4096,
        uplink: Uplink::Tap {
            name: "up-1".parse().unwrap(),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
        },
        pod_ports: PodPorts::NetTap,
        pod_queues: PodQueues::PerWorker,
        standby: true,
        hang: Duration::from_secs(3600),
        pod_budget: 64 << 20,
        short_cut: ShortCut::Off,
    };
    assert_eq!(config, expected);
    let off = FastPathConfig::from_yaml(&format!("{UPLINK}memory: {{ hugepages: off }}\n")).unwrap();
    assert_eq!(off.memory.hugepages, Hugepages::Off);
}

#[test]
fn the_uplink_is_one_of_several_kinds() {
    let (name, mac) = ("up-1".parse::<IfName>().unwrap(), Some("02:00:00:00:00:07".parse().unwrap()));
    let interface = name.clone();
    let nic = |tunnel_segmentation| Uplink::Nic {
        pci: "0000:03:00.1".parse().unwrap(),
        mac: None,
        tunnel_segmentation,
    };
    for (text, uplink) in [
        ("netTap: { name: up-1, mac: 02:00:00:00:00:07 }", Uplink::NetTap { name, mac }),
        ("afPacket: { interface: up-1 }", Uplink::AfPacket { interface: interface.clone(), mac: None }),
        ("afXdp: { interface: up-1, mac: 02:00:00:00:00:07 }", Uplink::AfXdp { interface, mac }),
        ("nic: { pci: '0000:03:00.1' }", nic(TunnelSegmentation::Auto)),
        ("nic: { pci: '0000:03:00.1', tunnelSegmentation: off }", nic(TunnelSegmentation::Off)),
    ] {
        assert_eq!(FastPathConfig::from_yaml(&format!("uplink: {{ {text} }}\n")).unwrap().uplink, uplink);
    }
    assert!(error("uplink: { afPacket: { name: up-1 } }").contains("unknown field `name`"));
    assert!(error("uplink: { afXdp: {} }").contains("missing field `interface`"));
    assert!(
        error("uplink: { nic: { pci: '0000:03:00.1', tunnelSegmentation: on } }")
            .contains("unknown variant `on`")
    );
    assert!(error("uplink: { tap: { name: up-1, tunnelSegmentation: off } }").contains("unknown field"));
    assert!(error("uplink: { nic: { pci: eth0 } }").contains("pci address \"eth0\": must look like"));
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_column() {
    for (text, place) in [
        ("uplink: { tap: { name: a } }\nwokers: [1]\n", "line 2 column 1"),
        ("uplink: { tap: { name: a } }\nmemory:\n  megabyte: 5\n", "line 3 column 3"),
        ("uplink: { tap: { name: a, queues: 2 } }\n", "line 1 column 27"),
        ("uplink: { pci: 0000:03:00.0 }\n", "line 1 column 11"),
    ] {
        let error = error(text);
        assert!(error.contains(place) && error.contains("unknown"), "{text}: {error}");
    }
}

#[test]
fn a_value_of_another_type_is_refused_with_its_line_and_column() {
    for (line, reason) in [
        ("controlCpu: x", "line 2 column 13"),
        ("controlCpu: -1", "line 2 column 13"),
        ("controlCpu: 65536", "line 2 column 13"),
        ("workers: 1", "line 2 column 10"),
        ("memory: { hugepages: maybe }", "unknown variant `maybe`"),
        ("shortCut: on", "unknown variant `on`"),
        ("memory: { mbufs: 4294967296 }", "line 2 column 18"),
        ("flows: 1\nflows: 2", "duplicate"),
    ] {
        let error = error_with(line);
        assert!(error.contains(reason), "{line}: {error}");
    }
    assert!(error("uplink: { tap: { name: a/b } }").contains("interface name \"a/b\": must be 1-15"));
    assert!(error("uplink: { tap: { name: a, mac: 01:00:00:00:00:00 } }").contains("multicast"));
}

#[test]
fn a_value_that_makes_no_sense_is_refused_by_key_value_and_reason() {
    for (line, expected) in [
        ("socket: fp.sock", "socket fp.sock: must be an absolute path of at most 107 bytes"),
        ("workers: []", "workers []: must name 1-16 CPUs"),
        ("workers: [1, 2, 1]", "workers[2] 1: is named twice; each worker needs a CPU of its own"),
        ("idleSleepMicroseconds: 10001", "idleSleepMicroseconds 10001: must be 0-10000"),
        ("busyPollMicroseconds: 1001", "busyPollMicroseconds 1001: must be 0-1000"),
        ("flows: 1023", "flows 1023: must be 1024-67108864"),
        ("flows: 67108865", "flows 67108865: must be 1024-67108864"),
        ("affinityClients: 1023", "affinityClients 1023: must be 1024-16777216"),
        ("hangSeconds: 3601", "hangSeconds 3601: must be 0-3600"),
        ("podBudgetKilobytes: 63", "podBudgetKilobytes 63: must be 64-65536"),
        ("podBudgetKilobytes: 65537", "podBudgetKilobytes 65537: must be 64-65536"),
        ("memory: { megabytes: 63 }", "memory.megabytes 63: must be 64-1048576"),
        ("memory: { mbufs: 1000 }", "memory.mbufs 1000: must be 1024-4194304"),
        ("memory: { mbufs: 131072 }", "memory.mbufs 131072: need 337 MiB, but memory.megabytes is 256"),
    ] {
        assert_eq!(error_with(line), expected);
    }
    let long = format!("socket: /{}", "x".repeat(107));
    assert!(error_with(&long).contains("at most 107 bytes"));
}
