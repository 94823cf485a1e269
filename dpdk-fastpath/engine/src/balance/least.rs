//! Who has the fewest open flows.

use super::Loads;
use crate::table::{Backend, Service};

/// As many endpoints are all looked at.
const ALL: usize = 32;

/// Of more, so many are looked at, drawn by the flow's hash in proportion to their weights. Two already leave little
/// between the fullest and the others (Mitzenmacher, "The power of two choices in randomized load balancing").
const DRAWN: u64 = 4;

/// The endpoint with the fewest open flows for its weight; among equals, whom the hash points at. `None` if there is no
/// endpoint, or if the balancing is not least flow.
pub fn least_loaded<'s>(service: &'s Service, loads: &Loads, hash: u64) -> Option<&'s Backend> {
    let takers = service.takers();
    if takers.len() > ALL {
        let draw = |n: u64| hash.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        return least((0..DRAWN).filter_map(|n| service.pick(draw(n))), loads);
    }
    let first = ((u128::from(hash) * takers.len() as u128) >> 64) as usize;
    let (before, behind) = takers.split_at(first);
    least(behind.iter().chain(before).filter_map(|&index| service.backends().get(usize::from(index))), loads)
}

/// The first of those that would have the fewest flows for their weight if they had one more.
fn least<'s>(backends: impl Iterator<Item = &'s Backend>, loads: &Loads) -> Option<&'s Backend> {
    let flows = |backend: &Backend| u64::from(loads.of(backend.id)) + 1;
    let load = backends.map(|backend| (flows(backend), backend));
    let lighter = |a: (u64, &'s Backend), b: (u64, &'s Backend)| {
        // Flows per weight, compared without division.
        if b.0 * u64::from(a.1.weight) < a.0 * u64::from(b.1.weight) { b } else { a }
    };
    load.reduce(lighter).map(|(_, backend)| backend)
}
