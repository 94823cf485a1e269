//! Which flows of UDP have had several packets lately, so that they are worth a place in the short cut.
//!
//! In: a packet's flow, by its hash. Out: whether there were several of it. A question and its answer, as with DNS, are over before
//! they would have gone by the short cut, and nothing tells that they are: they would only take the places of others.

/// Packets of one direction after which a flow is one that goes on. A resolver that asks for two kinds of addresses by one port, and
/// once more for each, sends fewer.
pub(super) const SEVERAL: u32 = 8;

/// Flows that are counted at the same time, at most; a power of two.
const PLACES: usize = 1024;

/// The count is in the low bits of a place, and a part of the hash above it.
const COUNT: u32 = 0xff;

/// Packets counted by flow. Of flows that share a place each takes off what the other has, so that the one with more packets is
/// counted.
#[derive(Debug)]
pub(super) struct Repeated(Box<[u32; PLACES]>);

impl Repeated {
    pub(super) fn new() -> Self {
        Self(Box::new([0; PLACES]))
    }

    /// Counts a packet of the flow with this hash; returns whether there were several of it.
    pub(super) fn note(&mut self, hash: u64) -> bool {
        let place = &mut self.0[hash as usize % PLACES];
        let (flow, count) = ((hash >> 32) as u32 & !COUNT, *place & COUNT);
        if *place & !COUNT == flow {
            *place += u32::from(count < SEVERAL);
            return count + 1 >= SEVERAL;
        }
        *place = if count > 1 { *place - 1 } else { flow | 1 };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_counts_from_its_eighth_packet_on() {
        let mut repeated = Repeated::new();
        let counts: Vec<_> = (0..1000).map(|_| repeated.note(0x1234_5678_9abc_def0)).collect();
        assert!(counts.iter().enumerate().all(|(at, counts)| *counts == (at >= 7)), "{counts:?}");
    }

    #[test]
    fn questions_that_come_once_or_twice_never_count() {
        let mut repeated = Repeated::new();
        for question in 0..100_000_u64 {
            let hash = question.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(!(repeated.note(hash) || repeated.note(hash)), "{question}");
        }
    }

    #[test]
    fn of_flows_at_one_place_the_one_with_more_packets_counts() {
        let mut repeated = Repeated::new();
        let (many, few) = (1 << 40, 1 << 41);
        let counts = (0..100).map(|at| {
            let other = at % 3 == 0 && repeated.note(few);
            (repeated.note(many), other)
        });
        assert_eq!(counts.last(), Some((true, false)));
    }
}
