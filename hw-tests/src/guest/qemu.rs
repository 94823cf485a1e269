//! QEMU's command line.

use std::path::Path;

pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// MAC address of the PF of NIC `number`; its interface name changes from boot to boot.
pub fn pf_mac(number: u8) -> String {
    format!("52:54:00:00:0{number}:00")
}

/// NICs; all hang on one wire.
const NICS: u8 = 2;

/// The arguments for a machine that boots from `files` and gives its results in `out`.
pub(super) fn arguments(files: &Path, out: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(ToString::to_string));
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    add(&["-serial", &format!("file:{}", out.join("console").display())]);
    // Emulation on purpose: nested virtualisation differs from machine to machine, and a boot takes 10 s either way.
    add(&["-accel", "tcg", "-cpu", "max", "-machine", "q35,kernel-irqchip=split"]);
    add(&["-m", "1024", "-smp", "2,sockets=2"]);
    add(&["-device", "intel-iommu,intremap=on,caching-mode=on"]);
    // Two NUMA nodes, each with a PCI bus of its own: NIC 0 sits on the first, NIC 1 on the second.
    for node in 0..2 {
        add(&["-object", &format!("memory-backend-ram,id=ram{node},size=512M")]);
        add(&["-numa", &format!("node,nodeid={node},memdev=ram{node}")]);
        add(&["-numa", &format!("cpu,node-id={node},socket-id={node}")]);
        let bus = 64 * (node + 1);
        add(&["-device", &format!("pxb-pcie,bus=pcie.0,id=pci.n{node},bus_nr={bus},numa_node={node}")]);
    }
    let shares =
        [("host", Path::new("/"), true), ("modules", &files.join("lib/modules"), true), ("out", out, false)];
    for (tag, path, readonly) in shares {
        let mode = if readonly { ",readonly=on,multidevs=remap" } else { "" };
        add(&["-fsdev", &format!("local,id={tag},path={},security_model=none{mode}", path.display())]);
        add(&["-device", &format!("virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}")]);
    }
    for nic in 0..NICS {
        let node = nic % 2;
        add(&["-netdev", &format!("hubport,id=net{nic},hubid=1")]);
        add(&[
            "-device",
            &format!("pcie-root-port,id=port{nic},bus=pci.n{node},chassis={0},slot={0}", nic + 1),
        ]);
        add(&["-device", &format!("igb,id=nic{nic},bus=port{nic},netdev=net{nic},mac={}", pf_mac(nic))]);
    }
    add(&["-kernel", &files.join("kernel").display().to_string()]);
    add(&["-initrd", &files.join("initramfs").display().to_string()]);
    // On a busy machine the emulated timer is too slow for the kernel's test of it, which ends in a panic.
    let timer = "no_timer_check";
    let memory = "hugepages=64 transparent_hugepage=never";
    add(&["-append", &format!("console=ttyS0 quiet panic=-1 intel_iommu=on {timer} {memory}")]);
    all
}
