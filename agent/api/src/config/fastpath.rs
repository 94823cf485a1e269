//! Configuration of culvert-fastpath.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::value::{IfName, Mac, PciAddress};

#[cfg(test)]
mod tests;

/// What `culvert-fastpath --config FILE` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FastPathConfig {
    /// Unix socket of the control service.
    pub socket: PathBuf,
    /// CPU of the control thread.
    pub control_cpu: u16,
    /// CPU of each worker; at least one, no CPU twice. One of them may be that of the control thread, where a machine has
    /// no other: the two then take turns.
    pub workers: Vec<u16>,
    /// How long a worker that has found nothing for many polls rests before it polls again; zero: it never rests.
    pub idle_sleep: Duration,
    /// How long a worker that a packet would wake goes on to wait awake, if packets have come that soon of late.
    pub busy_poll: Duration,
    /// Memory for packets.
    pub memory: Memory,
    /// Most tracked connections.
    pub flows: u32,
    /// Clients of Services with ClientIP affinity whose endpoint is remembered, at the least.
    pub affinity_clients: u32,
    /// The port towards the other nodes.
    pub uplink: Uplink,
    /// What makes pods' ports.
    pub pod_ports: PodPorts,
    /// How many workers receive from one pod.
    pub pod_queues: PodQueues,
    /// Whether a second process waits, initialised, to go on when the first ends; it has packet memory of its own.
    pub standby: bool,
    /// How long a worker may stand still before the process is ended and started anew; zero: for ever.
    pub hang: Duration,
    /// Bytes that each pod's port may hand over in a round of its worker, before the next one's turn comes.
    pub pod_budget: u32,
    /// Whether decided connections go by programs in the kernel.
    pub short_cut: ShortCut,
}

/// Whether connections of ordinary pods that the fast path has decided are forwarded by programs in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ShortCut {
    /// Where the kernel can, for pods with a tap of our own.
    #[default]
    Auto,
    /// All packets go by the fast path.
    Off,
}

/// What makes pods' ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodPorts {
    /// Taps that leave checksums and segmentation to the fast path.
    #[default]
    Tap,
    /// Taps through DPDK's net_tap, without any of that; at most 31 of them.
    NetTap,
    /// Taps whose packets the kernel's vhost-net moves, without any of that; at most 31 of them.
    VhostNet,
}

/// How many workers receive from one pod. The uplink is shared by all of them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodQueues {
    /// One, which receives from other pods too: for nodes with many pods.
    #[default]
    One,
    /// All, a queue each: for nodes with few pods that send much.
    PerWorker,
}

/// Memory for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Whether it lies in hugepages.
    pub hugepages: Hugepages,
    /// All that DPDK may take, in MiB.
    pub megabytes: u32,
    /// Packet buffers in the pool.
    pub mbufs: u32,
}

/// Whether packet memory lies in hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hugepages {
    /// Without them the program does not start.
    Required,
    /// Ordinary pages, and a warning, when there are none.
    #[default]
    Preferred,
    /// Ordinary pages; no NIC that reads memory by itself can be used.
    Off,
}

/// The port towards the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// A tap device: whoever holds its kernel end is the wire. For machines without a NIC to give away.
    Tap {
        /// Kernel interface name.
        name: IfName,
        /// The fast path's own address on that wire; chosen at random when absent.
        mac: Option<Mac>,
    },
    /// The same through DPDK's net_tap.
    NetTap {
        /// Kernel interface name.
        name: IfName,
        /// The fast path's own address on that wire; chosen at random when absent.
        mac: Option<Mac>,
    },
    /// An Ethernet interface that the kernel keeps, by packet sockets: any NIC, a veth, a bond.
    AfPacket {
        /// Its name.
        interface: IfName,
        /// The fast path's own address on that wire; the interface's when absent.
        mac: Option<Mac>,
    },
    /// An Ethernet interface that the kernel keeps, by AF_XDP: all that it receives goes to the fast path.
    AfXdp {
        /// Its name.
        interface: IfName,
        /// The fast path's own address on that wire; the interface's when absent.
        mac: Option<Mac>,
    },
    /// A NIC that the kernel has given away (vfio-pci), by DPDK's own driver for it.
    Nic {
        /// Where it is.
        pci: PciAddress,
        /// The fast path's own address on that wire; the NIC's when absent.
        mac: Option<Mac>,
        /// Whether the NIC is asked to cut super-packets in tunnels.
        tunnel_segmentation: TunnelSegmentation,
    },
}

