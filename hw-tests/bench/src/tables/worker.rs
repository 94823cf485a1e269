//! A worker that looks where one flow goes.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use culvert_engine::flow::Tick;
use culvert_engine::pipeline::{Pipeline, Verdict};
use culvert_engine::quiescent::Reader;
use culvert_engine::table::{PortIndex, Snapshot};
use culvert_packet::buf::TestBuf;

use super::objects;

/// How often somebody looks who sleeps meanwhile.
const LOOK: Duration = Duration::from_millis(1);

/// No port: the packet was dropped.
const NOWHERE: u16 = u16::MAX;

/// Where the flow goes, and since when.
#[derive(Debug)]
pub(super) struct Sight {
    start: Instant,
    /// Nanoseconds from `start`, times 2^16, and the port.
    seen: AtomicU64,
    stop: AtomicBool,
}

impl Sight {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), seen: AtomicU64::new(NOWHERE.into()), stop: AtomicBool::new(false) }
    }

    fn see(&self, port: u16) {
        let nanoseconds = self.start.elapsed().as_nanos() as u64;
        self.seen.store(nanoseconds << 16 | u64::from(port), Ordering::Release);
    }

    /// Where it goes, and since when.
    pub(super) fn now(&self) -> (PortIndex, Instant) {
        let seen = self.seen.load(Ordering::Acquire);
        (PortIndex(seen as u16), self.start + Duration::from_nanos(seen >> 16))
    }

    /// Waits until it goes where `wanted` says; since when it does.
    pub(super) fn wait(&self, limit: Duration, wanted: impl Fn(PortIndex) -> bool) -> Option<Instant> {
        self.look_until(limit, wanted, hint::spin_loop)
    }

    /// The same for what takes longer, or needs this CPU: looks now and then. The time is as exact.
    pub(super) fn wait_asleep(&self, limit: Duration, wanted: impl Fn(PortIndex) -> bool) -> Option<Instant> {
        self.look_until(limit, wanted, || thread::sleep(LOOK))
    }

    fn look_until(
        &self,
        limit: Duration,
        wanted: impl Fn(PortIndex) -> bool,
        pause: impl Fn(),
    ) -> Option<Instant> {
        let begin = Instant::now();
        loop {
            match self.now() {
                (port, since) if wanted(port) => return Some(since),
                _ if begin.elapsed() > limit => return None,
                _ => pause(),
            }
        }
    }

    /// Ends the worker.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) tables: Reader<Snapshot>,
    pub(super) pipeline: Pipeline,
    pub(super) sight: Arc<Sight>,
}

impl Worker {
    /// Sends packets of the flow until it is stopped.
    pub(super) fn run(mut self) {
        let mut last = NOWHERE;
        let mut verdicts = Vec::with_capacity(1);
        let frame = objects::frame();
        let now = Tick::at(Duration::ZERO);
        while !self.sight.stop.load(Ordering::Acquire) {
            let tables = self.tables.pin();
            let mut packet = [TestBuf::new(&frame)];
            self.pipeline.process(tables, now, objects::CLIENT, &mut packet, &mut verdicts);
            let port = match verdicts[..] {
                [Verdict::Send(port)] => port.0,
                _ => NOWHERE,
            };
            if port != last {
                self.sight.see(port);
                last = port;
            }
        }
    }
}
