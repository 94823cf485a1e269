use std::fs;

use super::*;

const MOUNTED: &str = "proc /proc proc rw 0 0\nnone /dev/hugepages hugetlbfs rw,relatime 0 0\n";

/// A made-up machine with CPUs 0 and 1, all capabilities, /dev/net/tun, and `pages` free pages of 2 MiB.
fn machine(pages: u32, mounts: &str) -> (tempfile::TempDir, Machine) {
    let dir = tempfile::tempdir().unwrap();
    let pool = "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    for (path, text) in [
        ("sys/devices/system/cpu/online", "0-1\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
        ("proc/self/mounts", mounts),
        ("dev/net/tun", ""),
        (pool, &format!("{pages}\n")),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let machine = Machine::below(dir.path());
    (dir, machine)
}

fn config(lines: &str) -> FastPathConfig {
    FastPathConfig::from_yaml(&format!("uplink: {{ tap: {{ name: cv-none }} }}\n{lines}")).unwrap()
}

fn refusal(machine: &Machine, lines: &str) -> String {
    machine.check(&config(lines)).unwrap_err().to_string()
}

#[test]
fn a_cpu_that_does_not_exist_is_named() {
    let (_dir, machine) = machine(0, "");
    assert_eq!(refusal(&machine, "workers: [1, 64]"), "workers[1] 64: no such CPU; this machine has 0-1");
    assert_eq!(refusal(&machine, "controlCpu: 9"), "controlCpu 9: no such CPU; this machine has 0-1");
}

#[test]
fn a_cpu_outside_the_affinity_of_this_process_is_named() {
    let (dir, machine) = machine(0, "");
    fs::write(dir.path().join("sys/devices/system/cpu/online"), "0-1023").unwrap();
    assert!(
        refusal(&machine, "workers: [1023]").starts_with("workers[0] 1023: this process may not run there")
    );
}

#[test]
fn hugepages_that_are_there_are_used() {
    let (_dir, machine) = machine(128, MOUNTED);
    assert!(matches!(machine.check(&config("")).unwrap(), Pages::Huge));
    assert!(matches!(machine.check(&config("memory: { hugepages: required }")).unwrap(), Pages::Huge));
    assert!(matches!(machine.check(&config("memory: { hugepages: off }")).unwrap(), Pages::Ordinary));
}

#[test]
fn required_hugepages_that_are_missing_are_refused_with_the_command_that_helps() {
    let required = "memory: { hugepages: required, megabytes: 256 }";
    let (_dir, few) = machine(127, MOUNTED);
    let error = refusal(&few, required);
    assert!(error.starts_with("memory.megabytes 256: only 254 MiB of hugepages are free"), "{error}");
    assert!(error.contains("sysctl vm.nr_hugepages"), "{error}");
    let (_dir, unmounted) = machine(128, "proc /proc proc rw 0 0\n");
    let error = refusal(&unmounted, required);
    assert!(error.contains("mount -t hugetlbfs none /dev/hugepages"), "{error}");
}

#[test]
fn preferred_hugepages_that_are_missing_are_a_reason_to_warn() {
    let (_dir, machine) = machine(0, MOUNTED);
    let Pages::Fallback(reason) = machine.check(&config("")).unwrap() else { panic!("no fallback") };
    assert_eq!(reason, HugepageError::TooFew { need: 256, free: 0 });
}

#[test]
fn a_missing_capability_or_device_node_is_refused() {
    let (dir, machine) = machine(0, "");
    fs::remove_file(dir.path().join("dev/net/tun")).unwrap();
    assert!(refusal(&machine, "").contains("dev/net/tun: cannot be opened"));
    fs::write(dir.path().join("proc/self/status"), "CapEff:\t00000000a80425fb\n").unwrap();
    assert!(refusal(&machine, "").contains("CAP_NET_ADMIN"));
}

#[test]
fn an_uplink_name_that_is_taken_is_refused() {
    let (_dir, machine) = machine(0, "");
    let config = FastPathConfig::from_yaml("uplink: { tap: { name: lo } }").unwrap();
    let error = machine.check(&config).unwrap_err().to_string();
    assert_eq!(
        error,
        "uplink lo: an interface of that name exists already; remove it, or choose another name"
    );
}

#[test]
fn cpu_lists_of_the_kernel_are_understood() {
    for (list, cpu, expected) in [("0-3,8", 3, true), ("0-3,8", 8, true), ("0-3,8", 4, false), ("", 0, false)]
    {
        assert_eq!(in_list(list, cpu), expected, "{list} {cpu}");
    }
}
