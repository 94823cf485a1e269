//! Where the MACs of an entry's VFs come from.

use std::fmt;

use serde::Deserialize;

use crate::value::{Mac, VfIndex};

/// Where a VF's MAC comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacPolicy {
    /// From the name of the node, the PF and the VF's index.
    Derived,
    /// As configured.
    Fixed(Mac),
    /// One of these that nobody else on the node has; the VF keeps it for ever.
    Pool(MacRange),
}

/// Unicast addresses with the same first octet, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacRange {
    from: Mac,
    to: Mac,
}

/// `derived`, `{ base: MAC }`, `{ list: [MAC...] }` or `{ pool: { from: MAC, to: MAC } }`.
#[derive(Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) enum RawMac {
    /// Made of the node's name, the PF's permanent MAC (its PCI address if it has none) and the VF's index: the same after
    /// every restart, reboot and re-carve.
    #[default]
    Derived,
    /// This one for VF 0, the next one for VF 1, and so on.
    Base(Mac),
    /// One for each VF.
    List(Vec<Mac>),
    /// One of a range that entries may share. Each VF keeps its own.
    Pool(RawRange),
}

/// The first and the last address of a range.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawRange {
    /// The first address.
    from: Mac,
    /// The last one.
    to: Mac,
}

impl RawRange {
    pub(super) fn validate(&self) -> Result<MacRange, &'static str> {
        if self.from > self.to {
            return Err("is the wrong way round");
        }
        if self.from.octets()[0] != self.to.octets()[0] {
            return Err("must not go beyond one first octet");
        }
        Ok(MacRange { from: self.from, to: self.to })
    }
}

impl MacRange {
    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        number(self.to) - number(self.from) + 1
    }

    /// Whether `mac` is one of them.
    pub fn contains(&self, mac: Mac) -> bool {
        (self.from..=self.to).contains(&mac)
    }

    /// The addresses, lowest first.
    pub fn addresses(&self) -> impl Iterator<Item = Mac> + use<> {
        let (from, size) = (self.from, self.size());
        (0..size).map_while(move |index| plus(from, index))
    }
}

impl fmt::Display for MacRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

impl fmt::Display for RawRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

fn number(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// `base` as a number, plus `index`; `None` past the last unicast address of that first octet.
pub(super) fn plus(base: Mac, index: u64) -> Option<Mac> {
    let [x, y, a, b, c, d, e, f] = number(base).checked_add(index)?.to_be_bytes();
    if [x, y, a] != [0, 0, base.octets()[0]] {
        return None;
    }
    Mac::try_from([a, b, c, d, e, f]).ok()
}

/// The MAC rule of an entry, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MacRule {
    Derived,
    Base(Mac),
    List(Vec<Mac>),
    Pool(MacRange),
}

impl MacRule {
    /// `None` for a VF that a base or list has no address for.
    pub(super) fn of(&self, vf: VfIndex) -> Option<MacPolicy> {
        match self {
            Self::Derived => Some(MacPolicy::Derived),
            Self::Base(base) => plus(*base, vf.get().into()).map(MacPolicy::Fixed),
            Self::List(list) => list.get(usize::from(vf.get())).copied().map(MacPolicy::Fixed),
            Self::Pool(range) => Some(MacPolicy::Pool(*range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, to: &str) -> Result<MacRange, &'static str> {
        RawRange { from: from.parse().unwrap(), to: to.parse().unwrap() }.validate()
    }

    #[test]
    fn a_range_is_its_addresses_in_order_over_octets() {
        let range = range("02:00:00:00:00:fe", "02:00:00:00:01:01").unwrap();
        let all: Vec<String> = range.addresses().map(|m| m.to_string()).collect();
        assert_eq!(all, ["02:00:00:00:00:fe", "02:00:00:00:00:ff", "02:00:00:00:01:00", "02:00:00:00:01:01"]);
        assert_eq!(range.size(), 4);
        assert!(range.contains("02:00:00:00:01:00".parse().unwrap()));
        assert!(!range.contains("02:00:00:00:01:02".parse().unwrap()));
    }

    #[test]
    fn a_range_that_runs_backwards_or_into_multicast_is_refused() {
        assert!(range("02:00:00:00:00:02", "02:00:00:00:00:01").is_err());
        assert!(range("02:00:00:00:00:02", "04:00:00:00:00:01").is_err());
        assert_eq!(plus("02:ff:ff:ff:ff:ff".parse().unwrap(), 1), None);
    }
}
