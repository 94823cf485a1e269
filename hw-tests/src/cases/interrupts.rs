//! Receive interrupts of a NIC that DPDK drives.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, note, wait_for};
use crate::net::{self, Process, program};
use crate::topology::sriov::{GivenAway, Pf};

pub(super) const CASES: &[Case] = &[Case {
    name: "a_nics_receive_interrupt_wakes_who_sleeps_and_no_packet_waits_for_the_next",
    place: Guest,
    run: interrupts,
}];

const PACKETS: u32 = 30;

/// Long enough for a frame that needs no padding.
const DATA: &[u8] = b"a packet that is known by what it ends in, which is the word culvert";

/// Sleeps of the one who receives end after so long without a packet, in milliseconds.
const LONGEST: u64 = 5000;

/// The kernel sends through NIC 0; DPDK has NIC 1, on the same wire.
fn interrupts(context: &Context) -> Outcome {
    let (sender, receiver) = (Pf::find(0)?, Pf::find(1)?);
    let _given_away = GivenAway::new(&receiver)?;
    let mut command = Command::new(program("examples/interrupts")?);
    let command = command.args([&receiver.pci, &PACKETS.to_string()]);
    let mut process = Process::spawn("interrupts", command, context.dir())?;
    let first = wait_for("DPDK has started the NIC", Duration::from_secs(120), || {
        process.check_alive()?;
        let log = process.log();
        Ok(log.lines().find(|line| line.contains(" Interrupt") || line.contains(" Never")).map(str::to_owned))
    })?;
    let (mac, notice) = first.split_once(' ').unwrap_or_default();
    ensure!(notice == "Interrupt", "DPDK's driver has no receive interrupt: {first}");

    let interface = &sender.interface;
    for arguments in [
        format!("link set {interface} up"),
        format!("addr replace 10.9.9.1/24 dev {interface}"),
        format!("neigh replace 10.9.9.2 lladdr {mac} dev {interface} nud permanent"),
    ] {
        net::run(Command::new("ip").args(arguments.split(' ')))?.success()?;
    }
    let socket = UdpSocket::bind("10.9.9.1:0")?;
    socket.connect("10.9.9.2:9")?;
    let received =
        |process: &Process| process.log().lines().filter_map(|line| line.parse().ok()).collect::<Vec<u64>>();
    // Links come up in their own time: until then packets are lost.
    wait_for("the wire carries packets", Duration::from_secs(60), || {
        socket.send(DATA)?;
        std::thread::sleep(Duration::from_millis(500));
        Ok((!received(&process).is_empty()).then_some(()))
    })?;
    // One by one, with gaps in which it falls asleep; and each must have come before the next goes.
    let mut count = received(&process).len();
    while count < PACKETS as usize {
        std::thread::sleep(Duration::from_millis(count as u64 * 37 % 200));
        socket.send(DATA)?;
        count = wait_for(&format!("packet {count} arrives"), Duration::from_secs(4), || {
            let now = received(&process).len();
            Ok((now > count).then_some(now))
        })?;
    }
    process.wait(Duration::from_secs(30))?;
    let slept: Vec<u64> = received(&process);
    let woken = slept.iter().filter(|slept| (1..LONGEST).contains(*slept)).count();
    note(&format!("{woken} of {} packets woke who slept", slept.len()));
    ensure!(woken * 2 > slept.len(), "only {woken} of {} packets woke who slept: {slept:?}", slept.len());
    net::run(Command::new("ip").args(["addr", "flush", "dev", interface]))?.success()?;
    Ok(())
}
