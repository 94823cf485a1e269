//! Configuration files: raw types that serde fills, validated types that the programs use.
//!
//! A raw type refuses unknown keys; its validated twin can only hold values that make sense.

use std::fmt::Display;
use std::path::Path;

pub mod agent;
pub mod balancing;
pub mod cni;
pub mod device_plugin;
pub mod fastpath;
pub mod flows;
pub mod nic;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no YAML, holds a key that does not exist, or a value of the wrong type. The message carries line
    /// and column.
    #[error("{0}")]
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

/// Longest path of a Unix socket: `sun_path` without the final zero, unix(7).
const SUN_PATH_MAX: usize = 107;

fn check_socket(key: &str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() && path.as_os_str().len() <= SUN_PATH_MAX {
        return Ok(());
    }
    let reason = format!("must be an absolute path of at most {SUN_PATH_MAX} bytes");
    Err(ConfigError::value(key, path.display(), reason))
}
