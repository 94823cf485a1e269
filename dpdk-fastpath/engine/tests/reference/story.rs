//! What has happened so far, for whoever reads of a failure.

use std::fmt::Write as _;

use crate::model::End;
use crate::model::tables::Tables;
use crate::wire::{Frame, Left, show};

/// Packets that are told of.
const TOLD: usize = 12;

#[derive(Default)]
pub(crate) struct Story {
    /// What happened, the packets and what became of them.
    lines: Vec<String>,
}

impl Story {
    pub(crate) fn happened(&mut self, what: String) {
        self.lines.push(what);
    }

    pub(crate) fn packet(&mut self, port: u16, frame: &Frame, end: &End) {
        self.lines.push(format!("port {port} < {}\n    {}", whole(frame), told(end)));
    }

    /// The failure of a packet.
    pub(crate) fn of_packet(
        &self,
        tables: &Tables,
        port: u16,
        frame: &Frame,
        engine: &End,
        model: &[End],
    ) -> String {
        let mut out = self.so_far(tables);
        let _ = writeln!(out, "\nthis packet differs: port {port} < {}", whole(frame));
        let _ = write!(out, "{}", show::hex(&frame.bytes));
        let _ = writeln!(out, "  the engine: {}", told(engine));
        if let End::Send(_, frame) = engine {
            let _ = write!(out, "{}", show::hex(&frame.bytes));
        }
        for model in model {
            let _ = writeln!(out, "  the model: {}", told(model));
            if let (End::Send(_, sent), End::Send(_, expected)) = (engine, model) {
                let _ = writeln!(out, "    {}", show::difference(&sent.bytes, &expected.bytes));
                let _ = write!(out, "{}", show::hex(&expected.bytes));
            }
        }
        out
    }

    /// The failure of what is held after packets.
    pub(crate) fn of_state(&self, tables: &Tables, what: &str, engine: &str, model: &str) -> String {
        let mut out = self.so_far(tables);
        let _ = write!(out, "\n{what} differ\n  the engine: {engine}\n  the model:  {model}\n");
        out
    }

    fn so_far(&self, tables: &Tables) -> String {
        let mut out = String::from("\nthe tables:\n");
        let _ = writeln!(out, "  node {:?}", tables.node);
        for (index, port) in &tables.ports {
            let _ = writeln!(out, "  port {index} {port:?}");
        }
        for (name, remote) in &tables.remotes {
            let _ = writeln!(out, "  remote {name} {remote:?}");
        }
        for service in &tables.services {
            let _ = writeln!(out, "  service {service:?}");
        }
        let _ = writeln!(out, "  neighbours {:?}", tables.neighbours);
        let _ = writeln!(out, "  path MTUs {:?}", tables.path_mtus);
        let skipped = self.lines.len().saturating_sub(TOLD);
        let _ = writeln!(out, "before ({skipped} earlier ones left out):");
        for line in &self.lines[skipped..] {
            let _ = writeln!(out, "  {line}");
        }
        out
    }
}

fn whole(frame: &Frame) -> String {
    let Left { segment, partial } = frame.left;
    let left = if partial {
        format!(", to be cut at {segment}, its checksum to be computed")
    } else {
        String::new()
    };
    show::line(&frame.bytes) + &left
}

fn told(end: &End) -> String {
    match end {
        End::Send(port, frame) => format!("sent to port {port}: {}", whole(frame)),
        other => format!("{other:?}"),
    }
}
