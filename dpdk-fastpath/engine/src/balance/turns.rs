//! Whose turn it is.

use crate::table::MAX_SERVICES;

/// One worker's count of turns for each service, by slot. Workers take turns by themselves: an endpoint is at most one
/// turn per worker ahead of another of the same weight.
#[derive(Debug)]
pub struct Turns {
    next: Box<[u32]>,
}

impl Turns {
    /// Worker `number` begins elsewhere than the others, so that they do not all begin with the same endpoint.
    pub fn new(number: usize) -> Self {
        // Zeroes straight from the kernel: what is never counted takes no memory.
        let mut next = vec![0; MAX_SERVICES];
        if number > 0 {
            next.fill(number as u32);
        }
        Self { next: next.into() }
    }

    /// The number of the next turn of the service in a slot.
    #[inline]
    pub fn take(&mut self, slot: u32) -> u32 {
        let Some(next) = self.next.get_mut(slot as usize) else { return 0 };
        let turn = *next;
        *next = turn.wrapping_add(1);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_turns_of_its_own_and_workers_begin_apart() {
        let (mut first, mut second) = (Turns::new(0), Turns::new(1));
        assert_eq!([first.take(7), first.take(7), first.take(8)], [0, 1, 0]);
        assert_eq!([second.take(7), second.take(7)], [1, 2]);
        assert_eq!(first.take(u32::MAX), 0);
    }
}
