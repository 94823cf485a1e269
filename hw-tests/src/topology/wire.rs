//! A wire between the two nodes.
//!
//! Without it the far node holds the kernel end of the uplink's tap, and its kernel sees what culvert-fastpath wrote: many
//! tunnel packets at once, that are still to be cut. Across the wire goes only what fits into the MTU.

use std::path::Path;

use super::Far;
use crate::frame::Outcome;
use crate::net::{Netns, Process};

/// The program that loses and reorders packets.
const LOSSY: &str = include_str!("../../scapy/lossy.py");

/// Interfaces up to the far node's: the tap, and in front of it, where packets are cut.
const TAP: &str = "tap";
const CUT: &str = "cut";

/// A namespace between the two nodes.
#[derive(Debug)]
pub struct Wire {
    netns: Netns,
    lossy: Option<Process>,
}

/// What a wire does to packets besides carrying them.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    /// Of a thousand packets of each direction, how many are lost.
    pub lost: u32,
    /// Of a thousand packets of each direction, how many are overtaken by others.
    pub overtaken: u32,
}

impl Wire {
    /// Takes the uplink out of `node`; what is to be the far node's end has the same name.
    pub fn create(node: &Netns) -> Outcome<Self> {
        let netns = Netns::create("wire")?;
        let (wire, name) = (Far::WIRE, netns.name());
        node.ip(&format!("link set {wire} netns {name}"))?;
        netns.ip(&format!(
            "link set {wire} name {TAP}
            link add br0 type bridge
            link set {TAP} master br0 up
            link set br0 up"
        ))?;
        Ok(Self { netns, lossy: None })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A good wire: a veth, the far node's end of which is still here.
    pub fn connect(&self) -> Outcome {
        let wire = Far::WIRE;
        self.netns.ip(&format!("link add {CUT} type veth peer name {wire}"))?;
        self.cut(CUT)?;
        self.netns.ip(&format!("link set {CUT} master br0 up"))
    }

    /// A bad wire: `lossy.py` between two veths. Which packets it loses is the same in every run with the same `seed`, as far
    /// as packets are.
    pub fn connect_badly(&mut self, quality: Quality, seed: u32, dir: &Path) -> Outcome {
        let wire = Far::WIRE;
        self.netns.ip(&format!(
            "link add {CUT} type veth peer name near
            link add {wire} type veth peer name far"
        ))?;
        self.cut(CUT)?;
        self.cut(wire)?;
        self.netns.ip(&format!("link set {CUT} master br0 up\nlink set near up\nlink set far up"))?;
        let mut command = self.netns.command("/usr/bin/python3");
        command.args(["-c", LOSSY, "near", "far"]);
        command.args([quality.lost, quality.overtaken, seed].map(|number| number.to_string()));
        self.lossy = Some(Process::spawn("lossy", &mut command, dir)?);
        Ok(())
    }

    /// Has packets leave an interface with their checksums and no longer than its MTU.
    fn cut(&self, interface: &str) -> Outcome {
        self.netns
            .sh(&format!("ethtool -K {interface} tx off gso off tso off tx-udp-segmentation off >&2"))?;
        Ok(())
    }

    /// What the bad wire did so far: packets lost and overtaken.
    pub fn harm(&self) -> Outcome<(u64, u64)> {
        let log = self.lossy.as_ref().map(Process::log).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        let mut numbers = last.split(' ').map(|number| number.parse().unwrap_or(0));
        Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
    }
}
