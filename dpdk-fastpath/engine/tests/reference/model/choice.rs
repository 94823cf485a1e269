//! Where the engine is free: which of a service's endpoints, which source port where the own one is taken, which records of
//! a full table go first, which source port in a tunnel. The model lists what is allowed, is led through it, and remembers.

use super::flow::{Key, Side};
use crate::wire::dissect::dissect;
use crate::wire::show;

/// One way through all that the engine may choose, and what is seen of its choice.
pub(crate) struct Trial<'a> {
    /// What was taken of how many, choice by choice.
    made: Vec<(usize, usize)>,
    next: usize,
    /// The frame that the engine sent.
    sent: Option<&'a [u8]>,
    /// What the flow becomes that the engine tracks under a key.
    entered: &'a dyn Fn(&Key) -> Option<Key>,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(sent: Option<&'a [u8]>, entered: &'a dyn Fn(&Key) -> Option<Key>) -> Self {
        Self { made: Vec::new(), next: 0, sent, entered }
    }

    /// One of so many; the first the first time.
    pub(crate) fn pick(&mut self, of: usize) -> usize {
        let at = self.next;
        self.next += 1;
        match self.made.get_mut(at) {
            Some((taken, _)) => *taken,
            None => {
                self.made.push((0, of));
                0
            }
        }
    }

    /// Goes on to the next way; `false` if that was the last.
    pub(crate) fn advance(&mut self) -> bool {
        self.made.truncate(self.next);
        self.next = 0;
        while let Some((taken, of)) = self.made.pop() {
            if taken + 1 < of {
                self.made.push((taken + 1, of));
                return true;
            }
        }
        false
    }

    /// Source port of the tunnel packet that was sent.
    pub(crate) fn entropy(&self) -> Option<u16> {
        let frame = self.sent?;
        dissect(frame).ok().map(|packet| packet.ports.0)
    }

    /// Source port of the translated packet that was sent, or else of the flow that is tracked now.
    pub(crate) fn source_port(&self, original: &Key) -> Option<u16> {
        let sent = self.sent.and_then(|frame| {
            let packet = dissect(frame).ok()?;
            match show::inner(frame, &packet) {
                Some(inner) => dissect(inner).ok().map(|packet| packet.ports.0),
                None => Some(packet.ports.0),
            }
        });
        sent.or_else(|| self.entered_port(original))
    }

    /// Source port of the flow that is tracked now.
    pub(crate) fn entered_port(&self, original: &Key) -> Option<u16> {
        Some((self.entered)(original)?.src.1)
    }

    /// Whether the engine tracks the flow now.
    pub(crate) fn is_tracked(&self, original: &Key) -> bool {
        (self.entered)(original).is_some()
    }

    /// The endpoint of the flow that is tracked now, where no packet was sent that would show it.
    pub(crate) fn endpoint(&self, original: &Key) -> Option<Side> {
        if self.sent.is_some() { None } else { Some((self.entered)(original)?.dst) }
    }
}
