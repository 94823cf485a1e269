//! How everything is put together, and taken apart.

mod serve;

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use culvert_api::config::fastpath::{
    FastPathConfig, Hugepages, PodPorts, PodQueues, ShortCut, TunnelSegmentation, Uplink,
};
use culvert_api::fastpath as proto;
use culvert_api::value::{Mac, Mtu};
use culvert_dpdk::{Eal, EalConfig, EalError, Mempool, MempoolConfig, MempoolError, Pci, log};
use culvert_packet::eth::EthAddr;

use self::serve::told_to_stop;
use crate::clock::Clock;
use crate::control::{AttachError, ControlSocket, FastPath, SocketError};
use crate::counter::counters;
use crate::flow::{FlowMemoryError, TakenOver, Takeover};
use crate::keep::{Beat, Inheritance, Keep, KeepError, Pulse, Wish};
use crate::pipeline::Pipeline;
use crate::port::nic::{self, NicError};
use crate::port::tap::{Budget, TapMemory};
use crate::port::vhost_net::{self, VhostNetError};
use crate::port::{BackendError, Devices, Drivers, Interface, InterfaceError, PortDriver};
use crate::preflight::{PreflightError, check_cpus};
use crate::quiescent;
use crate::resume::Beginning;
use crate::shortcut::{Loaded, Remains, Shortcut};
use crate::table::Port;
use crate::worker::{Recruit, Resting, WorkerError};

/// Mbufs that each worker keeps at hand.
const MBUF_CACHE: u32 = 256;

/// Longest frame of a super-packet: a Linux host makes TCP packets of 65,281 bytes at most, headers included.
const SUPER_PACKET: u16 = u16::MAX - 128;

/// How many super-packets there may be at once: 16 MB.
const SUPER_PACKETS: u32 = 255;

pub use self::serve::serve;

/// Which forwarder this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The one that forwards.
    First,
    /// The one that gets ready, and then waits until it is to forward.
    Standby,
}

