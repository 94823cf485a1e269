//! Which PFs an entry of the policy is about.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::glob::Glob;
use crate::value::{IfName, PciAddress};

/// How an entry of the policy names PFs: every condition must hold.
///
/// Where two entries match one PF, the one that [beats](Self::beats) the other counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PfSelector {
    address: Option<Pattern<PciAddress>>,
    name: Option<Pattern<IfName>>,
    id: Option<(u16, Option<u16>)>,
    numa: Option<u16>,
    driver: Option<String>,
}

/// What a selector looks at.
#[derive(Debug, Clone, Copy)]
pub struct PfFacts<'a> {
    /// PCI address.
    pub address: PciAddress,
    /// Names of its interfaces.
    pub names: &'a [&'a str],
    /// PCI vendor and device.
    pub id: (u16, u16),
    /// NUMA node, where the machine tells.
    pub numa: Option<u16>,
    /// Its driver.
    pub driver: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Pattern<T> {
    Exactly(T),
    Like(Glob),
}

/// A selector with several conditions. All of them must hold.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawSelector {
    /// PCI address, or a pattern of one.
    address: Option<String>,
    /// Interface name, or a pattern of one.
    name: Option<String>,
    /// Vendor and device, four hexadecimal digits each; `*` for any device.
    id: Option<String>,
    /// NUMA node.
    numa: Option<u16>,
    /// Kernel driver of the PF.
    driver: Option<String>,
}

impl PfSelector {
    const NONE: Self = Self { address: None, name: None, id: None, numa: None, driver: None };

    /// Whether it can only mean one PF: by its PCI address, or its interface's name.
    pub fn is_explicit(&self) -> bool {
        self.address().is_some() || matches!(self.name, Some(Pattern::Exactly(_)))
    }

    /// The PCI address that it gives: explicit enough for a PF that the node itself lives on.
    pub fn address(&self) -> Option<PciAddress> {
        match self.address {
            Some(Pattern::Exactly(address)) => Some(address),
            _ => None,
        }
    }

    /// Whether it means this PF.
    pub fn matches(&self, pf: &PfFacts<'_>) -> bool {
        let is = |wanted: Option<bool>| wanted.unwrap_or(true);
        is(self.address.as_ref().map(|a| a.matches(&pf.address.to_string(), |a| *a == pf.address)))
            && is(self
                .name
                .as_ref()
                .map(|n| pf.names.iter().any(|name| n.matches(name, |n| n.as_str() == *name))))
            && is(self
                .id
                .map(|(vendor, device)| vendor == pf.id.0 && device.is_none_or(|device| device == pf.id.1)))
            && is(self.numa.map(|numa| pf.numa == Some(numa)))
            && is(self.driver.as_ref().map(|driver| pf.driver == Some(driver)))
    }

    /// Whether it goes before `other` on a PF that both match: it is [explicit](Self::is_explicit) and `other` is not, or
    /// it has all conditions of `other` and more.
    pub fn beats(&self, other: &Self) -> bool {
        if self.is_explicit() != other.is_explicit() {
            return self.is_explicit();
        }
        let (mine, others) = (self.conditions(), other.conditions());
        mine.len() > others.len() && others.iter().all(|(key, value)| mine.get(key) == Some(value))
    }

