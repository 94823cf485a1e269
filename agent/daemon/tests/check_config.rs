//! `culvert-agent --check-config`, as an operator runs it on the configuration files of a node.

// Clippy only lets the test functions themselves unwrap.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use culvert_host::fake::{FakeHost, ICE, MLX5};
use tempfile::TempDir;

/// Exit code, standard output and standard error; the folder's own path is left out of both.
fn check(dir: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_culvert-agent"))
        .arg("--check-config")
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&format!("{}/", dir.path().display()), "");
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Checks a list of resources.
fn list(text: &str) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), text).unwrap();
    check(&dir, &["--resource-list", "config.json"])
}

#[test]
fn a_list_with_nothing_to_say_about_it_is_good() {
    let text = r#"{"resourceList": [
        {"resourceName": "netdevs", "selectors": {"vendors": ["8086"], "devices": ["154c", "1889"], "drivers": ["iavf"]}},
        {"resourceName": "dpdk", "resourcePrefix": "dpdk.org", "excludeTopology": true,
         "selectors": [{"drivers": ["vfio-pci"], "pfNames": ["ens3f0#0-3,5"], "needVhostNet": true},
                       {"vendors": ["15b3"], "isRdma": true}]},
        {"resourceName": "comms", "selectors": [{"ddpProfiles": ["ICE COMMS Package"]}],
         "additionalInfo": {"*": {"token": "t-1"}}}]}"#;
    assert_eq!(list(text), (0, "config.json: good, 3 resources\n".to_owned(), String::new()));
}

#[test]
fn findings_are_printed_with_line_and_column_and_the_exit_code_says_that_there_are_some() {
    let text = "{\"resourceList\": [\n{\"resourceName\": \"a\", \"selectors\": {\"pfName\": [\"ens3f0\"]}},\n\
                {\"resourceName\": \"b\", \"selectors\": {\"IsRdma\": false, \"vendors\": [\"15b3\"]}, \"SelectorObj\": null},\n\
                {\"resourceName\": \"c\"}]}";
    let (code, out, err) = list(text);
    assert_eq!((code, err.as_str()), (3, ""));
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "config.json: line 2 column 37: error: resource intel.com/a: selectors: unknown key \"pfName\": the selector takes nothing, as without that key it would take more than was meant; did you mean pfNames?",
            "config.json: line 3 column 76: warning: a resource: unknown key \"SelectorObj\", which is null; ignored",
            "config.json: line 4 column 1: error: resource intel.com/c: no selectors; left out, for it would take every device",
            "config.json: 1 resource, 2 errors, 1 warning",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_line_and_column() {
    for (text, message) in [
        (
            "{\"resourceList\": [\n  {\"resourceName\": \"a\",\n   \"selectors\": [{}],\n  }]}",
            "line 4 column 3: '}' after a comma: remove the comma",
        ),
        ("{\"resourceList\": [{\n  {", "line 2 column 3: '{' where a key in double quotes is expected"),
        ("{}", "line 1 column 1: the file has no resourceList"),
    ] {
        let expected = format!("culvert-agent: config.json: {message}\n");
        assert_eq!(list(text), (2, String::new(), expected), "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = check(&dir, &["--resource-list", "none.json"]);
    assert_eq!(
        (code, err.as_str()),
        (2, "culvert-agent: cannot read none.json: No such file or directory (os error 2)\n")
    );
}

#[test]
fn the_agents_own_file_is_checked_together_with_the_list_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let agent = |list: &Path, prefix: &str| {
        fs::write(
            at("agent.yaml"),
            format!("devicePlugin: {{ resourceList: {}{prefix} }}\n", list.display()),
        )
        .unwrap();
        check(&dir, &["--config", "agent.yaml"])
    };
    fs::write(at("good.json"), r#"{"resourceList":[{"resourceName":"a","selectors":{"vendors":["8086"]}}]}"#)
        .unwrap();
    let (code, out, _) = agent(&at("good.json"), "");
    assert_eq!((code, out.as_str()), (0, "agent.yaml: good\ngood.json: good, 1 resource\n"));
    fs::write(at("bad.json"), r#"{"resourceList":[{"resourceName":"a"}]}"#).unwrap();
    let (code, out, _) = agent(&at("bad.json"), ", resourceListPrefix: openshift.io");
    assert!(code == 3 && out.contains("resource openshift.io/a: no selectors"), "{code} {out}");
    fs::write(at("broken.json"), "{").unwrap();
    let (code, _, err) = agent(&at("broken.json"), "");
    assert!(code == 2 && err.contains("broken.json: line 1 column 2"), "{code} {err}");
    fs::write(at("agent.yaml"), "devicePlugin: { resourceLists: /etc/pcidp/config.json }\n").unwrap();
    let (code, _, err) = check(&dir, &["--config", "agent.yaml"]);
    assert!(code == 2 && err.contains("resourceLists") && err.contains("line 1"), "{code} {err}");
}

#[test]
fn the_devices_that_each_resource_would_have_are_shown_without_root_and_without_an_agent() {
    let mut host = FakeHost::new();
    for (make, pf, name, vfs) in [(ICE, "0000:03:00.0", "ens3f0", 3), (MLX5, "0000:81:00.0", "ens8", 2)] {
        host.add_pf(make, pf.parse().unwrap(), name, 0);
        host.add_vfs(make, pf.parse().unwrap(), vfs, true);
    }
    let dir = tempfile::tempdir().unwrap();
    let text = r#"{"resourceList":[{"resourceName":"first","selectors":{"pfNames":["ens3f0#0-1"]}},
        {"resourceName":"rest","selectors":{"vendors":["8086"]}},
        {"resourceName":"none","selectors":{"vendors":["14e4"]}}]}"#;
    fs::write(dir.path().join("config.json"), text).unwrap();
    let root = host.root().path("").display().to_string();
    let (code, out, _) = check(&dir, &["--resource-list", "config.json", "--devices", "--root", &root]);
    assert_eq!(code, 0, "an empty pool is normal where nodes differ");
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "config.json: good, 3 resources",
            "config.json: line 2 column 9: warning: resource intel.com/rest: 2 of its devices, 0000:03:01.0 first, went to intel.com/first, which stands before it",
            "config.json: line 3 column 9: warning: resource intel.com/none: no device of this node is left for it; it is not offered",
            "intel.com/first: 2 devices: 0000:03:01.0 0000:03:01.1",
            "intel.com/rest: 1 device: 0000:03:01.2",
            "intel.com/none: no devices",
        ]
    );
}
