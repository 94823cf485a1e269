//! The overlay network.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::host_port::{HostPort, RawHostPort};
use crate::config::ConfigError;
use crate::config::balancing::Balancing;
use crate::config::flows::Flows;
use crate::value::{Mtu, Vni};

#[cfg(test)]
mod tests;

/// The overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// What the nodes' packets to each other are wrapped in.
    pub encapsulation: Encapsulation,
    /// Network identifier of the cluster's own routing domain.
    pub vni: Vni,
    /// UDP destination port of tunnel packets.
    pub port: u16,
    /// Largest IP packet of the underlay, in bytes.
    pub underlay_mtu: Mtu,
    /// Length of the prefix that the nodes' IPv4 underlay addresses share.
    pub underlay_prefix: u8,
    /// Next hop for nodes outside that prefix.
    pub underlay_router: Option<IpAddr>,
    /// DSCP of tunnel packets.
    pub dscp: DscpModel,
    /// Congestion marks of tunnel packets.
    pub ecn: EcnMode,
    /// Time to live or hop limit of tunnel packets.
    pub ttl: Ttl,
    /// Tunnel packets over IPv6 without UDP checksum.
    pub zero_checksum: ZeroChecksum,
    /// Routing domains besides the cluster's own.
    pub tenants: Vec<Tenant>,
    /// How Services spread new flows that do not say it themselves.
    pub balancing: Balancing,
    /// How connections are treated.
    pub flows: Flows,
    /// The node's own port; absent: the node has no way to pods.
    pub host_port: Option<HostPort>,
}

/// What the nodes' packets to each other are wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encapsulation {
    /// VXLAN (RFC 7348).
    #[default]
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
}

impl Encapsulation {
    /// The UDP port that IANA gave to it.
    pub const fn port(self) -> u16 {
        match self {
            Self::Vxlan => 4789,
            Self::Geneve => 6081,
        }
    }
}

/// How the DSCP of tunnel packets and that of the packets inside depend on each other (RFC 2983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DscpModel {
    /// All tunnel packets have this one, 0-63; those inside keep theirs.
    Pipe(u8),
    /// Tunnel packets have that of the packet inside, which keeps its own.
    Copy,
    /// The same, and the packet inside leaves the tunnel with that of the tunnel packet.
    Uniform,
}

/// What a tunnel's entry does with congestion marks (RFC 6040, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EcnMode {
    /// Tunnel packets have the mark of the packet inside.
    #[default]
    Normal,
    /// Tunnel packets are not ECN-capable.
    Compatibility,
}

/// Time to live or hop limit of tunnel packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// This one, 1-255.
    Fixed(u8),
    /// That of the packet inside.
    Copy,
}

/// UDP over IPv6 without checksum (RFC 6935, RFC 6936).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ZeroChecksum {
    /// Whether tunnel packets are sent so. Linux drops them unless its device has `udp6zerocsumrx`.
    pub send: bool,
    /// Whether tunnel packets that come so are taken.
    pub accept: bool,
}

/// A routing domain besides the cluster's own: its pods may have the same addresses as others'.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Its name: 1-63 lower-case letters, digits and '-'.
    pub name: String,
    /// Its network identifier, which is also its number in the fast path.
    pub vni: Vni,
    /// Namespaces whose pods and Services are the tenant's.
    pub namespaces: Vec<String>,
}

impl Overlay {
    /// Bytes that a tunnel over IPv4 adds to a packet: IPv4, UDP and tunnel headers and the inner Ethernet header.
    pub const OVERHEAD_V4: u16 = 20 + 8 + 8 + 14;
    /// The same over IPv6.
    pub const OVERHEAD_V6: u16 = 40 + 8 + 8 + 14;

    /// Largest IP packet of a pod, in bytes, on a node with an IPv4 address on the underlay or without one.
    pub fn pod_mtu(&self, over_ipv4: bool) -> u16 {
        let overhead = if over_ipv4 { Self::OVERHEAD_V4 } else { Self::OVERHEAD_V6 };
        self.underlay_mtu.get() - overhead
    }

