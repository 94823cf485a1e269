//! The agent's own state.

use std::collections::BTreeMap;

use culvert_api::agent::{StatusReply, Subsystem};
use culvert_api::fastpath::{FlowPolicy, Info, LostConnections, PathMtu, Restart, ShortCut};
use serde::Serialize;

use super::{address, or_dash};
use crate::output::{Block, View};

/// `status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    version: String,
    node: String,
    uptime_seconds: u64,
    subsystems: Vec<SubsystemView>,
    fastpath: Option<FastPath>,
}

#[derive(Serialize)]
struct SubsystemView {
    name: String,
    state: String,
    detail: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FastPath {
    version: String,
    instance: String,
    workers: u32,
    revision: u64,
    synced: bool,
    uptime_seconds: u64,
    mbufs_total: u64,
    mbufs_free: u64,
    flows: u64,
    flow_capacity: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_policy: Option<Policy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<RestartView>,
    /// Bytes; absent before the first tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    underlay_mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_mtu: Option<u32>,
    path_mtus: Vec<PathMtuView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short_cut: Option<ShortCutView>,
}

/// Decided connections that programs in the kernel forward.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShortCutView {
    /// Why there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    why_not: String,
    pods: u32,
    slots: u32,
    slot_capacity: u32,
    /// Packets that its programs dropped, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    drops: BTreeMap<String, u64>,
}

/// The way to a node that takes less than the link does.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PathMtuView {
    node: String,
    vtep: String,
    mtu: u32,
    pod_mtu: u32,
}

/// How it took over from the process before.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestartView {
    restarts: u32,
    reason: String,
    gap_microseconds: u64,
    flows_kept: u64,
    flows_over: u64,
    flows_without_room: u64,
    flows_damaged: u64,
    ports_kept: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    refused: String,
}

/// How connections are treated.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    lost_connections: &'static str,
    icmp_errors_per_second: u32,
    timeout_seconds: Timeouts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeouts {
    tcp_opening: u32,
    tcp_established: u32,
    tcp_half_closed: u32,
    tcp_closed: u32,
    udp_unreplied: u32,
    udp: u32,
    icmp: u32,
    sctp: u32,
}

pub(crate) fn status(reply: StatusReply) -> Status {
    Status {
        version: reply.version,
        node: reply.node,
        uptime_seconds: reply.uptime_seconds,
        subsystems: reply.subsystems.into_iter().map(subsystem).collect(),
        fastpath: reply.fastpath.map(fastpath),
    }
}

fn subsystem(s: Subsystem) -> SubsystemView {
    SubsystemView { name: s.name, state: s.state, detail: s.detail }
}

fn fastpath(info: Info) -> FastPath {
    FastPath {
        version: info.version,
        instance: info.instance,
        workers: info.workers,
        revision: info.revision,
        synced: info.synced,
        uptime_seconds: info.uptime_seconds,
        mbufs_total: info.mbufs_total,
        mbufs_free: info.mbufs_free,
        flows: info.flows,
        flow_capacity: info.flow_capacity,
        flow_policy: info.flow_policy.as_ref().map(policy),
        restart: info
            .restart
            .filter(|restart| restart.restarts > 0 || !restart.refused.is_empty())
            .map(restart),
        underlay_mtu: Some(info.underlay_mtu).filter(|mtu| *mtu > 0),
        pod_mtu: Some(info.pod_mtu).filter(|mtu| *mtu > 0),
        path_mtus: info.path_mtus.into_iter().map(path_mtu).collect(),
        short_cut: info.short_cut.map(short_cut),
    }
}

fn short_cut(told: ShortCut) -> ShortCutView {
    let ShortCut { why_not, pods, slots, slot_capacity, drops } = told;
    let drops = drops.into_iter().map(|drop| (drop.name, drop.value)).collect();
    ShortCutView { why_not, pods, slots, slot_capacity, drops }
}

