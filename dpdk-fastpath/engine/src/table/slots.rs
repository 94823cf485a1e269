//! Numbers of slots.

/// Small numbers, used again once they are free.
#[derive(Debug, Default)]
pub(super) struct Slots {
    free: Vec<u32>,
    next: u32,
}

impl Slots {
    /// A free one.
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// One is free again.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// All that were ever taken are below this.
    pub(super) const fn end(&self) -> u32 {
        self.next
    }
}
