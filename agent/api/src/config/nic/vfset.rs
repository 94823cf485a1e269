//! Sets and numbers of VFs as a policy writes them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::value::VfIndex;

/// How many VFs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VfCount {
    /// This many.
    Exactly(u16),
    /// As many as the PF can have: `max`.
    Max,
}

impl VfCount {
    /// How many that is of a PF that can have `total`; may be more than that.
    pub fn of(self, total: u16) -> u16 {
        match self {
            Self::Exactly(count) => count,
            Self::Max => total,
        }
    }
}

impl fmt::Display for VfCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(count) => count.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

impl<'de> Deserialize<'de> for VfCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = VfCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of VFs, 0-65535, or max")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<VfCount, E> {
                match (text, text.parse()) {
                    ("max", _) => Ok(VfCount::Max),
                    (_, Ok(count)) => Ok(VfCount::Exactly(count)),
                    _ => Err(E::custom(format!("vfs {text:?}: must be 0-65535 or max"))),
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<VfCount, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<VfCount, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// VF indexes: `3`, `0-3`, `0-1,5`, `4-` (from 4 on), `all`; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VfSet(Vec<(u16, Option<u16>)>);

impl VfSet {
    pub(super) fn contains(&self, vf: VfIndex) -> bool {
        self.0.iter().any(|(first, last)| *first <= vf.get() && last.is_none_or(|last| vf.get() <= last))
    }

    /// The highest index that is written out: those of `4-` are all that there are.
    pub(super) fn highest(&self) -> u16 {
        self.0.iter().map(|(first, last)| last.unwrap_or(*first)).max().unwrap_or(0)
    }

    /// Whether it is one VF, and no other whatever number there is.
    pub(super) fn single(&self) -> Option<u16> {
        match self.0.as_slice() {
            [(first, Some(last))] if first == last => Some(*first),
            _ => None,
        }
    }

    /// The first index that is in both.
    pub(super) fn common(&self, other: &Self) -> Option<u16> {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        pairs.filter_map(|(a, b)| common(*a, *b)).min()
    }
}

fn common(a: (u16, Option<u16>), b: (u16, Option<u16>)) -> Option<u16> {
    let first = a.0.max(b.0);
    let last = a.1.unwrap_or(u16::MAX).min(b.1.unwrap_or(u16::MAX));
    (first <= last).then_some(first)
}

impl fmt::Display for VfSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.0.iter().map(|range| match range {
            (0, None) => "all".to_owned(),
            (first, None) => format!("{first}-"),
            (first, Some(last)) if first == last => first.to_string(),
            (first, Some(last)) => format!("{first}-{last}"),
        });
        f.write_str(&ranges.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for VfSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(Self(vec![(0, None)]));
        }
        let index = |part: &str| -> Result<u16, String> {
            part.trim()
                .parse()
                .map_err(|_| format!("vfs {text:?}: must look like 3, 0-3, 0-1,5 or 4-, or be all"))
        };
        let mut ranges: Vec<(u16, Option<u16>)> = Vec::new();
        for range in text.split(',') {
            let range = match range.split_once('-') {
                None => (index(range)?, Some(index(range)?)),
                Some((first, "")) => (index(first)?, None),
                Some((first, last)) => (index(first)?, Some(index(last)?)),
            };
            if let (first, Some(last)) = range
                && first > last
            {
                return Err(format!("vfs {text:?}: {first}-{last} is the wrong way round"));
            }
            if let Some(vf) = ranges.iter().find_map(|before| common(*before, range)) {
                return Err(format!("vfs {text:?}: names vf {vf} twice"));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }
}

impl<'de> Deserialize<'de> for VfSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Set;
        impl Visitor<'_> for Set {
            type Value = VfSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a VF index or ranges of them, such as 3 or \"0-1,5\", or all")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<VfSet, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<VfSet, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<VfSet, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn members(set: &VfSet) -> BTreeSet<u16> {
        (0..40).filter(|i| set.contains(VfIndex::try_from(u32::from(*i)).unwrap())).collect()
    }

    #[test]
    fn sets_hold_what_is_written() {
        for (text, wanted) in [
            ("3", vec![3]),
            ("0-3", vec![0, 1, 2, 3]),
            ("0-1, 5", vec![0, 1, 5]),
            ("37-", vec![37, 38, 39]),
            ("all", (0..40).collect()),
        ] {
            assert_eq!(members(&text.parse().unwrap()).into_iter().collect::<Vec<_>>(), wanted, "{text}");
        }
        let (open, single): (VfSet, VfSet) = ("1,4-".parse().unwrap(), "5".parse().unwrap());
        assert_eq!((open.highest(), open.single(), single.single()), (4, None, Some(5)));
    }

    proptest! {
        #[test]
        fn the_common_index_is_the_first_that_both_contain(
            a in "([0-9]|[0-4]-[5-9]|1[0-9]-)(,2[0-4])?",
            b in "([0-9]|[0-4]-[5-9]|1[0-9]-)(,2[0-4])?",
        ) {
            let (Ok(a), Ok(b)) = (a.parse::<VfSet>(), b.parse::<VfSet>()) else { return Ok(()) };
            let both = members(&a).intersection(&members(&b)).min().copied();
            prop_assert_eq!(a.common(&b), both);
        }
    }
}