/// Why the fast path does not run, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A CPU is missing.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The keeper.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// vhost-net is missing.
    #[error(transparent)]
    VhostNet(#[from] VhostNetError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// DPDK.
    #[error("DPDK does not start")]
    Eal(#[from] EalError),
    /// Packet memory.
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    /// Memory for flows.
    #[error(transparent)]
    Flows(#[from] FlowMemoryError),
    /// The uplink.
    #[error("the uplink does not start")]
    Uplink(#[from] AttachError),
    /// The uplink's interface.
    #[error("the uplink does not start")]
    Interface(#[from] InterfaceError),
    /// The uplink's NIC.
    #[error("the uplink does not start")]
    Nic(#[from] NicError),
    /// The uplink's device.
    #[error("the uplink does not start")]
    Device(#[from] BackendError),
    /// A worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The control service.
    #[error("the control service does not run")]
    Service(#[from] tonic::transport::Error),
    /// The operating system refused something that it always grants.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Runs the fast path until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// When something it needs is missing, or a worker dies. Whatever was started has been stopped again.
pub fn run(config: &FastPathConfig, keep: &Keep, part: Part) -> Result<(), AppError> {
    check_cpus(Path::new("/"), config)?;
    if config.pod_ports == PodPorts::VhostNet {
        vhost_net::check()?;
    }
    if let Uplink::Nic { pci, .. } = config.uplink {
        nic::check(Path::new("/"), pci)?;
    }
    if config.workers.contains(&config.control_cpu) {
        tracing::warn!(
            cpu = config.control_cpu,
            "a worker shares its CPU with the control thread: both are slower"
        );
    }
    let begin = || -> Result<_, AppError> {
        let inheritance = keep.wait()?;
        // First of all: a second instance must not even touch the uplink.
        Ok((inheritance, ControlSocket::bind(&config.socket)?))
    };
    let begun = if part == Part::First { Some(begin()?) } else { None };
    // Beside what takes longest.
    let shortcut = thread::spawn({
        let (pods, wanted) = (config.pod_ports, config.short_cut);
        move || load_shortcut(pods, wanted)
    });
    log::send_to(dpdk_log);
    let eal = Eal::init(&eal_config(config))?;
    if let Some(reason) = eal.fallback() {
        tracing::warn!(%reason, "packet memory is in ordinary pages, not in hugepages");
    }
    let memory = TapMemory {
        packets: Mempool::create(&eal, &mempool_config(config))?,
        super_packets: Mempool::create(&eal, &super_packets_config())?,
    };
    let shortcut = shortcut.join().unwrap_or_else(|_| Loaded::none("a thread panicked"));
    let (mut inheritance, socket) = match begun {
        Some(begun) => begun,
        None => {
            keep.warm();
            begin()?
        }
    };
    let mut fast_path = start(config, &eal, memory, shortcut, keep, &mut inheritance)?;
    keep.ready();
    let yields = Cell::new(false);
    let until = async {
        tokio::select! {
            told = told_to_stop() => told,
            wish = keep.wish() => {
                yields.set(wish.map_err(system("wait for the keeper"))? == Wish::Yield);
                Ok(())
            }
        }
    };
    let outcome = serve(&mut fast_path, &socket, until);
    tracing::info!("stopping");
    if yields.get() {
        fast_path.stop_forwarding();
        drop(socket);
        keep.yielded();
        fast_path.shut_down(false);
        drop(eal);
    } else {
        // After an error the keeper starts another one.
        fast_path.shut_down(outcome.is_ok() && keep.is_last());
        drop((eal, socket));
    }
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> AppError {
    move |source| AppError::System { action, source }
}

fn eal_config(config: &FastPathConfig) -> EalConfig {
    EalConfig {
        control_cpu: config.control_cpu.into(),
        hugepages: match config.memory.hugepages {
            Hugepages::Required => culvert_dpdk::Hugepages::Required,
            Hugepages::Preferred => culvert_dpdk::Hugepages::Preferred,
            Hugepages::Off => culvert_dpdk::Hugepages::Off,
        },
        megabytes: config.memory.megabytes,
        pci: match config.uplink {
            Uplink::Nic { .. } => Pci::Later,
            _ => Pci::None,
        },
        ..EalConfig::default()
    }
}

fn mempool_config(config: &FastPathConfig) -> MempoolConfig {
    MempoolConfig {
        name: "packets".into(),
        mbufs: config.memory.mbufs,
        cache: MBUF_CACHE,
        ..MempoolConfig::default()
    }
}

/// Buffers for packets of up to 64 KB: what is received in one round. While all are in use, the rest waits in the kernel.
fn super_packets_config() -> MempoolConfig {
    MempoolConfig {
        name: "super-packets".into(),
        mbufs: SUPER_PACKETS,
        cache: 16,
        frame: SUPER_PACKET,
        socket: None,
    }
}

fn load_shortcut(pods: PodPorts, wanted: ShortCut) -> Loaded {
    match pods {
        PodPorts::Tap => Shortcut::load(wanted),
        PodPorts::NetTap | PodPorts::VhostNet => Loaded::none("podPorts is not tap"),
    }
}

/// Starts the fast path where the one before it ended, if there was one.
fn start(
    config: &FastPathConfig,
    eal: &Eal,
    memory: TapMemory,
    shortcut: Loaded,
    keep: &Keep,
    inheritance: &mut Inheritance,
) -> Result<FastPath, AppError> {
    let beginning = Beginning::new(config, eal, keep, inheritance)?;
    let uplink_mac = match &config.uplink {
        Uplink::Tap { name, .. } | Uplink::NetTap { name, .. } => beginning.uplink_mac(name.as_str()),
        Uplink::AfPacket { .. } | Uplink::AfXdp { .. } | Uplink::Nic { .. } => None,
    };
    let Beginning {
        clock,
        flows,
        workers,
        snapshot,
        tables: recalled,
        memory: remembering,
        ports,
        neighbours,
        takeover,
        refused,
    } = beginning;
    let (counters, mut writers) = counters(workers.len());
    let taken = takeover.as_deref().map_or_else(TakenOver::default, Takeover::taken);
    if let Some(writer) = writers.first_mut() {
        // By the workers themselves from now on.
        writer.flows_taken_over(taken.flows);
    }
    let (tables, readers) = quiescent::channel(snapshot, workers.len());
    let pulse = keep.is_kept().then(|| Pulse::new(workers.len())).flatten();
    let shortcut = shortcut.start(clock.hz(), keep, Remains::of(inheritance));
    let recruits = config.workers.iter().zip(readers).zip(writers).zip(workers).enumerate();
    let recruits = recruits.map(|(number, (((&cpu, tables), counters), flows))| Recruit {
        cpu: cpu.into(),
        tables,
        pipeline: with_shortcut(Pipeline::new(flows, counters), &shortcut, number == 0, clock),
        beat: pulse.as_ref().map_or_else(Beat::default, |pulse| pulse.worker(number)),
    });
    let drivers = Drivers {
        uplink: match config.uplink {
            Uplink::Tap { .. } => PortDriver::Tap,
            Uplink::NetTap { .. } => PortDriver::NetTap,
            Uplink::AfPacket { .. } => PortDriver::AfPacket,
            Uplink::AfXdp { .. } => PortDriver::AfXdp,
            Uplink::Nic { .. } => PortDriver::Nic,
        },
        tunnel_segmentation: match config.uplink {
            Uplink::Nic { tunnel_segmentation, .. } => tunnel_segmentation,
            _ => TunnelSegmentation::default(),
        },
        pods: match config.pod_ports {
            PodPorts::Tap => PortDriver::Tap,
            PodPorts::NetTap => PortDriver::NetTap,
            PodPorts::VhostNet => PortDriver::VhostNet,
        },
        spread_pods: config.pod_queues == PodQueues::PerWorker,
        pod_budget: Budget::of(config.pod_budget),
    };
    let recruits = recruits.collect();
    let resting = Resting { idle_sleep: config.idle_sleep, busy_poll: config.busy_poll };
    let mut backend = Devices::start(eal, memory, drivers, recruits, clock, resting)?;
    // What waits in the queues of one port is for others, which have to be there first.
    backend.team().into_iter().for_each(|team| team.hold(true));
    backend.kept_by(keep, inheritance);
    let nic_mac = match config.uplink {
        Uplink::Nic { pci, .. } => match backend.take_nic(pci) {
            Ok(mac) => Some(mac),
            Err(error) => {
                backend.stop_workers()?;
                return Err(error.into());
            }
        },
        _ => None,
    };
    let mut fast_path = FastPath::new(instance()?, backend, tables, counters, flows, clock);
    fast_path.take_shortcut(shortcut);
    fast_path.remember(remembering, recalled, &neighbours);
    let attached = attach_uplink(config, &mut fast_path, uplink_mac.or(nic_mac));
    if let Err(error) = attached {
        fast_path.shut_down(false);
        return Err(error);
    }
    fast_path.restore(&ports);
    fast_path.release();
    let restart = proto::Restart {
        restarts: inheritance.occasion.restarts,
        reason: inheritance.occasion.reason.clone(),
        gap_microseconds: inheritance.gap().map_or(0, |gap| gap.as_micros() as u64),
        ports_kept: fast_path.attached() as u32,
        refused,
        ..proto::Restart::default()
    };
    if restart.restarts > 0 {
        tracing::warn!(
            restarts = restart.restarts,
            reason = restart.reason,
            gap_ms = restart.gap_microseconds / 1000,
            ports = restart.ports_kept,
            "took over from a process that ended"
        );
    }
    fast_path.restarted(restart, takeover, keep);
    if let Some(pulse) = pulse {
        fast_path.shows(pulse.control());
        keep.watch(&pulse);
    }
    Ok(fast_path)
}

fn with_shortcut(mut pipeline: Pipeline, shortcut: &Shortcut, reviews: bool, clock: Clock) -> Pipeline {
    if let Some(slots) = shortcut.slots() {
        pipeline.take_shortcut(Arc::clone(slots), reviews, clock.hz());
    }
    shortcut.unheard().iter().for_each(|left| pipeline.hear_from(Arc::clone(left), clock.hz()));
    pipeline
}

fn attach_uplink(
    config: &FastPathConfig,
    fast_path: &mut FastPath,
    known: Option<Mac>,
) -> Result<(), AppError> {
    /// Largest IP packet on a wire that is no interface's, in bytes.
    const WIRE_MTU: u32 = 1500;
    let wire_mtu = Mtu::try_from(WIRE_MTU).unwrap_or(Mtu::MIN);
    let nic = nic::name();
    let (name, ours, mtu, interface_mac) = match &config.uplink {
        Uplink::Tap { name, mac } | Uplink::NetTap { name, mac } => {
            let ours = mac.or(known).unwrap_or_else(random_mac);
            (name, ours, wire_mtu, other_end(ours))
        }
        Uplink::AfPacket { interface: name, mac } | Uplink::AfXdp { interface: name, mac } => {
            let interface = Interface::find(name)?;
            let ours = mac.unwrap_or(interface.mac);
            if matches!(config.uplink, Uplink::AfPacket { .. }) {
                fast_path.join_uplink(name.as_str(), ours, ours != interface.mac);
            }
            (name, ours, interface.mtu, ours)
        }
        Uplink::Nic { mac, .. } => {
            let ours = mac.or(known).unwrap_or_else(random_mac);
            (&nic, ours, wire_mtu, ours)
        }
    };
    fast_path.attach(Port::uplink(name.as_str(), EthAddr(ours.octets()), mtu), interface_mac)?;
    Ok(())
}

fn dpdk_log(level: log::LogLevel, line: &str) {
    match level {
        log::LogLevel::Emergency | log::LogLevel::Alert | log::LogLevel::Critical | log::LogLevel::Error => {
            tracing::error!(target: "dpdk", "{line}");
        }
        log::LogLevel::Warning => tracing::warn!(target: "dpdk", "{line}"),
        log::LogLevel::Notice | log::LogLevel::Info => tracing::info!(target: "dpdk", "{line}"),
        log::LogLevel::Debug => tracing::debug!(target: "dpdk", "{line}"),
    }
}

/// What tells this process from every other.
fn instance() -> Result<String, AppError> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid");
    let uuid =
        uuid.map_err(|source| AppError::System { action: "take a random number from the kernel", source })?;
    Ok(uuid.trim().to_owned())
}

fn random_mac() -> Mac {
    use std::hash::{BuildHasher as _, RandomState};
    Mac::local_from(RandomState::new().hash_one(std::process::id()))
}

/// The address of a tap's kernel end, when ours is `ours`: another one, and always the same.
fn other_end(ours: Mac) -> Mac {
    let [first, rest @ ..] = ours.octets();
    let seed = rest.iter().fold(u64::from(first ^ 4), |seed, &octet| seed << 8 | u64::from(octet));
    Mac::local_from(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ends_of_a_tap_have_different_addresses_that_stay_the_same() {
        for text in ["02:00:00:00:00:07", "06:00:00:00:00:07", "3c:ec:ef:00:00:01"] {
            let ours: Mac = text.parse().unwrap();
            let theirs = other_end(ours);
            assert_ne!(theirs, ours);
            assert_eq!(theirs.octets()[1..], ours.octets()[1..]);
            assert!(theirs.is_local());
            assert_eq!(other_end(ours), theirs);
        }
    }
}