/// Who cuts super-packets in tunnels into packets for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TunnelSegmentation {
    /// The device, where its driver says that it can (tunnel TSO); else the fast path.
    #[default]
    Auto,
    /// The fast path.
    Off,
}

impl FastPathConfig {
    /// Most workers of one process.
    pub const MAX_WORKERS: usize = 16;
    /// Bounds of `flows`.
    pub const FLOWS: std::ops::RangeInclusive<u32> = 1024..=1 << 26;
    /// Bounds of `affinityClients`.
    pub const AFFINITY_CLIENTS: std::ops::RangeInclusive<u32> = 1024..=1 << 24;
    /// `affinityClients` where it is absent.
    pub const DEFAULT_AFFINITY_CLIENTS: u32 = 1 << 16;
    /// Bounds of `memory.mbufs`: a few bursts for each port at least.
    pub const MBUFS: std::ops::RangeInclusive<u32> = 1024..=1 << 22;
    /// Bounds of `memory.megabytes`.
    pub const MEGABYTES: std::ops::RangeInclusive<u32> = 64..=1 << 20;
    /// Bounds of `podBudgetKilobytes`: at least one packet of the greatest length.
    pub const POD_BUDGET_KILOBYTES: std::ops::RangeInclusive<u32> = 64..=1 << 16;
    /// `podBudgetKilobytes` where it is absent.
    pub const DEFAULT_POD_BUDGET_KILOBYTES: u32 = 256;
    /// Longest `hangSeconds`.
    pub const MAX_HANG_SECONDS: u32 = 3600;
    /// Longest `busyPollMicroseconds`: idle workers would be busy.
    pub const MAX_BUSY_POLL: Duration = Duration::from_millis(1);
    /// Longest `idleSleepMicroseconds`: a packet waits this long at most.
    pub const MAX_IDLE_SLEEP: Duration = Duration::from_millis(10);