    /// The tenant that a namespace belongs to; `None` if it is the cluster's own.
    pub fn tenant_of(&self, namespace: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.namespaces.iter().any(|name| name == namespace))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawOverlay {
    encapsulation: Encapsulation,
    vni: Vni,
    port: Option<u16>,
    underlay_mtu: Mtu,
    underlay_prefix: u8,
    underlay_router: Option<IpAddr>,
    dscp: DscpModel,
    ecn: EcnMode,
    ttl: Ttl,
    zero_checksum: ZeroChecksum,
    tenants: Vec<Tenant>,
    balancing: Balancing,
    flows: Flows,
    host_port: Option<RawHostPort>,
}

impl Default for RawOverlay {
    fn default() -> Self {
        Self {
            encapsulation: Encapsulation::Vxlan,
            vni: Vni::try_from(4096).expect("is within 24 bits"),
            port: None,
            underlay_mtu: Mtu::try_from(1500).expect("is an MTU"),
            underlay_prefix: 24,
            underlay_router: None,
            dscp: DscpModel::Pipe(0),
            ecn: EcnMode::Normal,
            ttl: Ttl::Fixed(64),
            zero_checksum: ZeroChecksum::default(),
            tenants: Vec::new(),
            balancing: Balancing::default(),
            flows: Flows::default(),
            host_port: None,
        }
    }
}

impl RawOverlay {
    pub(super) fn validate(self) -> Result<Overlay, ConfigError> {
        let port = self.port.unwrap_or(self.encapsulation.port());
        if port == 0 {
            return Err(ConfigError::value("overlay.port", port, "must be 1-65535"));
        }
        // IPv6 in the pods needs its 1280 bytes after the overlay has taken its share (RFC 8200, section 5).
        let least = Mtu::MIN.get() + Overlay::OVERHEAD_V4;
        if self.underlay_mtu.get() < least {
            let reason =
                format!("must be at least {least}, so that pods have the {} that IPv6 needs", Mtu::MIN);
            return Err(ConfigError::value("overlay.underlayMtu", self.underlay_mtu, reason));
        }
        if !(1..=32).contains(&self.underlay_prefix) {
            return Err(ConfigError::value("overlay.underlayPrefix", self.underlay_prefix, "must be 1-32"));
        }
        if let Some(router) = self.underlay_router
            && (router.is_unspecified() || router.is_multicast() || router.is_loopback())
        {
            let reason = "must be the unicast address of a router on the underlay";
            return Err(ConfigError::value("overlay.underlayRouter", router, reason));
        }
        check_tenants(&self.tenants, self.vni)?;
        let flows = self.flows.validate()?;
        Ok(Overlay {
            encapsulation: self.encapsulation,
            vni: self.vni,
            port,
            underlay_mtu: self.underlay_mtu,
            underlay_prefix: self.underlay_prefix,
            underlay_router: self.underlay_router,
            dscp: self.dscp,
            ecn: self.ecn,
            ttl: self.ttl,
            zero_checksum: self.zero_checksum,
            tenants: self.tenants,
            balancing: self.balancing,
            flows,
            host_port: self.host_port.map(RawHostPort::validate).transpose()?,
        })
    }
}

/// Each with a name, a network identifier and namespaces of its own.
fn check_tenants(tenants: &[Tenant], own: Vni) -> Result<(), ConfigError> {
    for (index, tenant) in tenants.iter().enumerate() {
        let refused = |field: &str, value: &dyn fmt::Display, reason: String| {
            Err(ConfigError::value(format!("overlay.tenants[{index}].{field}"), value, reason))
        };
        let before = &tenants[..index];
        if !is_label(&tenant.name) {
            let reason =
                "must be 1-63 lower-case letters, digits or '-', a letter or digit at both ends".to_owned();
            return refused("name", &format_args!("{:?}", tenant.name), reason);
        }
        if before.iter().any(|other| other.name == tenant.name) {
            return refused("name", &tenant.name, "is the name of another tenant".to_owned());
        }
        let vni = tenant.vni.get();
        if vni == 0 {
            return refused("vni", &vni, "must be 1-16777215".to_owned());
        }
        if tenant.vni == own {
            return refused(
                "vni",
                &vni,
                "is overlay.vni, that of the cluster's own routing domain".to_owned(),
            );
        }
        if let Some(other) = before.iter().find(|other| other.vni == tenant.vni) {
            return refused("vni", &vni, format!("is that of tenant {}", other.name));
        }
        for (at, namespace) in tenant.namespaces.iter().enumerate() {
            let field = format!("namespaces[{at}]");
            if !is_label(namespace) {
                return refused(
                    &field,
                    &format_args!("{namespace:?}"),
                    "must be the name of a namespace".to_owned(),
                );
            }
            let twice = tenant.namespaces[..at].contains(namespace);
            if let Some(other) = before.iter().find(|other| other.namespaces.contains(namespace)) {
                return refused(&field, namespace, format!("belongs to tenant {}", other.name));
            }
            if twice {
                return refused(&field, namespace, "is named twice".to_owned());
            }
        }
    }
    Ok(())
}

/// Whether `name` is a DNS label (RFC 1123), as names of namespaces are.
fn is_label(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 63 && name.bytes().all(legal) && edge(name.bytes().next()) && edge(name.bytes().last())
}

impl<'de> Deserialize<'de> for DscpModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let choice = Choice {
            range: 0..=63,
            words: &[("copy", Self::Copy), ("uniform", Self::Uniform)],
            number: Self::Pipe,
        };
        deserializer.deserialize_any(choice)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let choice = Choice { range: 1..=255, words: &[("copy", Self::Copy)], number: Self::Fixed };
        deserializer.deserialize_any(choice)
    }
}

/// A number within a range, or a word.
struct Choice<T: 'static> {
    range: std::ops::RangeInclusive<u8>,
    words: &'static [(&'static str, T)],
    number: fn(u8) -> T,
}

impl<T: Copy> Visitor<'_> for Choice<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.range.start(), self.range.end())?;
        self.words.iter().try_for_each(|(word, _)| write!(f, " or {word}"))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        match u8::try_from(value) {
            Ok(number) if self.range.contains(&number) => Ok((self.number)(number)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let found = self.words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}
