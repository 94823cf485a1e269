//! Names of Kubernetes extended resources: `culvert.io/tenant-a`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is no part of an extended resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {rule}")]
pub struct ResourceNameError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

/// Name of a resource pool: the part behind the `/` of an extended resource name.
///
/// Letters, digits, `-` and `_`; begins and ends with a letter or digit; 1-63 characters. Kubernetes would take
/// `.` too, but a dot and an underscore give the same environment name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(String);

/// The part before the `/` of an extended resource name: a DNS subdomain (RFC 1123) such as `culvert.io`.
///
/// Kubernetes keeps names below `kubernetes.io` for itself and prepends `requests.` for quotas, which leaves
/// 244 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourcePrefix(String);

/// A whole extended resource name, as a pod asks for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    /// The part before the `/`.
    pub prefix: ResourcePrefix,
    /// The part behind it.
    pub pool: PoolName,
}

impl FromStr for PoolName {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, ResourceNameError> {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let ok = text.len() <= 63
            && edge(text.bytes().next())
            && edge(text.bytes().last())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !ok {
            return Err(ResourceNameError {
                what: "pool",
                value: text.to_owned(),
                rule: "must be 1-63 letters, digits, - or _, and begin and end with a letter or digit",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for ResourcePrefix {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, ResourceNameError> {
        let error = |rule| ResourceNameError { what: "resource prefix", value: text.to_owned(), rule };
        let alnum = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && alnum(l.bytes().next())
                && alnum(l.bytes().last())
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if text.len() > 244 || !text.split('.').all(label) {
            return Err(error(
                "must be a DNS name of lower-case letters, digits, - and ., such as culvert.io",
            ));
        }
        if text == "kubernetes.io" || text.ends_with(".kubernetes.io") {
            return Err(error("kubernetes.io belongs to Kubernetes; use a domain of your own"));
        }
        if text == "requests" || text.starts_with("requests.") {
            return Err(error("must not begin with requests., which Kubernetes uses for quotas"));
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! text_newtype {
    ($($name:ident)*) => {$(
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ResourceNameError;

            fn try_from(text: String) -> Result<Self, ResourceNameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_newtype!(PoolName ResourcePrefix);

impl FromStr for ResourceName {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, ResourceNameError> {
        let (prefix, pool) = text.split_once('/').ok_or_else(|| ResourceNameError {
            what: "resource",
            value: text.to_owned(),
            rule: "must look like culvert.io/tenant-a",
        })?;
        Ok(Self { prefix: prefix.parse()?, pool: pool.parse()? })
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.pool)
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubelet_takes_are_taken() {
        for text in ["culvert.io/tenant-a", "intel.com/intel_sriov_netdevice", "a/b", "x-1.example/P0"] {
            assert_eq!(text.parse::<ResourceName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_that_kubelet_refuses_are_refused() {
        let long = "a".repeat(64);
        for pool in ["", "-a", "a_", "a.b", "a b", "a/b", "ä", &long] {
            assert!(pool.parse::<PoolName>().is_err(), "{pool:?}");
        }
        let long = format!("{}.io", vec!["a".repeat(60); 4].join("."));
        for prefix in
            ["", "Culvert.io", ".io", "a..b", "a-.b", "kubernetes.io", "x.kubernetes.io", "requests.a", &long]
        {
            assert!(prefix.parse::<ResourcePrefix>().is_err(), "{prefix:?}");
        }
        assert!("tenant-a".parse::<ResourceName>().is_err());
    }

    #[test]
    fn the_error_names_the_value_and_the_rule() {
        assert_eq!(
            "a b".parse::<PoolName>().unwrap_err().to_string(),
            "pool \"a b\": must be 1-63 letters, digits, - or _, and begin and end with a letter or digit"
        );
    }
}
