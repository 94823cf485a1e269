//! Bounded integers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number outside the range of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value}: must be {min}-{max}")]
pub struct RangeError {
    what: &'static str,
    value: String,
    min: u32,
    max: u32,
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($repr:ty), $what:literal, $min:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name($repr);

        impl $name {
            /// Smallest value.
            pub const MIN: Self = Self($min);
            /// Largest value.
            pub const MAX: Self = Self($max);

            /// The plain number.
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl TryFrom<u32> for $name {
            type Error = RangeError;

            fn try_from(value: u32) -> Result<Self, RangeError> {
                #[allow(clippy::manual_range_contains, unused_comparisons, clippy::absurd_extreme_comparisons)]
                if value < $min || value > $max {
                    return Err(RangeError { what: $what, value: value.to_string(), min: $min, max: $max });
                }
                Ok(Self(value as $repr))
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                #[allow(clippy::useless_conversion)]
                u32::from(value.0)
            }
        }

        impl FromStr for $name {
            type Err = RangeError;

            fn from_str(text: &str) -> Result<Self, RangeError> {
                text.parse::<u32>()
                    .map_err(|_| RangeError { what: $what, value: format!("{text:?}"), min: $min, max: $max })?
                    .try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bounded! {
    /// Index of a virtual function below its PF: the `N` of sysfs' `virtfnN`.
    VfIndex(u16), "vf", 0, 65535
}
bounded! {
    /// IEEE 802.1Q VLAN identifier; 0 means untagged.
    VlanId(u16), "vlan", 0, 4094
}
bounded! {
    /// IEEE 802.1p priority.
    VlanQos(u8), "vlan qos", 0, 7
}
bounded! {
    /// VXLAN network identifier (RFC 7348), 24 bits.
    Vni(u32), "vni", 0, 0xff_ffff
}
bounded! {
    /// Largest IP packet of an interface, in bytes. 1280 is the least that IPv6 allows (RFC 8200, section 5).
    Mtu(u16), "mtu", 1280, 65535
}
bounded! {
    /// Transmit rate in Mbit/s; 0 means no limit.
    Rate(u32), "rate", 0, 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_of_5000_is_refused_by_name_value_and_range() {
        assert_eq!(VlanId::try_from(5000).unwrap_err().to_string(), "vlan 5000: must be 0-4094");
        assert_eq!("4095".parse::<VlanId>().unwrap_err().to_string(), "vlan 4095: must be 0-4094");
        assert_eq!("x".parse::<VlanId>().unwrap_err().to_string(), "vlan \"x\": must be 0-4094");
        assert_eq!(VlanId::try_from(4094).unwrap().get(), 4094);
    }

    #[test]
    fn bounds_are_inclusive() {
        assert!(Mtu::try_from(1279).is_err());
        assert_eq!(Mtu::try_from(1280).unwrap(), Mtu::MIN);
        assert_eq!(Vni::try_from(0xff_ffff).unwrap(), Vni::MAX);
        assert!(Vni::try_from(0x100_0000).is_err());
        assert!(VlanQos::try_from(8).is_err());
    }

    #[test]
    fn json_holds_plain_numbers_and_refuses_bad_ones() {
        assert_eq!(serde_json::to_string(&VlanId::try_from(100).unwrap()).unwrap(), "100");
        assert!(serde_json::from_str::<VlanId>("4095").is_err());
    }
}
