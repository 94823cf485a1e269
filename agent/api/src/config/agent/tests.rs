use super::*;
use crate::config::balancing::Balancing;

fn refused(text: &str) -> String {
    AgentConfig::from_yaml(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_gives_the_defaults_with_every_part_off() {
    for text in ["", "{}", "# nothing\n"] {
        let config = AgentConfig::from_yaml(text).unwrap();
        assert_eq!(config.socket, Path::new("/run/culvert/agent.sock"));
        assert_eq!(config.state_dir, Path::new("/var/lib/culvert"));
        assert_eq!(config.overlay.vni.get(), 4096);
        assert_eq!(config.overlay.pod_mtu(true), 1450);
        assert_eq!(config.overlay.balancing, Balancing::Maglev);
        assert_eq!((config.manifests, config.fastpath, config.device_plugin), (None, None, None));
    }
}

#[test]
fn a_full_file_is_read() {
    let config = AgentConfig::from_yaml(
        "node: node-a
socket: /run/x/agent.sock
stateDir: /var/lib/x
metrics: 127.0.0.1:9470
manifests: /etc/x
fastpath: { socket: /run/x/fastpath.sock }
overlay: { vni: 7, port: 8472, underlayMtu: 9000, underlayPrefix: 16, underlayRouter: 10.0.0.1, balancing: least-flow }
devicePlugin: { kubeletDir: /var/lib/k, resourcePrefix: example.com }
",
    )
    .unwrap();
    assert_eq!(config.node.as_deref(), Some("node-a"));
    assert_eq!(config.metrics, Some("127.0.0.1:9470".parse().unwrap()));
    assert_eq!(config.fastpath.as_deref(), Some(Path::new("/run/x/fastpath.sock")));
    assert_eq!((config.overlay.port, config.overlay.pod_mtu(true)), (8472, 8950));
    assert_eq!(config.overlay.underlay_router, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(config.overlay.balancing, Balancing::LeastFlow);
    assert_eq!(config.device_plugin.unwrap().resource_prefix.as_str(), "example.com");
}

#[test]
fn sections_without_keys_switch_a_part_on_with_its_defaults() {
    let config = AgentConfig::from_yaml("fastpath: {}\ndevicePlugin: {}\n").unwrap();
    assert_eq!(config.fastpath.as_deref(), Some(Path::new("/run/culvert/fastpath.sock")));
    assert_eq!(config.device_plugin.unwrap().kubelet_dir, Path::new("/var/lib/kubelet/device-plugins"));
}

#[test]
fn the_api_server_is_named_by_address_or_by_a_kubeconfig() {
    let text = "apiServer: { host: \"[fd00::1]:6443\", kubeconfig: /etc/other.conf }";
    let api_server = AgentConfig::from_yaml(text).unwrap().api_server;
    assert_eq!(api_server.host.as_deref(), Some("[fd00::1]:6443"));
    assert_eq!(api_server.kubeconfig.as_deref(), Some(Path::new("/etc/other.conf")));
    assert_eq!(AgentConfig::from_yaml("node: a").unwrap().api_server, ApiServer::default());
}

#[test]
fn an_unknown_key_is_refused_with_line_and_column() {
    let error = refused("node: a\noverlay:\n  vnii: 4\n");
    assert!(error.contains("vnii") && error.contains("line 3 column 3"), "{error}");
}

#[test]
fn a_value_that_makes_no_sense_is_refused_by_key_value_and_reason() {
    for (text, parts) in [
        ("node: Node_A", ["node", "\"Node_A\"", "lower-case"]),
        ("socket: agent.sock", ["socket", "agent.sock", "absolute path"]),
        ("stateDir: x", ["stateDir", "x", "absolute path"]),
        ("manifests: ./m", ["manifests", "./m", "absolute path"]),
        ("overlay: { underlayPrefix: 33 }", ["overlay.underlayPrefix", "33", "1-32"]),
        ("overlay: { underlayRouter: 224.0.0.1 }", ["overlay.underlayRouter", "224.0.0.1", "unicast"]),
        ("fastpath: { socket: /run/culvert/agent.sock }", ["fastpath.socket", "agent.sock", "own socket"]),
        ("devicePlugin: { kubeletDir: k }", ["devicePlugin.kubeletDir", "k", "absolute path"]),
        ("apiServer: { host: api.example.com }", ["apiServer.host", "\"api.example.com\"", "a port"]),
        ("apiServer: { host: \":6443\" }", ["apiServer.host", "\":6443\"", "an address or a name"]),
        ("apiServer: { kubeconfig: k }", ["apiServer.kubeconfig", "k", "absolute path"]),
        ("overlay: { vni: 16777216 }", ["vni 16777216", "must be 0-16777215", "line 1"]),
    ] {
        let error = refused(text);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}
