//! What runs under callgrind: each work's packets through the pipeline.

use std::time::Duration;

use culvert_engine::flow::Tick;
use culvert_engine::pipeline::{Pipeline, Verdict};
use culvert_engine::table::{PortIndex, Snapshot};

use super::buffer::Buffer;
use crate::input::Input;
use crate::input::frame::Transport;
use crate::scene::{Scene, SceneError};
use crate::work::Work;

/// Different flows of each work, all of one pod.
const FLOWS: u32 = 1_000;

/// How often a packet of each flow is counted.
const ROUNDS: usize = 4;

/// Sends the packets of a work through [`counted`]; returns how many these were.
pub(super) fn run(work: Work) -> Result<usize, SceneError> {
    let (source, transport, rounds) = match work {
        // A flow is opened once.
        Work::W4 => (Work::W4, Transport::Tcp, 1),
        Work::W5 => (Work::W3, Transport::Udp, ROUNDS),
        work => (work, Transport::Udp, ROUNDS),
    };
    let input = Input::generate(source, transport, FLOWS, 1)?;
    let scene = Scene::new(work, transport, input, 1)?;
    let frames: Vec<_> = scene.input.frames().take(FLOWS as usize).collect();
    let port = frames.first().map_or(PortIndex(u16::MAX), |(from, _)| scene.port(*from));
    let once: Vec<_> = frames.iter().filter_map(|(_, frame)| Buffer::new(frame)).collect();
    let Scene { snapshot, mut pipelines, .. } = scene;
    let pipeline = &mut pipelines[0];
    let mut verdicts = Vec::with_capacity(once.len() * rounds);
    if work != Work::W4 {
        // Destinations and tunnels are looked up once per snapshot, and then remembered.
        let now = Tick::at(Duration::ZERO);
        pipeline.process(&snapshot, now, port, &mut once.clone(), &mut verdicts);
    }
    let mut bufs: Vec<_> = (0..rounds).flat_map(|_| once.clone()).collect();
    counted(pipeline, &snapshot, port, &mut bufs, &mut verdicts);
    match verdicts.iter().enumerate().find(|(_, verdict)| !matches!(verdict, Verdict::Send(_))) {
        None => Ok(bufs.len()),
        Some((flow, verdict)) => Err(SceneError::NotForwarded {
            flow: flow % FLOWS as usize,
            step: "counted packet",
            verdict: format!("{verdict:?}"),
        }),
    }
}

/// Callgrind counts what happens in here, which it knows by this function's name.
#[inline(never)]
fn counted(
    pipeline: &mut Pipeline,
    tables: &Snapshot,
    port: PortIndex,
    bufs: &mut [Buffer],
    verdicts: &mut Vec<Verdict>,
) {
    pipeline.process(tables, Tick::at(Duration::ZERO), port, bufs, verdicts);
}