impl ShortCutView {
    /// For people, in one line.
    fn line(&self) -> String {
        let Self { why_not, pods, slots, slot_capacity, drops } = self;
        if why_not.is_empty() {
            let plural = if *pods == 1 { "" } else { "s" };
            let drops = drops.iter().filter(|(_, count)| **count > 0);
            let drops: Vec<_> = drops.map(|(reason, count)| format!("{reason} {count}")).collect();
            let dropped = if drops.is_empty() { "" } else { "; dropped: " };
            format!(
                "  short cut: {pods} pod{plural}, {slots} of {slot_capacity} slots{dropped}{}",
                drops.join(", ")
            )
        } else {
            format!("  short cut: none: {why_not}")
        }
    }
}

fn path_mtu(path: PathMtu) -> PathMtuView {
    let PathMtu { node, vtep, mtu, pod_mtu } = path;
    PathMtuView { node, vtep: address(&vtep), mtu, pod_mtu }
}

impl FastPath {
    /// What packets may be as long as, for people.
    fn mtu_lines(&self) -> impl Iterator<Item = String> {
        let all = self.underlay_mtu.zip(self.pod_mtu);
        let link = all.map(|(link, pods)| format!("  MTU {link} between nodes, {pods} for pods"));
        let path = |path: &PathMtuView| {
            let PathMtuView { node, vtep, mtu, pod_mtu } = path;
            format!("  MTU {mtu} on the way to {} ({vtep}), {pod_mtu} for pods there", or_dash(node))
        };
        link.into_iter().chain(self.path_mtus.iter().map(path))
    }
}

fn restart(restart: Restart) -> RestartView {
    RestartView {
        restarts: restart.restarts,
        reason: restart.reason,
        gap_microseconds: restart.gap_microseconds,
        flows_kept: restart.flows_kept,
        flows_over: restart.flows_over,
        flows_without_room: restart.flows_without_room,
        flows_damaged: restart.flows_damaged,
        ports_kept: restart.ports_kept,
        refused: restart.refused,
    }
}

impl RestartView {
    /// For people, in one line.
    fn line(&self) -> String {
        let Self { restarts, reason, flows_kept, ports_kept, refused, .. } = self;
        let gap = self.gap_microseconds.div_ceil(1000);
        let kept = if refused.is_empty() { String::new() } else { format!("; state refused: {refused}") };
        format!(
            "  restarted {restarts} time(s), last: {reason}, {gap} ms without packets, {flows_kept} flows and \
             {ports_kept} ports kept{kept}"
        )
    }
}

fn policy(policy: &FlowPolicy) -> Policy {
    let lost_connections = match policy.lost_connections() {
        LostConnections::Unspecified | LostConnections::Reset => "reset",
        LostConnections::Drop => "drop",
        LostConnections::Reselect => "reselect",
    };
    let t = policy.timeouts.unwrap_or_default();
    Policy {
        lost_connections,
        icmp_errors_per_second: policy.icmp_errors_per_second,
        timeout_seconds: Timeouts {
            tcp_opening: t.tcp_opening,
            tcp_established: t.tcp_established,
            tcp_half_closed: t.tcp_half_closed,
            tcp_closed: t.tcp_closed,
            udp_unreplied: t.udp_unreplied,
            udp: t.udp,
            icmp: t.icmp,
            sctp: t.sctp,
        },
    }
}

impl Status {
    /// Whether every part that is switched on works.
    pub(crate) fn is_well(&self) -> bool {
        self.subsystems.iter().all(|s| matches!(s.state.as_str(), "ok" | "off"))
    }
}

impl View for Status {
    fn blocks(&self) -> Vec<Block> {
        let mut lines = vec![format!(
            "culvert-agent {} on {}, up {}",
            self.version,
            self.node,
            uptime(self.uptime_seconds)
        )];
        if let Some(f) = &self.fastpath {
            lines.push(format!(
                "culvert-fastpath {}, up {}: {} worker(s), tables revision {} ({}), {}/{} flows, {}/{} buffers free",
                f.version,
                uptime(f.uptime_seconds),
                f.workers,
                f.revision,
                if f.synced { "synced" } else { "not synced yet" },
                f.flows,
                f.flow_capacity,
                f.mbufs_free,
                f.mbufs_total,
            ));
            lines.extend(f.mtu_lines());
            lines.extend(f.short_cut.as_ref().map(ShortCutView::line));
            lines.extend(f.restart.as_ref().map(RestartView::line));
        }
        let rows = self
            .subsystems
            .iter()
            .map(|s| vec![s.name.clone(), s.state.clone(), or_dash(&s.detail)])
            .collect();
        vec![Block::Lines(lines), Block::Table(vec!["SUBSYSTEM", "STATE", "DETAIL"], rows)]
    }
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use culvert_api::fastpath::NamedCounter;