    /// Reads a configuration file's text.
    ///
    /// # Errors
    /// [`ConfigError::Yaml`] with line and column when the text is no YAML, holds a key that does not exist or a value
    /// of another type; [`ConfigError::Value`] naming the key when a value makes no sense.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        super::parse::<Raw>(text)?.validate()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    #[serde(default = "default_socket")]
    socket: PathBuf,
    #[serde(default)]
    control_cpu: u16,
    #[serde(default = "default_workers")]
    workers: Vec<u16>,
    #[serde(default = "default_idle_sleep")]
    idle_sleep_microseconds: u32,
    #[serde(default = "default_busy_poll")]
    busy_poll_microseconds: u32,
    #[serde(default)]
    memory: RawMemory,
    #[serde(default = "default_flows")]
    flows: u32,
    #[serde(default = "default_affinity_clients")]
    affinity_clients: u32,
    uplink: RawUplink,
    #[serde(default)]
    pod_ports: PodPorts,
    #[serde(default)]
    pod_queues: PodQueues,
    #[serde(default)]
    standby: bool,
    #[serde(default = "default_hang_seconds")]
    hang_seconds: u32,
    #[serde(default = "default_pod_budget")]
    pod_budget_kilobytes: u32,
    #[serde(default)]
    short_cut: ShortCut,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawMemory {
    hugepages: Hugepages,
    megabytes: u32,
    mbufs: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum RawUplink {
    Tap {
        name: IfName,
        mac: Option<Mac>,
    },
    NetTap {
        name: IfName,
        mac: Option<Mac>,
    },
    AfPacket {
        interface: IfName,
        mac: Option<Mac>,
    },
    AfXdp {
        interface: IfName,
        mac: Option<Mac>,
    },
    #[serde(rename_all = "camelCase")]
    Nic {
        pci: PciAddress,
        mac: Option<Mac>,
        #[serde(default)]
        tunnel_segmentation: TunnelSegmentation,
    },
}

impl Default for RawMemory {
    fn default() -> Self {
        Self { hugepages: Hugepages::default(), megabytes: 256, mbufs: 16384 }
    }
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/culvert/fastpath.sock")
}

fn default_workers() -> Vec<u16> {
    vec![1]
}

fn default_idle_sleep() -> u32 {
    50
}

fn default_busy_poll() -> u32 {
    200
}

fn default_flows() -> u32 {
    1 << 16
}

fn default_affinity_clients() -> u32 {
    FastPathConfig::DEFAULT_AFFINITY_CLIENTS
}

fn default_hang_seconds() -> u32 {
    5
}

fn default_pod_budget() -> u32 {
    FastPathConfig::DEFAULT_POD_BUDGET_KILOBYTES
}

/// Bytes that one packet buffer takes in the pool: 2 KiB of data with headroom, its header, and the pool's own.
const MBUF_BYTES: u64 = 2560;

/// What the buffers for packets longer than that take, in MiB.
const SUPER_PACKETS: u64 = 17;

impl Raw {
    fn validate(self) -> Result<FastPathConfig, ConfigError> {
        let Self {
            socket,
            control_cpu,
            workers,
            idle_sleep_microseconds,
            busy_poll_microseconds,
            memory,
            flows,
            affinity_clients,
            uplink,
            pod_ports,
            pod_queues,
            standby,
            hang_seconds,
            pod_budget_kilobytes,
            short_cut,
        } = self;
        super::check_socket("socket", &socket)?;
        check_workers(&workers)?;
        let idle_sleep =
            up_to("idleSleepMicroseconds", idle_sleep_microseconds, FastPathConfig::MAX_IDLE_SLEEP)?;
        let busy_poll = up_to("busyPollMicroseconds", busy_poll_microseconds, FastPathConfig::MAX_BUSY_POLL)?;
        in_range("flows", flows, &FastPathConfig::FLOWS)?;
        in_range("affinityClients", affinity_clients, &FastPathConfig::AFFINITY_CLIENTS)?;
        in_range("hangSeconds", hang_seconds, &(0..=FastPathConfig::MAX_HANG_SECONDS))?;
        in_range("podBudgetKilobytes", pod_budget_kilobytes, &FastPathConfig::POD_BUDGET_KILOBYTES)?;
        Ok(FastPathConfig {
            socket,
            control_cpu,
            workers,
            idle_sleep,
            busy_poll,
            memory: memory.validate()?,
            flows,
            affinity_clients,
            uplink: match uplink {
                RawUplink::Tap { name, mac } => Uplink::Tap { name, mac },
                RawUplink::NetTap { name, mac } => Uplink::NetTap { name, mac },
                RawUplink::AfPacket { interface, mac } => Uplink::AfPacket { interface, mac },
                RawUplink::AfXdp { interface, mac } => Uplink::AfXdp { interface, mac },
                RawUplink::Nic { pci, mac, tunnel_segmentation } => {
                    Uplink::Nic { pci, mac, tunnel_segmentation }
                }
            },
            pod_ports,
            pod_queues,
            standby,
            hang: Duration::from_secs(hang_seconds.into()),
            pod_budget: pod_budget_kilobytes << 10,
            short_cut,
        })
    }
}

/// So many microseconds, if they are not too many.
fn up_to(key: &'static str, microseconds: u32, most: Duration) -> Result<Duration, ConfigError> {
    let duration = Duration::from_micros(microseconds.into());
    if duration > most {
        return Err(ConfigError::value(key, microseconds, format!("must be 0-{}", most.as_micros())));
    }
    Ok(duration)
}

impl RawMemory {
    fn validate(self) -> Result<Memory, ConfigError> {
        let Self { hugepages, megabytes, mbufs } = self;
        in_range("memory.megabytes", megabytes, &FastPathConfig::MEGABYTES)?;
        in_range("memory.mbufs", mbufs, &FastPathConfig::MBUFS)?;
        let need = (u64::from(mbufs) * MBUF_BYTES).div_ceil(1 << 20) + SUPER_PACKETS;
        if need > megabytes.into() {
            let reason = format!("need {need} MiB, but memory.megabytes is {megabytes}");
            return Err(ConfigError::value("memory.mbufs", mbufs, reason));
        }
        Ok(Memory { hugepages, megabytes, mbufs })
    }
}

fn check_workers(workers: &[u16]) -> Result<(), ConfigError> {
    if workers.is_empty() || workers.len() > FastPathConfig::MAX_WORKERS {
        let reason = format!("must name 1-{} CPUs", FastPathConfig::MAX_WORKERS);
        return Err(ConfigError::value("workers", format_args!("{workers:?}"), reason));
    }
    for (index, cpu) in workers.iter().enumerate() {
        if workers[..index].contains(cpu) {
            let key = format!("workers[{index}]");
            return Err(ConfigError::value(key, cpu, "is named twice; each worker needs a CPU of its own"));
        }
    }
    Ok(())
}

fn in_range(key: &str, value: u32, range: &std::ops::RangeInclusive<u32>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(key, value, format!("must be {}-{}", range.start(), range.end())))
}
