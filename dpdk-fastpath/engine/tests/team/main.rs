//! Workers and the ports that are handed to them, with devices without hardware; all but one need no root.

#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_dpdk::{
    Burst, Eal, EalConfig, Hugepages, Mempool, MempoolConfig, Notice, Port, PortConfig, TxOffloads, Vdev,
};
use culvert_engine::clock::Clock;
use culvert_engine::counter::{CounterSet, DropReason, FinishCounts, counters};
use culvert_engine::flow::FlowTables;
use culvert_engine::keep::Beat;
use culvert_engine::pipeline::Pipeline;
use culvert_engine::port::tap::{Behind, Budget, Ending, Spare, TapMemory, TapRx};
use culvert_engine::port::{Asking, Queues};
use culvert_engine::quiescent::{Publisher, channel};
use culvert_engine::table::{PortIndex, Snapshot};
use culvert_engine::worker::{BURST, Polling, Recruit, Resting, Team};
use culvert_packet::offload::Offload;
use culvert_packet::offload::vnet::VnetHeader;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::{PacketBuf, testkit};
use libtest_mimic::{Arguments, Trial};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

mod leaving;
mod memory;

/// What holds, and its body.
type Case = (&'static str, fn(&Eal));

const INDEX: PortIndex = PortIndex(3);

const NEEDS_ROOT: &str = "a_worker_that_sleeps_is_woken_by_each_packet_at_a_tap_of_dpdk";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let eal =
        Eal::init(&EalConfig { hugepages: Hugepages::Off, megabytes: 128, ..EalConfig::default() }).unwrap();
    let cases: [Case; 11] = [
        ("a_port_is_polled_while_a_worker_has_it_and_free_afterwards", handed_over_and_back),
        ("the_queues_of_a_port_that_all_poll_are_spread_over_the_workers", spread),
        ("what_is_sent_to_a_port_that_left_is_freed_and_counted", no_such_port),
        ("a_stopped_worker_leaves_no_buffer_behind", stop_with_packets),
        ("workers_with_and_without_rest_move_on_to_new_tables_at_once", adoption),
        ("a_worker_on_a_cpu_that_does_not_exist_stops_those_before_it", no_such_cpu),
        ("a_turn_of_a_tap_ends_with_its_budget_and_with_a_burst_of_what_is_refused", turns),
        ("what_a_device_was_asked_for_is_left_to_it_and_the_rest_is_done_here", left_to_the_device),
        ("packets_leave_in_the_order_in_which_they_came_and_each_is_counted", leaving::in_order),
        ("memory_that_flows_have_outgrown_is_given_back_by_the_control_thread", memory::given_back),
        (NEEDS_ROOT, woken),
    ];
    let root = geteuid().is_root();
    let trials = cases.map(|(name, body)| {
        let eal = eal.clone();
        let skipped = name == NEEDS_ROOT && !root;
        if skipped {
            eprintln!("skipped: {name}: needs root");
        }
        let trial = Trial::test(name, move || {
            body(&eal);
            Ok(())
        });
        trial.with_ignored_flag(skipped)
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

struct Bench {
    pool: Mempool,
    team: Team,
    counters: CounterSet,
    tables: Publisher<Snapshot>,
}

fn recruits(cpus: &[u32]) -> (Vec<Recruit>, CounterSet, Publisher<Snapshot>) {
    let flows = FlowTables::new(1024).unwrap();
    let (tables, readers) = channel(Snapshot::default(), cpus.len());
    let (counters, writers) = counters(cpus.len());
    let recruits = cpus.iter().zip(readers).zip(writers);
    let recruits = recruits.map(|((&cpu, tables), writer)| Recruit {
        cpu,
        tables,
        pipeline: Pipeline::new(flows.worker(), writer),
        beat: Beat::default(),
    });
    (recruits.collect(), counters, tables)
}

fn bench(eal: &Eal, name: &str, cpus: &[u32], idle_sleep: Duration) -> Bench {
    let (recruits, counters, tables) = recruits(cpus);
    let team =
        Team::start(eal, recruits, Clock::start(eal), Resting { idle_sleep, busy_poll: Duration::ZERO })
            .unwrap();
    let config = MempoolConfig { name: name.into(), mbufs: 1023, cache: 32, ..MempoolConfig::default() };
    Bench { pool: Mempool::create(eal, &config).unwrap(), team, counters, tables }
}

/// Starts a device and hands it to worker 0.
fn port(eal: &Eal, pool: &Mempool, vdev: &Vdev, team: &Team) -> Port {
    let mut port = Port::create(eal, vdev).unwrap();
    let queues = port.start(&PortConfig::default(), pool).unwrap();
    team.hand_over(INDEX, Polling::By(0), Queues::of_device(queues, false, pool)).unwrap();
    port
}

fn within(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn handed_over_and_back(eal: &Eal) {
    let Bench { pool, team, counters, .. } = bench(eal, "over-and-back", &[0], Duration::from_micros(50));
    for round in 1..=3 {
        // Receives what it transmits.
        let port = port(eal, &pool, &Vdev::Ring { name: format!("back{round}") }, &team);
        for _ in 0..100 {
            team.inject(0, INDEX, pool.alloc_with(&[0; 60]).unwrap()).unwrap();
        }
        within("all frames come back through the ring", || counters.port(INDEX).rx_packets == 100 * round);
        team.take_back(INDEX).unwrap();
        port.remove().unwrap();
        assert_eq!(pool.in_use(), 0);
    }
    let counts = counters.port(INDEX);
    assert_eq!((counts.tx_packets, counts.tx_bytes, counts.rx_bytes), (300, 18_000, 18_000));
    assert_eq!(counts.rx_dropped, 300, "no tables: nothing is forwarded");
    let worker = counters.worker(0);
    assert_eq!(worker.packets, 300);
    assert!(worker.empty_polls > 0 && worker.busy_cycles < worker.total_cycles, "{worker:?}");
    team.stop().unwrap();
}

fn spread(eal: &Eal) {
    // On one CPU, so that it needs no more than that.
    let Bench { pool, team, counters, .. } = bench(eal, "spread", &[0, 0], Duration::from_micros(50));
    for (name, polling, both) in [("of-all", Polling::ByAll, true), ("of-the-second", Polling::By(1), false)]
    {
        let mut port = Port::create(eal, &Vdev::Null { name: name.into(), packet: 64 }).unwrap();
        let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
        let queues = port.start(&config, &pool).unwrap();
        let before = [0, 1].map(|worker| counters.worker(worker).packets);
        team.hand_over(INDEX, polling, Queues::of_device(queues, false, &pool)).unwrap();
        let received = |worker: usize| counters.worker(worker).packets > before[worker] + 1000;
        within("the second worker receives", || received(1));
        if both {
            within("the first worker receives", || received(0));
        } else {
            assert_eq!(counters.worker(0).packets, before[0], "it polls nothing");
        }
        team.take_back(INDEX).unwrap();
        port.remove().unwrap();
    }
    assert_eq!(pool.in_use(), 0);
    team.stop().unwrap();
}

/// Packets in tunnels, on their way to a device that sends them back to its own receive queue.
fn left_to_the_device(eal: &Eal) {
    let Bench { pool, team, counters, .. } = bench(eal, "left", &[0], Duration::from_micros(50));
    let config = MempoolConfig { name: "long".into(), mbufs: 15, frame: 4096, ..MempoolConfig::default() };
    let long = Mempool::create(eal, &MempoolConfig { cache: 0, ..config }).unwrap();
    let mut port = Port::create(eal, &Vdev::Ring { name: "left".into() }).unwrap();
    let queues = port.start(&PortConfig::default(), &pool).unwrap();
    let asked = [TxOffloads::TCP_TSO, TxOffloads::TCP_CKSUM, TxOffloads::IPV4_CKSUM];
    let tunnel = TxOffloads::VXLAN_TNL_TSO.and(TxOffloads::OUTER_IPV4_CKSUM);
    let asking = Asking::new(asked.into_iter().fold(tunnel, TxOffloads::and), &long, 1);
    team.hand_over(INDEX, Polling::By(0), Queues::of_uplink(queues, &asking, &pool)).unwrap();

    let (src, dst) = ("10.244.1.5:40000".parse().unwrap(), "10.244.2.7:8080".parse().unwrap());
    let (vtep, to) = ("192.168.0.1:50000".parse().unwrap(), [192, 168, 0, 2].into());
    let payload = [7; 3000];
    let tcp = testkit::tcp(src, dst, TcpFlags::ACK, &payload);
    let udp = testkit::udp(src, dst, &payload);
    let vxlan = |inner: &[u8]| testkit::vxlan(vtep, to, 7, inner);
    let geneve = testkit::geneve(vtep, to, 7, &[], &tcp);
    let whole = Offload { segment: None, partial: true };
    let cut = Offload { segment: std::num::NonZeroU16::new(1000), partial: true };
    let total = || (counters.port(INDEX), counters.finished(INDEX));
    let sent = |mut frame: Vec<u8>, offload: Offload, by_device: u64, packets: u64, what: &str| {
        let before = total();
        // No outer UDP checksum.
        frame[40..42].fill(0);
        let mut packet = long.alloc_with(&frame).unwrap();
        packet.set_offload(offload);
        team.inject(0, INDEX, packet).unwrap();
        within(what, || total().0.tx_packets == before.0.tx_packets + packets);
        let (port, finished) = (total().0 - before.0, total().1 - before.1);
        assert_eq!(port.tx_bytes == frame.len() as u64, packets == 1, "{what}: {} bytes", port.tx_bytes);
        assert_eq!(finished, FinishCounts { by_device, by_us: 1 - by_device, refused: 0 }, "{what}");
    };
    let kept: Vec<_> = (0..12).map(|_| long.alloc().unwrap()).collect();
    sent(vxlan(&tcp), cut, 0, 3, "it does not get the last buffers");
    drop(kept);
    sent(vxlan(&tcp), cut, 1, 1, "it is asked to cut TCP in VXLAN");
    sent(geneve, cut, 0, 3, "not in Geneve");
    sent(vxlan(&tcp), whole, 1, 1, "it makes checksums there");
    sent(vxlan(&udp), cut, 0, 3, "it is not asked to cut UDP");
    sent(vxlan(&udp), whole, 0, 1, "nor to make UDP checksums");
    sent(vxlan(&tcp), cut, 1, 1, "TCP again");
    let total = total().0.tx_packets;
    within("all packets have come back and gone", || counters.port(INDEX).rx_packets == total);
    team.take_back(INDEX).unwrap();
    port.remove().unwrap();
    team.stop().unwrap();
    assert_eq!((pool.in_use(), long.in_use()), (0, 0));
}

fn no_such_port(eal: &Eal) {
    let Bench { pool, team, counters, .. } = bench(eal, "no-such-port", &[0], Duration::from_micros(50));
    team.inject(0, INDEX, pool.alloc_with(&[0; 60]).unwrap()).unwrap();
    within("the frame is freed", || pool.in_use() == 0);
    assert_eq!(counters.dropped(DropReason::NO_SUCH_PORT), 1);
    assert!(team.inject(7, INDEX, pool.alloc().unwrap()).is_err(), "there is no worker 7");
    team.take_back(INDEX).unwrap();
    team.stop().unwrap();
}

fn stop_with_packets(eal: &Eal) {
    let Bench { pool, team, .. } = bench(eal, "stop", &[0], Duration::ZERO);
    let port = port(eal, &pool, &Vdev::Null { name: "stop".into(), packet: 0 }, &team);
    let mut refused = 0;
    for _ in 0..1000 {
        refused += usize::from(team.inject(0, INDEX, pool.alloc_with(&[0; 60]).unwrap()).is_err());
    }
    team.check().unwrap();
    team.stop().unwrap();
    port.remove().unwrap();
    assert_eq!(pool.in_use(), 0, "{refused} of 1000 were refused");
}

fn adoption(eal: &Eal) {
    for idle_sleep in [Duration::ZERO, Duration::from_millis(1)] {
        let name = format!("adopt-{}", idle_sleep.as_millis());
        let Bench { team, mut tables, .. } = bench(eal, &name, &[0], idle_sleep);
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..100 {
            tables.publish(Snapshot::default());
            let begin = Instant::now();
            while tables.reclaim() > 0 {
                assert!(begin.elapsed() < Duration::from_secs(5));
                std::thread::sleep(Duration::from_micros(10));
            }
        }
        team.stop().unwrap();
    }
}

fn no_such_cpu(eal: &Eal) {
    let (recruits, ..) = recruits(&[0, 60_000]);
    let error = Team::start(
        eal,
        recruits,
        Clock::start(eal),
        Resting { idle_sleep: Duration::ZERO, busy_poll: Duration::ZERO },
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "worker culvert-w1: cpu 60000: not online, or not allowed to this process");
    assert_eq!(
        std::fs::read_dir("/proc/self/task").unwrap().filter(is_worker).count(),
        0,
        "a worker runs on"
    );
}

fn turns(eal: &Eal) {
    // More than a burst's, so that mbufs do not end a turn.
    let config = MempoolConfig { name: "turns".into(), mbufs: 1023, cache: 32, ..MempoolConfig::default() };
    let pool = Mempool::create(eal, &config).unwrap();
    let memory = TapMemory { packets: pool.clone(), super_packets: pool.clone() };
    let (tap, pod) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
    let tap = Arc::new(tap);
    let mut rx = TapRx::new(Arc::clone(&tap), Behind::Host, memory.clone(), Budget::of(150));
    let mut burst = Burst::<BURST>::new();
    let mut turn = || {
        let packets = rx.rx(&mut Spare::default(), &mut burst, BURST);
        burst.clear();
        (packets, rx.ending())
    };
    let put = |flags, frames| {
        let mut frame = [0; VnetHeader::LEN + 60];
        frame[0] = flags;
        for _ in 0..frames {
            assert_eq!(send(&pod, &frame, SendFlags::empty()).unwrap(), frame.len());
        }
    };
    let of = |refused, spent, dry| Ending { refused, spent, dry };

    assert_eq!(turn(), (0, of(0, false, false)), "nothing is there");
    put(0, 7);
    assert_eq!(turn(), (3, of(0, true, false)), "the third is overdrawn by 30 bytes");
    assert_eq!(turn(), (2, of(0, true, false)), "which the next turn pays for");
    assert_eq!(turn(), (2, of(0, false, false)));

    // Flags that nobody has agreed on.
    put(0xff, 4);
    assert_eq!(turn(), (0, of(3, true, false)), "what is refused was read as well");
    assert_eq!(turn(), (0, of(1, false, false)));
    let mut unlimited = TapRx::new(tap, Behind::Host, memory, Budget::UNLIMITED);
    put(0xff, BURST + 5);
    let mut none = Burst::<BURST>::new();
    for ending in [of(BURST as u64, true, false), of(5, false, false)] {
        assert_eq!(unlimited.rx(&mut Spare::default(), &mut none, BURST), 0);
        assert_eq!(unlimited.ending(), ending, "others have their turn");
    }

    put(0, 1);
    let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(turn(), (0, of(0, false, true)), "what cannot be received stays");
    drop(all);
    assert_eq!(turn(), (1, of(0, false, false)));
}

/// It would sleep for much longer than anybody here waits; and one that looked from time to time would be seen to.
fn woken(eal: &Eal) {
    const MAC: &str = "02:00:00:00:00:02";
    // What is made here goes with the thread.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            let Bench { pool, team, counters, .. } = bench(eal, "woken", &[0], Duration::from_secs(20));
            let vdev = Vdev::Tap { interface: "cvt-woken".into(), mac: None };
            let mut port = Port::create(eal, &vdev).unwrap();
            let config = PortConfig { interrupts: true, ..PortConfig::default() };
            let queues = port.start(&config, &pool).unwrap();
            assert_eq!(port.notice(), Notice::Readable);
            team.hand_over(INDEX, Polling::By(0), Queues::of_device(queues, false, &pool)).unwrap();
            for arguments in [
                "link set cvt-woken up",
                "addr add 10.0.0.1/24 dev cvt-woken",
                &format!("neigh add 10.0.0.2 lladdr {MAC} dev cvt-woken"),
            ] {
                assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
            }
            let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
            socket.connect("10.0.0.2:9").unwrap();
            let polls = counters.worker(0).polls;
            std::thread::sleep(Duration::from_millis(500));
            let polls = counters.worker(0).polls - polls;
            assert!(polls < 100, "{polls} rounds in half a second without a packet");

            // Gaps of up to 2 ms: so packets come while it sleeps, while it falls asleep, and while it is awake.
            let mut random = 5_u32;
            for sent in 1..=1000 {
                socket.send(b"packet").unwrap();
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match random >> 30 {
                    0 => within("it is woken", || counters.port(INDEX).rx_packets == sent),
                    1 => {}
                    _ => std::thread::sleep(Duration::from_micros(u64::from(random >> 19 & 2047))),
                }
            }
            within("no packet waits", || counters.port(INDEX).rx_packets == 1000);
            team.take_back(INDEX).unwrap();
            port.remove().unwrap();
            assert_eq!(pool.in_use(), 0);
            team.stop().unwrap();
        });
    });
}

/// Whether a thread of this process is a worker, by its name.
fn is_worker(task: &std::io::Result<std::fs::DirEntry>) -> bool {
    let comm = task.as_ref().unwrap().path().join("comm");
    std::fs::read_to_string(comm).is_ok_and(|name| name.starts_with("culvert-w"))
}