    use super::*;

    #[test]
    fn a_restart_is_told_in_one_line_with_why_nothing_was_kept() {
        let told = Restart {
            restarts: 2,
            reason: "killed by SIGKILL".to_owned(),
            gap_microseconds: 41_200,
            flows_kept: 7,
            ports_kept: 3,
            ..Restart::default()
        };
        assert_eq!(
            restart(told.clone()).line(),
            "  restarted 2 time(s), last: killed by SIGKILL, 42 ms without packets, 7 flows and 3 ports kept"
        );
        let refused = Restart { refused: "flow memory is of layout 0x2".to_owned(), ..told };
        assert!(restart(refused).line().ends_with("; state refused: flow memory is of layout 0x2"));
        let first = Info { restart: Some(Restart::default()), ..Info::default() };
        assert!(fastpath(first).restart.is_none(), "there was none");
    }

    #[test]
    fn mtus_are_shown_of_the_link_and_of_ways_that_take_less() {
        let path = PathMtu { node: "node-b".to_owned(), vtep: vec![192, 0, 2, 7], mtu: 1400, pod_mtu: 1350 };
        let info = Info { underlay_mtu: 1500, pod_mtu: 1450, path_mtus: vec![path], ..Info::default() };
        let shown = fastpath(info);
        let lines: Vec<_> = shown.mtu_lines().collect();
        let expected = [
            "  MTU 1500 between nodes, 1450 for pods",
            "  MTU 1400 on the way to node-b (192.0.2.7), 1350 for pods there",
        ];
        assert_eq!(lines, expected);
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!((&json["podMtu"], &json["pathMtus"][0]["podMtu"]), (&1450.into(), &1350.into()));
        let without = fastpath(Info::default());
        assert_eq!(without.mtu_lines().count(), 0, "no tables yet");
        assert!(serde_json::to_value(&without).unwrap().get("podMtu").is_none());
    }

    #[test]
    fn of_the_short_cut_its_pods_and_slots_are_shown_or_why_there_is_none() {
        let shown = |told| fastpath(Info { short_cut: Some(told), ..Info::default() });
        let line = |told| shown(told).short_cut.expect("was told").line();
        let some = ShortCut { pods: 3, slots: 12, slot_capacity: 65_536, ..ShortCut::default() };
        assert_eq!(line(some.clone()), "  short cut: 3 pods, 12 of 65536 slots");
        assert_eq!(line(ShortCut { pods: 1, ..some.clone() }), "  short cut: 1 pod, 12 of 65536 slots");
        let drops = [("vlan-tag", 0), ("undecided", 4), ("from-node", 1)];
        let drops = drops.map(|(name, value)| NamedCounter { name: name.to_owned(), value }).to_vec();
        let lossy = ShortCut { drops, ..some.clone() };
        assert_eq!(
            line(lossy.clone()),
            "  short cut: 3 pods, 12 of 65536 slots; dropped: from-node 1, undecided 4"
        );
        let none = ShortCut { why_not: "switched off".to_owned(), ..ShortCut::default() };
        assert_eq!(line(none.clone()), "  short cut: none: switched off");
        let json = |told| serde_json::to_value(shown(told)).expect("is JSON")["shortCut"].take();
        assert_eq!(json(some), serde_json::json!({ "pods": 3, "slots": 12, "slotCapacity": 65_536 }));
        let counted = serde_json::json!({ "vlan-tag": 0, "undecided": 4, "from-node": 1 });
        assert_eq!(json(lossy)["drops"], counted);
        assert_eq!(json(none)["whyNot"], "switched off");
        assert!(fastpath(Info::default()).short_cut.is_none(), "an older fast path says nothing of it");
    }

    #[test]
    fn uptimes_show_their_two_largest_units() {
        for (seconds, text) in [(59, "59s"), (61, "1m1s"), (7_260, "2h1m"), (90_000, "1d1h")] {
            assert_eq!(uptime(seconds), text);
        }
    }
}
