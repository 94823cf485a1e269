//! What the control thread and a worker say to each other.
//!
//! Bounded queues without locks, made once: a worker that looks into an empty one reads two words that stay in its
//! cache. Ports are handed over, not shared. A queue of a device belongs to exactly one thread at any time, and the
//! control thread knows that nobody polls a port because it has its queues back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_queue::ArrayQueue;
use culvert_dpdk::Mbuf;

use super::port::WorkerPort;
use super::rest::Bell;
use crate::pipeline::Learned;
use crate::table::PortIndex;

/// Frames of the control thread that wait for a worker.
const INJECTED: usize = 256;
/// What the underlay said that waits for the control thread. What does not fit is lost, and will be said again.
const LEARNED: usize = 256;
/// The control thread waits for each order to be carried out before it gives the next.
const ORDERS: usize = 4;

/// A worker polls its ports,
const POLL: u8 = 0;
/// or leaves them alone,
const HOLD: u8 = 1;
/// or leaves its loop.
const STOP: u8 = 2;

/// What a worker is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Poll this port, and send through it.
    Take(Box<WorkerPort>),
    /// Give this port back.
    Return(PortIndex),
}

/// What a worker has done.
#[derive(Debug)]
pub(super) enum Done {
    /// Took the port of this number.
    Taken(PortIndex),
    /// Gave the port of this number back, if it had it.
    Returned(PortIndex, Option<Box<WorkerPort>>),
}

/// The queues between the control thread and one worker.
#[derive(Debug, Clone)]
pub(super) struct Mailbox(Arc<Queues>);

#[derive(Debug)]
struct Queues {
    orders: ArrayQueue<Order>,
    done: ArrayQueue<Done>,
    injected: ArrayQueue<(PortIndex, Mbuf)>,
    learned: ArrayQueue<Learned>,
    /// What the worker is to do, one of the three below.
    mode: AtomicU8,
    bell: Arc<Bell>,
}

impl Mailbox {
    /// Empty; whatever is put in for the worker rings the bell.
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self(Arc::new(Queues {
            orders: ArrayQueue::new(ORDERS),
            done: ArrayQueue::new(ORDERS),
            injected: ArrayQueue::new(INJECTED),
            learned: ArrayQueue::new(LEARNED),
            mode: AtomicU8::new(POLL),
            bell,
        }))
    }

    /// Control: gives an order; gives it back if the worker has not taken the last ones yet.
    pub(super) fn order(&self, order: Order) -> Result<(), Order> {
        let order = self.0.orders.push(order);
        self.0.bell.ring();
        order
    }

    /// Control: what the worker has done since.
    pub(super) fn done(&self) -> Option<Done> {
        self.0.done.pop()
    }

    /// Control: a frame to be sent. Gives it back if too many wait already.
    pub(super) fn inject(&self, port: PortIndex, frame: Mbuf) -> Result<(), Mbuf> {
        let injected = self.0.injected.push((port, frame)).map_err(|(_, frame)| frame);
        self.0.bell.ring();
        injected
    }

    /// Control: what the worker has heard of the underlay.
    pub(super) fn learned(&self) -> Option<Learned> {
        self.0.learned.pop()
    }

    /// Control: the worker is to carry out orders only, or, no longer `held`, to poll again.
    pub(super) fn hold(&self, held: bool) {
        self.0.mode.store(if held { HOLD } else { POLL }, Ordering::Release);
        self.0.bell.ring();
    }

    /// Control: the worker is to leave its loop.
    pub(super) fn stop(&self) {
        self.0.mode.store(STOP, Ordering::Release);
        self.0.bell.ring();
    }

    /// Worker: what to do next.
    pub(super) fn next_order(&self) -> Option<Order> {
        if self.0.orders.is_empty() { None } else { self.0.orders.pop() }
    }

    /// Worker: an order was carried out.
    pub(super) fn report(&self, done: Done) {
        // Full only if the control thread no longer listens; then the port is closed from here.
        let _ = self.0.done.push(done);
    }

    /// Worker: a frame to be sent for the control thread.
    pub(super) fn next_injected(&self) -> Option<(PortIndex, Mbuf)> {
        if self.0.injected.is_empty() { None } else { self.0.injected.pop() }
    }

    /// Worker: the underlay said something.
    pub(super) fn learn(&self, learned: Learned) {
        // Lost if the control thread is far behind; it will be said again.
        let _ = self.0.learned.push(learned);
    }

    /// Worker: whether to leave the loop.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.mode.load(Ordering::Acquire) == STOP
    }

    /// Worker: whether to leave all ports alone.
    pub(super) fn is_held(&self) -> bool {
        self.0.mode.load(Ordering::Acquire) == HOLD
    }
}