    fn conditions(&self) -> BTreeMap<&'static str, String> {
        let all = [
            ("address", self.address.as_ref().map(ToString::to_string)),
            ("name", self.name.as_ref().map(ToString::to_string)),
            (
                "id",
                self.id.map(|(vendor, device)| match device {
                    Some(device) => format!("{vendor:04x}:{device:04x}"),
                    None => format!("{vendor:04x}:*"),
                }),
            ),
            ("numa", self.numa.map(|n| n.to_string())),
            ("driver", self.driver.clone()),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl<T> Pattern<T> {
    fn matches(&self, text: &str, is: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Exactly(value) => is(value),
            Self::Like(glob) => glob.matches(text),
        }
    }
}

fn address(text: &str) -> Result<Pattern<PciAddress>, String> {
    if Glob::is_plain(text) {
        let address = text.parse().map_err(|e: crate::value::PciAddressError| e.to_string())?;
        return Ok(Pattern::Exactly(address));
    }
    let lower = text.to_ascii_lowercase();
    let legal = |b: u8| b.is_ascii_hexdigit() || b":.*?[]-".contains(&b);
    if !lower.bytes().all(legal) {
        return Err(format!(
            "pci address {text:?}: a pattern of one has hexadecimal digits, : . * ? and [ ] only"
        ));
    }
    Glob::new(&lower).map(Pattern::Like)
}

fn name(text: &str) -> Result<Pattern<IfName>, String> {
    if Glob::is_plain(text) {
        let name = text.parse().map_err(|e: crate::value::IfNameError| e.to_string())?;
        return Ok(Pattern::Exactly(name));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-*?[]".contains(&b);
    if !text.bytes().all(legal) {
        return Err(format!(
            "interface name {text:?}: a pattern of one has letters, digits, . _ - * ? and [ ] only"
        ));
    }
    Glob::new(text).map(Pattern::Like)
}

fn id(text: &str) -> Result<(u16, Option<u16>), String> {
    let hex = |part: &str| {
        let digits = part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
        u16::from_str_radix(part, 16).ok().filter(|_| digits)
    };
    let parse = || {
        let (vendor, device) = text.split_once(':')?;
        Some((hex(vendor)?, if device == "*" { None } else { Some(hex(device)?) }))
    };
    parse()
        .ok_or_else(|| format!("id {text:?}: must look like 8086:1592, or 8086:* for any device of a vendor"))
}

impl FromStr for PfSelector {
    type Err = String;

    /// One condition as a plain text: an address has two colons, an id has one, a name has none.
    fn from_str(text: &str) -> Result<Self, String> {
        // A colon is legal in an interface's name, but only aliases bear one.
        match text.bytes().filter(|b| *b == b':').count() {
            0 => Ok(Self { name: Some(name(text)?), ..Self::NONE }),
            1 => Ok(Self { id: Some(id(text)?), ..Self::NONE }),
            _ => Ok(Self { address: Some(address(text)?), ..Self::NONE }),
        }
    }
}

impl TryFrom<RawSelector> for PfSelector {
    type Error = String;

    fn try_from(raw: RawSelector) -> Result<Self, String> {
        if raw.driver.as_ref().is_some_and(String::is_empty) {
            return Err("driver: must name one, such as ice".to_owned());
        }
        let selector = Self {
            address: raw.address.as_deref().map(address).transpose()?,
            name: raw.name.as_deref().map(name).transpose()?,
            id: raw.id.as_deref().map(id).transpose()?,
            numa: raw.numa,
            driver: raw.driver,
        };
        if selector == Self::NONE {
            return Err("pf: needs a condition: address, name, id, numa or driver".to_owned());
        }
        Ok(selector)
    }
}

impl<'de> Deserialize<'de> for PfSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PfSelector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an interface name, a PCI address, vendor:device, or conditions such as {id: 8086:1592, numa: 0}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PfSelector, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PfSelector, A::Error> {
                RawSelector::deserialize(MapAccessDeserializer::new(map))?
                    .try_into()
                    .map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<T: fmt::Display> fmt::Display for Pattern<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => value.fmt(f),
            Self::Like(glob) => glob.fmt(f),
        }
    }
}

impl fmt::Display for PfSelector {
    /// As it may be written in a policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<(&str, String)> = self.conditions().into_iter().collect();
        match conditions.as_slice() {
            [("address" | "name" | "id", only)] => f.write_str(only),
            all => {
                let all: Vec<String> = all.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                write!(f, "{{{}}}", all.join(", "))
            }
        }
    }
}
