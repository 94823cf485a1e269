//! What of the network configuration concerns this program itself; the rest is the agent's.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::output::{CONFIG, DECODE, Failure};

const DEFAULT_SOCKET: &str = "/run/culvert/agent.sock";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    cni_version: Option<String>,
    socket: Option<PathBuf>,
    // Of any type: a log is no reason to refuse anything.
    #[serde(default)]
    log_level: Value,
    #[serde(default)]
    log_file: Value,
}

/// Where the agent listens, what the caller speaks, and where it wants to read about it.
pub(crate) struct Conf {
    pub(crate) socket: PathBuf,
    pub(crate) version: Option<String>,
    pub(crate) log_level: String,
    pub(crate) log_file: Option<PathBuf>,
}

impl Conf {
    /// The agent's socket is key `socket` of the configuration, else `CULVERT_SOCKET`, else the default.
    pub(crate) fn read(config: &[u8]) -> Result<Self, Failure> {
        let raw: Raw = serde_json::from_slice(config)
            .map_err(|e| Failure::new(DECODE, "network configuration on standard input", e.to_string()))?;
        let socket = raw
            .socket
            .or_else(|| std::env::var_os("CULVERT_SOCKET").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        if !socket.is_absolute() {
            let details = format!("socket {}: must be an absolute path", socket.display());
            let failure = Failure::new(CONFIG, "network configuration", details);
            return Err(failure.in_version(raw.cni_version.as_deref()));
        }
        Ok(Self {
            socket,
            version: raw.cni_version,
            log_level: raw.log_level.as_str().unwrap_or_default().to_owned(),
            log_file: raw.log_file.as_str().filter(|path| !path.is_empty()).map(PathBuf::from),
        })
    }
}
