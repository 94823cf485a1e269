//! Configuration files: raw types that serde fills, validated types that the programs use.
//!
//! A raw type refuses unknown keys; its validated twin can only hold values that make sense.

use std::fmt::Display;

pub mod fastpath;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no YAML, holds a key that does not exist, or a value of the wrong type. The message carries line
    /// and column.
    #[error(transparent)]
    Yaml(Box<serde_saphyr::Error>),
    /// A value makes no sense.
    #[error("{key} {value}: {reason}")]
    Value {
        /// The key, with those it lies under: `memory.mbufs`.
        key: String,
        /// The value as written.
        value: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl ConfigError {
    fn value(key: impl Into<String>, value: impl Display, reason: impl Into<String>) -> Self {
        Self::Value { key: key.into(), value: value.to_string(), reason: reason.into() }
    }
}

/// Reads YAML into a raw type.
fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| ConfigError::Yaml(Box::new(error)))
}
