//! Which interface stands on which.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::Link;

pub(super) struct Graph<'a> {
    links: BTreeMap<u32, &'a Link>,
    /// Interfaces directly above each.
    uppers: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(links: &'a [Link]) -> Self {
        let links: BTreeMap<u32, &Link> = links.iter().map(|l| (l.index, l)).collect();
        let mut uppers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for link in links.values() {
            if let Some(controller) = link.controller {
                uppers.entry(link.index).or_default().push(controller);
                // A switch's other ports are reached through it: Open vSwitch keeps its addresses on a port, and
                // containers hang on a bridge.
                let is_switch = |l: &&&Link| matches!(l.kind.as_deref(), Some("bridge" | "openvswitch"));
                if links.get(&controller).filter(is_switch).is_some() {
                    uppers.entry(controller).or_default().push(link.index);
                }
            }
            if let Some(lower) = link.lower {
                uppers.entry(lower).or_default().push(link.index);
            }
        }
        Self { links, uppers }
    }

    /// `index` and everything above it, nearest first.
    pub(super) fn above(&self, index: u32) -> Vec<u32> {
        let mut seen = BTreeSet::from([index]);
        let mut order = vec![index];
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            for upper in self.uppers.get(&at).into_iter().flatten() {
                if seen.insert(*upper) {
                    order.push(*upper);
                }
            }
        }
        order
    }

    pub(super) fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("interface {index}"), |l| l.name.clone())
    }
}
